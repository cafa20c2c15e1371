"""How much room the agent's cache takes, measured in a process of its own, and pages of lists take."""

import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from tests.fixtures.kubernetes.replay import serving
from tests.sync.test_kubernetes_client import PODS as POD_RESOURCE
from tests.sync.test_kubernetes_client import client, listed
from watchbill.agent.kubernetes import client as kube
from watchbill.agent.kubernetes.errors import ApiFailure

PODS = 5_000
BYTES_PER_POD = 2_500
"""Pods are the many: 50,000 of them must leave half of 250 MB to everything else."""

_FILL = """
import copy, gc, gzip, json, sys
from uuid import UUID
import msgspec
from tests.unit.agent.test_cache import Filled

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) * 1024

with gzip.open("tests/fixtures/recordings/1.36/life/deployment.jsonl.gz", "rt") as file:
    lists = next(line["lists"] for line in map(json.loads, file) if line.get("moment") == "running")
items = next(body for path, body in lists.items() if path.endswith("/pods"))["items"]
template = {"apiVersion": "v1", "kind": "Pod"} | items[0]
template["spec"]["containers"][0]["env"] = [{"name": f"N{n}", "value": "x" * 60} for n in range(40)]
filled = Filled()

def put(number):
    pod = json.loads(json.dumps(template))
    pod["metadata"] |= {"uid": str(UUID(int=number)), "name": f"train-{number // 10}-worker-{number % 10}"}
    pod["metadata"]["labels"] = {"job": f"train-{number // 10}", "index": str(number % 10)}
    pod["metadata"]["ownerReferences"][0] |= {"uid": str(UUID(int=10**9 + number // 10))}
    pod["spec"]["nodeName"] = f"node-{number % 500}"
    pod["status"]["podIP"] = f"10.0.{number // 250 % 250}.{number % 250}"
    filled.put(pod)

put(0)
gc.collect()
before = resident()
for number in range(1, int(sys.argv[1]) + 1):
    put(number)
gc.collect()
print((resident() - before) / int(sys.argv[1]))
"""


def test_a_pod_takes_little_room() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FILL, str(PODS)], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < BYTES_PER_POD, f"{done.stdout.strip()} bytes per pod"


async def test_pages_of_large_objects_hold_fewer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 objects of a megabyte would be half a gigabyte, at each start of the agent anew."""
    monkeypatch.setattr(kube, "PAGE_BYTES", 100_000)
    sizes = [1_500 if number < 20 else 10 for number in range(40)] + [40_000] * 10

    async def answer(request: web.Request) -> web.Response:
        first, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        shown = list(enumerate(sizes))[first : first + limit]
        more = {"continue": str(first + limit)} if first + limit < len(sizes) else {}
        items = [{"metadata": {"uid": str(n)}, "note": "x" * size} for n, size in shown]
        return web.json_response({"metadata": more, "items": items})

    async with serving(answer) as script, client(tmp_path, script.url) as kubernetes:
        assert await listed(kubernetes) == [str(number) for number in range(len(sizes))]
        first = await kubernetes.first_page(POD_RESOURCE, objects=500)
    # All 50 have 400 kB, the first 62 too, seven 10 kB; twice as many again after each small page.
    limits = [int(request.query["limit"]) for request in script.requests]
    assert limits[:4] == [500, 62, 7, 14]
    assert 1 in limits, "two of the last ones fill a page"
    assert len(first.items or ()) == 7


async def test_an_object_that_no_api_server_stores_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "PAGE_BYTES", 1_000)
    monkeypatch.setattr(kube, "LEAST_PAGE_BYTES", 2_000)

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"metadata": {}, "items": [{"note": "x" * 4_000}]})

    async with serving(answer) as script, client(tmp_path, script.url) as kubernetes:
        with pytest.raises(ApiFailure, match="larger than 2000 bytes"):
            await listed(kubernetes)

"""How much room the agent's cache takes, measured in a process of its own, and pages of lists take."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from aiohttp import web

from tests.fixtures.kubernetes.replay import serving
from tests.sync.test_kubernetes_client import PODS as POD_RESOURCE
from tests.sync.test_kubernetes_client import client, listed
from watchbill.agent.kubernetes import client as kube
from watchbill.agent.kubernetes.client import ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind

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


def few_at_a_time(objects: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        first, limit = int(request.query.get("continue", "0")), int(request.query["limit"])
        more = {"continue": str(first + limit)} if first + limit < objects else {}
        items = [{"metadata": {"uid": str(n)}} for n in range(objects)][first : first + limit]
        return web.json_response({"metadata": more, "items": items})

    return answer


@pytest.mark.parametrize(
    ("slow_seconds", "limits"), [(60.0, [2, 2, 2, 2, 2, 2, 2]), (0.0, [2, 4, 5, 5])]
)
async def test_small_pages_hold_more_where_answers_are_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow_seconds: float, limits: list[int]
) -> None:
    monkeypatch.setattr(kube, "PAGE_OBJECTS", 2)
    monkeypatch.setattr(kube, "MOST_PAGE_OBJECTS", 5)
    monkeypatch.setattr(kube, "SLOW_ANSWER_SECONDS", slow_seconds)
    async with serving(few_at_a_time(14)) as script, client(tmp_path, script.url) as kubernetes:
        assert await listed(kubernetes) == [str(number) for number in range(14)]
        assert [int(request.query["limit"]) for request in script.requests] == limits


async def a_byte_and_no_more(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b'{"items":[')
    await asyncio.Event().wait()
    return response


async def test_a_page_that_never_comes_takes_no_room_from_others_and_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs an aggregated API answers a byte a second for as long as the client lets them."""
    monkeypatch.setattr(kube, "SLOW_BODY_SECONDS", 0.3)
    reading = asyncio.Semaphore(1)
    hung = ServedResource("mine.example", "v1", "Hung", "hung")

    async def answer(request: web.Request) -> web.StreamResponse:
        is_hung = request.path.endswith("/hung")
        return await (a_byte_and_no_more if is_hung else few_at_a_time(1))(request)

    async with serving(answer) as script, client(tmp_path, script.url) as kubernetes:
        waiting = asyncio.ensure_future(anext(kubernetes.list_pages(hung, reading=reading)))
        while not script.requests:
            await asyncio.sleep(0.01)
        async with aclosing(kubernetes.list_pages(POD_RESOURCE, reading=reading)) as pods:
            assert (await anext(pods)).items
            with pytest.raises(ApiFailure) as caught:
                await waiting
        assert caught.value.kind is ErrorKind.UNREACHABLE


async def test_lists_that_wait_for_an_answer_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """Only few pages are read and kept at a time; the next list's has come meanwhile."""
    reading = asyncio.Semaphore(1)
    async with serving(few_at_a_time(1)) as script, client(tmp_path, script.url) as kubernetes:
        first, second = (kubernetes.list_pages(POD_RESOURCE, reading=reading) for _ in range(2))
        async with aclosing(second):
            async with aclosing(first):
                assert (await anext(first)).items
                waiting = asyncio.ensure_future(anext(second))
                while len(script.requests) < 2:
                    await asyncio.sleep(0.01)
                assert not waiting.done()
            assert (await waiting).items
        assert not reading.locked(), "also where somebody has enough of a list"

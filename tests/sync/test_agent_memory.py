"""How much room the agent's cache takes, measured in a process of its own."""

import subprocess
import sys

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

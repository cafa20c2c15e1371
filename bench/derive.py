"""`python -m bench.derive`: what deriving workloads from the agent's cache costs beside reading their objects.

Reading is what an agent cannot do without: decode each object, prune it, put it into the cache. Deriving is
what Watchbill adds: all pods and owners of each workload into one record. Both are timed over the same
objects, round by round. `deriving again` is what a change of pods costs: owners are not read again.
"""

import argparse
import gc
import json
import resource
import statistics
import time
from pathlib import Path
from uuid import UUID

from bench.objects import PODS_EACH, Object, recorded_pod, workload
from tests.unit.agent.test_cache import Filled
from watchbill.agent.kubernetes.watch_stream import read_head
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.settings import DeriveSettings


def cache_mebibytes(template: Object, workloads: int) -> float:
    """What the agent's cache holds of so many workloads and their pods, once they are read."""
    filled = Filled()
    before = _resident_bytes()
    for number in range(workloads):
        for obj in workload(template, number):
            body = json.dumps(obj).encode()
            filled.sink(obj).put(read_head(body), body)
    gc.collect()
    return (_resident_bytes() - before) / 2**20


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def round_of(objects: list[tuple[Object, bytes]]) -> tuple[float, float, float]:
    """Processor seconds for reading, for deriving all, and for deriving it again as after a change of pods."""
    filled, definitions = Filled(), load_definitions()
    began = time.process_time()
    for obj, body in objects:
        filled.sink(obj).put(read_head(body), body)
    read = time.process_time()
    settings = DeriveSettings(cluster_id=UUID(int=1))
    roots = [root for root in filled.cache.owner_tree.groups if filled.cache.is_alive(root)]
    times = [read]
    for _ in range(2):
        for root in roots:
            derive(filled.cache.gather(root), definitions, settings)
        times.append(time.process_time())
    assert len(roots) == len(objects) // (PODS_EACH + 1)
    return read - began, times[1] - times[0], times[2] - times[1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.derive", description=__doc__)
    parser.add_argument("--workloads", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    template = recorded_pod()
    held = cache_mebibytes(template, options.workloads)
    objects = [
        ({"apiVersion": obj["apiVersion"], "kind": obj["kind"]}, json.dumps(obj).encode())
        for number in range(options.workloads)
        for obj in workload(template, number)
    ]
    rounds = [round_of(objects) for _ in range(options.rounds)]
    reading, first, again = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(
        json.dumps(
            {
                "workloads": options.workloads,
                "pods": options.workloads * PODS_EACH,
                "bytes_per_pod": len(objects[1][1]),
                "median_seconds": {
                    "reading": round(reading, 2),
                    "deriving": round(first, 2),
                    "deriving again": round(again, 2),
                },
                "deriving to reading": round(first / reading, 2),
                "deriving again to reading": round(again / reading, 2),
                "cache_mebibytes": round(held),
            }
        )
    )


if __name__ == "__main__":
    main()

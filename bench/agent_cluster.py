"""`python -m bench.agent_cluster`, the other process of `bench.agent_start`: an API server and our own."""

import argparse
import asyncio
import copy
import json
import random
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from uuid import UUID, uuid4

from bench.objects import Object, recorded_pod, workload
from simulator.apiserver.protocol import SimulatedCluster
from simulator.resources import PODS
from tests.fixtures.receiver import CREDENTIAL, Receiver, receiver

TOKEN = "t0ken"
AT_ONCE = 400
"""Pods that change in turn, nearly all of different workloads, so that no change comes soon after another."""


def objects(workloads: int, pods_each: int, nodes: int, namespaces: int) -> Iterator[Object]:
    template = recorded_pod()
    for number in range(nodes):
        yield _node(number)
    for number in range(workloads):
        for index, obj in enumerate(
            workload(template, number, pods_each=pods_each, namespaces=namespaces)
        ):
            if obj["kind"] == "Pod":
                obj["spec"]["nodeName"] = f"node-{(number * pods_each + index) % nodes}"
            yield obj


def _node(number: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": f"node-{number}",
            "uid": str(UUID(int=2 * 10**9 + number)),
            "labels": {"kubernetes.io/hostname": f"node-{number}", "pool": f"pool-{number % 8}"},
        },
        "status": {"allocatable": {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"}},
    }


async def serve(options: argparse.Namespace) -> None:
    """The other process: prints its addresses, then a line for each share of the records that was reported."""
    cluster = SimulatedCluster(token=TOKEN)
    kinds = {
        (table.resource.api_version, table.resource.kind): table.resource
        for table in cluster.store.tables()
    }
    kube_system = {"metadata": {"name": "kube-system", "uid": "5f0a7c1e"}}
    cluster.store.put(kinds["v1", "Namespace"], kube_system)
    for obj in objects(options.workloads, options.pods_each, options.nodes, options.namespaces):
        cluster.store.put(kinds[obj["apiVersion"], obj["kind"]], obj)
    await cluster.start()
    async with receiver() as server:
        server.heartbeat_seconds = 15
        _send(api=cluster.url, server=server.url, credential=CREDENTIAL)
        reporting = asyncio.create_task(_report(server, options.workloads))
        while line := await asyncio.to_thread(sys.stdin.readline):
            await change(cluster, **json.loads(line))
            _send(changed=True)
        reporting.cancel()
    await cluster.stop()


async def _report(server: Receiver, workloads: int) -> None:
    reported = (-1, -1)
    while True:
        now = (len(server.rows), server.commits)
        if now != reported:
            reported = now
            _send(reported=now[0], of=workloads, inventories=now[1])
        await asyncio.sleep(0.05)


async def change(cluster: SimulatedCluster, *, rate: float, seconds: float) -> None:
    """So many a second: some hundred pods of as many workloads become unready one after the other, then ready
    again, then go, then others come in their places; then the next hundred."""
    table = cluster.store.table(PODS.group, PODS.plural)
    assert table is not None
    paths = sorted(table.objects)
    random.Random(0).shuffle(paths)
    began, number = time.monotonic(), count()
    for first in range(0, len(paths), AT_ONCE):
        few = paths[first : first + AT_ONCE]
        lives = [_life(table.objects[path].decode()) for path in few]
        for moments in zip(*lives, strict=True):
            for new in moments:
                if (made := next(number)) >= rate * seconds:
                    return
                await asyncio.sleep(max(0.0, began + made / rate - time.monotonic()))
                if "deletionTimestamp" in new["metadata"]:
                    name, namespace = new["metadata"]["name"], new["metadata"]["namespace"]
                    cluster.store.delete(PODS, namespace, name)
                else:
                    cluster.store.put(PODS, new)


def _life(pod: Object) -> Iterator[Object]:
    for status in ("False", "True"):
        pod = copy.deepcopy(pod)
        for condition in pod["status"]["conditions"]:
            if condition["type"] in ("Ready", "ContainersReady"):
                condition |= {"status": status, "lastTransitionTime": _now()}
        yield pod
    yield pod | {"metadata": pod["metadata"] | {"deletionTimestamp": _now()}}
    yield pod | {"metadata": pod["metadata"] | {"uid": str(uuid4()), "creationTimestamp": _now()}}


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _send(**members: object) -> None:
    print(json.dumps(members), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.agent_cluster", description=__doc__)
    parser.add_argument("--workloads", type=int, required=True)
    parser.add_argument("--pods-each", type=int, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--namespaces", type=int, required=True)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()

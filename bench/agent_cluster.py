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
from simulator.apiserver.store import Store
from simulator.resources import PODS, PYTORCH_JOBS
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
        absence = Absence(server, cluster.store, options)
        reporting = asyncio.create_task(_report(server, options.workloads, absence))
        while line := await asyncio.to_thread(sys.stdin.readline):
            match json.loads(line):
                case {"unseen": int(each)}:
                    absence.change(each)
                case order:
                    await change(cluster, **order)
            _send(changed=True)
        reporting.cancel()
    await cluster.stop()


class Absence:
    """What changes, and what goes, while no agent is there; and how much of it the server does not know yet."""

    def __init__(self, server: Receiver, store: Store, options: argparse.Namespace) -> None:
        self._server, self._store, self._options = server, store, options
        self._changed: dict[UUID, int] = {}
        """How often each was reported before."""
        self._gone: list[UUID] = []

    def change(self, each: int) -> None:
        """So many workloads lose a pod's readiness, and as many are deleted with all of their pods; half of all
        at most."""
        each = min(each, self._options.workloads // 2)
        numbers = random.Random(1).sample(range(self._options.workloads), 2 * each)
        for number in numbers[:each]:
            uid = UUID(int=10**9 + number)
            self._changed[uid] = self._server.rows[uid].changes
            stored = self._store.get(PODS, self._namespace(number), f"train-{number}-0")
            assert stored is not None
            self._store.put(PODS, _with_readiness(stored.decode(), "False"))
        for number in numbers[each:]:
            self._gone.append(UUID(int=10**9 + number))
            for index in range(self._options.pods_each):
                self._store.delete(PODS, self._namespace(number), f"train-{number}-{index}")
            self._store.delete(PYTORCH_JOBS, self._namespace(number), f"train-{number}")

    def _namespace(self, number: int) -> str:
        return f"project-{number % self._options.namespaces}"

    def unknown(self) -> int:
        rows = self._server.rows
        changed = sum(rows[uid].changes == before for uid, before in self._changed.items())
        return changed + sum(rows[uid].deleted_at is None for uid in self._gone)


async def _report(server: Receiver, workloads: int, absence: Absence) -> None:
    reported = (-1, -1, -1)
    while True:
        now = (len(server.rows), server.commits, absence.unknown())
        if now != reported:
            reported = now
            _send(reported=now[0], of=workloads, inventories=now[1], unknown=now[2])
        await asyncio.sleep(0.05)


async def change(
    cluster: SimulatedCluster, *, rate: float, seconds: float, together: bool = False
) -> None:
    """So many a second: some hundred pods of as many workloads become unready one after the other, then ready
    again, then go, then others come in their places; then the next hundred.

    `together`: some forty workloads end with all of their pods, which are made anew, bound and, each when its
    image is there, started; then the next forty.
    """
    table = cluster.store.table(PODS.group, PODS.plural)
    assert table is not None
    paths, chance = sorted(table.objects), random.Random(0)
    if not together:
        chance.shuffle(paths)
    began, number = time.monotonic(), count()
    for first in range(0, len(paths), AT_ONCE):
        few = paths[first : first + AT_ONCE]
        life = _started_anew if together else _life
        *others, last = zip(*(life(table.objects[path].decode()) for path in few), strict=True)
        if together:
            last = tuple(chance.sample(last, len(last)))
        for moments in (*others, last):
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
        pod = _with_readiness(pod, status)
        yield pod
    yield _leaving(pod)
    yield _anew(pod)


def _started_anew(pod: Object) -> Iterator[Object]:
    yield _leaving(pod)
    pod = _anew(pod)
    unbound = {name: value for name, value in pod["spec"].items() if name != "nodeName"}
    yield pod | {"spec": unbound, "status": {"phase": "Pending"}}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()}
    yield pod | {"status": {"phase": "Pending", "conditions": [scheduled]}}
    yield pod


def _with_readiness(pod: Object, status: str) -> Object:
    pod = copy.deepcopy(pod)
    for condition in pod["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition |= {"status": status, "lastTransitionTime": _now()}
    return pod


def _leaving(pod: Object) -> Object:
    return pod | {"metadata": pod["metadata"] | {"deletionTimestamp": _now()}}


def _anew(pod: Object) -> Object:
    return pod | {"metadata": pod["metadata"] | {"uid": str(uuid4()), "creationTimestamp": _now()}}


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

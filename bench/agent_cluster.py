"""`python -m bench.agent_cluster`, the other process of `bench.agent_start`: an API server and our own."""

import argparse
import asyncio
import json
from collections.abc import Iterator
from uuid import UUID

from bench.objects import Object, recorded_pod, workload
from simulator.apiserver.protocol import SimulatedCluster
from tests.fixtures.receiver import CREDENTIAL, Receiver, receiver

TOKEN = "t0ken"


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
        _send(api=cluster.url, server=server.url, credential=CREDENTIAL)
        await _report(server, options.workloads)
    await cluster.stop()


async def _report(server: Receiver, workloads: int) -> None:
    reported = -1
    while True:
        live = len(server.rows)
        if live != reported:
            reported = live
            _send(reported=reported, of=workloads)
        await asyncio.sleep(0.05)


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

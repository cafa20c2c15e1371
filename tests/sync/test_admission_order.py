"""Kueue's own order of what waits, read from the simulated API server, as the queues then tell it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import web

from simulator.apiserver.protocol import SimulatedCluster
from simulator.resources import JOBS, QUEUE_ORDERS, custom
from tests.fixtures.agents import until
from tests.fixtures.kubernetes.agent_objects import made
from tests.sync.test_agent_sick_kinds import job as simulated_job
from tests.sync.test_agent_sick_kinds import simulated_cluster, watched
from tests.unit.agent.test_cache import Filled
from watchbill.agent.cache import admission_order
from watchbill.agent.cache.admission_order import MAX_FAILURES, MAX_SMALLER_PAGES, AdmissionOrders
from watchbill.agent.kubernetes.client import KubeClient
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.scheduler_queue import (
    MAX_ADMISSION_PLACES,
    MAX_QUEUE_BYTES,
    AdmissionOrder,
    AdmissionPlace,
    SchedulerQueue,
)

QUEUES = tuple(
    SchedulerQueue(unit="project", key=f"{namespace}/lq", name="lq", scheduler="Kueue")
    for namespace in ("team-a", "team-b")
)


def job(name: str, namespace: str) -> dict[str, Any]:
    return made("Job", name, group="batch", namespace=namespace, spec={"suspend": True})


def waiting(position: int, namespace: str, *owners: dict[str, Any]) -> dict[str, Any]:
    """As Kueue's PendingWorkload is published: owners by reference, both positions from 0."""
    references = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": owner["metadata"]["uid"]}
        for owner in owners
    ]
    return {
        "metadata": {"name": "w", "namespace": namespace, "ownerReferences": references},
        "priority": 0,
        "localQueueName": "lq",
        "positionInClusterQueue": position,
        "positionInLocalQueue": 0,
    }


def place(owner: dict[str, Any], ahead: int) -> AdmissionPlace:
    return AdmissionPlace(id=UUID(owner["metadata"]["uid"]), ahead=ahead)


class Cluster:
    """`jobs`: two of team-a, one of team-b; all wait in the ClusterQueue cq."""

    def __init__(
        self, simulated: SimulatedCluster, orders: AdmissionOrders, filled: Filled
    ) -> None:
        self.simulated = simulated
        self.orders = orders
        self.jobs = job("a-1", "team-a"), job("a-2", "team-a"), job("b-1", "team-b")
        self._filled = filled
        filled.put(*self.jobs)
        self.count(4)

    def count(self, pending: int, *names: str) -> None:
        status = {"pendingWorkloads": pending}
        group = "kueue.x-k8s.io/v1beta1"
        self._filled.cache.cluster.cluster_queues.clear()
        for name in names or ("cq",):
            self._filled.cache.cluster.cluster_queues[name] = made(
                "ClusterQueue", name, group=group, namespace="", spec={}, status=status
            )

    def serve(self, *items: dict[str, Any], resource: Any = QUEUE_ORDERS) -> None:
        self.simulated.store.add_resource(resource)
        document = {
            "metadata": {"name": "cq", "uid": "cq"},
            "pendingWorkloadsSummary": {"items": list(items)},
        }
        self.simulated.store.put(resource, document)

    def serve_usual(self, resource: Any = QUEUE_ORDERS) -> None:
        first, second, other = self.jobs
        self.serve(
            waiting(0, "team-b", other),
            waiting(1, "team-a", first),
            waiting(2, "team-a", second),
            waiting(3, "team-a", other),  # names an owner that is in another namespace
            resource=resource,
        )

    async def read(self) -> tuple[list[AdmissionOrder | None], str]:
        """The orders of team-a's queue and of team-b's, and the state that is reported."""
        await self.orders.read()
        state = next((each.state for each in self.orders.states()), "")
        return [queue.admission_order for queue in self.orders.added_to(QUEUES)], state


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with started(tmp_path) as made_:
        yield made_


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Cluster]:
    simulated, filled = SimulatedCluster(), Filled()
    await simulated.start()
    credentials = Credentials(simulated.kubeconfig(folder / "config"), None)
    await credentials.load()
    try:
        async with KubeClient(credentials) as kube:
            yield Cluster(simulated, AdmissionOrders(kube, filled.cache), filled)
    finally:
        await simulated.stop()


@pytest.mark.parametrize("version", ["v1beta2", "v1beta1"])
async def test_places_are_kueues_own(cluster: Cluster, version: str) -> None:
    cluster.serve_usual(replace(QUEUE_ORDERS, version=version, also_served=()))
    first, second, other = cluster.jobs
    assert await cluster.read() == (
        [
            AdmissionOrder(waiting=4, places=(place(first, 1), place(second, 2))),
            AdmissionOrder(waiting=4, places=(place(other, 0),)),
        ],
        "complete",
    )
    kai = SchedulerQueue(unit="project", key="team-a/lq", name="lq", scheduler="KAI")
    assert cluster.orders.added_to([kai]) == (kai,)


async def test_nothing_is_asked_while_nothing_waits(cluster: Cluster) -> None:
    cluster.serve_usual()
    await cluster.read()
    cluster.count(0)
    cluster.simulated.requests.clear()
    assert await cluster.read() == ([None, None], "")
    assert cluster.simulated.requests == []


async def test_what_cannot_be_read_is_unknown(cluster: Cluster) -> None:
    nothing = [None, None]
    assert await cluster.read() == (nothing, "absent")
    cluster.serve_usual()
    assert (await cluster.read())[1] == "complete"
    cluster.simulated.faults.forbidden.add((QUEUE_ORDERS.group, "clusterqueues", "get"))
    assert await cluster.read() == (nothing, "forbidden")
    cluster.simulated.faults.forbidden.clear()
    cluster.simulated.faults.unavailable_requests = 1
    assert await cluster.read() == (nothing, "failing")
    cluster.simulated.store.delete(QUEUE_ORDERS, None, "cq")
    assert await cluster.read() == (nothing, "complete"), "a queue that Kueue does not know yet"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b'{"items":[{"metadata":{},"localQueueName":"lq","positionInClusterQueue":"first"}]}',
        b'{"items":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b" " * (admission_order.MAX_PAGE_BYTES + 1),
    ],
    ids=["no JSON", "no position", "deep", "large"],
)
async def test_answers_that_cannot_be_are_unknown(cluster: Cluster, body: bytes) -> None:
    cluster.serve_usual()

    async def intercept(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith("/pendingworkloads"):
            return None
        return web.Response(body=body, content_type="application/json")

    cluster.simulated.intercept = intercept
    assert await cluster.read() == ([None, None], "failing")


async def test_entries_of_a_megabyte_hide_no_other(cluster: Cluster) -> None:
    """Whoever may submit decides how many owners its entries name; pages of four megabytes are read."""
    first, second, other = cluster.jobs
    large = waiting(0, "team-a", second)
    large["metadata"]["name"] = "w" * 1_500_000
    cluster.serve(
        waiting(0, "team-b", other),
        *(large | {"positionInClusterQueue": position} for position in range(1, 5)),
        waiting(5, "team-a", first),
    )
    cluster.count(6)
    orders, state = await cluster.read()
    assert (orders, state) == (
        [
            AdmissionOrder(waiting=6, places=(place(second, 1), place(first, 5))),
            AdmissionOrder(waiting=6, places=(place(other, 0),)),
        ],
        "complete",
    )
    pages = [each for each in cluster.simulated.requests if "pendingworkloads" in each]
    assert len(pages) <= MAX_SMALLER_PAGES + 1


async def test_a_queue_that_cannot_be_read_hides_no_other(cluster: Cluster) -> None:
    """Nor do many keep a round for as long as each of them may take."""
    cluster.serve_usual()
    asked: list[str] = []

    async def intercept(request: web.Request) -> web.StreamResponse | None:
        if not request.path.endswith("/pendingworkloads"):
            return None
        asked.append(request.path.split("/")[-2])
        return None if asked[-1] == "cq" else web.Response(status=500)

    cluster.simulated.intercept = intercept
    cluster.count(4, "ahead", "cq", "later")
    orders, state = await cluster.read()
    assert (all(orders), state, asked) == (True, "failing", ["ahead", "cq", "later"])
    asked.clear()
    cluster.count(4, *(f"q-{number}" for number in range(9)))
    assert (await cluster.read(), len(asked)) == (([None, None], "failing"), MAX_FAILURES)
    sick = [f"a-{number}" for number in range(MAX_FAILURES + 1)]
    cluster.count(4, *sick, "cq")
    assert await cluster.read() == ([None, None], "failing"), "it is told in the next round"
    asked.clear()
    orders, _ = await cluster.read()
    assert (all(orders), asked[0]) == (True, sick[-1]), "sick ones are asked last, in turns"


async def test_of_a_long_queue_the_first_are_told(cluster: Cluster) -> None:
    first, _, other = cluster.jobs
    cluster.count(5_000_000)
    cluster.serve(
        *(waiting(position, "team-a", job("j", "team-a")) for position in range(998)),
        waiting(998, "team-a", *[first] * 100),
        waiting(-1, "team-b", other),
        waiting(1_000, "team-a", first),
    )
    (order, negative), state = await cluster.read()
    assert order is not None
    assert (order.waiting, order.places, state) == (1_000_000, (place(first, 998),), "complete")
    assert negative is None or negative.places == ()
    assert cluster.simulated.requests[-1].endswith(f"?limit={MAX_ADMISSION_PLACES}&offset=0")
    places = (AdmissionPlace(id=UUID(int=2**128 - 1), ahead=1_000_000),) * MAX_ADMISSION_PLACES
    full = AdmissionOrder(waiting=1_000_000, places=places)
    named = SchedulerQueue(
        unit="project", key="k" * 507, name="n" * 507, scheduler="Kueue", admission_order=full
    )
    assert len(msgspec.json.encode(named)) < MAX_QUEUE_BYTES / 2


async def test_an_agent_reports_it_with_its_queues(tmp_path: Path) -> None:
    cluster_queues = custom(
        "kueue.x-k8s.io", "v1beta1", "ClusterQueue", "clusterqueues", is_namespaced=False
    )
    local_queues = custom("kueue.x-k8s.io", "v1beta1", "LocalQueue", "localqueues")
    waits = simulated_job(20)
    item = waiting(2, "team", waits)
    objects = (
        (cluster_queues, {"spec": {}, "status": {"pendingWorkloads": 3}}),
        (local_queues, {"spec": {"clusterQueue": "cq"}}),
        (QUEUE_ORDERS, {"pendingWorkloadsSummary": {"items": [item]}}),
    )
    async with simulated_cluster() as simulated:
        simulated.store.put(JOBS, waits)
        for resource, parts in objects:
            name = "lq" if resource is local_queues else "cq"
            metadata = {"name": name, "uid": resource.full_name}
            if resource.is_namespaced:
                metadata["namespace"] = "team"
            simulated.store.add_resource(resource)
            simulated.store.put(resource, {"metadata": metadata} | parts)
        async with watched(tmp_path, simulated) as watching:

            def reported() -> list[AdmissionOrder]:
                queues = [queue for beat in watching.server.beats for queue in beat.queues or ()]
                return [queue.admission_order for queue in queues if queue.admission_order]

            await until(
                lambda: place(waits, 2) in [p for order in reported() for p in order.places]
            )
            assert reported()[-1] == AdmissionOrder(waiting=3, places=(place(waits, 2),))
            state = watching.state("PendingWorkloadsSummary")
            assert state is not None
            assert state.state == "complete"

"""The matrix of nodes, node pools and their metrics: who sees a part of a cluster sees the own share alone."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest_asyncio

from tests.api.access.test_matrix import CLUSTERS, RANGE, ask, in_turns, reading, visible
from tests.conftest import Engine, fresh_database
from tests.fixtures.estate import NOW, Estate, EstateCaller, estate
from tests.fixtures.serving import serving


@pytest_asyncio.fixture(scope="module")
async def made(embedded_engine: Engine) -> AsyncIterator[Estate]:
    """An estate of its own, to which no other test adds: here sums are compared."""
    async with serving(await fresh_database(embedded_engine), clock=lambda: NOW) as served:
        yield await estate(served)


async def test_nodes_show_what_their_viewer_holds(made: Estate) -> None:
    """Each cluster has one node, which holds all of its pods, `number % 3` GPUs each."""
    whole = {"viewer of a cluster", "viewer of the tenant", "administrator",
             "administrator of the second"}  # fmt: skip
    clusters = {agent.identity.cluster_id: key for key, agent in made.agents.items()}

    async def check(name: str, principal: EstateCaller) -> None:
        live = visible(made, principal)
        nodes = (await ask(made, principal, "/api/v1/nodes?limit=500")).json["nodes"]
        for node in nodes:
            key = clusters[UUID(node["clusterUuid"])]
            own = [
                live_workload
                for live_workload in live
                if (live_workload.tenant, live_workload.cluster) == key
            ]
            assert {workload["id"] for workload in node["workloads"]} == {
                str(live_workload.id) for live_workload in own
            }, name
            assert node["workloadsTotal"] == len(own)
            assert node["allocated"]["gpus"] == sum(
                live_workload.number % 3 for live_workload in own
            ), name
            assert node["isPartial"] is (name not in whole), name
        held = {(live_workload.tenant, live_workload.cluster) for live_workload in live}
        assert {clusters[UUID(node["clusterUuid"])] for node in nodes} == held, name
        assert (await ask(made, principal, "/api/v1/nodes/count")).json == {"count": len(held)}
        for node in nodes:
            path = f"/api/v1/nodes/{node['id']}/metrics?metricType=CPU_USAGE_CORES&{RANGE}"
            status = (await ask(made, principal, path)).status
            assert status == (404 if node["isPartial"] else 503), "nothing is measured here"
        pools = (await ask(made, principal, "/api/v1/node-pools")).json["nodepools"]
        assert {clusters[UUID(pool["clusterId"])] for pool in pools} == held, name
        for key, agent in made.agents.items():
            path = f"{CLUSTERS}/{agent.identity.cluster_id}/metrics?metricType=TOTAL_GPU&{RANGE}"
            sees_whole = name in whole and key in held
            assert (await ask(made, principal, path)).status == (200 if sees_whole else 404)
            path = f"{CLUSTERS}/{agent.identity.cluster_id}/nodes"
            answer = await ask(made, principal, path)
            if key in held:
                assert [row["name"] for row in answer.json["nodes"]] == ["node-1"]
            else:
                assert answer.status == 404

    await in_turns(reading(made), check)

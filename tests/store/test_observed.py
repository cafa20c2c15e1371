"""A workload whose cluster is not observed says until when it was; clock skew is reported."""

from datetime import timedelta
from uuid import UUID

import msgspec

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from watchbill.protocol import Heartbeat
from watchbill.query import Scope, WorkloadQuery
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.document import DocumentCache
from watchbill.store.workloads.workloads import workload_get, workload_list

SCOPE = Scope(1, is_whole_tenant=True)


async def test_old_data_says_until_when_it_was_observed(db: Database) -> None:
    agent = await connected_agent(db, START)
    await agent.send(
        upsert(workload(1, additional_fields={"a": 1})), upsert(workload(2)), now=START
    )
    for age, expected in ((59, None), (60, "2026-11-20T08:00:00Z"), (600, "2026-11-20T08:00:00Z")):
        now = START + timedelta(seconds=age)
        page = await workload_list(db, DocumentCache(10**6), SCOPE, WorkloadQuery(), now)
        for document in page.documents:
            fields = msgspec.json.decode(b"".join(document))["additionalFields"]
            assert fields.get("observedUntil") == expected
        single = await workload_get(db, SCOPE, UUID(int=1), now)
        assert single is not None
        assert msgspec.json.decode(single.body)["additionalFields"].get("observedUntil") == expected
        assert single.etag is None or expected is None


async def test_clocks_are_reported_against_ours(db: Database) -> None:
    agent = await connected_agent(db, START)
    beat = Heartbeat(
        stream_id=agent.stream_id,
        seq=0,
        sent_at=START + timedelta(seconds=40),
        cluster_clock_ahead_seconds=-10.0,
    )
    await heartbeat_apply(db, agent.identity, beat, START)
    (cluster,) = await cluster_list(db, SCOPE, START)
    assert cluster.agent_clock_ahead_seconds == 40
    assert cluster.cluster_clock_ahead_seconds == 30


async def test_a_contact_of_a_clock_that_was_ahead_does_not_last(db: Database) -> None:
    """Else the cluster counts as observed for as long as the server's clock was ahead, agent or no agent."""
    agent = await connected_agent(db, START + timedelta(hours=1))
    for age in (0.0, None):
        beat = Heartbeat(stream_id=agent.stream_id, seq=0, observed_seconds_ago=age)
        await heartbeat_apply(db, agent.identity, beat, START)
        (cluster,) = await cluster_list(db, SCOPE, START + timedelta(minutes=10))
        assert (cluster.last_contact_at, cluster.state) == (START, "disconnected")

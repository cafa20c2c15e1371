"""Times in which nobody observed a cluster: all of them are shown, and only silences count as such."""

from datetime import datetime, timedelta

import pytest

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START
from watchbill.protocol import PROTOCOL_VERSION, Heartbeat, HelloRequest, Unobserved
from watchbill.query import Scope
from watchbill.responses.fleet import Cluster
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest import gaps
from watchbill.store.ingest.stream import heartbeat_apply, stream_open
from watchbill.store.postgres.database import Database

SCOPE = Scope(1, is_whole_tenant=True)


def later(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.fixture
async def agent(db: Database) -> Agent:
    return await connected_agent(db, START)


async def cluster_and_gaps(db: Database, at: datetime) -> tuple[Cluster, list[tuple[float, float]]]:
    """The cluster, and its gaps in seconds since `START`, the newest first."""
    (cluster,) = await cluster_list(db, SCOPE, at)
    spans = [
        ((gap.from_at - START).total_seconds(), (gap.to_at - START).total_seconds())
        for gap in cluster.gaps
    ]
    return cluster, spans


async def test_an_agent_that_starts_anew_did_not_see_what_came_and_went_before(
    db: Database, agent: Agent
) -> None:
    await agent.beat(later(15))
    await agent.hello(later(22))
    cluster, spans = await cluster_and_gaps(db, later(30))
    assert spans == [(15, 22)]
    assert (cluster.state, cluster.since) == ("connected", START), "it was never silent"


async def test_one_that_only_opens_a_new_stream_saw_all_of_it(db: Database, agent: Agent) -> None:
    await agent.beat(later(15))
    request = HelloRequest(
        protocol=PROTOCOL_VERSION, agent_version="test", previous_stream_id=agent.stream_id
    )
    await stream_open(db, agent.identity, request, later(22))
    assert (await cluster_and_gaps(db, later(30)))[1] == []


async def test_a_silence_is_one_gap_whoever_ends_it(db: Database, agent: Agent) -> None:
    await agent.hello(later(100))
    cluster, spans = await cluster_and_gaps(db, later(110))
    assert spans == [(0, 100)]
    assert cluster.since == later(100)


async def test_what_a_running_agent_did_not_observe_is_reported_once(
    db: Database, agent: Agent
) -> None:
    await agent.beat(later(15))
    for seconds in (30, 45):
        beat = Heartbeat(
            stream_id=agent.stream_id,
            seq=0,
            unobserved=(
                Unobserved(from_seconds_ago=seconds - 17, to_seconds_ago=seconds - 27),
                Unobserved(from_seconds_ago=1, to_seconds_ago=2),
            ),
        )
        await heartbeat_apply(db, agent.identity, beat, later(seconds))
    cluster, spans = await cluster_and_gaps(db, later(50))
    assert spans == [(17, 27)], "and what ends before it begins not at all"
    assert cluster.since == START


async def test_an_agent_that_fails_again_and_again_leaves_the_newest_gaps(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "MAX_BRIEF", 3)
    await agent.hello(later(100))
    for number in range(1, 7):
        await agent.hello(later(100 + 10 * number))
    _, spans = await cluster_and_gaps(db, later(170))
    assert spans == [(150, 160), (140, 150), (130, 140), (0, 100)]


async def test_a_heartbeat_that_takes_nothing_back_looks_at_no_workload(
    db: Database, agent: Agent
) -> None:
    """It comes every 15 seconds, from each of a tenant's clusters."""
    beat = Heartbeat(stream_id=agent.stream_id, seq=0, unbroken_seconds=10)
    async with db.transaction(1) as connection:
        await connection.execute("LOCK TABLE usage_state, workload IN ACCESS EXCLUSIVE MODE")
        await heartbeat_apply(db, agent.identity, beat, later(15))

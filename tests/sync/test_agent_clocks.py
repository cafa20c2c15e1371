"""The agent tells how far the clock of its cluster's API server is from its own."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.fixtures.agents import agent, until
from tests.fixtures.kubernetes.kube_api import kube_api
from tests.fixtures.receiver import receiver
from watchbill.protocol import Heartbeat
from watchbill.store.ingest.messages import HeartbeatEnvelope, decode_heartbeat


async def test_a_clock_that_is_ahead_is_reported_with_the_heartbeat(tmp_path: Path) -> None:
    async with kube_api() as api, receiver() as server:
        api.cluster.faults.clock_skew_seconds = 3_600.0
        async with agent(tmp_path, api, server):
            await until(lambda: any(beat.cluster_clock_ahead_seconds for beat in server.beats))
            reported = [beat.cluster_clock_ahead_seconds or 0.0 for beat in server.beats]
            assert 3_590 < max(reported) < 3_610
            assert all(beat.sent_at is not None for beat in server.beats)


def test_the_server_reads_every_member_of_a_heartbeat() -> None:
    assert set(HeartbeatEnvelope.__struct_fields__) == set(Heartbeat.__struct_fields__)
    beat = Heartbeat(
        stream_id="s",
        seq=3,
        observed_seconds_ago=2.0,
        backlog=4,
        sent_at=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
        cluster_clock_ahead_seconds=-5.0,
        digest="0" * 32,
    )
    assert decode_heartbeat(msgspec.json.encode(beat)).beat == beat

"""Times in which nobody observed a cluster: workloads may have come and gone unseen. Each is kept and shown.

A *silence* is long enough for the cluster to count as degraded; of it no usage is counted, unless its agent
observed on and tells afterwards what it saw. Any other gap is of an agent that started anew, or of one that
could not follow its cluster for a while.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from watchbill.identity import AgentIdentity
from watchbill.protocol import DEGRADED_AFTER_SECONDS, Heartbeat, Unobserved
from watchbill.store.postgres.database import Connection, Row

SILENCE = timedelta(seconds=DEGRADED_AFTER_SECONDS)
SHORTEST = timedelta(seconds=1)
SAME = timedelta(seconds=5)
"""Ends of gaps that are no further apart mean the same."""
MAX_BRIEF = 1_000
"""Kept of a cluster, the newest: an agent that fails again and again starts again and again."""

_NOTE = (
    "INSERT INTO cluster_gap (tenant_id, cluster_id, from_at, to_at, is_silence) "
    "SELECT $1, $2, n.from_at, n.to_at, $5::boolean FROM unnest($3::timestamptz[], $4::timestamptz[]) "
    "AS n(from_at, to_at) WHERE NOT EXISTS (SELECT FROM cluster_gap g WHERE g.tenant_id = $1 "
    "AND g.cluster_id = $2 AND g.from_at <= n.from_at + $6::interval "
    "AND g.to_at >= n.to_at - $6::interval AND g.is_silence >= $5::boolean) ON CONFLICT DO NOTHING"
)
_FORGET = (
    "DELETE FROM cluster_gap WHERE tenant_id = $1 AND cluster_id = $2 AND NOT is_silence "
    "AND from_at <= (SELECT from_at FROM cluster_gap WHERE tenant_id = $1 AND cluster_id = $2 "
    "AND NOT is_silence ORDER BY from_at DESC OFFSET $3 LIMIT 1)"
)

_OBSERVED = (
    "UPDATE cluster_gap SET observed_from = greatest(from_at, $3) WHERE tenant_id = $1 AND cluster_id = $2 "
    "AND is_silence AND observed_from IS NULL AND to_at > $3 RETURNING observed_from"
)
_LOSE = (
    "UPDATE cluster_gap SET observed_from = to_at WHERE tenant_id = $1 AND cluster_id = $2 "
    "AND is_silence AND observed_from IS NULL AND to_at > $3::timestamptz + $4::interval"
)
_REWIND = (
    "UPDATE usage_state s SET rewind_at = least(s.rewind_at, $3) FROM workload w "
    "WHERE w.tenant_id = $1 AND w.cluster_id = $2 AND s.tenant_id = $1 AND s.workload_id = w.id "
    "AND s.until > $3"
)
"""Looks at every workload of the cluster: only once a gap was taken back, not with each heartbeat."""


async def silence_record(
    connection: Connection, agent: AgentIdentity, last_contact_at: datetime | None, now: datetime
) -> None:
    """What has just ended, where it was long enough."""
    if last_contact_at is not None and now - last_contact_at >= SILENCE:
        await _note(connection, agent, [(last_contact_at, now)], is_silence=True)


async def restart_record(
    connection: Connection, agent: AgentIdentity, last_contact_at: datetime | None, now: datetime
) -> None:
    """An agent has just started: since the last contact of the one before it nobody may have observed."""
    if last_contact_at is not None and SHORTEST <= now - last_contact_at < SILENCE:
        await _note(connection, agent, [(last_contact_at, now)], is_silence=False)


def has_lost(cluster: Row, stream_id: str, seq: int, now: datetime) -> bool:
    """Whether a batch of this stream was acknowledged that is not stored, or the stream itself is not: that of
    an agent that was taken over is not either, but then another one has been in contact since."""
    if cluster["stream_id"] == stream_id:
        return bool(seq > cluster["last_seq"])
    before: datetime | None = cluster["last_contact_at"]
    return before is not None and now - before >= SILENCE


async def loss_record(
    connection: Connection, agent: AgentIdentity, last_contact_at: datetime | None, now: datetime
) -> None:
    """The agent has reported more than is stored, as after a restore from a backup: what came and went since
    the last stored contact is lost, whatever the agent observed of it."""
    await restart_record(connection, agent, last_contact_at, now)
    await connection.execute(_LOSE, agent.tenant_id, agent.cluster_id, last_contact_at, SAME)


async def reported_record(
    connection: Connection, agent: AgentIdentity, beat: Heartbeat, now: datetime
) -> None:
    """What a heartbeat says of the time before it."""
    await _unobserved_record(connection, agent, beat.unobserved, now)
    await _observed_record(connection, agent, beat.unbroken_seconds, now)


async def _observed_record(
    connection: Connection, agent: AgentIdentity, unbroken_seconds: float | None, now: datetime
) -> None:
    """The agent has observed its cluster for so long without a break, and reported all: what was accounted of
    gaps since then is accounted anew. None = it does not say so."""
    if unbroken_seconds is not None:
        since = now - timedelta(seconds=unbroken_seconds)
        rows = await connection.fetch(_OBSERVED, agent.tenant_id, agent.cluster_id, since)
        if rows:
            first = min(row["observed_from"] for row in rows)
            await connection.execute(_REWIND, agent.tenant_id, agent.cluster_id, first)


async def _unobserved_record(
    connection: Connection, agent: AgentIdentity, spans: Sequence[Unobserved], now: datetime
) -> None:
    """What an agent says that it did not observe although it ran."""
    times = [
        (
            now - timedelta(seconds=span.from_seconds_ago),
            now - timedelta(seconds=span.to_seconds_ago),
        )
        for span in spans
        if span.to_seconds_ago < span.from_seconds_ago
    ]
    if times:
        await _note(connection, agent, times, is_silence=False)


async def _note(
    connection: Connection,
    agent: AgentIdentity,
    times: Sequence[tuple[datetime, datetime]],
    *,
    is_silence: bool,
) -> None:
    await connection.execute(
        _NOTE,
        agent.tenant_id,
        agent.cluster_id,
        *map(list, zip(*times, strict=True)),
        is_silence,
        SAME,
    )
    if not is_silence:
        await connection.execute(_FORGET, agent.tenant_id, agent.cluster_id, MAX_BRIEF)

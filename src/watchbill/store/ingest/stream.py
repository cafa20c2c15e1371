"""What agents send: hello, batches, heartbeats. A batch and the agent's cursor change in one transaction.

A kill at any point leaves either both or neither, so the agent's retry is either applied or recognised as a
duplicate and answered as before. One item that cannot be taken is refused alone and shown in the cluster's
state; it never holds up the rest.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeVar
from uuid import UUID

import msgspec
import structlog

from watchbill.errors import Conflict, Forbidden, Invalid, Superseded, Unauthenticated
from watchbill.identity import AgentIdentity
from watchbill.protocol import (
    HEARTBEAT_SECONDS,
    PROTOCOL_VERSION,
    Batch,
    BatchItem,
    BatchReply,
    Delete,
    Heartbeat,
    HeartbeatReply,
    HelloReply,
    HelloRequest,
    IdleHours,
    KindState,
    PodGroupRoot,
    RefusedItem,
    Upsert,
)
from watchbill.store.ingest.digest import digest_compare
from watchbill.store.ingest.gaps import (
    has_lost,
    loss_record,
    reported_record,
    restart_record,
    silence_record,
)
from watchbill.store.ingest.left_out import KeptReasons, LeftOut, kept_reasons, with_left_out
from watchbill.store.ingest.node_write import NodeResult, node_forget, node_write
from watchbill.store.ingest.problems import problems_show
from watchbill.store.metrics.measured import scrape_write
from watchbill.store.organisation.queue_write import queue_write
from watchbill.store.postgres.database import Connection, Database, Row
from watchbill.store.postgres.errors import VALUE_ERRORS, value_reason
from watchbill.store.workloads.deletion import workload_delete
from watchbill.store.workloads.events import event_write
from watchbill.store.workloads.idle import idle_hours_list
from watchbill.store.workloads.pod_write import without_new_pods
from watchbill.store.workloads.pods import pod_group_roots_list
from watchbill.store.workloads.quotas import (
    MAX_STORED_BYTES,
    no_room_for_pods,
    refuse_all,
    room,
    stored_bytes,
)
from watchbill.store.workloads.validation import (
    MAX_BATCH_STEPS,
    MAX_BATCH_TRANSITIONS,
    newest_steps,
    newest_transitions,
    repair,
    valid_events,
    valid_scrapes,
    violation,
)
from watchbill.store.workloads.write import ITEMS_PER_TURN, item_id, record_write, runs_of
from watchbill.workload import MAX_STEPS

CATCH_UP = timedelta(minutes=2)
"""How long after a time without contact an agent may still be reporting what happened during it."""
CLOCK_TOLERANCE = timedelta(seconds=5)

Extra = TypeVar("Extra")

log = structlog.get_logger(__name__)

_IS_TAKEOVER = "stream_id IS NOT NULL AND $4 <> '' AND $4 <> stream_id"
"""Whoever comes back with a stream that is no more the newest was not alone. $4: the stream it had."""


async def stream_open(
    db: Database, agent: AgentIdentity, request: HelloRequest, now: datetime
) -> HelloReply:
    """Give the agent a new stream; whoever held the old one is superseded."""
    if request.protocol != PROTOCOL_VERSION:
        raise Invalid(
            f"This server uses sync protocol {PROTOCOL_VERSION}, the agent {request.protocol}.",
            details="Install the same version of Watchbill on both sides.",
        )
    stream_id = secrets.token_urlsafe(16)
    async with db.transaction(agent.tenant_id) as connection:
        cluster = await _locked(connection, agent)
        _check_cluster_uid(cluster, request.cluster_uid)
        observed_until = _observed_until(cluster, now)
        await silence_record(connection, agent, cluster["last_contact_at"], observed_until)
        if not request.previous_stream_id:
            await restart_record(connection, agent, cluster["last_contact_at"], observed_until)
        elif has_lost(cluster, request.previous_stream_id, request.previous_seq, now):
            await loss_record(connection, agent, cluster["last_contact_at"], observed_until)
        known = await _known(connection, agent, request, now)
        await connection.execute(
            "UPDATE cluster SET stream_id = $3, last_seq = 0, last_reply = NULL, "
            f"takeovers = takeovers + ({_IS_TAKEOVER})::int, "
            f"last_takeover_at = CASE WHEN {_IS_TAKEOVER} THEN $9 ELSE last_takeover_at END, "
            "last_message_at = $9, agent_version = $5, kubernetes_version = $6, last_contact_at = $7, "
            "digest_difference = NULL, "
            "cluster_uid = coalesce(cluster_uid, nullif($8, '')) "
            "WHERE tenant_id = $1 AND id = $2",
            agent.tenant_id,
            agent.cluster_id,
            stream_id,
            request.previous_stream_id,
            request.agent_version,
            request.kubernetes_version,
            observed_until,
            request.cluster_uid,
            now,
        )
    return HelloReply(stream_id, agent.cluster_id, cluster["name"], HEARTBEAT_SECONDS, *known)


async def _known(
    connection: Connection, agent: AgentIdentity, request: HelloRequest, now: datetime
) -> tuple[tuple[IdleHours, ...], tuple[PodGroupRoot, ...]]:
    """What an agent that has just started cannot know; who was here before knows its groups."""
    key = (connection, agent.tenant_id, agent.cluster_id)
    idle = await _extra(connection, agent, "idle GPU-hours", partial(idle_hours_list, *key, now))
    if request.previous_stream_id:
        return idle, ()
    return idle, await _extra(connection, agent, "pod groups", partial(pod_group_roots_list, *key))


async def _extra(
    connection: Connection,
    agent: AgentIdentity,
    name: str,
    read: Callable[[], Awaitable[tuple[Extra, ...]]],
) -> tuple[Extra, ...]:
    """Of the handshake: where it fails, the agent does without it instead of being locked out."""
    try:
        async with connection.transaction():
            return await read()
    except Exception:
        log.exception(f"no {name} for the agent", cluster_id=str(agent.cluster_id))
        return ()


_BATCH_DONE = (
    "UPDATE cluster SET last_seq = $3, last_reply = $4, last_contact_at = $5, "
    "last_message_at = $6, last_change_at = CASE WHEN $7 THEN $6 ELSE last_change_at END "
    "WHERE tenant_id = $1 AND id = $2"
)


async def batch_apply(
    db: Database,
    agent: AgentIdentity,
    batch: Batch,
    now: datetime,
    *,
    most_bytes: int = MAX_STORED_BYTES,
) -> BatchReply:
    """Apply a batch once. Raises Superseded, and Conflict on a gap with the number expected as details."""
    async with db.transaction(agent.tenant_id) as connection:
        cluster = await stream_check(connection, agent, batch.stream_id)
        expected = cluster["last_seq"] + 1
        if batch.seq == cluster["last_seq"] and cluster["last_reply"] is not None:
            return msgspec.json.decode(cluster["last_reply"], type=BatchReply)
        if batch.seq < expected:
            return BatchReply(seq=batch.seq, refused=())
        if batch.seq > expected:
            raise Conflict(f"Batch {batch.seq} came before {expected}.", details=str(expected))
        observed_until = _observed_until(cluster, now)
        await silence_record(connection, agent, cluster["last_contact_at"], observed_until)
        refused, repaired, items = await _valid_items(batch.items, now)
        items = await _bound_deletions(connection, agent, items, now)
        events = list(valid_events(batch.events, now))
        stored = await stored_bytes(connection, agent.tenant_id, agent.cluster_id)
        if not stored.has_room(most_bytes):
            refused += refuse_all([item for item in items if isinstance(item, Upsert)], most_bytes)
            items = [item for item in items if isinstance(item, Delete)]
        if not stored.has_room_for_pods(most_bytes):
            items, incomplete = await _without_new_pods(connection, agent, items)
            repaired += no_room_for_pods(incomplete | {event.workload_id for event in events})
            events = []
        taken = batch.scrapes if stored.has_room_for_samples(most_bytes) else ()
        scrapes = list(valid_scrapes(taken, now))
        refused += await _apply_items(connection, agent, items, now)
        await problems_show(connection, agent, batch.items, [*repaired, *refused], now)
        await scrape_write(connection, agent.tenant_id, agent.cluster_id, scrapes, now)
        await event_write(connection, agent.tenant_id, agent.cluster_id, events)
        reply = BatchReply(seq=batch.seq, refused=tuple(refused))
        await connection.execute(
            _BATCH_DONE,
            agent.tenant_id,
            agent.cluster_id,
            batch.seq,
            msgspec.json.encode(reply),
            observed_until,
            now,
            bool(batch.items),
        )
    return reply


async def heartbeat_apply(
    db: Database,
    agent: AgentIdentity,
    beat: Heartbeat,
    now: datetime,
    *,
    left_out: LeftOut | None = None,
    most_bytes: int = MAX_STORED_BYTES,
) -> HeartbeatReply:
    """Record that the cluster is alive and what it reports about itself. `left_out`: what of it could not be
    decoded."""
    async with db.transaction(agent.tenant_id) as connection:
        cluster = await stream_check(connection, agent, beat.stream_id)
        age = beat.observed_seconds_ago
        observed_until = _reported_until(cluster, age, now)
        await silence_record(connection, agent, cluster["last_contact_at"], observed_until)
        if has_lost(cluster, beat.stream_id, beat.seq, now):
            await loss_record(connection, agent, cluster["last_contact_at"], observed_until)
        await reported_record(connection, agent, beat, now)
        is_in_step = beat.seq == cluster["last_seq"]
        differs = (
            is_in_step
            and beat.digest is not None
            and await digest_compare(connection, agent, beat.digest, now)
        )
        taken = await _take_nodes_and_queues(
            connection, agent, cluster, beat, left_out or LeftOut(), now, most_bytes
        )
        await connection.execute(
            "UPDATE cluster SET last_contact_at = $3, kinds = $4, node_pools = $5, is_blind = $6, "
            "backlog = $7, last_message_at = $8, agent_clock_ahead_seconds = $9, "
            "cluster_clock_ahead_seconds = $10, left_out = $11 WHERE tenant_id = $1 AND id = $2",
            agent.tenant_id,
            agent.cluster_id,
            observed_until,
            msgspec.json.encode(taken.kinds),
            msgspec.json.encode(beat.node_pools),
            age is None or age >= HEARTBEAT_SECONDS,
            beat.backlog,
            now,
            *_clocks(beat, now),
            msgspec.json.encode(taken.left_out) if taken.left_out else None,
        )
        free = await room(connection, agent.tenant_id, agent.cluster_id, most_bytes=most_bytes)
    return HeartbeatReply(
        seq=cluster["last_seq"],
        resync=differs or not is_in_step,
        wants_nodes=taken.wants_nodes,
        room=free,
    )


def _reported_until(cluster: Row, age_seconds: float | None, now: datetime) -> datetime:
    """Until when the agent says that it observed; never earlier than it reported before."""
    before = min(cluster["last_contact_at"] or now, now)
    return before if age_seconds is None else max(before, now - timedelta(seconds=age_seconds))


class _Taken(NamedTuple):
    """`kinds`: their states, with what is left out of them."""

    wants_nodes: bool
    kinds: tuple[KindState, ...]
    left_out: dict[str, KeptReasons]


async def _take_nodes_and_queues(
    connection: Connection,
    agent: AgentIdentity,
    cluster: Row,
    beat: Heartbeat,
    left_out: LeftOut,
    now: datetime,
    most_bytes: int,
) -> _Taken:
    """Queues are taken without room, too: all of a cluster's are no more than one heartbeat holds."""
    stored = await stored_bytes(connection, agent.tenant_id, agent.cluster_id)
    has_room = stored.has_room(most_bytes)
    tells_no_nodes = beat.nodes is None and _reads_nodes(beat.kinds)
    nodes = NodeResult()
    if beat.nodes is not None:
        digest = cluster["nodes_digest"]
        nodes = await node_write(connection, agent, beat.nodes, digest, now, has_room=has_room)
    elif tells_no_nodes and cluster["nodes_digest"] is not None:
        await node_forget(connection, agent)
    if beat.queues is not None:
        await queue_write(connection, agent.tenant_id, agent.cluster_id, beat.queues, now)
    keeps_nodes = nodes.are_wanted or (beat.nodes is None and not tells_no_nodes)
    kept = kept_reasons(cluster["left_out"], beat, left_out, now, keeps_nodes=keeps_nodes)
    kinds = with_left_out(
        beat.kinds, kept, left_out.node_pools, now, nodes_have_room=not nodes.are_refused
    )
    return _Taken(nodes.are_wanted, kinds, kept)


def _reads_nodes(kinds: Sequence[KindState]) -> bool:
    """Who reads all nodes and tells none is an agent of a version that does not tell them."""
    return any((kind.group, kind.kind, kind.state) == ("", "Node", "complete") for kind in kinds)


def _clocks(beat: Heartbeat, now: datetime) -> tuple[float | None, float | None]:
    """How far the agent's clock and its cluster's are ahead of ours, in seconds."""
    if beat.sent_at is None:
        return None, None
    agent = (beat.sent_at - now).total_seconds()
    cluster = beat.cluster_clock_ahead_seconds
    return agent, None if cluster is None else agent + cluster


async def stream_check(connection: Connection, agent: AgentIdentity, stream_id: str) -> Row:
    """The agent's cluster, locked for this transaction. Raises Superseded for any other stream."""
    cluster = await _locked(connection, agent)
    if cluster["stream_id"] != stream_id:
        raise Superseded(
            "Another agent of this cluster took over the stream.",
            details="Say hello again after a pause. Run one agent per cluster.",
        )
    return cluster


def _check_cluster_uid(cluster: Row, cluster_uid: str) -> None:
    """Raises Forbidden for an agent that watches another cluster than the first one did."""
    pinned = cluster["cluster_uid"]
    if pinned is None or not cluster_uid or cluster_uid == pinned:
        return
    name = cluster["name"]
    raise Forbidden(
        f"This agent watches another cluster than '{name}': the UID of its namespace kube-system is "
        f"{cluster_uid}, not {pinned}.",
        details="Check the agent's kubeconfig and context. If the cluster was rebuilt on purpose: "
        f"`watchbill admin cluster repin {name}`.",
    )


async def _locked(connection: Connection, agent: AgentIdentity) -> Row:
    cluster = await connection.fetchrow(
        "SELECT name, cluster_uid, stream_id, last_seq, last_reply, last_contact_at, is_blind, "
        "nodes_digest, left_out FROM cluster "
        "WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL FOR NO KEY UPDATE",
        agent.tenant_id,
        agent.cluster_id,
    )
    if cluster is None:
        raise Unauthenticated("This cluster was removed.")
    return cluster


def _observed_until(cluster: Row, now: datetime) -> datetime:
    """Now, unless the agent's last heartbeat said that it cannot follow its cluster: then only a heartbeat
    that tells otherwise moves it, so neither messages nor restarts make old data look new."""
    before: datetime | None = cluster["last_contact_at"]
    return min(before, now) if before is not None and cluster["is_blind"] else now


async def _valid_items(
    items: Sequence[BatchItem], now: datetime
) -> tuple[list[RefusedItem], list[RefusedItem], list[BatchItem]]:
    """What cannot be stored, what can without some of its members (both with the reason), and what to store."""
    refused: list[RefusedItem] = []
    repaired: list[RefusedItem] = []
    valid: list[BatchItem] = []
    transitions_left, steps_left = MAX_BATCH_TRANSITIONS, MAX_BATCH_STEPS
    steps: Counter[UUID] = Counter()
    """Of each workload: an agent may name one many times."""
    for number, item in enumerate(items, start=1):
        if number % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)
        reason = violation(item)
        if reason is not None:
            refused.append(RefusedItem(id=item_id(item), reason=reason))
            continue
        bounded, shortened = newest_transitions(item, transitions_left)
        id_ = item_id(item)
        bounded, without_steps = newest_steps(bounded, min(steps_left, MAX_STEPS - steps[id_]))
        transitions_left -= len(bounded.transitions)
        step_count = len(bounded.steps) if isinstance(bounded, Upsert) else 0
        steps_left -= step_count
        steps[id_] += step_count
        possible, left_out = repair(bounded, now)
        valid.append(possible)
        if left_out or shortened or without_steps:
            sentences = " ".join(filter(None, (left_out, shortened, without_steps)))
            repaired.append(RefusedItem(id=item_id(item), reason=sentences))
    return refused, repaired, valid


async def _bound_deletions(
    connection: Connection, agent: AgentIdentity, items: list[BatchItem], now: datetime
) -> list[BatchItem]:
    """Deletions stamped only after a gap that has just ended happened at some time during it.

    An agent that merely could not reach the server went on observing: its times lie within the gap.
    """
    if not any(isinstance(item, Delete) for item in items):
        return items
    gap = await connection.fetchrow(
        "SELECT from_at, to_at FROM cluster_gap WHERE tenant_id = $1 AND cluster_id = $2 "
        "AND is_silence AND to_at > $3 ORDER BY to_at DESC LIMIT 1",
        agent.tenant_id,
        agent.cluster_id,
        now - CATCH_UP,
    )
    if gap is None:
        return items
    return [
        msgspec.structs.replace(item, not_before=gap["from_at"])
        if isinstance(item, Delete)
        and item.not_before is None
        and item.deleted_at >= gap["to_at"] - CLOCK_TOLERANCE
        else item
        for item in items
    ]


async def _without_new_pods(
    connection: Connection, agent: AgentIdentity, items: Sequence[BatchItem]
) -> tuple[list[BatchItem], set[UUID]]:
    """The items, in their order, with pods that are stored already; and the workloads that lack some."""
    upserts = [item for item in items if isinstance(item, Upsert)]
    shortened, incomplete = await without_new_pods(connection, agent.tenant_id, upserts)
    following = iter(shortened)
    return [next(following) if isinstance(item, Upsert) else item for item in items], incomplete


async def _apply_items(
    connection: Connection, agent: AgentIdentity, items: Sequence[BatchItem], now: datetime
) -> list[RefusedItem]:
    """Each run (`runs_of`) is written together; where it cannot be, item by item."""
    refused: list[RefusedItem] = []
    for run in runs_of(items):
        try:
            async with connection.transaction():
                refused += await _apply_run(connection, agent, run, now)
        except VALUE_ERRORS as error:
            if len(run) == 1:
                refused.append(RefusedItem(id=item_id(run[0]), reason=value_reason(error)))
                continue
            for item in run:
                refused += await _apply_items(connection, agent, [item], now)
    return refused


async def _apply_run(
    connection: Connection, agent: AgentIdentity, run: list[BatchItem], now: datetime
) -> list[RefusedItem]:
    upserts = [item for item in run if isinstance(item, Upsert)]
    deletes = [item for item in run if isinstance(item, Delete)]
    if upserts:
        return await record_write(connection, agent.tenant_id, agent.cluster_id, upserts, now)
    await workload_delete(connection, agent.tenant_id, agent.cluster_id, deletes, now)
    return []

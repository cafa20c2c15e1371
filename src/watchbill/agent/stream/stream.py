"""The agent's side of the stream: hello, inventory, batches, heartbeats, one request at a time.

Every failure is answered in one of three ways: repeat the request, open a new stream, or drop one
item. After every hello an inventory tells both sides what the server does not have; there is no other repair.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from typing import TypeVar
from uuid import UUID

import msgspec
import structlog

from watchbill import __version__
from watchbill.agent.cache.event_log import EventLog
from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.kubernetes.steady_clock import observed_now
from watchbill.agent.stream.additions import NO_ADDITIONS, Added, Additions, SampleQueue
from watchbill.agent.stream.cluster_state import (
    ClusterState,
    InventoryInProgress,
    bounded_state,
    covered_kinds,
)
from watchbill.agent.stream.object_changes import NodeChangeTracker
from watchbill.agent.stream.pending_changes import PendingChanges, PreparedBatch
from watchbill.background import TimeSlice
from watchbill.client import AgentClient
from watchbill.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Superseded,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    WatchbillError,
)
from watchbill.protocol import (
    BATCH_ITEMS,
    INVENTORY_ENTRIES,
    MAX_COUNT,
    PROTOCOL_VERSION,
    Batch,
    Covered,
    Heartbeat,
    HeartbeatReply,
    HelloReply,
    HelloRequest,
    InventoryBegin,
    InventoryCommit,
    InventoryEntries,
    InventoryEntry,
    RefusedItem,
    unobserved_before,
)
from watchbill.scheduler_queue import SchedulerQueue

log = structlog.get_logger(__name__)

BATCH_BYTES = 8 * 1024 * 1024
INVENTORY_PAUSE_SECONDS = 3.0
"""After an API server's restart all kinds are listed again at once: one inventory covers them all."""
HELD_SECONDS = 75.0
"""Before a second inventory may confirm deletions that the server held back."""
REFUSED_CREDENTIAL_SECONDS = 60.0
DIGEST_SECONDS = 300.0
"""How often agent and server compare digests: the server reads the hash of each live workload for it."""
HELLO_RETRY_SECONDS = 15.0
"""The longest wait between attempts to say hello, so that nothing waits long once the server is back."""
RETRY_HEARTBEAT_SECONDS = 5.0
"""How often it is tried whether a server that failed is back."""
MORE_NODES_SECONDS = 1.0
"""Until the next heartbeat, where not all changed nodes fitted into the last one."""
BATCH_SECONDS = 0.2
"""Between batches while few changes wait, so that those which come one after the other travel together."""
STALLED_SECONDS = 30.0
"""Changes wait for so long at most while batches are taken."""

Reply = TypeVar("Reply")


REVOKED_ADVICE = (
    "The cluster may have been removed from the server, or this is another server's credential. "
    "Register the cluster: `watchbill admin cluster create NAME --output FILE`."
)


class Stream:
    """Sends all pending changes and samples to the server, until cancelled."""

    def __init__(
        self,
        client: AgentClient,
        pending: PendingChanges,
        cluster: ClusterState,
        changed: asyncio.Event,
        samples: SampleQueue | None = None,
        events: EventLog | None = None,
        *,
        resync_seconds: float = 900.0,
    ) -> None:
        self.hellos = 0
        self._additions = Additions(pending, samples, events)
        self._client = client
        self._pending = pending
        self._cluster = cluster
        self._changed = changed
        self._stream_id = ""
        self._greeted_as = ""
        """The cluster's UID in the last hello: the server refuses a wrong one before anything is sent."""
        self._seq = 0
        self._unconfirmed_seq: int | None = None
        """The sequence number of a batch that may or may not have been applied."""
        self._progress_at = self._batch_at = 0.0
        """When a batch was last acknowledged, or nothing waited to be sent; and when one was last sent."""
        self._batch_workloads = BATCH_ITEMS
        self._heartbeat_seconds = 15.0
        self._heartbeat_due = 0.0
        self._to_catch_up, self._is_cut_off = 0, False
        """The server was back when the change of this number came: those before it are of its absence."""
        self._losses, self._lost_at = 0, -inf
        self._nodes = NodeChangeTracker()
        self._acknowledged_queues: tuple[SchedulerQueue, ...] | None = None
        self._resync_seconds = resync_seconds
        self._inventory_due: float | None = None
        self._inventory: InventoryInProgress | None = None
        self._last_inventory_at = -inf
        self._digest_due: float | None = None
        """When what the server should hold may be sent; None before an inventory of this stream."""
        self._held_until = 0.0
        """No inventory before: the server held back deletions that a later one may confirm."""
        self._next_inventory_at = 0.0
        """When the next periodic inventory is due."""
        self._covered_kinds: frozenset[tuple[str, str]] = frozenset()
        """Kinds that the last inventory of this stream covered in all namespaces."""
        self._now = asyncio.get_running_loop().time

    def request_inventory(self, *, after_seconds: float | None = None) -> None:
        """Take an inventory soon. A request shares an inventory that is due earlier; it never delays one."""
        due = self._now() + (0.0 if after_seconds is None else after_seconds)
        if after_seconds is None:
            earliest = self._last_inventory_at + 10 * INVENTORY_PAUSE_SECONDS
            due = max(due + INVENTORY_PAUSE_SECONDS, earliest)
        self._inventory_due = due if self._inventory_due is None else min(self._inventory_due, due)
        self._changed.set()

    @property
    def is_drained(self) -> bool:
        return not len(self._pending) and self._unconfirmed_seq is None

    async def run(self) -> None:
        """Run until cancelled. Raises only if the first hello shows that no retry can help."""
        backoff = Backoff()
        while True:
            began = self._now()
            try:
                await self._hello()
                await self._flush()
            except (Superseded, Conflict) as error:
                log.warning("stream lost", reason=error.message)
                if self._now() - began > 10 * self._heartbeat_seconds:
                    backoff.reset()
                await asyncio.sleep(backoff.next_seconds(at_least_seconds=1.0))
            except (Unauthenticated, Forbidden, Invalid, NotFound, TooLarge) as error:
                if not self.hellos:
                    if isinstance(error, Unauthenticated):
                        error.details = REVOKED_ADVICE
                    raise
                log.error("server refuses this agent", reason=error.message, details=error.details)
                await asyncio.sleep(jittered(REFUSED_CREDENTIAL_SECONDS))

    async def _hello(self) -> None:
        cluster_uid = self._cluster.cluster_uid()
        request = HelloRequest(
            protocol=PROTOCOL_VERSION,
            agent_version=__version__,
            kubernetes_version=self._cluster.kubernetes_version(),
            cluster_uid=cluster_uid,
            previous_stream_id=self._stream_id,
            previous_seq=self._seq,
        )
        reply: HelloReply = await self._call(
            lambda: self._client.hello(request), with_heartbeats=False
        )
        if not self.hellos:
            self._cluster.restore(reply)
        self.hellos += 1
        self._greeted_as = cluster_uid
        self._stream_id, self._seq, self._unconfirmed_seq = reply.stream_id, 0, None
        self._heartbeat_seconds = float(reply.heartbeat_seconds)
        self._heartbeat_due = 0.0
        self._acknowledged_queues, self._to_catch_up = None, self._pending.next_number
        self._pending.reset_acknowledged()
        self._inventory_due, self._inventory = self._now(), None
        self._covered_kinds, self._digest_due = frozenset(), None
        log.info("stream opened", cluster=reply.cluster_name, cluster_id=str(reply.cluster_id))

    async def _flush(self) -> None:
        """Send changes as they come; an inventory advances one request at a time beside them."""
        while True:
            if self._cluster.cluster_uid() != self._greeted_as:
                await self._hello()
            await self._heartbeat_if_due()
            if not len(self._pending):
                self._progress_at = self._now()
            self._changed.clear()
            if self._inventory is not None:
                await self._continue_inventory(self._inventory)
            elif self._can_begin_inventory():
                await self._begin_inventory()
            if roots := self._pending.uncompared(INVENTORY_ENTRIES):
                await self._compare(roots)
            if len(self._pending) or self._additions.are_due:
                await self._pace()
                await self._send_batch()
            elif self._inventory is None and not self._can_begin_inventory():
                await self._wait_for_changes()

    async def _pace(self) -> None:
        is_busy = self._inventory is not None or len(self._pending) >= self._batch_workloads
        if not is_busy:
            await asyncio.sleep(self._batch_at + BATCH_SECONDS - self._now())
        self._batch_at = self._now()

    def _can_begin_inventory(self) -> bool:
        if self._inventory_due is None or max(self._inventory_due, self._held_until) > self._now():
            return False
        return self._cluster.can_take_inventory()

    async def _begin_inventory(self) -> None:
        self._inventory_due = None
        coverage = self._cluster.coverage()
        roots = self._cluster.live_workloads()
        possible = list(self._pending.possible_entries(self._cluster.possible_workloads()))
        inventory_id = await self._open_inventory(coverage)
        self._inventory = InventoryInProgress(inventory_id, coverage, roots, possible)
        if roots:
            await self._continue_inventory(self._inventory)

    async def _open_inventory(self, coverage: tuple[Covered, ...]) -> UUID:
        begin = InventoryBegin(stream_id=self._stream_id, coverage=coverage)
        return (await self._call(lambda: self._client.inventory_begin(begin))).inventory_id

    async def _continue_inventory(self, inventory: InventoryInProgress) -> None:
        """Send the next entries, or commit: after the known deletions, so that they keep their times."""
        if inventory.sent < len(inventory.roots):
            roots = inventory.roots[inventory.sent : inventory.sent + INVENTORY_ENTRIES]
            inventory.sent += len(roots)
            entries, missing = await self._send_entries(inventory.id, roots)
            inventory.entries += entries
            inventory.missing += missing
            return
        if inventory.possible:
            part = tuple(inventory.possible[:INVENTORY_ENTRIES])
            del inventory.possible[: len(part)]
            await self._post_entries(inventory.id, part)
            return
        while self._pending.deleted:
            await self._send_batch(only_deletions=True)
        commit = InventoryCommit(
            stream_id=self._stream_id, inventory_id=inventory.id, count=inventory.entries
        )
        done = await self._call(lambda: self._client.inventory_commit(commit))
        self._inventory = None
        self._last_inventory_at = self._now()
        self._covered_kinds = covered_kinds(inventory.coverage)
        self._digest_due = self._now() if self._cluster.is_synced() else None
        self._next_inventory_at = self._now() + jittered(self._resync_seconds)
        log.info(
            "inventory taken",
            workloads=inventory.entries,
            kinds=len(inventory.coverage),
            missing=inventory.missing,
            deleted=done.deleted,
            held=done.held,
        )
        if done.held:
            self._held_until = self._now() + HELD_SECONDS
            self.request_inventory(after_seconds=HELD_SECONDS)

    async def _compare(self, roots: list[str]) -> None:
        """Ask what the server has of these before they are sent. An open inventory hears of them twice."""
        inventory_id = self._inventory.id if self._inventory else await self._open_inventory(())
        await self._send_entries(inventory_id, roots)

    async def _send_entries(self, inventory_id: UUID, roots: list[str]) -> tuple[int, int]:
        """Returns the number of entries sent, and of those that the server does not have."""
        entries = tuple(self._pending.inventory_entries(roots))
        missing = await self._post_entries(inventory_id, entries)
        self._pending.apply_inventory(entries, missing)
        return len(entries), len(missing)

    async def _post_entries(
        self, inventory_id: UUID, entries: tuple[InventoryEntry, ...]
    ) -> tuple[UUID, ...]:
        message = InventoryEntries(
            stream_id=self._stream_id, inventory_id=inventory_id, entries=entries
        )
        return (await self._call(lambda: self._client.inventory_entries(message))).missing

    async def _send_batch(self, *, only_deletions: bool = False) -> None:
        compared = 0 if only_deletions else self._pending.compared_count(self._batch_workloads)
        limit = min(self._batch_workloads, len(self._pending.deleted) + compared)
        prepared = PreparedBatch(max_workloads=limit, max_bytes=BATCH_BYTES)
        added = NO_ADDITIONS if only_deletions else self._additions.take()
        try:
            await self._prepare(prepared)
            if prepared.items or any(added):
                await self._deliver(prepared, added)
        except BaseException:
            self._pending.put_back(prepared)
            self._additions.put_back(added)
            raise

    async def _prepare(self, prepared: PreparedBatch) -> None:
        """Records that were not kept are derived anew: it takes time, so the event loop's other tasks run."""
        derive, work = self._cluster.derive_now, TimeSlice()
        while not self._pending.extend_batch(prepared, derive, steps=1):
            await work.rest()

    async def _deliver(self, prepared: PreparedBatch, added: Added) -> None:
        seq = self._seq + 1
        batch = Batch(
            stream_id=self._stream_id,
            seq=seq,
            items=tuple(prepared.items),
            scrapes=added.scrapes,
            events=added.events,
        )
        try:
            self._unconfirmed_seq = seq
            reply = await self._call(lambda: self._client.batch(batch))
        except (Invalid, TooLarge) as error:
            self._unconfirmed_seq = None
            if any(added):
                log.error("samples and events dropped", reason=error.message)
                self._pending.put_back(prepared)
            else:
                self._handle_rejected_batch(prepared, error)
            return
        self._seq, self._unconfirmed_seq = seq, None
        self._progress_at = self._now()
        self._batch_workloads = min(BATCH_ITEMS, self._batch_workloads * 2)
        for refused in reply.refused:
            log.warning("item refused", workload=str(refused.id), reason=refused.reason)
        self._pending.acknowledge(prepared, reply.refused)

    def _handle_rejected_batch(self, prepared: PreparedBatch, error: WatchbillError) -> None:
        """The server cannot take this batch: halve it, down to the one item at fault, and drop that."""
        if prepared.workload_count > 1:
            self._pending.put_back(prepared)
            self._batch_workloads = prepared.workload_count // 2
            return
        roots = sorted({root for root, *_ in prepared.upserts} | dict(prepared.deleted).keys())
        log.error("item dropped", workloads=roots, reason=error.message)
        items = [RefusedItem(id=UUID(root), reason=error.message) for root in roots]
        self._pending.acknowledge(prepared, items)

    async def _call(
        self, send: Callable[[], Awaitable[Reply]], *, with_heartbeats: bool = True
    ) -> Reply:
        """Send one request, repeated until it is answered; heartbeats are sent in between."""
        backoff = Backoff() if with_heartbeats else Backoff(most_seconds=HELLO_RETRY_SECONDS)
        while True:
            retry_after_seconds = 0.0
            try:
                return await send()
            except (Unavailable, TooMany) as error:
                retry_after_seconds = error.retry_after_seconds or 0.0
                pause = backoff.next_seconds(at_least_seconds=error.retry_after_seconds)
                log.warning("request failed", reason=error.message, retry_in_seconds=round(pause))
            except msgspec.DecodeError as error:
                pause = backoff.next_seconds()
                log.warning("reply cannot be decoded", reason=str(error))
            if with_heartbeats:
                await self._wait_for_server(pause, at_least_seconds=min(retry_after_seconds, pause))
            else:
                await asyncio.sleep(pause)

    async def _wait_for_server(self, seconds: float, *, at_least_seconds: float) -> None:
        """Wait; but once a heartbeat passes the server is back: then only as long as it asked for."""
        began = self._now()
        until = began + seconds
        while until > self._now():
            if await self._heartbeat_if_due(is_retrying=True):
                until = min(until, began + at_least_seconds)
            soonest = max(self._now() + 0.05, self._heartbeat_due)
            await asyncio.sleep(max(0.0, min(until, soonest) - self._now()))

    async def _wait_for_changes(self) -> None:
        """Wait until there are changes or a heartbeat is due."""
        until = min(self._heartbeat_due, self._now() + self._additions.wait_seconds)
        if self._inventory_due is not None:
            until = min(until, max(self._inventory_due, self._now() + 0.5))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - self._now())):
                await self._changed.wait()

    async def _heartbeat_if_due(self, *, is_retrying: bool = False) -> bool:
        """Returns whether one was sent and answered."""
        if self._heartbeat_due > self._now():
            return False
        self._heartbeat_due = self._now() + self._heartbeat_seconds
        nodes, queues = await self._cluster.nodes(), self._cluster.queues()
        digest = self._digest_if_due()
        now, unobserved = observed_now(), self._cluster.unobserved()
        reported = frozenset(unobserved)
        beat = Heartbeat(
            stream_id=self._stream_id,
            seq=self._seq,
            kinds=tuple(map(bounded_state, self._cluster.states())),
            node_pools=self._cluster.node_pools(),
            observed_seconds_ago=self._observed_seconds_ago(),
            backlog=min(len(self._pending), MAX_COUNT),
            digest=digest,
            sent_at=datetime.now(UTC),
            unobserved=tuple(unobserved_before(now, *span) for span in unobserved),
            cluster_clock_ahead_seconds=self._cluster.cluster_clock_ahead_seconds(),
            nodes=None if nodes is None else self._nodes.changes(nodes),
            queues=None if queues == self._acknowledged_queues else queues,
            unbroken_seconds=self._unbroken_seconds(),
        )
        try:
            reply = await self._client.heartbeat(beat)
        except (Unavailable, TooMany, msgspec.DecodeError) as error:
            self._note_failed_heartbeat(error, is_retrying=is_retrying)
            return False
        self._is_cut_off = False
        if nodes is not None:
            self._nodes.acknowledge(wants_nodes=reply.wants_nodes)
            if self._nodes.has_more:
                self._heartbeat_due = self._now() + MORE_NODES_SECONDS
        self._acknowledged_queues = queues
        unobserved[:] = [span for span in unobserved if span not in reported]
        if digest is not None:
            self._digest_due = self._now() + DIGEST_SECONDS
        self._apply_reply(reply)
        return True

    def _note_failed_heartbeat(self, error: Exception, *, is_retrying: bool) -> None:
        self._is_cut_off = True
        if is_retrying:
            soon = min(self._heartbeat_seconds, jittered(RETRY_HEARTBEAT_SECONDS))
            self._heartbeat_due = self._now() + soon
        else:
            log.warning("heartbeat failed", reason=str(error))

    def _apply_reply(self, reply: HeartbeatReply) -> None:
        """Raises Conflict where the server is at another batch."""
        self._pending.retry_out_of_room(reply.room)
        if reply.seq not in (self._seq, self._unconfirmed_seq):
            raise Conflict(f"The server is at batch {reply.seq}, the agent at {self._seq}.")
        if reply.resync and reply.seq == self._seq:
            log.info("server asks for an inventory")
            self.request_inventory(after_seconds=0.0)
        elif self._inventory_due is None and self._is_inventory_outdated():
            self.request_inventory()

    def _digest_if_due(self) -> str | None:
        """Only while both sides should hold the same: nothing is on its way, nothing is compared."""
        is_due = self._digest_due is not None and self._digest_due <= self._now()
        is_at_rest = self.is_drained and self._inventory is None and self._inventory_due is None
        return self._pending.digest() if is_due and is_at_rest else None

    def _unbroken_seconds(self) -> float | None:
        """For how long nothing was missed, once the server has what was observed while it was away. What comes
        later may be without end."""
        unbroken = self._cluster.unbroken_seconds()
        if self._is_cut_off:
            self._to_catch_up = self._pending.next_number
        if self._pending.dropped_deletions != self._losses:
            self._losses, self._lost_at = self._pending.dropped_deletions, self._now()
            log.warning(
                "ends without their last records: too many while cut off", count=self._losses
            )
        is_on_its_way = self._unconfirmed_seq is not None
        if unbroken is None or is_on_its_way or not self._pending.has_sent(self._to_catch_up):
            return None
        return min(unbroken, self._now() - self._lost_at)

    def _observed_seconds_ago(self) -> float | None:
        """What the server does not take is as unknown to it as what the agent cannot read."""
        observed = self._cluster.observed_seconds_ago()
        if observed is None or not len(self._pending):
            return observed
        stalled = self._now() - self._progress_at
        return max(observed, stalled if stalled > STALLED_SECONDS else 0.0)

    def _is_inventory_outdated(self) -> bool:
        """The last one is old, or a new one would cover more kinds."""
        return self._next_inventory_at <= self._now() or bool(
            covered_kinds(self._cluster.coverage()) - self._covered_kinds
        )

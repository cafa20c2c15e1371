"""The agent's side of the stream: hello, inventory, batches, heartbeats, one request at a time.

Every failure is answered in one of three ways: repeat the request, open a new stream, or drop one
item. After every hello an inventory tells both sides what the server lacks; there is no other repair.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
import structlog

from watchbill import __version__
from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.stream.pending_changes import PendingChanges, PreparedBatch
from watchbill.agent.stream.sample_queue import SampleQueue
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
from watchbill.kinds.derive import Derived
from watchbill.protocol import (
    BATCH_ITEMS,
    BATCH_READINGS,
    INVENTORY_ENTRIES,
    PROTOCOL_VERSION,
    STATE_MESSAGE_CHARACTERS,
    Batch,
    Covered,
    Heartbeat,
    HelloReply,
    HelloRequest,
    IdleHours,
    InventoryBegin,
    InventoryCommit,
    InventoryEntries,
    KindState,
    NodePoolCapacity,
)

log = structlog.get_logger(__name__)

BATCH_BYTES = 8 * 1024 * 1024
INVENTORY_PAUSE_SECONDS = 3.0
"""After an API server's restart all kinds are listed again at once: one inventory covers them all."""
HELD_SECONDS = 75.0
"""Before a second inventory may confirm deletions that the server held back."""
REFUSED_CREDENTIAL_SECONDS = 60.0

Reply = TypeVar("Reply")


def _bounded(state: KindState) -> KindState:
    """With no longer a message than the server takes."""
    if state.message is None or len(state.message) <= STATE_MESSAGE_CHARACTERS:
        return state
    return msgspec.structs.replace(state, message=state.message[:STATE_MESSAGE_CHARACTERS])


class ClusterState(Protocol):
    """What the stream needs from the rest of the agent."""

    def can_take_inventory(self) -> bool:
        """Whether an inventory taken now would be correct and would prove anything."""

    def coverage(self) -> tuple[Covered, ...]: ...

    def live_workloads(self) -> list[str]:
        """Every workload that exists as far as the agent knows."""

    def possible_workloads(self) -> list[OwnerKey]:
        """Owners that may be workloads although they cannot be read."""

    def states(self) -> tuple[KindState, ...]: ...

    def node_pools(self) -> tuple[NodePoolCapacity, ...]: ...

    def kubernetes_version(self) -> str: ...

    def derive_now(self, root: str) -> Derived | None: ...

    def restore_idle(self, idle: tuple[IdleHours, ...]) -> None:
        """What earlier agents of the cluster observed."""


class Stream:
    """Sends all pending changes and samples to the server, until cancelled."""

    def __init__(
        self,
        client: AgentClient,
        pending: PendingChanges,
        cluster: ClusterState,
        changed: asyncio.Event,
        samples: SampleQueue | None = None,
        *,
        resync_seconds: float = 900.0,
    ) -> None:
        self.hellos = 0
        self._samples = SampleQueue() if samples is None else samples
        self._client = client
        self._pending = pending
        self._cluster = cluster
        self._changed = changed
        self._stream_id = ""
        self._seq = 0
        self._unconfirmed_seq: int | None = None
        """The sequence number of a batch that may or may not have been applied."""
        self._batch_workloads = BATCH_ITEMS
        self._heartbeat_seconds = 15.0
        self._heartbeat_due = 0.0
        self._resync_seconds = resync_seconds
        self._inventory_due: float | None = None
        self._next_inventory_at = 0.0
        """When the next periodic inventory is due."""
        self._covered_kinds: frozenset[tuple[str, str]] = frozenset()
        """Kinds that an inventory of this stream has covered."""
        self._now = asyncio.get_running_loop().time

    def request_inventory(self, *, after_seconds: float | None = None) -> None:
        """Take an inventory soon; requests made within the pause share one."""
        due = self._now() + (INVENTORY_PAUSE_SECONDS if after_seconds is None else after_seconds)
        self._inventory_due = max(self._inventory_due or 0.0, due)
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
            except (Unauthenticated, Forbidden, Invalid, NotFound) as error:
                if not self.hellos:
                    raise
                log.error("server refuses this agent", reason=error.message, details=error.details)
                await asyncio.sleep(jittered(REFUSED_CREDENTIAL_SECONDS))

    async def _hello(self) -> None:
        request = HelloRequest(
            protocol=PROTOCOL_VERSION,
            agent_version=__version__,
            kubernetes_version=self._cluster.kubernetes_version(),
        )
        reply: HelloReply = await self._call(
            lambda: self._client.hello(request), with_heartbeats=False
        )
        if not self.hellos:
            self._cluster.restore_idle(reply.idle)
        self.hellos += 1
        self._stream_id, self._seq, self._unconfirmed_seq = reply.stream_id, 0, None
        self._heartbeat_seconds = float(reply.heartbeat_seconds)
        self._heartbeat_due = 0.0
        self._pending.reset_acknowledged()
        self._inventory_due = self._now()
        self._covered_kinds = frozenset()
        log.info("stream opened", cluster=reply.cluster_name, cluster_id=str(reply.cluster_id))

    async def _flush(self) -> None:
        while True:
            await self._heartbeat_if_due()
            self._changed.clear()
            if self._inventory_due is not None:
                await self._flush_before_inventory()
            elif len(self._pending) or len(self._samples):
                await self._send_batch()
            if self._is_idle():
                await self._wait_for_changes()

    def _is_idle(self) -> bool:
        if self._inventory_due is not None:
            return not (self._cluster.can_take_inventory() and self._inventory_due <= self._now())
        return not len(self._pending) and not len(self._samples)

    async def _flush_before_inventory(self) -> None:
        """Changes wait for the inventory, which tells the ones that the server has."""
        assert self._inventory_due is not None
        if not self._cluster.can_take_inventory() or self._inventory_due > self._now():
            return
        while self._pending.deleted:
            await self._send_batch(only_deletions=True)
        self._inventory_due = None
        await self._take_inventory()

    async def _take_inventory(self) -> None:
        coverage = self._cluster.coverage()
        live = tuple(self._pending.inventory_entries(self._cluster.live_workloads()))
        possible = self._pending.possible_entries(self._cluster.possible_workloads())
        entries = (*live, *possible)
        begin = InventoryBegin(stream_id=self._stream_id, coverage=coverage)
        begun = await self._call(lambda: self._client.inventory_begin(begin))
        missing_count = 0
        for start in range(0, len(entries), INVENTORY_ENTRIES):
            part = entries[start : start + INVENTORY_ENTRIES]
            message = InventoryEntries(
                stream_id=self._stream_id, inventory_id=begun.inventory_id, entries=part
            )
            missing = await self._call(partial(self._client.inventory_entries, message))
            self._pending.apply_inventory(part, missing.missing)
            missing_count += len(missing.missing)
        commit = InventoryCommit(
            stream_id=self._stream_id, inventory_id=begun.inventory_id, count=len(live)
        )
        done = await self._call(lambda: self._client.inventory_commit(commit))
        self._covered_kinds |= _kinds(coverage)
        self._next_inventory_at = self._now() + jittered(self._resync_seconds)
        log.info(
            "inventory taken",
            workloads=len(live),
            kinds=len(coverage),
            missing_count=missing_count,
            deleted=done.deleted,
            held=done.held,
        )
        if done.held:
            self.request_inventory(after_seconds=HELD_SECONDS)

    async def _send_batch(self, *, only_deletions: bool = False) -> None:
        workloads = (
            min(self._batch_workloads, len(self._pending.deleted))
            if only_deletions
            else self._batch_workloads
        )
        prepared = self._pending.next_batch(
            max_workloads=workloads, max_bytes=BATCH_BYTES, derive=self._cluster.derive_now
        )
        scrapes = () if only_deletions else self._samples.take(BATCH_READINGS)
        if not prepared.items and not scrapes:
            return
        seq = self._seq + 1
        batch = Batch(
            stream_id=self._stream_id, seq=seq, items=tuple(prepared.items), scrapes=scrapes
        )
        try:
            self._unconfirmed_seq = seq
            reply = await self._call(lambda: self._client.batch(batch))
        except (Invalid, TooLarge) as error:
            self._unconfirmed_seq = None
            if scrapes:
                log.error("samples dropped", reason=error.message)
                self._pending.put_back(prepared)
            else:
                self._handle_rejected_batch(prepared, error)
            return
        except BaseException:
            self._pending.put_back(prepared)
            self._samples.put_back(scrapes)
            raise
        self._seq, self._unconfirmed_seq = seq, None
        self._batch_workloads = min(BATCH_ITEMS, self._batch_workloads * 2)
        for refused in reply.refused:
            log.warning("item refused", workload=str(refused.id), reason=refused.reason)
        self._pending.acknowledge(prepared, (refused.id for refused in reply.refused))

    def _handle_rejected_batch(self, prepared: PreparedBatch, error: WatchbillError) -> None:
        """The server cannot take this batch: halve it, down to the one item at fault, and drop that."""
        if prepared.workload_count > 1:
            self._pending.put_back(prepared)
            self._batch_workloads = prepared.workload_count // 2
            return
        roots = [root for root, _, _ in prepared.upserts] + [root for root, _ in prepared.deleted]
        at_fault = {UUID(root) for root in roots}
        log.error("item dropped", workloads=sorted(map(str, at_fault)), reason=error.message)
        self._pending.acknowledge(prepared, at_fault)

    async def _call(
        self, send: Callable[[], Awaitable[Reply]], *, with_heartbeats: bool = True
    ) -> Reply:
        """Send one request, repeated until it is answered; heartbeats are sent in between."""
        backoff = Backoff()
        while True:
            try:
                return await send()
            except (Unavailable, TooMany) as error:
                pause = backoff.next_seconds(at_least_seconds=error.retry_after_seconds)
                log.warning("request failed", reason=error.message, retry_in_seconds=round(pause))
            except msgspec.DecodeError as error:
                pause = backoff.next_seconds()
                log.warning("reply cannot be decoded", reason=str(error))
            await self._wait(pause, with_heartbeats=with_heartbeats)

    async def _wait(self, seconds: float, *, with_heartbeats: bool) -> None:
        until = self._now() + seconds
        while (left := until - self._now()) > 0:
            if with_heartbeats:
                await self._heartbeat_if_due(is_retrying=True)
                left = min(left, max(0.05, self._heartbeat_due - self._now()))
            await asyncio.sleep(left)

    async def _wait_for_changes(self) -> None:
        """Wait until there are changes or a heartbeat is due."""
        until = self._heartbeat_due
        if self._inventory_due is not None:
            until = min(until, max(self._inventory_due, self._now() + 0.5))
        try:
            async with asyncio.timeout(max(0.0, until - self._now())):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _heartbeat_if_due(self, *, is_retrying: bool = False) -> None:
        if self._heartbeat_due > self._now():
            return
        self._heartbeat_due = self._now() + self._heartbeat_seconds
        beat = Heartbeat(
            stream_id=self._stream_id,
            seq=self._seq,
            kinds=tuple(map(_bounded, self._cluster.states())),
            node_pools=self._cluster.node_pools(),
        )
        try:
            reply = await self._client.heartbeat(beat)
        except (Unavailable, TooMany, msgspec.DecodeError) as error:
            if not is_retrying:
                log.warning("heartbeat failed", reason=str(error))
            return
        if reply.seq not in (self._seq, self._unconfirmed_seq):
            raise Conflict(f"The server is at batch {reply.seq}, the agent at {self._seq}.")
        if reply.resync and reply.seq == self._seq:
            log.info("server asks for an inventory")
            self.request_inventory(after_seconds=0.0)
        elif self._inventory_due is None and self._is_inventory_outdated():
            self.request_inventory()

    def _is_inventory_outdated(self) -> bool:
        """The last one is old, or a new one would cover more kinds."""
        return self._next_inventory_at <= self._now() or bool(
            _kinds(self._cluster.coverage()) - self._covered_kinds
        )


def _kinds(coverage: tuple[Covered, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((covered.group, covered.kind) for covered in coverage)

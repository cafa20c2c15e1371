"""The agent's end of the stream to the server: hello, inventory, batches, heartbeats, one request at a time.

Whatever goes wrong, the answer is one of three: repeat the same request, say hello again, or set one item
aside. After every hello an inventory tells both sides what the server lacks; there is no other repair.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeVar
from uuid import UUID

import msgspec
import structlog

from watchbill import __version__
from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.metrics.sample_queue import SampleQueue
from watchbill.agent.stream.pending_changes import Outgoing, PendingChanges
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
    Batch,
    Covered,
    Heartbeat,
    HelloReply,
    HelloRequest,
    IdleSoFar,
    InventoryBegin,
    InventoryCommit,
    InventoryEntries,
    KindState,
    NodePoolCapacity,
)

log = structlog.get_logger(__name__)

BATCH_BYTES = 8 * 1024 * 1024
INVENTORY_PAUSE_SECONDS = 3.0
"""After an API server's restart every kind is listed again at once: one inventory for all of them."""
HELD_SECONDS = 75.0
"""Before a second inventory may confirm what the first one was not believed."""
REFUSED_CREDENTIAL_SECONDS = 60.0

Reply = TypeVar("Reply")


class ClusterState(Protocol):
    """What the stream asks of the rest of the agent."""

    def may_prove(self) -> bool:
        """Whether an inventory taken now would be true and would say anything."""

    def coverage(self) -> tuple[Covered, ...]: ...

    def living(self) -> list[str]:
        """Every workload that exists for all we know."""

    def states(self) -> tuple[KindState, ...]: ...

    def node_pools(self) -> tuple[NodePoolCapacity, ...]: ...

    def kubernetes_version(self) -> str: ...

    def read(self, root: str) -> Derived | None: ...

    def recall(self, idle: tuple[IdleSoFar, ...]) -> None:
        """What agents before this one observed."""


class Stream:
    """Tells the server everything that the ledger holds, for ever."""

    def __init__(
        self,
        client: AgentClient,
        ledger: PendingChanges,
        view: ClusterState,
        changed: asyncio.Event,
        outbox: SampleQueue | None = None,
        *,
        resync_seconds: float = 900.0,
    ) -> None:
        self.hellos = 0
        self._outbox = SampleQueue() if outbox is None else outbox
        self._client = client
        self._ledger = ledger
        self._view = view
        self._changed = changed
        self._stream_id = ""
        self._seq = 0
        self._in_doubt: int | None = None
        """The sequence number of a batch that may or may not have been applied."""
        self._units = BATCH_ITEMS
        self._heartbeat_seconds = 15.0
        self._beat_due = 0.0
        self._resync_seconds = resync_seconds
        self._inventory_due: float | None = None
        self._again_at = 0.0
        """When an inventory is due though nothing asks for one."""
        self._proven: frozenset[tuple[str, str]] = frozenset()
        """Kinds that an inventory of this stream covered."""
        self._now = asyncio.get_running_loop().time

    def want_inventory(self, *, after_seconds: float | None = None) -> None:
        """Take an inventory soon; wishes that come together are one."""
        due = self._now() + (INVENTORY_PAUSE_SECONDS if after_seconds is None else after_seconds)
        self._inventory_due = max(self._inventory_due or 0.0, due)
        self._changed.set()

    @property
    def is_drained(self) -> bool:
        return not len(self._ledger) and self._in_doubt is None

    async def run(self) -> None:
        """Speak until cancelled. Raises only where the very first hello shows that no retry can help."""
        backoff = Backoff()
        while True:
            began = self._now()
            try:
                await self._say_hello()
                await self._speak()
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

    async def _say_hello(self) -> None:
        request = HelloRequest(
            protocol=PROTOCOL_VERSION,
            agent_version=__version__,
            kubernetes_version=self._view.kubernetes_version(),
        )
        reply: HelloReply = await self._call(lambda: self._client.hello(request), beats=False)
        if not self.hellos:
            self._view.recall(reply.idle)
        self.hellos += 1
        self._stream_id, self._seq, self._in_doubt = reply.stream_id, 0, None
        self._heartbeat_seconds = float(reply.heartbeat_seconds)
        self._beat_due = 0.0
        self._ledger.forget_server()
        self._inventory_due = self._now()
        self._proven = frozenset()
        log.info("stream opened", cluster=reply.cluster_name, cluster_id=str(reply.cluster_id))

    async def _speak(self) -> None:
        while True:
            await self._beat_if_due()
            self._changed.clear()
            if self._inventory_due is not None:
                await self._speak_before_inventory()
            elif len(self._ledger) or len(self._outbox):
                await self._send_batch()
            if self._is_idle():
                await self._rest_until_changed()

    def _is_idle(self) -> bool:
        if self._inventory_due is not None:
            return not (self._view.may_prove() and self._inventory_due <= self._now())
        return not len(self._ledger) and not len(self._outbox)

    async def _speak_before_inventory(self) -> None:
        """Changes wait for the inventory, for that tells which of them the server has."""
        assert self._inventory_due is not None
        if not self._view.may_prove() or self._inventory_due > self._now():
            return
        while self._ledger.ended:
            await self._send_batch(only_ended=True)
        self._inventory_due = None
        await self._take_inventory()

    async def _take_inventory(self) -> None:
        coverage = self._view.coverage()
        entries = tuple(self._ledger.entries(self._view.living()))
        begin = InventoryBegin(stream_id=self._stream_id, coverage=coverage)
        begun = await self._call(lambda: self._client.inventory_begin(begin))
        lacking = 0
        for start in range(0, len(entries), INVENTORY_ENTRIES):
            part = entries[start : start + INVENTORY_ENTRIES]
            message = InventoryEntries(
                stream_id=self._stream_id, inventory_id=begun.inventory_id, entries=part
            )
            missing = await self._call(partial(self._client.inventory_entries, message))
            self._ledger.compare(part, missing.missing)
            lacking += len(missing.missing)
        commit = InventoryCommit(
            stream_id=self._stream_id, inventory_id=begun.inventory_id, count=len(entries)
        )
        done = await self._call(lambda: self._client.inventory_commit(commit))
        self._proven |= _kinds(coverage)
        self._again_at = self._now() + jittered(self._resync_seconds)
        log.info(
            "inventory taken",
            workloads=len(entries),
            kinds=len(coverage),
            lacking=lacking,
            deleted=done.deleted,
            held=done.held,
        )
        if done.held:
            self.want_inventory(after_seconds=HELD_SECONDS)

    async def _send_batch(self, *, only_ended: bool = False) -> None:
        units = min(self._units, len(self._ledger.ended)) if only_ended else self._units
        outgoing = self._ledger.next_batch(
            units=units, most_bytes=BATCH_BYTES, read=self._view.read
        )
        scrapes = () if only_ended else self._outbox.take(BATCH_READINGS)
        if not outgoing.items and not scrapes:
            return
        seq = self._seq + 1
        batch = Batch(
            stream_id=self._stream_id, seq=seq, items=tuple(outgoing.items), scrapes=scrapes
        )
        try:
            self._in_doubt = seq
            reply = await self._call(lambda: self._client.batch(batch))
        except (Invalid, TooLarge) as error:
            self._in_doubt = None
            if scrapes:
                log.error("samples set aside", reason=error.message)
                self._ledger.put_back(outgoing)
            else:
                self._shrink(outgoing, error)
            return
        except BaseException:
            self._ledger.put_back(outgoing)
            self._outbox.put_back(scrapes)
            raise
        self._seq, self._in_doubt = seq, None
        self._units = min(BATCH_ITEMS, self._units * 2)
        for refused in reply.refused:
            log.warning("item refused", workload=str(refused.id), reason=refused.reason)
        self._ledger.acknowledge(outgoing, (refused.id for refused in reply.refused))

    def _shrink(self, outgoing: Outgoing, error: WatchbillError) -> None:
        """The server cannot take this batch: send half of it, down to the one item at fault."""
        if outgoing.units > 1:
            self._ledger.put_back(outgoing)
            self._units = outgoing.units // 2
            return
        roots = [root for root, _, _ in outgoing.upserts] + [root for root, _ in outgoing.ended]
        at_fault = {UUID(root) for root in roots}
        log.error("item set aside", workloads=sorted(map(str, at_fault)), reason=error.message)
        self._ledger.acknowledge(outgoing, at_fault)

    async def _call(self, send: Callable[[], Awaitable[Reply]], *, beats: bool = True) -> Reply:
        """One request, repeated until it is answered; heartbeats go out in between."""
        backoff = Backoff()
        while True:
            try:
                return await send()
            except (Unavailable, TooMany) as error:
                pause = backoff.next_seconds(at_least_seconds=error.retry_after_seconds)
                log.warning("server does not take it", reason=error.message, again_in=round(pause))
            except msgspec.DecodeError as error:
                pause = backoff.next_seconds()
                log.warning("server's answer cannot be read", reason=str(error))
            await self._rest(pause, beats=beats)

    async def _rest(self, seconds: float, *, beats: bool) -> None:
        until = self._now() + seconds
        while (left := until - self._now()) > 0:
            if beats:
                await self._beat_if_due(is_trying=True)
                left = min(left, max(0.05, self._beat_due - self._now()))
            await asyncio.sleep(left)

    async def _rest_until_changed(self) -> None:
        """Until there is something to say or a heartbeat is due."""
        until = self._beat_due
        if self._inventory_due is not None:
            until = min(until, max(self._inventory_due, self._now() + 0.5))
        try:
            async with asyncio.timeout(max(0.0, until - self._now())):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _beat_if_due(self, *, is_trying: bool = False) -> None:
        if self._beat_due > self._now():
            return
        self._beat_due = self._now() + self._heartbeat_seconds
        beat = Heartbeat(
            stream_id=self._stream_id,
            seq=self._seq,
            kinds=self._view.states(),
            node_pools=self._view.node_pools(),
        )
        try:
            reply = await self._client.heartbeat(beat)
        except (Unavailable, TooMany, msgspec.DecodeError) as error:
            if not is_trying:
                log.warning("heartbeat not taken", reason=str(error))
            return
        if reply.seq not in (self._seq, self._in_doubt):
            raise Conflict(f"The server is at batch {reply.seq}, the agent at {self._seq}.")
        if reply.resync and reply.seq == self._seq:
            log.info("server asks for an inventory")
            self.want_inventory(after_seconds=0.0)
        elif self._inventory_due is None and self._is_inventory_worthwhile():
            self.want_inventory()

    def _is_inventory_worthwhile(self) -> bool:
        """The last one is old, or could not prove what one could prove now."""
        return self._again_at <= self._now() or bool(_kinds(self._view.coverage()) - self._proven)


def _kinds(coverage: tuple[Covered, ...]) -> frozenset[tuple[str, str]]:
    return frozenset((found.group, found.kind) for found in coverage)

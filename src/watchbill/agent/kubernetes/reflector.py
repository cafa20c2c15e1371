"""One kind of object, kept in step with the cluster: list, watch, and a second look now and then.

List all pages, hand every object on, then drop what the complete list does not show; watch from the list's
resource version; list again when the server says 410, in either shape. Objects are handed on while pages
come, but nothing is ever dropped on the word of a list that did not end. Once in a while the list is read
again, metadata only, however healthy the watch looks: etcd has lost delete events before.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import msgspec
import structlog

from watchbill.agent.kubernetes.backoff import Backoff, jittered
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.kubernetes.watch_stream import ObjectMeta, WatchEvent, read_head
from watchbill.protocol import KindState

log = structlog.get_logger(__name__)

State = Literal["complete", "listing", "forbidden", "absent", "failing"]

REFUSALS_FOR_A_VERDICT = 3
"""Just after its start an API server turns down users whom it will accept a moment later."""
FAILURES_TO_SETTLE = 3
FORBIDDEN_RETRY_SECONDS = 60.0
FIRST_RETRY_SECONDS = 1.0
SHORT_WATCH_SECONDS = 1.0
SETTLE_SECONDS = 90.0
"""Longer than a bookmark's interval: by then a watch has brought what a list showed."""
_OBJECTS_PER_TURN = 50


class ObjectSink(Protocol):
    """Where one kind's objects go. `body` is not yet decoded; undecodable ones raise msgspec.DecodeError."""

    def put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None: ...

    def remove(self, uid: str, at: datetime) -> None: ...


class Reflector:
    """Keeps a sink in step with one resource, for as long as `run` runs."""

    def __init__(
        self,
        client: KubeClient,
        resource: ServedResource,
        sink: ObjectSink,
        *,
        is_metadata: bool,
        resync_seconds: float,
        list_slots: asyncio.Semaphore,
        on_change: Callable[["Reflector"], None],
    ) -> None:
        self.resource = resource
        self.settled = asyncio.Event()
        """Set once there is a first complete list, or a verdict that there will be none for now."""
        self.lists = 0
        self.counts: Counter[str] = Counter()
        self._client = client
        self._sink = sink
        self._is_metadata = is_metadata
        self._resync_seconds = resync_seconds
        self._list_slots = list_slots
        self._on_change = on_change
        self._held: dict[str, str] = {}
        self._unreadable: set[str] = set()
        self._touched: set[str] | None = None
        self._resource_version = ""
        self._backoff = Backoff(first_seconds=FIRST_RETRY_SECONDS)
        self._refusals = 0
        self._state: State = "listing"
        self._since = datetime.now(UTC)
        self._message: str | None = None

    @property
    def state(self) -> KindState:
        return KindState(
            group=self.resource.group,
            kind=self.resource.kind,
            state=self._state,
            since=self._since,
            message=self._message,
        )

    @property
    def is_complete(self) -> bool:
        return self._state == "complete"

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self._list()
                await _first_to_end(self._keep_watching(), self._keep_checking())
            except ApiFailure as failure:
                await asyncio.sleep(self._note_failure(failure))

    def note_absent(self) -> None:
        """The server does not serve this kind (any more)."""
        self._set_state("absent", None)
        self.settled.set()

    def forget(self, at: datetime) -> None:
        """The kind itself is proven gone, and with it every object of it."""
        for uid in list(self._held):
            self._drop(uid, at)

    async def _list(self) -> None:
        async with self._list_slots:
            listed: set[str] = set()
            unreadable: set[str] = set()
            resource_version = ""
            async for page in self._client.list_pages(self.resource, is_metadata=self._is_metadata):
                resource_version = resource_version or page.metadata.resource_version
                for number, body in enumerate(page.items or ()):
                    meta = read_head_or_none(body)
                    if meta is None or not meta.uid:
                        unreadable.add(f"{resource_version}/{number}")
                        continue
                    listed.add(meta.uid)
                    if self._held.get(meta.uid) != meta.resource_version:
                        self._put(meta, body)
                    if number % _OBJECTS_PER_TURN == 0:
                        await asyncio.sleep(0)
        now = datetime.now(UTC)
        for uid in self._held.keys() - listed:
            self._drop(uid, now)
        self._unreadable = (self._unreadable & listed) | unreadable
        self._resource_version = resource_version
        self.lists += 1
        self._backoff.reset()
        self._refusals = 0
        self._note_healthy()
        self.settled.set()
        log.info("listed", **self._named(), objects=len(listed), times=self.lists)

    async def _keep_watching(self) -> None:
        """Watch again and again; returns when only a new list can help."""
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with self._client.watch(
                    self.resource, self._resource_version, is_metadata=self._is_metadata
                ) as events:
                    self._note_healthy()
                    async for event in events:
                        self._apply(event)
                        self._backoff.reset()
            except ApiFailure as failure:
                if not self._is_worth_watching_again(failure):
                    raise
                await asyncio.sleep(self._note_failure(failure))
            else:
                if asyncio.get_running_loop().time() - began < SHORT_WATCH_SECONDS:
                    await asyncio.sleep(jittered(SHORT_WATCH_SECONDS))

    def _is_worth_watching_again(self, failure: ApiFailure) -> bool:
        passing = failure.trouble in (ErrorKind.BUSY, ErrorKind.UNREACHABLE)
        return passing and self._backoff.failures < FAILURES_TO_SETTLE

    def _apply(self, event: WatchEvent) -> None:
        self.counts[event.type if event.is_known else "unknown"] += 1
        meta = event.meta
        if not event.is_known or not (meta.resource_version or meta.uid):
            return
        if event.type != "BOOKMARK" and meta.uid:
            if self._touched is not None:
                self._touched.add(meta.uid)
            if event.type == "DELETED":
                self._drop(meta.uid, datetime.now(UTC))
            else:
                self._put(meta, event.body)
        if meta.resource_version:
            self._resource_version = meta.resource_version

    def _put(self, meta: ObjectMeta, body: bytes | msgspec.Raw) -> None:
        try:
            self._sink.put(meta, body)
        except msgspec.DecodeError as error:
            # It exists but cannot be read: the kind is not complete, so nothing is inferred from absence.
            self._unreadable.add(meta.uid)
            self._held[meta.uid] = ""
            log.error("unreadable object", **self._named(), uid=meta.uid, error=str(error))
            self._note_healthy()
            return
        self._held[meta.uid] = meta.resource_version
        if self._unreadable:
            self._unreadable.discard(meta.uid)
            self._note_healthy()

    def _drop(self, uid: str, at: datetime) -> None:
        if self._held.pop(uid, None) is not None:
            self._sink.remove(uid, at)
        self._unreadable.discard(uid)

    async def _keep_checking(self) -> None:
        """Look again every so often; returns when the watch is found to have lost something."""
        while True:
            await asyncio.sleep(jittered(self._resync_seconds))
            try:
                lost = await self._lost()
            except ApiFailure as failure:
                log.warning("second look failed", **self._named(), error=failure.message)
                continue
            if lost:
                self.counts["lost"] += len(lost)
                log.warning("the watch lost events", **self._named(), objects=len(lost))
                return

    async def _lost(self) -> set[str]:
        """UIDs that a complete list shows otherwise than we hold them and that the watch never mentions."""
        self._touched = set()
        try:
            doubtful = set(self._held)
            async with self._list_slots:
                async for page in self._client.list_pages(self.resource, is_metadata=True):
                    for body in page.items or ():
                        meta = read_head(body)
                        if self._held.get(meta.uid) == meta.resource_version:
                            doubtful.discard(meta.uid)
                        else:
                            doubtful.add(meta.uid)
                    await asyncio.sleep(0)
            doubtful -= self._touched
            if doubtful:
                await asyncio.sleep(SETTLE_SECONDS)
            return doubtful - self._touched
        except msgspec.DecodeError as error:
            raise ApiFailure(ErrorKind.BUSY, f"the list is garbled: {error}") from error
        finally:
            self._touched = None

    def _note_failure(self, failure: ApiFailure) -> float:
        """Take the failure into the state; answers how long to wait."""
        self.counts[failure.trouble.value] += 1
        log.warning(
            "kind not in step", **self._named(), trouble=failure.trouble, error=failure.message
        )
        if failure.trouble is ErrorKind.EXPIRED:
            self._set_state("listing", None)
            return self._backoff.next_seconds()
        if failure.trouble is ErrorKind.FORBIDDEN:
            return self._note_refusal(failure)
        state: State = "absent" if failure.trouble is ErrorKind.ABSENT else "failing"
        self._set_state(state, failure.message)
        if state == "absent" or self._backoff.failures + 1 >= FAILURES_TO_SETTLE:
            self.settled.set()
        return self._backoff.next_seconds(at_least_seconds=failure.retry_after_seconds)

    def _note_refusal(self, failure: ApiFailure) -> float:
        self._refusals += 1
        if self._refusals < REFUSALS_FOR_A_VERDICT:
            self._set_state("failing", failure.message)
            return jittered(FIRST_RETRY_SECONDS)
        self._set_state("forbidden", failure.message)
        self.settled.set()
        return jittered(FORBIDDEN_RETRY_SECONDS)

    def _note_healthy(self) -> None:
        if self._unreadable:
            self._set_state("failing", f"{len(self._unreadable)} objects cannot be read")
        else:
            self._set_state("complete", None)

    def _set_state(self, state: State, message: str | None) -> None:
        self._message = message
        if state != self._state:
            self._state, self._since = state, datetime.now(UTC)
        self._on_change(self)

    def _named(self) -> dict[str, str]:
        return {"group": self.resource.group, "kind": self.resource.kind}


def read_head_or_none(body: msgspec.Raw) -> ObjectMeta | None:
    """An object's metadata, None where it cannot be read."""
    try:
        return read_head(body)
    except msgspec.DecodeError:
        return None


async def _first_to_end(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run all until the first one ends; the others are cancelled, its failure is raised."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()

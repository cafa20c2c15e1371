"""The order in which Kueue admits what waits in its ClusterQueues, as its visibility API tells it.

Only queues in which something waits are asked, so many of them and so much of each as a heartbeat can carry.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import structlog

from watchbill.agent.cache.cache import Cache
from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.agent.cache.queues import KEY_LENGTH
from watchbill.agent.kubernetes.bounded_json import BoundedDecoder, decode_object
from watchbill.agent.kubernetes.client import BodyTooLarge, KubeClient, request_path
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.kinds.derivation.presentation import printable
from watchbill.kinds.objects.json_access import at, objects, text, whole
from watchbill.protocol import KindState
from watchbill.scheduler_queue import (
    MAX_ADMISSION_PLACES,
    MAX_WAITING,
    AdmissionOrder,
    AdmissionPlace,
    SchedulerQueue,
)

log = structlog.get_logger(__name__)

GROUP = "visibility.kueue.x-k8s.io"
KIND = "PendingWorkloadsSummary"
VERSIONS = ("v1beta2", "v1beta1")
"""Whose answers are read, the preferred one first."""
READ_SECONDS = 20.0
SECONDS_PER_QUEUE = 0.02
"""Of LocalQueues: another order means that all queues are reported again."""
REQUEST_SECONDS = 10.0
MAX_PAGE_BYTES = 4 * 1024 * 1024
MAX_QUEUES_READ = 200
"""ClusterQueues in one round."""
MAX_FAILURES = 3
"""Queues that failed in one round: the others wait for the next one instead of each for its time. Those that
did not fail, or failed longer ago, are asked before them."""
MAX_PLACES_READ = 5_000
"""Of all ClusterQueues together: some 250 KB in a heartbeat."""
MAX_SMALLER_PAGES = 24
"""In one round, beside a page for each queue: whoever may submit can make entries of a megabyte."""
_MAX_OWNERS = 16
"""Of one that waits: a group of pods is owned by each of them, and any of these tells the workload."""


class _Owner(msgspec.Struct, frozen=True):
    uid: str = ""


class _Metadata(msgspec.Struct, frozen=True, rename="camel"):
    namespace: str = ""
    owner_references: tuple[_Owner, ...] | None = None


class _Item(msgspec.Struct, frozen=True, rename="camel"):
    metadata: _Metadata
    local_queue_name: str
    position_in_cluster_queue: int


class _Summary(msgspec.Struct, frozen=True):
    items: tuple[_Item, ...] | None = None


_SUMMARY = BoundedDecoder(_Summary)


class _Waiting(NamedTuple):
    """What waits in one LocalQueue: owners by UID and how many are ahead. `total`: of its ClusterQueue."""

    total: int
    places: list[tuple[str, tuple[str, ...], int]]


class AdmissionOrders:
    """What was read last, by the key of the LocalQueue; nothing where it cannot be read."""

    def __init__(self, kube: KubeClient, cache: Cache) -> None:
        self._kube = kube
        self._cache = cache
        self._waiting: dict[str, _Waiting] = {}
        self._state: KindState | None = None
        self._failed_in: dict[str, int] = {}
        """The round in which a queue that waits could not be read."""
        self._round = 0
        self._smaller_pages = 0

    async def run(self) -> None:
        """Rounds until cancelled."""
        while True:
            await self.read()
            queues = len(self._cache.cluster.local_queues)
            await asyncio.sleep(max(READ_SECONDS, queues * SECONDS_PER_QUEUE))

    def states(self) -> tuple[KindState, ...]:
        """None while nothing waits in any ClusterQueue."""
        return () if self._state is None else (self._state,)

    async def read(self) -> None:
        """One round. What cannot be read is unknown, and told as a kind that cannot be."""
        pending = {
            name: count
            for name, obj in self._cache.cluster.cluster_queues.items()
            if (count := whole(at(obj, "status", "pendingWorkloads")) or 0) > 0
        }
        if not pending:
            self._waiting, self._state = {}, None
            return
        names = self._turns(sorted(pending)[:MAX_QUEUES_READ])
        limit = min(MAX_ADMISSION_PLACES, MAX_PLACES_READ // len(names))
        waiting: dict[str, _Waiting] = {}
        failures: list[ApiFailure] = []
        self._smaller_pages = MAX_SMALLER_PAGES
        try:
            version = await self._version()
        except ApiFailure as failure:
            failures, names = [failure], []
        for name in names:
            if len(failures) == MAX_FAILURES:
                break
            try:
                waiting |= await self._queue(version, name, limit, pending[name])
                self._failed_in.pop(name, None)
            except ApiFailure as failure:
                failures.append(failure)
                self._failed_in[name] = self._round
        self._waiting = waiting
        if failures:
            self._note_failure(failures[-1])
        else:
            self._note("complete")

    def _turns(self, names: list[str]) -> list[str]:
        """Queues that cannot be read come last, or they would keep others from being read in every round."""
        self._round += 1
        self._failed_in = {name: self._failed_in[name] for name in names if name in self._failed_in}
        return sorted(names, key=lambda name: self._failed_in.get(name, 0))

    def added_to(self, queues: Iterable[SchedulerQueue]) -> tuple[SchedulerQueue, ...]:
        """The same queues, Kueue's with the order of the workloads that wait in them."""
        return tuple(
            msgspec.structs.replace(queue, admission_order=self._order(waiting))
            if queue.scheduler == "Kueue"
            and queue.unit == "project"
            and (waiting := self._waiting.get(queue.key)) is not None
            else queue
            for queue in queues
        )

    def _order(self, waiting: _Waiting) -> AdmissionOrder:
        """Of several that wait for one workload the first counts."""
        ahead: dict[UUID, int] = {}
        known: dict[OwnerKey, UUID | None] = {}
        for namespace, owners, position in waiting.places:
            for owner in (OwnerKey(namespace, uid) for uid in owners):
                if owner not in known:
                    known[owner] = self._workload(owner)
                workload = known[owner]
                if workload is not None:
                    ahead[workload] = min(position, ahead.get(workload, position))
        places = tuple(
            AdmissionPlace(id=workload, ahead=position)
            for workload, position in list(ahead.items())[:MAX_ADMISSION_PLACES]
        )
        return AdmissionOrder(waiting=waiting.total, places=places)

    def _workload(self, owner: OwnerKey) -> UUID | None:
        """Of an owner in that namespace: its UID is a claim of whoever wrote the reference."""
        root = self._cache.owner_tree.root_of(owner)
        with suppress(ValueError):  # an id that no server takes
            return None if root is None else UUID(root)
        return None

    async def _version(self) -> str:
        """Raises ApiFailure, ABSENT where none that is known here is served."""
        body = await self._get(request_path("apis", GROUP))
        try:
            served = {
                text(each.get("version")) for each in objects(decode_object(body).get("versions"))
            }
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiFailure(ErrorKind.BUSY, f"the response is not an object: {error}") from error
        for version in VERSIONS:
            if version in served:
                return version
        raise ApiFailure(ErrorKind.ABSENT, f"{GROUP} is served in no version that is known here")

    async def _queue(
        self, version: str, name: str, limit: int, pending: int
    ) -> dict[str, _Waiting]:
        """By LocalQueue; nothing where Kueue does not know the queue (yet). Raises ApiFailure."""
        try:
            items = await self._items(version, name, limit)
        except ApiFailure as failure:
            if failure.kind is ErrorKind.ABSENT:
                return {}
            raise
        highest = max((item.position_in_cluster_queue for item in items), default=0)
        total = min(max(pending, len(items), highest + 1), MAX_WAITING)
        queues: dict[str, _Waiting] = {}
        for item in items:
            if 0 <= item.position_in_cluster_queue < total:
                namespace = item.metadata.namespace
                owners = (item.metadata.owner_references or ())[:_MAX_OWNERS]
                uids = tuple(owner.uid for owner in owners)
                key = printable(f"{namespace}/{item.local_queue_name}", KEY_LENGTH)
                places = queues.setdefault(key, _Waiting(total, [])).places
                places.append((namespace, uids, item.position_in_cluster_queue))
        return queues

    async def _items(self, version: str, name: str, limit: int) -> list[_Item]:
        """The first that wait. Where a page is too large smaller ones are read, as many as there may be.

        Raises ApiFailure."""
        path = request_path("apis", GROUP, version, "clusterqueues", name, "pendingworkloads")
        items: list[_Item] = []
        offset, size = 0, limit
        while offset < limit:
            asked = min(size, limit - offset)
            try:
                page = await self._page(f"{path}?limit={asked}&offset={offset}")
            except BodyTooLarge:
                if asked == 1:
                    raise
                size = asked // 8 or 1
            else:
                items += page[:asked]
                if len(page) < asked:
                    break
                offset, size = offset + asked, asked * 4
            if offset < limit:
                if not self._smaller_pages:
                    break
                self._smaller_pages -= 1
        return items

    async def _page(self, path: str) -> tuple[_Item, ...]:
        body = await self._get(path)
        try:
            return _SUMMARY.decode(body).items or ()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiFailure(ErrorKind.BUSY, f"the response is no {KIND}: {error}") from error

    async def _get(self, path: str) -> bytes:
        return await self._kube.read(
            path, max_bytes=MAX_PAGE_BYTES, seconds=REQUEST_SECONDS, accept="application/json"
        )

    def _note_failure(self, failure: ApiFailure) -> None:
        states: dict[ErrorKind, Any] = {
            ErrorKind.FORBIDDEN: "forbidden",
            ErrorKind.ABSENT: "absent",
        }
        self._note(states.get(failure.kind, "failing"), failure.message)

    def _note(
        self,
        state: Literal["complete", "forbidden", "absent", "failing"],
        message: str | None = None,
    ) -> None:
        earlier = self._state
        if earlier is not None and earlier.state == state:
            self._state = msgspec.structs.replace(earlier, message=message)
            return
        if state != "complete":
            log.info("order of queues not read", group=GROUP, state=state, reason=message)
        self._state = KindState(
            group=GROUP, kind=KIND, state=state, since=datetime.now(UTC), message=message
        )

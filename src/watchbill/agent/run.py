"""The agent, put together: settings → credentials → reflectors → cache → tracker → stream.

An error that waiting cannot fix ends the run and says what to do; everything else is retried.
"""

import asyncio
import contextlib
import gc
import time
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec
import structlog

from watchbill.agent.cache.admission_order import AdmissionOrders
from watchbill.agent.cache.cache import Cache, CacheSettings
from watchbill.agent.cache.event_log import EventLog
from watchbill.agent.cache.expected_pods import ExpectedPods
from watchbill.agent.cache.facts_ahead import read_ahead
from watchbill.agent.cache.node_pools import NodePools
from watchbill.agent.cache.nodes import NodeReports, PresentedNode
from watchbill.agent.cache.owner_lookup import OwnerLookup
from watchbill.agent.cache.owner_tree import OwnerKey, OwnerStatus
from watchbill.agent.cache.queues import QUEUE_KINDS, scheduler_queues
from watchbill.agent.cache.watch_manager import WatchManager
from watchbill.agent.cache.watched_kinds import NODE, POD, WatchedKind, root_kinds, watched_kinds
from watchbill.agent.kubernetes.backoff import Backoff
from watchbill.agent.kubernetes.client import KubeClient, ServedResource
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.metrics.pipeline import MeasuringLoop
from watchbill.agent.stream.additions import SampleQueue
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.stream import Stream
from watchbill.agent.stream.tracker import Tracker
from watchbill.client import AgentClient
from watchbill.errors import Invalid
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.definition.settings_file import read_settings
from watchbill.kinds.derive import Derived, derive
from watchbill.kinds.objects.objects import GroupKind
from watchbill.protocol import Covered, HelloReply, KindState, NodePoolCapacity
from watchbill.scheduler_queue import SchedulerQueue
from watchbill.settings.agent import AgentSettings
from watchbill.tracing.tracing import NO_TRACING, Tracing

log = structlog.get_logger(__name__)

OWNER_WAIT_SECONDS = 60.0
"""How long unresolved owners may delay the first records, and an inventory."""
DISCOVERY_WAIT_SECONDS = 5.0
TRACK_SECONDS = 0.25
"""How often what is known is derived while the first lists arrive."""
LONG_LIST_SECONDS = 2.0
"""Beside a list of pods that takes longer their metadata is listed, which says sooner what is complete."""
DRAIN_SECONDS = 5.0
_NAMESPACES = ServedResource("", "v1", "Namespace", "namespaces", is_namespaced=False)


async def run_agent(
    settings: AgentSettings, *, stop: asyncio.Event, tracing: Tracing = NO_TRACING
) -> None:
    """Watch the cluster and report until `stop` is set.

    Raises Invalid for settings that cannot work, Unauthenticated where the server knows no such credential.
    """
    cluster_id = cluster_of(settings.credential)
    definitions = await asyncio.to_thread(load_definitions, settings.kinds_dir)
    credentials = Credentials(settings.kubeconfig, settings.context)
    await credentials.load()
    async with (
        KubeClient(credentials) as kube,
        AgentClient(
            settings.server_url, settings.credential, ca_file=settings.ca_file, tracing=tracing
        ) as server,
    ):
        log.info("agent starts", api_server=credentials.server, server=settings.server_url)
        agent = Agent(settings, definitions, cluster_id=cluster_id, kube=kube, server=server)
        await agent.run(stop)


def cluster_of(credential: str) -> UUID:
    """The cluster's id, which every credential names. Raises Invalid."""
    mark, _, rest = credential.strip().partition(".")
    cluster_id_text, _, secret = rest.partition(".")
    try:
        cluster_id = UUID(cluster_id_text)
    except ValueError:
        cluster_id = None
    if mark != "wba" or not secret or cluster_id is None:
        raise Invalid(
            "This is not an agent credential.",
            details="`watchbill admin cluster create NAME` prints one; pass the whole line.",
        )
    return cluster_id


class Agent:
    """The parts and their connections; the cluster's state for the stream."""

    def __init__(
        self,
        settings: AgentSettings,
        definitions: Definitions,
        *,
        cluster_id: UUID,
        kube: KubeClient,
        server: AgentClient,
    ) -> None:
        self._definitions = definitions
        self._kinds_dir = settings.kinds_dir
        self._derive_settings = read_settings(settings.settings_file, cluster_id)
        self.pending = PendingChanges()
        self.tracker = Tracker(
            self.pending,
            lambda objects: derive(objects, definitions, self._derive_settings),
            debounce_seconds=settings.debounce_seconds,
        )
        self.cache = Cache(
            CacheSettings(
                excluded_namespaces=settings.excluded_namespaces,
                pod_annotations=self._derive_settings.pod_annotations,
                root_kinds=root_kinds(definitions),
                owner_kinds=frozenset(
                    kind.key for kind in watched_kinds(definitions) if kind.is_workload_kind
                ),
                exporter_namespaces=settings.exporter_namespaces,
                reservation_namespaces=self._derive_settings.reservation_namespaces,
            ),
            self.tracker,
        )
        self._nodes = NodeReports(self.cache.cluster, self._derive_settings)
        self._node_pools = NodePools(self.cache.cluster, self._derive_settings)
        self.tracker.set_source(self.cache)
        self.watch_manager = WatchManager(
            kube,
            self.cache,
            watched_kinds(definitions),
            resync_seconds=settings.resync_seconds,
            on_list=self._on_list,
        )
        self._admission_orders = AdmissionOrders(kube, self.cache)
        self.owner_lookup = OwnerLookup(kube, self.cache, self.watch_manager.resource_for)
        samples = SampleQueue()
        events = EventLog(self.cache.owner_tree, self._derive_settings, time.monotonic)
        self.cache.events = events
        self.stream = Stream(
            server,
            self.pending,
            self,
            self.tracker.changed,
            samples,
            events,
            resync_seconds=settings.resync_seconds,
        )
        self.metrics = MeasuringLoop(
            settings,
            self._derive_settings,
            kube=kube,
            cache=self.cache,
            tracker=self.tracker,
            samples=samples,
        )
        self._are_lists_read = False
        """The objects of the first lists have their places: what is not among them is gone."""
        self._is_synced = False
        """Every workload of the first lists has been derived; before that, all would count as changed."""
        self._owners_missing_since: float | None = None
        self._queues_left_out: Mapping[tuple[str, str], str] = {}
        """Of the queues that were reported last."""
        self._kube = kube
        self._cluster_uid = ""
        self._is_identified = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Run all parts until `stop` is set; then send what is pending, if the server answers soon."""
        parts = (
            self.watch_manager.run(),
            self.owner_lookup.run(),
            self.tracker.run(),
            self._identify(stop),
            self._run_stream(),
            self._start_tracking(stop),
            self.metrics.run(lambda: self._is_synced),
            self._read_admission_orders(),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                await self._drain()
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise _first_cause(error)

    def can_take_inventory(self) -> bool:
        return self._are_lists_read and self.watch_manager.can_prove and self._are_owners_resolved()

    def is_synced(self) -> bool:
        return self._is_synced

    def coverage(self) -> tuple[Covered, ...]:
        """Kinds whose lists prove absence.

        Of pods and of kinds with objects whose owner is still looked up, not in the namespaces of these.
        """
        waiting = list(self.cache.owner_tree.waiting_for_owner())
        coverage = self.watch_manager.coverage()
        if not waiting:
            return coverage
        kinds = {POD, *(entry.key for entry in waiting)}
        unproven = {entry.namespace for entry in waiting}
        others = tuple(sorted(self.cache.cluster.namespaces.keys() - unproven))
        return tuple(
            msgspec.structs.replace(covered, namespaces=others, all_but=tuple(sorted(unproven)))
            if GroupKind(covered.group, covered.kind) in kinds
            else covered
            for covered in coverage
        )

    def live_workloads(self) -> list[str]:
        tree = self.cache.owner_tree
        return [root for root in tree.groups if tree.is_alive(root)]

    def possible_workloads(self) -> list[OwnerKey]:
        """Owners that may be workloads although they cannot be read."""
        tree = self.cache.owner_tree
        unreadable = [
            owner
            for owner, status in tree.owner_statuses.items()
            if status is OwnerStatus.UNREADABLE
        ]
        return list(dict.fromkeys([*unreadable, *tree.missing]))

    def states(self) -> tuple[KindState, ...]:
        messages: dict[tuple[str, str], str | None] = {
            ("", "Node"): self._node_pools.impossible(),
            ("", "Namespace"): _sentences(
                self.cache.shed_objects(),
                self.tracker.turns.busy(asyncio.get_running_loop().time()),
            ),
            **self._queues_left_out,
        }
        watched = (
            msgspec.structs.replace(state, state="failing", message=message)
            if (message := messages.get((state.group, state.kind))) is not None
            else state
            for state in self.watch_manager.states()
        )
        return (*watched, *self._admission_orders.states(), *self.metrics.states())

    def observed_seconds_ago(self) -> float | None:
        """By the pods, from which phases and figures follow; other kinds tell their own state."""
        return self.watch_manager.seconds_behind(POD) if self._is_synced else None

    def unobserved(self) -> list[tuple[datetime, datetime]]:
        return self.watch_manager.unobserved(POD)

    def unbroken_seconds(self) -> float | None:
        return self.watch_manager.unbroken_seconds(POD) if self._is_synced else None

    def node_pools(self) -> tuple[NodePoolCapacity, ...]:
        return self._node_pools.capacities()

    async def nodes(self) -> Mapping[str, PresentedNode] | None:
        await self._nodes.prepare()
        await self._node_pools.prepare()
        return self._nodes.current() if self.watch_manager.is_complete(NODE) else None

    def queues(self) -> tuple[SchedulerQueue, ...] | None:
        """Only where every kind of queue is either read completely or not there."""
        for state in self.watch_manager.states():
            if (state.group, state.kind) in QUEUE_KINDS and state.state not in (
                "complete",
                "absent",
            ):
                return None
        reported = scheduler_queues(self.cache.cluster, self._derive_settings)
        self._queues_left_out = reported.left_out
        return self._admission_orders.added_to(reported.queues)

    def cluster_clock_ahead_seconds(self) -> float | None:
        return self._kube.clock_ahead_seconds

    def kubernetes_version(self) -> str:
        return self.watch_manager.discovery.kubernetes_version

    def cluster_uid(self) -> str:
        return self._cluster_uid

    def derive_now(self, root: str) -> Derived | None:
        return self.tracker.derive_now(root)

    def restore(self, known: HelloReply) -> None:
        self.cache.restore_pod_groups(known.pod_groups)
        for workload in known.idle:
            self.metrics.scraper.idle.restore(
                str(workload.id), workload.gpu_hours, workload.measured_since
            )

    async def _read_admission_orders(self) -> None:
        await self.watch_manager.ready()
        await self._admission_orders.run()

    async def _run_stream(self) -> None:
        """The hello tells the cluster's version; a cluster that does not answer is reported anyway."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCOVERY_WAIT_SECONDS):
                await self.watch_manager.discovered()
                await self._is_identified.wait()
        await self.stream.run()

    async def _identify(self, stop: asyncio.Event) -> None:
        """Read which cluster this is. Nothing is derived before, so nothing of a wrong one is sent."""
        backoff = Backoff()
        while not self._is_identified.is_set():
            try:
                namespace = await self._kube.get_object(
                    _NAMESPACES, namespace="", name="kube-system", is_metadata=True
                )
                self._cluster_uid = str(namespace.get("metadata", {}).get("uid", ""))
                self._is_identified.set()
            except ApiFailure as failure:
                if failure.kind in (ErrorKind.FORBIDDEN, ErrorKind.ABSENT):
                    log.warning("cluster cannot be identified", error=failure.message)
                    self._is_identified.set()
                else:
                    await asyncio.sleep(backoff.next_seconds())
        self.tracker.changed.set()
        await stop.wait()

    async def _start_tracking(self, stop: asyncio.Event) -> None:
        """Derive of itself once the first lists are complete and owners are resolved; before, what is known."""
        await self._is_identified.wait()
        reading = asyncio.create_task(read_ahead(self.cache, self._definitions, self._kinds_dir))
        try:
            await self._derive_first()
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        gc.freeze()
        self._is_synced = self.pending.is_synced = True
        self.stream.request_inventory(after_seconds=0.0)
        log.info("synced with the cluster", workloads=len(self.pending.workloads))
        self.tracker.changed.set()
        await stop.wait()

    async def _derive_first(self) -> None:
        listing = asyncio.create_task(self.watch_manager.ready())
        try:
            await self._track_known(listing)
            await listing
        finally:
            listing.cancel()
        began = asyncio.get_running_loop().time()
        while (
            not self.owner_lookup.is_idle
            and asyncio.get_running_loop().time() - began < OWNER_WAIT_SECONDS
        ):
            await asyncio.sleep(0.1)
        self._are_lists_read = True
        self.tracker.open(self.watch_manager.newest_versions())
        self.tracker.changed.set()
        await self.tracker.derive_all()

    async def _track_known(self, listing: "asyncio.Task[None]") -> None:
        """While the pods are listed: derive the workloads whose pods are all there.

        Meanwhile nothing that was read is garbage: looking through it again and again would hold the loop.
        """
        now = asyncio.get_running_loop().time
        expected, began = ExpectedPods(self.cache), now()
        metadata: asyncio.Task[None] | None = None
        try:
            while not listing.done():
                if self.watch_manager.are_others_listed:
                    reached = self.watch_manager.reached_namespace
                    await self.tracker.derive_known(expected.completeness(reached))
                pods = self.watch_manager.discovery.resources.get(POD)
                if metadata is None and pods and now() - began > LONG_LIST_SECONDS:
                    metadata = asyncio.create_task(expected.list(self._kube, pods))
                gc.freeze()
                await asyncio.wait([listing], timeout=TRACK_SECONDS)
        finally:
            if metadata is not None:
                metadata.cancel()

    def _on_list(self, kind: WatchedKind) -> None:
        self.owner_lookup.recheck_kind(kind.key)
        if self._is_synced:
            self.stream.request_inventory()

    def _are_owners_resolved(self) -> bool:
        """No entry waits for an owner, or one has waited too long to delay the rest."""
        if self.owner_lookup.is_idle:
            self._owners_missing_since = None
            return True
        now = asyncio.get_running_loop().time()
        if self._owners_missing_since is None:
            self._owners_missing_since = now
        return now - self._owners_missing_since > OWNER_WAIT_SECONDS

    async def _drain(self) -> None:
        """What is pending is lost with the process: try for a moment to send it."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                if self._is_synced:
                    await self.tracker.derive_all()
                while not self.stream.is_drained:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("stopped with pending changes", changes=len(self.pending))


def _sentences(*messages: str | None) -> str | None:
    return "; ".join(filter(None, messages)) or None


def _first_cause(error: BaseException) -> BaseException:
    """The first error inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

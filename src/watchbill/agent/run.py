"""The agent, put together: settings → credentials → reflectors → cache → tracker → stream.

What cannot be mended by waiting ends the run with an error that says what to do; everything else is retried.
"""

import asyncio
import contextlib
from uuid import UUID

import structlog

from watchbill.agent.cache.cache import Cache, CacheSettings
from watchbill.agent.cache.cluster import node_pools
from watchbill.agent.cache.owner_lookup import OwnerLookup
from watchbill.agent.cache.owner_tree import OwnerStatus
from watchbill.agent.cache.watch_manager import WatchManager
from watchbill.agent.cache.watched_kinds import POD, WatchedKind, root_kinds, watched_kinds
from watchbill.agent.kubernetes.client import KubeClient
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.agent.metrics.pipeline import MeasuringLoop
from watchbill.agent.metrics.sample_queue import SampleQueue
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.stream import Stream
from watchbill.agent.stream.tracker import Tracker
from watchbill.client import AgentClient
from watchbill.errors import Invalid
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.definition.settings_file import read_settings
from watchbill.kinds.derive import Derived, derive
from watchbill.protocol import Covered, IdleSoFar, KindState, NodePoolCapacity
from watchbill.settings import AgentSettings

log = structlog.get_logger(__name__)

START_SECONDS = 60.0
"""How long owners that nobody can say anything about may hold up the first records."""
GREETING_SECONDS = 5.0
FAREWELL_SECONDS = 5.0


async def run_agent(settings: AgentSettings, *, stop: asyncio.Event) -> None:
    """Watch the cluster and report until `stop` is set.

    Raises Invalid for settings that cannot work, Unauthenticated where the server knows no such credential.
    """
    cluster_id = cluster_of(settings.credential)
    definitions = load_definitions(settings.kinds_dir)
    credentials = Credentials(settings.kubeconfig, settings.context)
    await credentials.load()
    async with (
        KubeClient(credentials) as kube,
        AgentClient(settings.server_url, settings.credential) as server,
    ):
        log.info("agent starts", api_server=credentials.server, server=settings.server_url)
        agent = Agent(settings, definitions, cluster_id=cluster_id, kube=kube, server=server)
        await agent.run(stop)


def cluster_of(credential: str) -> UUID:
    """The cluster's id, which every credential names. Raises Invalid."""
    mark, _, rest = credential.strip().partition(".")
    name, _, secret = rest.partition(".")
    try:
        found = UUID(name)
    except ValueError:
        found = None
    if mark != "wba" or not secret or found is None:
        raise Invalid(
            "That is no agent credential.",
            details="`watchbill admin cluster create NAME` prints one; pass that line on as it is.",
        )
    return found


class Agent:
    """The parts and how they hear of one another; what the stream may ask of them."""

    def __init__(
        self,
        settings: AgentSettings,
        definitions: Definitions,
        *,
        cluster_id: UUID,
        kube: KubeClient,
        server: AgentClient,
    ) -> None:
        self._derive_settings = read_settings(settings.settings_file, cluster_id)
        self.ledger = PendingChanges()
        self.tracker = Tracker(
            self.ledger,
            lambda objects: derive(objects, definitions, self._derive_settings),
            debounce_seconds=settings.debounce_seconds,
        )
        self.cache = Cache(
            CacheSettings(
                excluded_namespaces=settings.excluded_namespaces,
                pod_annotations=self._derive_settings.pod_annotations,
                root_kinds=root_kinds(definitions),
                exporter_namespaces=settings.exporter_namespaces,
            ),
            self.tracker,
        )
        self.tracker.attach(self.cache)
        self.roster = WatchManager(
            kube,
            self.cache,
            watched_kinds(definitions),
            resync_seconds=settings.resync_seconds,
            on_list=self._note_list,
        )
        self.resolver = OwnerLookup(kube, self.cache, self.roster.find)
        outbox = SampleQueue()
        self.stream = Stream(
            server,
            self.ledger,
            self,
            self.tracker.changed,
            outbox,
            resync_seconds=settings.resync_seconds,
        )
        self.measuring = MeasuringLoop(
            settings,
            self._derive_settings,
            kube=kube,
            cache=self.cache,
            tracker=self.tracker,
            outbox=outbox,
        )
        self._is_measuring = settings.scrape_seconds > 0
        self._is_in_step = False
        """Every workload of the first lists has been derived: before that, all would seem to have changed."""
        self._waited_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run all parts until `stop` is set; then tell the server what it lacks, if it answers soon."""
        parts = (
            self.roster.run(),
            self.resolver.run(),
            self.tracker.run(),
            self._speak(),
            self._open(stop),
        )
        tasks = [asyncio.create_task(part) for part in parts]
        if self._is_measuring:
            tasks.append(asyncio.create_task(self.measuring.run(lambda: self._is_in_step)))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if stop.is_set():
                await self._say_farewell()
        finally:
            for task in (stopping, *tasks):
                task.cancel()
            await asyncio.gather(stopping, *tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise _first_cause(error)

    def may_prove(self) -> bool:
        return self._is_in_step and self.roster.can_prove and self._is_everyone_placed()

    def coverage(self) -> tuple[Covered, ...]:
        """Kinds whose absent objects are proven absent: not where someone's owner is still looked for."""
        waiting = {entry.key for entry in self.cache.owner_tree.waiting_for_owner()}
        return self.roster.coverage(without=frozenset(waiting | {POD} if waiting else ()))

    def living(self) -> list[str]:
        """Workloads, and owners that may be ones although nobody can read them."""
        ownership = self.cache.owner_tree
        found = [root for root in ownership.groups if ownership.is_alive(root)]
        unread = {
            uid
            for uid, verdict in ownership.owner_statuses.items()
            if verdict is OwnerStatus.UNREADABLE
        }
        return [*found, *(unread - set(found)), *(ownership.missing.keys() - set(found))]

    def states(self) -> tuple[KindState, ...]:
        return (*self.roster.states(), *self.measuring.states())

    def node_pools(self) -> tuple[NodePoolCapacity, ...]:
        return node_pools(self.cache.cluster, self._derive_settings)

    def kubernetes_version(self) -> str:
        return self.roster.discovery.kubernetes_version

    def read(self, root: str) -> Derived | None:
        return self.tracker.read(root)

    def recall(self, idle: tuple[IdleSoFar, ...]) -> None:
        for one in idle:
            self.measuring.scraper.idle.recall(str(one.id), one.gpu_hours, one.measured_since)

    async def _speak(self) -> None:
        """The hello tells the cluster's version; a cluster that does not answer is reported all the same."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GREETING_SECONDS):
                await self.roster.discovered()
        await self.stream.run()

    async def _open(self, stop: asyncio.Event) -> None:
        """Derive nothing before the first lists are complete and owners are found."""
        await self.roster.settled()
        began = asyncio.get_running_loop().time()
        while (
            not self.resolver.is_idle and asyncio.get_running_loop().time() - began < START_SECONDS
        ):
            await asyncio.sleep(0.1)
        self.tracker.open()
        await self.tracker.read_all()
        self._is_in_step = True
        log.info("in step with the cluster", workloads=len(self.ledger.standings))
        self.tracker.changed.set()
        await stop.wait()

    def _note_list(self, wanted: WatchedKind) -> None:
        self.resolver.recheck_kind(wanted.key)
        if self._is_in_step:
            self.stream.want_inventory()

    def _is_everyone_placed(self) -> bool:
        """Nobody waits for an owner, or someone does so in vain for too long to hold up the rest."""
        if self.resolver.is_idle:
            self._waited_since = None
            return True
        now = asyncio.get_running_loop().time()
        if self._waited_since is None:
            self._waited_since = now
        return now - self._waited_since > START_SECONDS

    async def _say_farewell(self) -> None:
        """What was seen and not yet told is lost with the process: try for a moment."""
        try:
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self.tracker.read_all()
                while not self.stream.is_drained:
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("server did not take the rest", items=len(self.ledger))


def _first_cause(error: BaseException) -> BaseException:
    """The first error inside nested groups: one is what a person can act on."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

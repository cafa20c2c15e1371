"""A continuous test of a running server: pods live in a simulated cluster, a real agent reports them, and both
the API and the live stream must show each of their phases in time and in order.
"""

import asyncio
import contextlib
import functools
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from simulator.apiserver.protocol import SimulatedCluster
from simulator.resources import NAMESPACES, PODS
from watchbill.agent.run import cluster_of, run_agent
from watchbill.client import Client, Selection
from watchbill.errors import NotFound, WatchbillError
from watchbill.responses.workloads import StreamChange
from watchbill.settings.agent import AgentSettings
from watchbill.workload import Phase

log = structlog.get_logger(__name__)

NAMESPACE = "watchbill-probe"
PHASES = (Phase.PENDING, Phase.RUNNING, Phase.COMPLETED)
"""Of each pod, in order; it may pass through others in between."""
CLOCK_SECONDS = 1.1
"""Kubernetes tells times in whole seconds: what is to have another one waits for so long."""
LOOK_SECONDS = 0.2
"""Between two looks at the API."""
RETRY_SECONDS = 5.0
"""Until a stream that ended is opened again."""


class ProbeResult(StrEnum):
    OK = "ok"
    LATE = "late"
    WRONG = "wrong"
    UNREACHABLE = "unreachable"


class ProbeFailure(Exception):
    """The server showed something else, or nothing in time."""

    def __init__(self, result: ProbeResult, message: str) -> None:
        super().__init__(message)
        self.result = result


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds from a change in the cluster until the API and the stream showed it."""

    step: str
    api_seconds: float
    stream_seconds: float


class ProbeMetrics:
    """For a Prometheus, in the registry that is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.freshness = Histogram(
            "watchbill_probe_freshness_seconds",
            "From a change in the probe's cluster until a view of the server showed it.",
            ("view",),
            buckets=(0.5, 1, 2, 3, 5, 10, 30, 60),
            registry=registry,
        )
        self.lives = Counter(
            "watchbill_probe_lives",
            "Workloads that the probe played, by result.",
            ("result",),
            registry=registry,
        )
        self.last_success = Gauge(
            "watchbill_probe_last_success_timestamp_seconds",
            "When the server last showed a whole life in time and in order.",
            registry=registry,
        )
        for result in ProbeResult:
            self.lives.labels(result)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeOptions:
    """`within_seconds`: the longest that a view may take to show a change."""

    server_url: str
    credential: str
    ca_file: Path | None = None
    within_seconds: float = 30.0
    interval_seconds: float = 300.0


class _Stream:
    """The ids that the live stream named, for whoever waits for one of them."""

    def __init__(self, client: Client, selection: Selection) -> None:
        self._client = client
        self._selection = selection
        self._named: dict[UUID, asyncio.Event] = {}
        self.is_open = asyncio.Event()

    def expect(self, workload_id: UUID) -> asyncio.Event:
        """Is set by the next event that names the workload."""
        self._named[workload_id] = asyncio.Event()
        return self._named[workload_id]

    async def run(self) -> None:
        """Until cancelled; opened again whenever the server ends it."""
        while True:
            try:
                async for event in self._client.stream(self._selection):
                    if event.name == "ready":
                        self.is_open.set()
                    if isinstance(event.data, StreamChange):
                        self._on_change(event.data)
            except WatchbillError as error:
                log.warning("the stream broke", reason=error.message)
            self.is_open.clear()
            await asyncio.sleep(RETRY_SECONDS)

    def _on_change(self, change: StreamChange) -> None:
        for workload_id in (*change.changed, *change.gone):
            if workload_id in self._named:
                self._named.pop(workload_id).set()


class ServerProbe:
    """Plays lives and checks them. Use as `async with`; the agent runs as long as this lasts."""

    def __init__(self, options: ProbeOptions, client: Client, metrics: ProbeMetrics) -> None:
        self._options = options
        self._client = client
        self._metrics = metrics
        self._cluster = SimulatedCluster()
        self._cluster_id = cluster_of(options.credential)
        self._selection = Selection(filters=(f"clusterId=={self._cluster_id}",))
        self._stream = _Stream(client, self._selection)
        self._tasks = contextlib.AsyncExitStack()
        self._agent: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "ServerProbe":
        for name in ("kube-system", NAMESPACE):
            uid = str(uuid5(self._cluster_id, name))  # the same cluster again at the next start
            document = {"metadata": {"name": name, "uid": uid}, "status": {"phase": "Active"}}
            self._cluster.store.put(NAMESPACES, document)
        await self._cluster.start()
        self._tasks.push_async_callback(self._cluster.stop)
        folder = Path(self._tasks.enter_context(tempfile.TemporaryDirectory()))
        settings = AgentSettings(
            server_url=self._options.server_url,
            credential=self._options.credential,
            ca_file=self._options.ca_file,
            kubeconfig=self._cluster.kubeconfig(folder / "kubeconfig"),
            scrape_seconds=0,
            excluded_namespaces=frozenset(),
        )
        stop = asyncio.Event()
        self._agent = asyncio.create_task(run_agent(settings, stop=stop))
        self._tasks.push_async_callback(_ended, self._agent, stop)
        stream = asyncio.create_task(self._stream.run())
        self._tasks.push_async_callback(_cancelled, stream)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._tasks.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Lives one after another until `stop` is set. Raises what ends the agent for good."""
        while not stop.is_set():
            await self.check()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._options.interval_seconds)

    async def check(self) -> tuple[StepTimes, ...]:
        """One life, counted in the metrics; empty where it failed. Raises what ended the agent."""
        name = f"probe-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        steps: list[StepTimes] = []
        try:
            async for step in self._life(name):
                steps.append(step)
                self._metrics.freshness.labels("api").observe(step.api_seconds)
                self._metrics.freshness.labels("stream").observe(step.stream_seconds)
        except (ProbeFailure, WatchbillError) as error:
            result = error.result if isinstance(error, ProbeFailure) else ProbeResult.UNREACHABLE
            log.error("the probe failed", result=result, name=name, reason=str(error))
            self._metrics.lives.labels(result).inc()
            self._cluster.store.delete(PODS, NAMESPACE, name)
            if self._agent is not None and self._agent.done():
                self._agent.result()
            return ()
        self._metrics.lives.labels(ProbeResult.OK).inc()
        self._metrics.last_success.set(time.time())
        return tuple(steps)

    async def _life(self, name: str) -> AsyncIterator[StepTimes]:
        """Pending, running, completed, deleted. Raises ProbeFailure, WatchbillError."""
        uid = uuid4()
        await self._in_time(self._stream.is_open.wait(), "the stream did not open")
        since: dict[Phase, str] = {}
        for phase in PHASES:
            since[phase] = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            pod = _pod(name, uid, phase, since)
            yield await self._step(
                phase, uid, functools.partial(self._cluster.store.put, PODS, pod)
            )
            await asyncio.sleep(CLOCK_SECONDS)
        await self._check_counts(expected=1)
        yield await self._step(
            "Deleted", uid, lambda: self._cluster.store.delete(PODS, NAMESPACE, name)
        )
        await self._check_counts(expected=0)
        await self._check_history(uid)

    async def _step(self, step: str, uid: UUID, change: Callable[[], object]) -> StepTimes:
        named = self._stream.expect(uid)
        started_at = time.monotonic()
        change()
        shown_in_stream = asyncio.create_task(
            self._in_time(named.wait(), f"the stream did not tell {step}")
        )
        try:
            await self._in_time(self._shown(step, uid), f"the API did not show {step}")
            api_seconds = time.monotonic() - started_at
            reported_at = await shown_in_stream
        finally:
            shown_in_stream.cancel()
        return StepTimes(step, api_seconds, reported_at - started_at)

    async def _in_time(self, waiting: Awaitable[object], message: str) -> float:
        """The instant when it happened. Raises ProbeFailure."""
        try:
            await asyncio.wait_for(waiting, self._options.within_seconds)
        except TimeoutError as error:
            within = f"within {self._options.within_seconds:g} s"
            raise ProbeFailure(ProbeResult.LATE, f"{message} {within}") from error
        return time.monotonic()

    async def _shown(self, step: str, uid: UUID) -> None:
        while True:
            with contextlib.suppress(NotFound):
                workload = (await self._client.workload_get(uid)).workload
                if (
                    (step == workload.phase)
                    if step != "Deleted"
                    else workload.deleted_at is not None
                ):
                    return
            await asyncio.sleep(LOOK_SECONDS)

    async def _check_counts(self, *, expected: int) -> None:
        """Raises ProbeFailure where list and count do not hold exactly the probe's own workload."""
        listed = len(await self._client.workloads(self._selection))
        counted = await self._client.workload_count(self._selection)
        if (listed, counted) != (expected, expected):
            message = f"expected {expected} live, but {listed} are listed and {counted} counted"
            raise ProbeFailure(ProbeResult.WRONG, message)

    async def _check_history(self, uid: UUID) -> None:
        """Raises ProbeFailure unless every phase is there once, in order and without a gap."""
        history = (await self._client.history(uid)).history
        played = (interval.phase for interval in history if interval.phase in PHASES)
        phases = tuple(phase for phase, _ in itertools.groupby(played))
        is_whole = all(
            before.ended_at == after.started_at for before, after in itertools.pairwise(history)
        )
        if phases != PHASES or not is_whole:
            message = f"the history has the phases {', '.join(phases) or 'none'}"
            raise ProbeFailure(ProbeResult.WRONG, message)


async def _ended(agent: "asyncio.Task[None]", stop: asyncio.Event) -> None:
    """In good order; what ended it before was raised by `check`."""
    stop.set()
    await asyncio.wait({agent})


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})


def _pod(name: str, uid: UUID, phase: Phase, since: Mapping[Phase, str]) -> dict[str, object]:
    """As the scheduler and a kubelet leave it; without GPUs, so that it is in no figure of them.

    `since`: when it came to each of its phases, this one included.
    """
    container = {"name": "main", "image": "probe", "resources": {"requests": {"cpu": "1m"}}}
    metadata = {
        "name": name,
        "namespace": NAMESPACE,
        "uid": str(uid),
        "creationTimestamp": since[Phase.PENDING],
        "labels": {"app.kubernetes.io/name": "watchbill-probe"},
    }
    spec: dict[str, object] = {"restartPolicy": "Never", "containers": [container]}
    if phase is Phase.PENDING:
        scheduled = _condition("PodScheduled", "False", since[phase]) | {"reason": "Unschedulable"}
        return {
            "metadata": metadata,
            "spec": spec,
            "status": {"phase": "Pending", "conditions": [scheduled]},
        }
    started_at, is_running = since[Phase.RUNNING], phase is Phase.RUNNING
    terminated = {"exitCode": 0, "reason": "Completed", "startedAt": started_at}
    state: dict[str, object] = (
        {"running": {"startedAt": started_at}}
        if is_running
        else {"terminated": terminated | {"finishedAt": since[phase]}}
    )
    is_ready = "True" if is_running else "False"
    conditions = [
        _condition("PodScheduled", "True", started_at),
        _condition("Initialized", "True", started_at),
        _condition("ContainersReady", is_ready, since[phase]),
        _condition("Ready", is_ready, since[phase]),
    ]
    status = {
        "phase": "Running" if is_running else "Succeeded",
        "startTime": started_at,
        "conditions": conditions,
        "containerStatuses": [
            {"name": "main", "ready": is_running, "restartCount": 0, "state": state}
        ],
    }
    return {"metadata": metadata, "spec": spec | {"nodeName": "probe"}, "status": status}


def _condition(kind: str, status: str, at: str) -> dict[str, object]:
    return {"type": kind, "status": status, "lastTransitionTime": at}

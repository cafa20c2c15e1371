"""Scrapes many targets of one kind, within limits, and reports how well they can be scraped.

Targets are reached through the API server's proxy, or pods directly at their addresses, then without
credentials. No redirect is followed. A target that fails or exceeds a limit leaves the others alone. Next
comes a target of the namespace that took least time: where turns were counted, a namespace of targets that
answer just before they time out would take nearly all of a round.
"""

import asyncio
import contextlib
import heapq
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

import aiohttp
import structlog
from yarl import URL

from watchbill import __version__
from watchbill.agent.cache.targets import ScrapeTarget
from watchbill.agent.kubernetes.client import (
    BodyTooLarge,
    CountBytes,
    KubeClient,
    bounded_body,
    request_path,
    uncounted,
)
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind, cause_of, failure_of_response
from watchbill.agent.metrics.exposition import (
    ExpositionParser,
    Limit,
    LimitExceeded,
    ParsedSample,
    ScrapeLimits,
    looks_like_metrics,
)
from watchbill.metric_types import EXPORTER_GROUP
from watchbill.protocol import KindState


class ScrapeTurns:
    """`waiting`: targets by namespace, in their order. `spent`: seconds that each namespace took in the round
    before. A target is charged with `most_seconds` until it is known how long it took.
    """

    def __init__(
        self,
        waiting: Mapping[str, Sequence[str]],
        spent: Mapping[str, float],
        *,
        most_seconds: float,
    ) -> None:
        self.spent = dict.fromkeys(waiting, 0.0)
        """Seconds, of this round alone."""
        self._most = most_seconds
        self._before = spent
        self._waiting = {namespace: iter(names) for namespace, names in waiting.items()}
        self._in_work = dict.fromkeys(waiting, 0)
        self._heap: list[tuple[float, str]] = []
        for namespace in waiting:
            self._queue(namespace)

    def take(self) -> tuple[str, str] | None:
        """Namespace and target; None where none is left."""
        while self._heap:
            charge, namespace = heapq.heappop(self._heap)
            if charge != self._charge(namespace):
                continue
            name = next(self._waiting[namespace], None)
            if name is not None:
                self._in_work[namespace] += 1
                self._queue(namespace)
                return namespace, name
        return None

    def give_back(self, namespace: str, seconds: float) -> None:
        """A target of the namespace took so long."""
        self._in_work[namespace] -= 1
        self.spent[namespace] += seconds
        self._queue(namespace)

    def _queue(self, namespace: str) -> None:
        heapq.heappush(self._heap, (self._charge(namespace), namespace))

    def _charge(self, namespace: str) -> float:
        return (
            self._before.get(namespace, 0.0)
            + self.spent[namespace]
            + self._most * self._in_work[namespace]
        )


log = structlog.get_logger(__name__)

_ERROR_BYTES = 4 * 1024
_METADATA_ADDRESSES = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200")))
"""Of clouds that answer elsewhere than at a link-local address."""
_EMBEDDING = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))


class Fetcher:
    """`is_direct`: pods are asked at their own addresses; nodes always through the proxy."""

    def __init__(self, kube: KubeClient, *, is_direct: bool) -> None:
        self._kube = kube
        self._is_direct = is_direct
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={
                "User-Agent": f"watchbill-agent/{__version__}",
                "Accept": "text/plain",
                "Accept-Encoding": "identity",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def node(
        self, name: str, path: str, limits: ScrapeLimits, count: CountBytes = uncounted
    ) -> bytes:
        """A page of the node's kubelet. Raises ApiFailure."""
        return await self._proxied(node_proxy_path(name, path), limits, count)

    async def pod(
        self, target: ScrapeTarget, path: str, limits: ScrapeLimits, count: CountBytes = uncounted
    ) -> bytes:
        """A page of a pod. Raises ApiFailure."""
        if self._is_direct:
            return await self._direct(target, path, limits, count)
        return await self._proxied(
            pod_proxy_path(target.namespace, target.pod, target.port, path), limits, count
        )

    async def _proxied(self, path: str, limits: ScrapeLimits, count: CountBytes) -> bytes:
        return await self._kube.read(
            path, max_bytes=limits.body_bytes, seconds=limits.target_seconds, count=count
        )

    async def _direct(
        self, target: ScrapeTarget, path: str, limits: ScrapeLimits, count: CountBytes
    ) -> bytes:
        assert self._session is not None  # entered before use
        try:
            async with self._session.get(
                pod_url(target.address, target.port, path),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=limits.target_seconds),
            ) as response:
                if response.status != 200:
                    body = await response.content.read(_ERROR_BYTES)
                    raise failure_of_response(response.status, response.headers, body)
                return await bounded_body(response, limits.body_bytes, count)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiFailure(ErrorKind.UNREACHABLE, cause_of(error)) from error


def node_proxy_path(node: str, path: str) -> str:
    """The path of a page of this node's kubelet, and of nothing else. Raises ApiFailure."""
    return request_path("api", "v1", "nodes", _object_name(node), "proxy", *_segments(path))


def pod_proxy_path(namespace: str, pod: str, port: int, path: str) -> str:
    """The path of a page of this pod, and of nothing else. Raises ApiFailure."""
    root = ("api", "v1", "namespaces", _object_name(namespace), "pods")
    return request_path(*root, f"{_object_name(pod)}:{_port(port)}", "proxy", *_segments(path))


def pod_url(address: str, port: int, path: str) -> URL:
    """The URL of a page at a pod's own address. Raises ApiFailure for an address that no pod has."""
    try:
        ip = ip_address(address)
    except ValueError:
        raise ApiFailure(ErrorKind.REFUSED, "the pod's address is not an IP address") from None
    if not all(map(_may_be_a_pods, (ip, *_embedded(ip)))):
        raise ApiFailure(ErrorKind.REFUSED, f"{ip} is not the address of a pod")
    host = f"[{ip.compressed}]" if ip.version == 6 else ip.compressed
    return URL(f"http://{host}:{_port(port)}{request_path(*_segments(path))}", encoded=True)


def _may_be_a_pods(ip: IPv4Address | IPv6Address) -> bool:
    is_special = ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified
    is_broadcast = ip.version == 4 and ip.is_reserved
    return not (is_special or is_broadcast or ip in _METADATA_ADDRESSES)


def _embedded(ip: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 address that an IPv6 address leads to: mapped, compatible, translated, 6to4, Teredo."""
    if isinstance(ip, IPv6Address):
        if any(ip in network for network in _EMBEDDING):
            yield IPv4Address(int(ip) & 0xFFFFFFFF)
        yield from filter(None, (ip.sixtofour, *(ip.teredo or ())))


def _object_name(name: str) -> str:
    """A colon would separate a scheme or a port from the name."""
    if not name or ":" in name or "@" in name:
        raise ApiFailure(ErrorKind.ABSENT, f"{name[:60]!a} is not the name of an object")
    return name


def _port(port: int) -> int:
    if not 0 < port < 65536:
        raise ApiFailure(ErrorKind.REFUSED, f"{port} is not a port")
    return port


def _segments(path: str) -> list[str]:
    return path.removeprefix("/").split("/")


_LARGE_BYTES = 512 * 1024
"""Pages of this size are parsed in a thread: parsing them takes too long for the event loop."""

Fetch = Callable[[CountBytes], Awaitable[bytes]]
"""Counts what comes as it comes: a page that ends in a failure has been read, too."""
State = Literal["complete", "forbidden", "absent", "failing"]
Page = TypeVar("Page")


@dataclass(frozen=True, slots=True)
class ScrapeJob:
    """How to fetch one target's page. `namespace` "" = no namespace, as of nodes."""

    fetch: Fetch
    namespace: str = ""


@dataclass(slots=True)
class ScrapeResults(Generic[Page]):
    """What was read of each target, and the targets that failed."""

    pages: dict[str, Page] = field(default_factory=dict)
    failures: dict[str, ApiFailure] = field(default_factory=dict)
    samples_by_namespace: Counter[str] = field(default_factory=Counter)
    bytes_by_namespace: Counter[str] = field(default_factory=Counter)
    unfinished: set[str] = field(default_factory=set)
    """Targets that timed out, or were being read when the round ended."""

    @property
    def exceeded(self) -> Counter[Limit]:
        return Counter(
            failure.limit
            for failure in self.failures.values()
            if isinstance(failure, LimitExceeded)
        )


class ScrapePool(Generic[Page]):
    """`read` makes of a target's samples what is kept of them.

    `is_strict`: one failed target makes the whole count as failing. `is_optional`: having no targets is
    complete, not absent.
    """

    def __init__(
        self,
        kind: str,
        metrics: Iterable[str],
        read: Callable[[Sequence[ParsedSample]], Page],
        *,
        limits: ScrapeLimits,
        concurrency: int,
        is_strict: bool = True,
        is_optional: bool = False,
    ) -> None:
        self.kind = kind
        self.state: KindState | None = None
        """None before the first round."""
        self.exceeded: Counter[Limit] = Counter()
        """Targets not measured because of a limit, since the start."""
        self.results: Counter[str] = Counter()
        """Targets of the last round by result: measured, failed, limited."""
        self.limits = limits
        self._parser = ExpositionParser(metrics)
        self._read = read
        self._concurrency = concurrency
        self._is_strict = is_strict
        self._is_optional = is_optional
        self._slow: Set[str] = frozenset()
        """Targets that timed out in the last round: they come last of their namespace in the next one."""
        self._answered: Mapping[str, int] = {}
        """The last round in which each target answered or failed: who waits for longest comes first."""
        self._rounds = 0
        self._spent: Mapping[str, float] = {}
        """Seconds of the last round, by namespace: who took most comes last."""
        self._has_logged = False
        """Whether an unexpected error of this round is in the log: the others are counted as failed targets."""

    async def scrape(
        self, jobs: Mapping[str, ScrapeJob], *, seconds: float, hint: str | None = None
    ) -> ScrapeResults[Page]:
        """Scrape all targets, some at a time, for at most `seconds`; the rest counts as failed."""
        results: ScrapeResults[Page] = ScrapeResults()
        self._has_logged = False
        turns = ScrapeTurns(
            self._order(jobs, results), self._spent, most_seconds=self.limits.target_seconds
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(
                    *(self._work(turns, jobs, results) for _ in range(self._concurrency))
                )
        self._rounds += 1
        missed = jobs.keys() - results.pages.keys() - results.failures.keys()
        before = self._answered
        self._answered = {n: before.get(n, 0) if n in missed else self._rounds for n in jobs}
        for name in missed:
            results.failures[name] = LimitExceeded(Limit.TIMEOUT, seconds)
        self._slow, self._spent = results.unfinished, turns.spent
        self._count(results)
        self._update_state(results, hint)
        return results

    def _order(
        self, jobs: Mapping[str, ScrapeJob], results: ScrapeResults[Page]
    ) -> dict[str, list[str]]:
        """By namespace, slow ones last, before them who waits for longest; those beyond the target limit fail
        at once."""
        limit = self.limits.targets_per_namespace
        waiting: dict[str, list[str]] = {}
        for name in sorted(jobs):
            names = waiting.setdefault(jobs[name].namespace, [])
            if limit is not None and len(names) >= limit:
                results.failures[name] = LimitExceeded(Limit.TARGETS, limit)
            else:
                names.append(name)
        for names in waiting.values():
            names.sort(key=lambda name: (name in self._slow, self._answered.get(name, 0)))
        return waiting

    async def _work(
        self, turns: ScrapeTurns, jobs: Mapping[str, ScrapeJob], results: ScrapeResults[Page]
    ) -> None:
        loop = asyncio.get_running_loop()
        while (turn := turns.take()) is not None:
            namespace, name = turn
            began = loop.time()
            results.unfinished.add(name)
            try:
                await self._scrape_one(name, jobs[name], results)
            except ApiFailure as failure:
                results.failures[name] = failure
            except Exception:  # what one target answers must not end the others
                if not self._has_logged:
                    self._has_logged = True
                    log.exception("page cannot be read", target=name)
                results.failures[name] = ApiFailure(ErrorKind.REFUSED, "the page cannot be read")
            finally:
                turns.give_back(namespace, loop.time() - began)
            if not _is_timeout(results.failures.get(name)):
                results.unfinished.discard(name)

    async def _scrape_one(self, name: str, job: ScrapeJob, results: ScrapeResults[Page]) -> None:
        seconds = self.limits.target_seconds
        self._check_bytes(results, job.namespace)

        def count(received: int) -> None:
            results.bytes_by_namespace[job.namespace] += received

        try:
            async with asyncio.timeout(seconds) as timer:
                body = await job.fetch(count)
        except TimeoutError:
            if not timer.expired():
                raise
            raise LimitExceeded(Limit.TIMEOUT, seconds) from None
        except BodyTooLarge:
            raise LimitExceeded(Limit.BODY_SIZE, self.limits.body_bytes) from None
        self._check_bytes(results, job.namespace)
        samples = await self._parse(body)
        budget, namespace = self.limits.samples_per_namespace, job.namespace
        if budget is not None and results.samples_by_namespace[namespace] + len(samples) > budget:
            raise LimitExceeded(Limit.NAMESPACE_SAMPLES, budget)
        results.pages[name] = self._read(samples)
        results.samples_by_namespace[namespace] += len(samples)

    def _check_bytes(self, results: ScrapeResults[Page], namespace: str) -> None:
        budget = self.limits.bytes_per_namespace
        if budget is not None and results.bytes_by_namespace[namespace] > budget:
            raise LimitExceeded(Limit.NAMESPACE_BODY_SIZE, budget)

    async def _parse(self, body: bytes) -> list[ParsedSample]:
        if not looks_like_metrics(body):
            raise ApiFailure(ErrorKind.REFUSED, "the page does not contain metrics")
        if len(body) < _LARGE_BYTES:
            return self._parser.samples(body, self.limits)
        return await asyncio.to_thread(self._parser.samples, body, self.limits)

    def _count(self, results: ScrapeResults[Page]) -> None:
        exceeded = results.exceeded
        limited = exceeded.total()
        self.exceeded += exceeded
        self.results = Counter(
            measured=len(results.pages), failed=len(results.failures) - limited, limited=limited
        )

    def _update_state(self, results: ScrapeResults[Page], hint: str | None) -> None:
        state, message = self._evaluate(results)
        message = message or hint
        before = self.state
        if before is None or (before.state, before.message) != (state, message):
            is_same = before is not None and before.state == state
            since = before.since if is_same and before is not None else datetime.now(UTC)
            self.state = KindState(
                group=EXPORTER_GROUP, kind=self.kind, state=state, since=since, message=message
            )

    def _evaluate(self, results: ScrapeResults[Page]) -> tuple[State, str | None]:
        failures = results.failures
        count = len(results.pages) + len(failures)
        if not count:
            return ("complete" if self._is_optional else "absent"), None
        if not failures:
            return "complete", None
        message = _message(failures, count, results.exceeded)
        is_forbidden = all(item.kind is ErrorKind.FORBIDDEN for item in failures.values())
        if is_forbidden and not results.pages:
            return "forbidden", message
        return ("failing" if self._is_strict else "complete"), message


def _is_timeout(failure: ApiFailure | None) -> bool:
    return isinstance(failure, LimitExceeded) and failure.limit is Limit.TIMEOUT


def _message(failures: Mapping[str, ApiFailure], count: int, exceeded: Counter[Limit]) -> str:
    name, first = min(failures.items())
    message = f"{len(failures)} of {count} targets failed, such as {name}: {first.message}"[:300]
    if not exceeded:
        return message
    limits = ", ".join(f"{limit} {number}" for limit, number in sorted(exceeded.items()))
    return f"{message} (targets beyond a limit: {limits})"

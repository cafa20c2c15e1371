"""Metrics from a store that speaks Prometheus' API: one query per metric type, all at the same time.

Two constant paths below the address that an administrator set; no redirect is followed. A question that the
store cannot even read is our own fault, and no failure of the store's.

What does not answer as it should is a failure of that type alone.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any
from uuid import UUID

import aiohttp
import msgspec
import structlog
from cachetools import TLRUCache

from watchbill.metric_types import METRICS, MetricForm, devices_reported
from watchbill.metrics.figures import QUANTILES, bound_text, decimal_text, quantile
from watchbill.metrics.queries import (
    TYPE_QUERIES,
    Labels,
    Matcher,
    QueryTarget,
    existence,
    utilization_by_workload,
)
from watchbill.metrics.source import (
    BucketCounts,
    FailedType,
    Histogram,
    Measurement,
    MetricPoint,
    MetricsQuery,
    Outcome,
    Reason,
    Utilization,
    WorkloadContext,
)
from watchbill.query import Scope
from watchbill.settings.prometheus import PrometheusSettings

log = structlog.get_logger(__name__)

RANGE_PATH = "/api/v1/query_range"
INSTANT_PATH = "/api/v1/query"
QUERY_SECONDS = 4.5
"""For all types of one request together: a whole failure is answered within five seconds."""
MAX_CONCURRENT_QUERIES = 8
UNRESPONSIVE_SECONDS = 2.0
"""A store that answers no query for so long counts as unresponsive."""
PROBE_SECONDS = 0.5
"""How long a query waits for the answer to another one of a store that was unresponsive before."""
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
_FORM = {
    "timeout": f"{round(1000 * QUERY_SECONDS)}ms",
    "nocache": "1",  # else VictoriaMetrics moves the instants to multiples of the step
}


class Series(msgspec.Struct):
    metric: dict[str, str] = {}
    values: list[tuple[float, str]] = []
    value: tuple[float, str] | None = None


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error_type: str = ""
    error: str = ""
    warnings: list[str] = []


_ANSWER = msgspec.json.Decoder(_Answer)
_SERIES = msgspec.json.Decoder(list[Series])
_RESULTS = frozenset({"matrix", "vector"})


class QueryFailed(Exception):
    """The store did not answer a query as it should."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class QueryRefused(RuntimeError):
    """The store cannot read a question of ours. Not a failure of the store's: a mistake of this program."""


class StoreConnection:
    """One pool of connections for all stores; so many questions at a time to each of them.

    A store that hangs fills its own places: the clusters of another one do not wait for it.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def post(
        self, store: str, path: str, *, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Status and body. Raises aiohttp's errors, also for a body that is too large."""
        async with self._slots.setdefault(store, asyncio.Semaphore(MAX_CONCURRENT_QUERIES)):
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0),  # the places are the limit
                    timeout=aiohttp.ClientTimeout(total=QUERY_SECONDS),
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            async with self._session.post(
                store + path, data=dict(form), headers=dict(headers), allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MAX_RESPONSE_BYTES:
                        raise aiohttp.ClientPayloadError("the answer is too large")
                return response.status, bytes(body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class CircuitBreaker:
    """Keeps a store that hangs from taking everybody's time: after one question in vain the others wait for
    the next one's answer, and but a moment, until the store speaks again."""

    def __init__(self) -> None:
        self._answered = 0
        self._is_silent = False
        self._probe: asyncio.Event | None = None

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Around one query. Raises TimeoutError where it need not be sent."""
        if self._is_silent and self._probe is not None:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._probe.wait()
            if self._is_silent:
                raise TimeoutError
        answered_before, probe = self._answered, asyncio.Event()
        began = asyncio.get_running_loop().time()
        if self._is_silent:
            self._probe = probe
        try:
            yield
            self._note_success()
        except (TimeoutError, asyncio.CancelledError):  # who asked may just have left
            has_waited = asyncio.get_running_loop().time() - began >= UNRESPONSIVE_SECONDS
            if has_waited and self._answered == answered_before:
                self._is_silent = True
            raise
        except (aiohttp.ClientError, OSError):  # a refusal, too, is an answer
            self._note_success()
            raise
        finally:
            if self._probe is probe:
                self._probe = None
            probe.set()

    def _note_success(self) -> None:
        self._answered += 1
        self._is_silent = False


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """`is_partial`: it came with warnings, as Thanos sends them when a store behind it does not answer."""

    series: list[Series]
    is_partial: bool


class PrometheusStore:
    """One store and the login to it."""

    def __init__(self, settings: PrometheusSettings, session: StoreConnection) -> None:
        self._url = settings.url
        self._session = session
        self._silence = CircuitBreaker()
        self._headers = {"Accept": "application/json"}
        if settings.token is not None:
            self._headers["Authorization"] = f"Bearer {settings.token}"
        elif settings.username is not None:
            login = f"{settings.username}:{settings.password or ''}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        if settings.tenant is not None:
            self._headers["X-Scope-OrgID"] = settings.tenant

    async def ask(self, path: str, form: Mapping[str, str]) -> "StoreAnswer":
        """Raises QueryFailed, and QueryRefused for a question that is no PromQL."""
        form = {**_FORM, **form}
        try:
            async with self._silence.asking():
                status, body = await self._session.post(
                    self._url, path, form=form, headers=self._headers
                )
        except TimeoutError as error:
            log.warning("the metrics store answers too slowly")
            raise QueryFailed(Reason.TIMEOUT) from error
        except (aiohttp.ClientError, OSError) as error:
            log.warning("the metrics store does not answer", reason=type(error).__name__)
            raise QueryFailed(Reason.SOURCE_ERROR) from error
        return self._read(status, body)

    def _read(self, status: int, body: bytes) -> "StoreAnswer":
        try:
            answer = _ANSWER.decode(body)
            if status == 400 and answer.error_type == "bad_data":
                log.error("the metrics store cannot read a question", error=answer.error[:300])
                raise QueryRefused(answer.error[:300])
            if status != 200 or answer.status != "success" or answer.data is None:
                log.warning("the metrics store failed", status=status, error=answer.error[:300])
                reason = Reason.TIMEOUT if answer.error_type == "timeout" else Reason.SOURCE_ERROR
                raise QueryFailed(reason)
            if answer.data.result_type not in _RESULTS:
                raise QueryFailed(Reason.SOURCE_ERROR)
            if answer.warnings:
                log.warning("the metrics store warns", warnings=answer.warnings[:3])
            return StoreAnswer(_SERIES.decode(answer.data.result), bool(answer.warnings))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("the metrics store's answer cannot be read", status=status)
            raise QueryFailed(Reason.SOURCE_ERROR) from error


_PRESENT_SECONDS = 300.0
_ABSENT_SECONDS = 10.0
"""A store that has just started, or an exporter that has, is not called unsupported for longer than this."""
_LEAST_SECONDS = 1.0
_LEAST_STEP = timedelta(milliseconds=1)


Values = dict[datetime, float]


class SeriesByLabels(dict[tuple[tuple[str, str], ...], Values]):
    """`is_partial`: the store says that it could not ask all of its parts."""

    def __init__(self, *, is_partial: bool) -> None:
        super().__init__()
        self.is_partial = is_partial


def _known_until(_: str, is_present: bool, now: float) -> float:
    return now + (_PRESENT_SECONDS if is_present else _ABSENT_SECONDS)


class PrometheusSamples:
    """One store, as one cluster's samples lie in it."""

    def __init__(self, settings: PrometheusSettings, session: StoreConnection) -> None:
        self._extra = tuple(Matcher(name, value) for name, value in settings.matchers)
        self._labels = Labels(**dict(settings.labels))
        self._store = PrometheusStore(settings, session)
        self._present: TLRUCache[str, bool, float] = TLRUCache(len(TYPE_QUERIES), ttu=_known_until)

    async def measured(
        self,
        about: WorkloadContext,
        scope: Scope,
        query: MetricsQuery,
        types: tuple[str, ...],
        now: datetime,
    ) -> list[Outcome]:
        if not query.number_of_samples or not about.known:
            return [_nothing(name) for name in types]
        wanted = dict.fromkeys(METRICS[name].series or name for name in types)
        target = QueryTarget(
            workload_id=str(about.workload_id),
            namespace=about.namespace,
            window=query.window,
            labels=self._labels,
            extra=self._extra,
            devices=devices_reported(query.number_of_samples),
        )
        until = asyncio.get_running_loop().time() + _seconds_left(now)
        answers = dict(
            zip(
                wanted,
                await asyncio.gather(
                    *(self._series_of(name, target, query, until) for name in wanted)
                ),
                strict=True,
            )
        )
        alive = frozenset(about.known)
        return [
            outcome
            for name in types
            for outcome in self._outcomes(name, answers[METRICS[name].series or name], alive)
        ]

    async def utilization(
        self, tenant_id: int, ids: Collection[UUID], query: MetricsQuery, now: datetime
    ) -> dict[UUID, Utilization] | None:
        until = asyncio.get_running_loop().time() + _seconds_left(now)
        expression = utilization_by_workload(sorted(map(str, ids)), self._labels, self._extra)
        try:
            async with asyncio.timeout_at(until):
                answer = await self._range(expression, query)
        except (TimeoutError, QueryFailed):
            return None
        instants = query.instants()
        by_id = {dict(labels).get("workload_id", ""): values for labels, values in answer.items()}
        return {
            workload_id: tuple(by_id[str(workload_id)].get(at) for at in instants)
            for workload_id in ids
            if str(workload_id) in by_id
        }

    async def _series_of(
        self, name: str, target: QueryTarget, query: MetricsQuery, until: float
    ) -> "SeriesByLabels | Reason":
        """The series of one type by their labels, or why there are none. `until`: by the loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                series = await self._range(TYPE_QUERIES[name].query(target), query)
                if not series and not await self._has(name):
                    return Reason.UNSUPPORTED
                return series
        except TimeoutError:
            return Reason.TIMEOUT
        except QueryFailed as error:
            return error.reason

    async def _range(self, expression: str, query: MetricsQuery) -> "SeriesByLabels":
        instants = query.instants()
        step = max(query.step, _LEAST_STEP)
        answer = await self._store.ask(
            RANGE_PATH,
            {
                "query": expression,
                "start": f"{instants[0].timestamp():.3f}",
                "end": f"{(instants[-1] + step / 2).timestamp():.3f}",
                "step": f"{step.total_seconds():.3f}",
            },
        )
        first, length = instants[0].timestamp(), float(f"{step.total_seconds():.3f}")
        values_by_labels = SeriesByLabels(is_partial=answer.is_partial)
        for series in answer.series:
            values = values_by_labels.setdefault(tuple(sorted(series.metric.items())), {})
            for at, text in series.values:
                index = round((at - first) / length)
                value = _number(text)
                if value is not None and 0 <= index < len(instants):
                    instant = instants[index]
                    values[instant] = max(value, values.get(instant, value))
        for labels in [labels for labels, values in values_by_labels.items() if not values]:
            del values_by_labels[labels]
        return values_by_labels

    async def _has(self, name: str) -> bool:
        """Whether the store has at present what the type is made of; remembered for a while."""
        is_present = self._present.get(name)
        if is_present is None:
            expression = existence(TYPE_QUERIES[name], self._extra)
            answer = await self._store.ask(INSTANT_PATH, {"query": expression})
            if answer.is_partial and not answer.series:
                return True
            is_present = bool(answer.series)
            self._present[name] = is_present
            if not is_present:
                log.warning("the metrics store has no series that a type is made of", type=name)
        return is_present

    def _outcomes(
        self,
        name: str,
        answer: "SeriesByLabels | Reason",
        alive: frozenset[datetime],
    ) -> list[Outcome]:
        """A store that could not ask all of its parts says so: what it has, and that something is missing."""
        if isinstance(answer, Reason):
            return [FailedType(type=name, reason=answer)]
        missing = [FailedType(type=name, reason=Reason.SOURCE_ERROR)] if answer.is_partial else []
        return [*self._measured(name, answer, alive), *missing]

    def _measured(
        self, name: str, answer: "SeriesByLabels", alive: frozenset[datetime]
    ) -> list[Outcome]:
        form = METRICS[name].form
        if form is MetricForm.HISTOGRAM:
            return [_histogram(name, answer, alive)]
        if form is MetricForm.PERCENTILES:
            return _percentiles(name, answer, alive)
        if not answer:
            return [_nothing(name)]
        by_gpu = sorted(
            ((self._gpu(labels), values) for labels, values in answer.items()),
            key=lambda item: item[0],
        )
        return [
            Measurement(
                type=name, samples=_samples(values, alive), labels={"gpu": gpu} if gpu else {}
            )
            for gpu, values in by_gpu
        ]

    def _gpu(self, labels: tuple[tuple[str, str], ...]) -> str:
        """The device as embedded samples name it; "" for all of them together."""
        by_name = dict(labels)
        uuid = by_name.get(self._labels.uuid, "")
        instance = by_name.get(self._labels.instance, "")
        return f"{uuid}/{instance}" if instance else uuid


def _seconds_left(now: datetime) -> float:
    """Of a request that came in at `now`: waiting for its turn was part of its time."""
    waited = (datetime.now(UTC) - now).total_seconds()
    return min(QUERY_SECONDS, max(_LEAST_SECONDS, QUERY_SECONDS - waited))


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _samples(values: Values, alive: frozenset[datetime]) -> tuple[MetricPoint, ...]:
    return tuple(
        MetricPoint(at, text)
        for at, value in sorted(values.items())
        if at in alive and (text := decimal_text(value))
    )


def _counts(
    series: Mapping[tuple[tuple[str, str], ...], Values], alive: frozenset[datetime]
) -> list[tuple[datetime, dict[str, float]]]:
    """By instant, the requests up to each bound."""
    by_instant: dict[datetime, dict[str, float]] = {}
    for labels, values in series.items():
        try:
            bound = bound_text(dict(labels).get("le", ""))
        except ValueError:
            continue
        for at, value in values.items():
            if at in alive:
                by_instant.setdefault(at, {})[bound] = value
    return sorted(by_instant.items())


def _histogram(
    name: str, series: Mapping[tuple[tuple[str, str], ...], Values], alive: frozenset[datetime]
) -> Histogram:
    spreads = tuple(
        BucketCounts(
            at,
            {
                bound: decimal_text(count) or "0"
                for bound, count in sorted(counts.items(), key=lambda item: float(item[0]))
            },
        )
        for at, counts in _counts(series, alive)
    )
    return Histogram(type=name, spreads=spreads)


def _percentiles(
    name: str, series: Mapping[tuple[tuple[str, str], ...], Values], alive: frozenset[datetime]
) -> list[Outcome]:
    counted = _counts(series, alive)
    if not counted:
        return [_nothing(name)]
    return [
        Measurement(
            type=name,
            samples=tuple(
                MetricPoint(at, text)
                for at, counts in counted
                if (text := decimal_text(quantile(float(share), counts)))
            ),
            labels={"quantile": share},
        )
        for share in QUANTILES
    ]


def _nothing(name: str) -> Outcome:
    if METRICS[name].form is MetricForm.HISTOGRAM:
        return Histogram(type=name, spreads=())
    return Measurement(type=name, samples=())

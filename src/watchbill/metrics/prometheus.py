"""Metrics from a store that speaks Prometheus' API: one question per type of samples, all at the same time.

What does not answer as it should is a failure of that type alone.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import Any

import structlog

from watchbill.config import PrometheusSettings
from watchbill.metrics.figures import QUANTILES, bound_text, quantile, written
from watchbill.metrics.prometheus_http import (
    ANSWER_SECONDS,
    INSTANT_PATH,
    RANGE_PATH,
    PrometheusStore,
    Session,
    Unanswered,
)
from watchbill.metrics.promql import Matcher
from watchbill.metrics.queries import QUESTIONS, Asked, Labels, existence
from watchbill.metrics.source import (
    About,
    Failed,
    Histogram,
    Measurement,
    MetricsQuery,
    Outcome,
    Reason,
    Sample,
    Spread,
)
from watchbill.metrics.table import METRICS, Form
from watchbill.query import Scope

log = structlog.get_logger(__name__)

_PRESENT_SECONDS = 300.0
_LACKING_SECONDS = 10.0
"""A store that has just started, or an exporter that has, is not called unsupported for longer than this."""
_LEAST_SECONDS = 1.0
_LEAST_STEP = timedelta(milliseconds=1)


Values = dict[datetime, float]


@dataclass(slots=True)
class _Known:
    """Whether a store has what a type is made of, as of some time ago."""

    is_there: bool
    until: float


class PrometheusSamples:
    """One store, as one cluster's samples lie in it."""

    def __init__(self, settings: PrometheusSettings, session: Session) -> None:
        self._extra = tuple(Matcher(name, value) for name, value in settings.matchers)
        self._labels = Labels(**dict(settings.labels))
        self._store = PrometheusStore(settings, session)
        self._known: dict[str, _Known] = {}

    async def measured(
        self, about: About, scope: Scope, query: MetricsQuery, types: tuple[str, ...], now: datetime
    ) -> list[Outcome]:
        if not query.number_of_samples or not about.known:
            return [_nothing(name) for name in types]
        wanted = dict.fromkeys(METRICS[name].series or name for name in types)
        asked = Asked(
            workload_id=str(about.workload_id),
            namespace=about.namespace,
            window=query.window,
            labels=self._labels,
            extra=self._extra,
        )
        until = asyncio.get_running_loop().time() + _seconds_left(now)
        answers = dict(
            zip(
                wanted,
                await asyncio.gather(*(self._one(name, asked, query, until) for name in wanted)),
                strict=True,
            )
        )
        alive = frozenset(about.known)
        return [
            outcome
            for name in types
            for outcome in self._outcomes(name, answers[METRICS[name].series or name], alive)
        ]

    async def _one(
        self, name: str, asked: Asked, query: MetricsQuery, until: float
    ) -> dict[tuple[tuple[str, str], ...], Values] | Reason:
        """The series of one type by their labels, or why there are none. `until`: by the loop's clock."""
        try:
            async with asyncio.timeout_at(until):
                found = await self._range(QUESTIONS[name].query(asked), query)
                if not found and not await self._has(name):
                    return Reason.UNSUPPORTED
                return found
        except TimeoutError:
            return Reason.TIMEOUT
        except Unanswered as error:
            return error.reason

    async def _range(
        self, expression: str, query: MetricsQuery
    ) -> dict[tuple[tuple[str, str], ...], Values]:
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
        found: dict[tuple[tuple[str, str], ...], Values] = {}
        for series in answer:
            values = found.setdefault(tuple(sorted(series.metric.items())), {})
            for at, text in series.values:
                index = round((at - first) / length)
                value = _number(text)
                if value is not None and 0 <= index < len(instants):
                    instant = instants[index]
                    values[instant] = max(value, values.get(instant, value))
        return {labels: values for labels, values in found.items() if values}

    async def _has(self, name: str) -> bool:
        """Whether the store has at present what the type is made of; remembered for a while."""
        known = self._known.get(name)
        if known is None or known.until < time.monotonic():
            expression = existence(QUESTIONS[name], self._extra)
            is_there = bool(await self._store.ask(INSTANT_PATH, {"query": expression}))
            seconds = _PRESENT_SECONDS if is_there else _LACKING_SECONDS
            known = self._known[name] = _Known(is_there, time.monotonic() + seconds)
            if not is_there:
                log.warning("the metrics store lacks what a type is made of", type=name)
        return known.is_there

    def _outcomes(
        self,
        name: str,
        found: dict[tuple[tuple[str, str], ...], Values] | Reason,
        alive: frozenset[datetime],
    ) -> list[Outcome]:
        if isinstance(found, Reason):
            return [Failed(type=name, reason=found)]
        form = METRICS[name].form
        if form is Form.HISTOGRAM:
            return [_histogram(name, found, alive)]
        if form is Form.PERCENTILES:
            return _percentiles(name, found, alive)
        if not found:
            return [_nothing(name)]
        by_gpu = sorted(
            ((self._gpu(labels), values) for labels, values in found.items()),
            key=lambda one: one[0],
        )
        return [
            Measurement(
                type=name, samples=_samples(values, alive), labels={"gpu": gpu} if gpu else {}
            )
            for gpu, values in by_gpu
        ]

    def _gpu(self, labels: tuple[tuple[str, str], ...]) -> str:
        """The device as embedded samples name it; "" for all of them together."""
        told = dict(labels)
        uuid = told.get(self._labels.uuid, "")
        instance = told.get(self._labels.instance, "")
        return f"{uuid}/{instance}" if instance else uuid


def _seconds_left(now: datetime) -> float:
    """Of a request that came in at `now`: waiting for its turn was part of its time."""
    waited = (datetime.now(UTC) - now).total_seconds()
    return min(ANSWER_SECONDS, max(_LEAST_SECONDS, ANSWER_SECONDS - waited))


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _samples(values: Values, alive: frozenset[datetime]) -> tuple[Sample, ...]:
    return tuple(
        Sample(at, text)
        for at, value in sorted(values.items())
        if at in alive and (text := written(value))
    )


def _counts(
    found: Mapping[tuple[tuple[str, str], ...], Values], alive: frozenset[datetime]
) -> list[tuple[datetime, dict[str, float]]]:
    """By instant, the requests up to each bound."""
    by_instant: dict[datetime, dict[str, float]] = {}
    for labels, values in found.items():
        try:
            bound = bound_text(dict(labels).get("le", ""))
        except ValueError:
            continue
        for at, value in values.items():
            if at in alive:
                by_instant.setdefault(at, {})[bound] = value
    return sorted(by_instant.items())


def _histogram(
    name: str, found: Mapping[tuple[tuple[str, str], ...], Values], alive: frozenset[datetime]
) -> Histogram:
    spreads = tuple(
        Spread(
            at,
            {
                bound: written(count) or "0"
                for bound, count in sorted(counts.items(), key=lambda one: float(one[0]))
            },
        )
        for at, counts in _counts(found, alive)
    )
    return Histogram(type=name, spreads=spreads)


def _percentiles(
    name: str, found: Mapping[tuple[tuple[str, str], ...], Values], alive: frozenset[datetime]
) -> list[Outcome]:
    counted = _counts(found, alive)
    if not counted:
        return [_nothing(name)]
    return [
        Measurement(
            type=name,
            samples=tuple(
                Sample(at, text)
                for at, counts in counted
                if (text := written(quantile(float(share), counts)))
            ),
            labels={"quantile": share},
        )
        for share in QUANTILES
    ]


def _nothing(name: str) -> Outcome:
    if METRICS[name].form is Form.HISTOGRAM:
        return Histogram(type=name, spreads=())
    return Measurement(type=name, samples=())

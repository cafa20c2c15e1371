"""What a workload used, by UTC day: exact sums over the steps that were recorded. Pure.

Every figure is an integral over time. Instants are cut to whole milliseconds before they are subtracted, so
what is accounted in pieces adds up to what is accounted at once, whatever the pieces. GPUs are counted in
millionths: the unit of most sums is a millionth of a GPU for a millisecond.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from watchbill.workload import Phase

DAY_MS = 86_400_000
MILLIONTH_MS_PER_HOUR = 3_600_000 * 1_000_000
"""So many of the sums' units are one GPU-hour."""
MAX_SAMPLE_SPAN_MS = 300_000
"""A sample of utilization speaks for the time since the one before it, and for no more than this."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(at: datetime) -> int:
    """Whole milliseconds since 1970, cut off."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def day_of(at_ms: int) -> date:
    """The UTC day of an instant."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).date()


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageStep:
    """In force from `at` until the next step.

    `idle_gpu` None = nothing measures utilization. The idle GPU-hours up to a moment t within the step are
    `idle_hours` + `idle_gpu` × (t - `idle_mean_since`), as the agent defines them. `gpu_by_model`: how the
    allocation is divided among models, in any unit; empty = not known. `attributes_id`: of the workload's
    owner and the like at the time; None = not known.
    """

    at: datetime
    project_id: int
    department_id: int | None
    requested_gpu: int
    allocated_gpu: int
    idle_gpu: int | None = None
    idle_hours: float = 0.0
    idle_mean_since: datetime | None = None
    cpu_cores: float = 0.0
    memory_bytes: int = 0
    gpu_by_model: Mapping[str, int] = field(default_factory=dict)
    attributes_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class UtilizationSample:
    """The mean utilization, from 0 to 1, of a workload's devices."""

    at: datetime
    utilization: float


@dataclass(slots=True, kw_only=True)
class UsageSums:
    """Of one workload, day and project. GPU figures in millionths of a GPU × milliseconds.

    `unmeasured_gpu`: allocated while nothing measured whether it idles. `busy_gpu`: utilization × allocation,
    over `sampled_gpu`, the allocation that samples speak for. `gap_gpu`: allocated when nobody observed the
    cluster, and part of no other figure. `pending_gpu`: GPUs asked for by a workload in phase Pending.
    """

    requested_gpu: int = 0
    allocated_gpu: int = 0
    idle_gpu: int = 0
    unmeasured_gpu: int = 0
    busy_gpu: int = 0
    sampled_gpu: int = 0
    gap_gpu: int = 0
    pending_gpu: int = 0
    cpu_millicore_ms: int = 0
    memory_mib_ms: int = 0

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in SUMS)


SUMS = tuple(spec.name for spec in fields(UsageSums))
"""Names of the figures, which are also the names of their columns."""


class UsageKey(NamedTuple):
    """`gpu_model` "" = no GPU was held, or it is not known which. `attributes_id` None = the last ones
    known."""

    day: date
    project_id: int
    department_id: int | None
    gpu_model: str = ""
    attributes_id: UUID | None = None


class _Span(NamedTuple):
    start: int
    end: int

    def intersection(self, other: "_Span") -> "_Span":
        return _Span(max(self.start, other.start), min(self.end, other.end))

    @property
    def length(self) -> int:
        return max(0, self.end - self.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageHistory:
    """All that the usage of one workload in [`start`, `end`) follows from.

    `steps` and `phases` begin with those in force at `start` and are ordered; `phases` hold the instants at
    which phases were entered. `gaps`: when nobody observed the cluster. `samples` reach back by
    `MAX_SAMPLE_SPAN_MS` and may reach beyond `end`.
    """

    start: datetime
    end: datetime
    steps: Sequence[UsageStep]
    phases: Sequence[tuple[datetime, Phase]] = ()
    gaps: Sequence[tuple[datetime, datetime]] = ()
    samples: Sequence[UtilizationSample] = ()


def account_usage(history: UsageHistory) -> dict[UsageKey, UsageSums]:
    """What was used, by day, project, model and attributes; days without any use are absent.

    While a workload holds GPUs of several models, every figure is divided as its allocation is.
    """
    sums = _HeldGpus(history)
    for step, span in _steps(history):
        for piece in sums.observed(span):
            sums.add_step(step, piece)
        for piece in sums.unobserved(span):
            sums.add_gap(step, piece)
    sums.add_pending()
    sums.add_idle_corrections()
    sums.add_busy()
    return {key: value for key, value in sums.by_key.items() if value}


def _steps(history: UsageHistory) -> Iterator[tuple[UsageStep, _Span]]:
    whole = _Span(milliseconds(history.start), milliseconds(history.end))
    starts = [milliseconds(step.at) for step in history.steps]
    for step, span in zip(
        history.steps, (_Span(*pair) for pair in pairwise([*starts, whole.end])), strict=True
    ):
        if span.intersection(whole).length:
            yield step, span.intersection(whole)


class _HeldGpus:
    def __init__(self, history: UsageHistory) -> None:
        self.history = history
        self.by_key: dict[UsageKey, UsageSums] = {}
        self._whole = _Span(milliseconds(history.start), milliseconds(history.end))
        self._gaps = list(_merged(history.gaps))
        self._starts = [milliseconds(step.at) for step in history.steps]

    def observed(self, span: _Span) -> Iterator[_Span]:
        """The parts of a span that lie in no gap."""
        start = span.start
        for gap in self._gaps:
            if gap.end <= start or gap.start >= span.end:
                continue
            if gap.start > start:
                yield _Span(start, gap.start)
            start = gap.end
        if start < span.end:
            yield _Span(start, span.end)

    def unobserved(self, span: _Span) -> Iterator[_Span]:
        for gap in self._gaps:
            common = gap.intersection(span)
            if common.length:
                yield common

    def _add(self, step: UsageStep, span: _Span, rates: Iterable[tuple[str, float]]) -> None:
        """Add each rate × time to the days that the span touches."""
        for day in _days(span):
            for name, rate in rates:
                self._add_amount(step, day.start, name, round(rate * day.length))

    def _add_amount(self, step: UsageStep, at_ms: int, name: str, amount: int) -> None:
        for model, part in _divided(amount, step):
            key = UsageKey(
                day_of(at_ms), step.project_id, step.department_id, model, step.attributes_id
            )
            sums = self.by_key.setdefault(key, UsageSums())
            setattr(sums, name, getattr(sums, name) + part)

    def add_step(self, step: UsageStep, span: _Span) -> None:
        self._add(
            step,
            span,
            (
                ("requested_gpu", step.requested_gpu),
                ("allocated_gpu", step.allocated_gpu),
                ("idle_gpu", step.idle_gpu or 0),
                ("unmeasured_gpu", step.allocated_gpu if step.idle_gpu is None else 0),
                ("cpu_millicore_ms", round(step.cpu_cores * 1000)),
                ("memory_mib_ms", step.memory_bytes // 2**20),
            ),
        )

    def add_gap(self, step: UsageStep, span: _Span) -> None:
        self._add(step, span, (("gap_gpu", step.allocated_gpu),))

    def _by_step(self, span: _Span) -> Iterator[tuple[UsageStep, _Span]]:
        """The observed parts of a span, each with the step in force."""
        first = max(0, bisect_right(self._starts, span.start) - 1)
        for index in range(first, len(self._starts)):
            if self._starts[index] >= span.end:
                return
            end = self._starts[index + 1] if index + 1 < len(self._starts) else span.end
            part = _Span(self._starts[index], end).intersection(span).intersection(self._whole)
            for piece in self.observed(part) if part.length else ():
                yield self.history.steps[index], piece

    def add_pending(self) -> None:
        entered = [(milliseconds(at), phase) for at, phase in self.history.phases]
        for (start, phase), (end, _) in pairwise([*entered, (self._whole.end, Phase.UNKNOWN)]):
            if phase is Phase.PENDING:
                for step, piece in self._by_step(_Span(start, end)):
                    self._add(step, piece, (("pending_gpu", step.requested_gpu),))

    def add_idle_corrections(self) -> None:
        """A GPU is known to idle only some minutes after it fell idle: where a step's idle hours are not what
        the steps before add up to, the difference belongs to the time just before it."""
        hours: float | None = None
        previous: UsageStep | None = None
        for step in self.history.steps:
            expected = None if previous is None else _idle_hours(previous, step.at, hours)
            known = step.idle_gpu is not None
            if known and expected is not None and previous is not None:
                self._spread(previous, step, _idle_hours(step, step.at, None) - expected)
            hours = _idle_hours(step, step.at, None) if known else expected or step.idle_hours
            previous = step

    def _spread(self, previous: UsageStep, step: UsageStep, hours: float) -> None:
        """Add GPU-hours, or take them away, just before `step`: so long before as its change of idle GPUs
        explains, and in no gap."""
        amount = round(hours * MILLIONTH_MS_PER_HOUR)
        rate = abs((step.idle_gpu or 0) - (previous.idle_gpu or 0)) or step.allocated_gpu
        at = milliseconds(step.at)
        if not amount or not rate or not self._whole.start <= at < self._whole.end:
            return
        length = max(1, round(abs(amount) / rate))
        start = max(at - length, self._whole.start)
        share = amount / length
        before = _Span(at - length, self._whole.start)
        for piece in self.observed(_Span(start, at)):
            self._add(previous, piece, (("idle_gpu", share),))
        if before.length:
            self._add_amount(previous, start, "idle_gpu", round(share * before.length))

    def add_busy(self) -> None:
        previous = None
        for sample in self.history.samples:
            at = milliseconds(sample.at)
            if previous is not None:
                span = _Span(max(previous, at - MAX_SAMPLE_SPAN_MS), at)
                for step, piece in self._by_step(span.intersection(self._whole)):
                    busy = step.allocated_gpu * min(max(sample.utilization, 0.0), 1.0)
                    self._add(
                        step, piece, (("busy_gpu", busy), ("sampled_gpu", step.allocated_gpu))
                    )
            previous = at


def _divided(amount: int, step: UsageStep) -> Iterator[tuple[str, int]]:
    """Parts that add up to the amount exactly, by the models whose GPUs are held."""
    models = sorted(step.gpu_by_model.items()) if step.allocated_gpu else []
    total = sum(share for _, share in models)
    if not total:
        yield "", amount
        return
    until = 0
    for model, share in models:
        yield model, amount * (until + share) // total - amount * until // total
        until += share


def _idle_hours(step: UsageStep, at: datetime, known: float | None) -> float:
    """Idle GPU-hours up to `at`, while the step is in force. `known`: up to the step's own beginning."""
    if step.idle_gpu is None:
        return step.idle_hours if known is None else known
    if not step.idle_gpu or step.idle_mean_since is None:
        return step.idle_hours
    running = max(0, milliseconds(at) - milliseconds(step.idle_mean_since))
    return step.idle_hours + step.idle_gpu * running / MILLIONTH_MS_PER_HOUR


def _days(span: _Span) -> Iterator[_Span]:
    start = span.start
    while start < span.end:
        end = min(span.end, (start // DAY_MS + 1) * DAY_MS)
        yield _Span(start, end)
        start = end


def _merged(gaps: Sequence[tuple[datetime, datetime]]) -> Iterator[_Span]:
    """In order, overlapping ones as one."""
    current: _Span | None = None
    for gap in sorted(_Span(milliseconds(start), milliseconds(end)) for start, end in gaps):
        if current is not None and gap.start <= current.end:
            current = _Span(current.start, max(current.end, gap.end))
            continue
        if current is not None:
            yield current
        current = gap
    if current is not None:
        yield current

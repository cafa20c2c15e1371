"""What is said of a fleet at one instant, and the SQL that both the present and the series are summed by.

Knows figures and their columns, not when they are taken or for whom.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import msgspec

from watchbill.store.select import CLUSTER_JOIN, GPU, LIVE
from watchbill.sync import NodePoolCapacity
from watchbill.workload import Phase, gpu_millionths

DAY = timedelta(days=1)
PHASES = {f"phase_{phase.value.lower()}": phase.value for phase in Phase}
"""A column and the phase that it counts."""

WAIT_BOUNDS: tuple[float, ...] = tuple(math.sqrt(2.0) ** step for step in range(47))
"""Seconds, from one to some ninety days, each √2 times the one before: a median read from counts between
them is off by a fifth at most."""


class FleetGpus(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`measured` = allocated GPUs of which it is known whether they are idle."""

    allocated: float
    measured: float
    idle: float | None
    total: float | None


class FleetPending(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    count: int
    median_wait_seconds: int | None


class FleetMoment(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The fleet within a scope at one instant; None = not known, which is not 0."""

    at: datetime
    workloads: int
    phases: dict[str, int]
    gpus: FleetGpus
    pending: FleetPending
    failed_in_last_day: int


COUNTS = {
    "allocated_gpu": "coalesce(sum(w.allocated_gpu), 0)::bigint",
    "measured_gpu": "coalesce(sum(w.measured_gpu), 0)::bigint",
    "idle_gpu": "coalesce(sum(w.idle_gpu), 0)::bigint",
    **{
        column: f"coalesce(sum(w.workloads) FILTER (WHERE w.phase = '{phase}'), 0)::int"
        for column, phase in PHASES.items()
    },
}
"""A column of the series and how it is counted over the tally of live workloads."""

SUMS = {column: f"sum(w.{column})::bigint" for column in (*COUNTS, "failed_in_day")}
"""The same over rows of the series."""

WAITED = (
    "greatest(0, extract(epoch FROM least($1::timestamptz, c.last_contact_at) - w.phase_updated_at))"
    "::float8"
)
PENDING = f"workload w {CLUSTER_JOIN} WHERE {LIVE} AND w.phase = 'Pending'"
FAILED = (
    "((w.deleted_at IS NULL AND w.phase IN ('Failed', 'Deleting', 'Terminating') "
    "AND w.resting_phase = 'Failed' AND w.resting_phase_at >= {0}) "
    "OR (w.deleted_at >= {0} AND w.phase = 'Failed' AND w.phase_updated_at >= {0}))"
)
"""{0}: since when. Each half has an index; who failed lately and is gone was deleted lately too."""


def moment(
    at: datetime, row: Mapping[str, Any], *, total: float | None, median: float | None
) -> FleetMoment:
    """From one row of sums, under the names of `SUMS`."""
    phases = {phase: int(row[column]) for column, phase in PHASES.items() if row[column]}
    allocated, measured = row["allocated_gpu"], row["measured_gpu"]
    return FleetMoment(
        at=at,
        workloads=sum(phases.values()),
        phases=phases,
        gpus=FleetGpus(
            allocated=allocated / GPU,
            measured=measured / GPU,
            idle=None if allocated and not measured else row["idle_gpu"] / GPU,
            total=total,
        ),
        pending=FleetPending(
            count=phases.get(Phase.PENDING, 0),
            median_wait_seconds=None if median is None else int(median),
        ),
        failed_in_last_day=int(row["failed_in_day"]),
    )


def capacity(node_pools: bytes | None) -> int | None:
    """GPU millionths of a cluster; None where its agent has not told. One that has only begun tells of no
    node pool at all, as no cluster is."""
    pools = msgspec.json.decode(node_pools or b"[]", type=tuple[NodePoolCapacity, ...])
    return sum(gpu_millionths(pool.gpus) for pool in pools) if pools else None


def median_of(counts: Mapping[int, int]) -> float | None:
    """The median of what was counted between `WAIT_BOUNDS`; bucket 0 lies below the first of them."""
    half: float = sum(counts.values()) / 2
    bounds: tuple[float, ...] = (0.0, *WAIT_BOUNDS, WAIT_BOUNDS[-1] * 2)
    passed = 0
    for bucket, (low, high) in enumerate(pairwise(bounds)):
        count = counts.get(bucket, 0)
        if count and passed + count >= half:
            return low + (high - low) * (half - passed) / count
        passed += count
    return None


def buckets_by_instant(rows: Iterable[asyncpg.Record]) -> dict[datetime, dict[int, int]]:
    found: dict[datetime, dict[int, int]] = {}
    for row in rows:
        found.setdefault(row["at"], {})[row["bucket"]] = row["count"]
    return found

"""Usage by day: what workloads requested, were allocated, left idle and were pending for."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

from watchbill.responses.contract import Amount, Instant
from watchbill.tabular import CsvCell
from watchbill.workload import Wire


class UsageFigures(Wire, frozen=True, kw_only=True):
    """Sums over the days and workloads of a group."""

    requested_gpu_hours: Annotated[
        float,
        msgspec.Meta(ge=0, description="GPUs asked for × time, while the workload was there."),
    ]
    allocated_gpu_hours: Annotated[
        float, msgspec.Meta(ge=0, description="GPUs that pods with a node held × time.")
    ]
    busy_gpu_hours: Annotated[
        float | None,
        msgspec.Meta(
            description="Allocated GPU-hours × utilization, over the hours that samples speak for "
            "(`sampledGpuHours`). Null where there are no samples."
        ),
    ]
    sampled_gpu_hours: Amount
    idle_gpu_hours: Annotated[
        float | None,
        msgspec.Meta(
            description="Allocated GPU-hours in which the GPU was idle. Null where nothing measured it."
        ),
    ]
    unmeasured_gpu_hours: Annotated[
        float,
        msgspec.Meta(
            ge=0, description="Allocated GPU-hours of which nobody knows whether they idled."
        ),
    ]
    gap_gpu_hours: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            description="GPU-hours that would have been allocated if nothing changed while nobody observed the "
            "cluster; part of no other figure.",
        ),
    ]
    pending_gpu_hours: Annotated[
        float, msgspec.Meta(ge=0, description="GPUs asked for × time in phase Pending.")
    ]
    cpu_core_hours: Annotated[
        float, msgspec.Meta(ge=0, description="CPU cores that pods asked for × time.")
    ]
    memory_gib_hours: Annotated[
        float, msgspec.Meta(ge=0, description="Memory that pods asked for × time.")
    ]
    cost: Annotated[
        float | None,
        msgspec.Meta(
            description="Allocated GPU-hours × their price. Null where no price applies to any of them."
        ),
    ]
    unpriced_gpu_hours: Annotated[
        float, msgspec.Meta(ge=0, description="Allocated GPU-hours without a price.")
    ]


class UsageRow(UsageFigures, frozen=True, kw_only=True):
    group: Annotated[
        dict[str, str | None],
        msgspec.Meta(
            description="The value of each group; null where a workload has none. Grouped by workload it also "
            "holds `workloadId`."
        ),
    ]


NO_USAGE = UsageRow(
    group={},
    requested_gpu_hours=0.0,
    allocated_gpu_hours=0.0,
    busy_gpu_hours=None,
    sampled_gpu_hours=0.0,
    idle_gpu_hours=0.0,
    unmeasured_gpu_hours=0.0,
    gap_gpu_hours=0.0,
    pending_gpu_hours=0.0,
    cpu_core_hours=0.0,
    memory_gib_hours=0.0,
    cost=None,
    unpriced_gpu_hours=0.0,
)
"""Of who used nothing."""


class UsageReport(Wire, frozen=True, kw_only=True):
    """`start` and `end`: midnights in UTC; `end` is not part of the report."""

    start: Instant
    end: Instant
    accounted_until: Annotated[
        Instant | None,
        msgspec.Meta(
            description="What happened later is not counted yet. Null until all is counted, for the first "
            "time or anew: the figures are not complete then."
        ),
    ]
    recorded_since: Annotated[
        Instant | None,
        msgspec.Meta(
            description="The first day of which the server has usage of any workload, visible to the caller or "
            "not; left out where it has none. That day may be counted in part."
        ),
    ] = None
    currency: str | None
    price_note: Annotated[
        str | None,
        msgspec.Meta(
            description="What the file of prices says of them, such as that they are examples."
        ),
    ] = None
    totals: UsageFigures
    rows: tuple[UsageRow, ...]
    next_offset: int | None = msgspec.field(name="next", default=None)


def usage_header(groups: Sequence[str]) -> list[CsvCell]:
    """For CSV: the groups, then the figures as the API names them."""
    names = [*groups, *(["workloadId"] if "workload" in groups else [])]
    return [*names, *(spec.encode_name for spec in msgspec.structs.fields(UsageFigures))]


def usage_table(groups: Sequence[str], rows: Iterable[UsageRow]) -> list[list[CsvCell]]:
    """A header and a line for each row, for CSV."""
    names = [*groups, *(["workloadId"] if "workload" in groups else [])]
    figures = msgspec.structs.fields(UsageFigures)
    return [
        usage_header(groups),
        *(
            [
                *(row.group.get(name) for name in names),
                *(getattr(row, spec.name) for spec in figures),
            ]
            for row in rows
        ),
    ]


ROOTS: tuple[type[msgspec.Struct], ...] = (UsageReport,)

"""`projects` and `departments`: GPUs by quota, allocated, requested and idle."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.lookup import (
    cluster_names,
    filter_item,
    find_cluster,
    noted_cluster_names,
)
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    format_bytes,
    format_count,
    format_known,
    format_number,
)
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    AnswerFormat,
    Cell,
    Row,
    TableFormat,
    safe,
    table_lines,
)

if TYPE_CHECKING:
    from watchbill.responses.organisation import (
        DepartmentResponse,
        ProjectResponse,
        QuotaStatus,
        UnitResources,
    )

SHOWN_UNITS = 50
UNLIMITED = "unlimited"
_BYTES_PER_MEGABYTE = 1_000_000
_FIGURES = (
    *("gpuQuota", "allocatedGpus", "requestedGpus"),
    *("runningWorkloads", "pendingWorkloads", "idleAllocatedGpus"),
)
_WIDE = (
    *("gpuLimit", "gpuOverQuotaWeight", "allocatedCpu", "allocatedMemory"),
    *("averageGpuAllocation", "cluster"),
)
_CSV = (
    *("cluster", "name", "parent", "scheduler", "gpuQuota", "allocatedGpus", "requestedGpus"),
    *("allocatedGpusNonPreemptible", "allocatedCpuMillicores", "allocatedMemoryMegabytes"),
    *("workloads", "runningWorkloads", "pendingWorkloads", "idleAllocatedGpus"),
)
ProjectName = Annotated[
    str | None,
    typer.Argument(
        metavar="PROJECT",
        help="One project, by name: its quotas by node pool.",
        show_default=False,
        autocompletion=options.complete_project,
    ),
]
Output = Annotated[TableFormat, typer.Option("--output", "-o", help="How to print.")]
UnitSearch = Annotated[
    str | None, typer.Option("--search", "-s", help="Text in the project's or department's name.")
]


@server_command
async def projects(
    session: CommandContext,
    name: ProjectName = None,
    output: Output = TableFormat.TABLE,
    cluster: options.ClusterOption = None,
    search: UnitSearch = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """List projects: GPUs by quota, allocated, requested and idle; running and pending workloads.

    QUOTA, ALLOCATED, REQUESTED (by all live workloads) and IDLE are GPUs, RUNNING and PENDING are workloads.
    With -o wide, LIMIT and WEIGHT are those of GPUs by node pool, CPU and MEMORY are allocated, and
    ALLOCATED-24H is the mean of ALLOCATED over a day. `?` is not known,
    `-` is none: a namespace that is in no queue has no quota.
    """
    from watchbill.client.reader import project_list
    from watchbill.errors import NotFound

    filters = [] if name is None else [filter_item("name", name, "==")]
    if cluster is not None:
        filters.append(f"clusterId=={(await find_cluster(session.client, cluster)).id}")
    most = limit or (SHOWN_UNITS if output in (TableFormat.TABLE, TableFormat.WIDE) else None)
    listed = await project_list(session.client, filters=tuple(filters), search=search, most=most)
    if name is not None and not listed.projects:
        raise NotFound(f"There is no project {name}.", details="`watchbill projects` lists them.")
    if name is not None and output is TableFormat.TABLE:
        clusters = await noted_cluster_names(
            session, {project.cluster_id for project in listed.projects}, "figures"
        )
        for project in listed.projects:
            for line in _project_lines(project, clusters):
                session.terminal.print(line)
        return
    await _print(session, listed.projects, output, "projects", has_headers=not no_headers)
    if listed.next_offset is not None:
        session.terminal.note(
            f"The first {format_count(len(listed.projects))}; --limit shows more."
        )


@server_command
async def departments(
    session: CommandContext,
    output: Output = TableFormat.TABLE,
    cluster: options.ClusterOption = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """List departments: GPUs by quota, allocated, requested and idle; running and pending workloads.

    The columns are those of `watchbill projects`; PARENT is the department above. Where you may see only some
    projects of a department, its figures are `-`.
    """
    from watchbill.client.reader import department_list

    filters: tuple[str, ...] = ()
    if cluster is not None:
        filters = (f"clusterId=={(await find_cluster(session.client, cluster)).id}",)
    most = limit or (SHOWN_UNITS if output in (TableFormat.TABLE, TableFormat.WIDE) else None)
    listed = await department_list(session.client, filters=filters, most=most)
    await _print(session, listed.departments, output, "departments", has_headers=not no_headers)
    if listed.next_offset is not None:
        count = format_count(len(listed.departments))
        session.terminal.note(f"The first {count}; --limit shows more.")


async def _print(
    session: CommandContext,
    units: "Sequence[ProjectResponse | DepartmentResponse]",
    output: TableFormat,
    word: str,
    *,
    has_headers: bool,
) -> None:
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[AnswerFormat(output.value)]({word: units}))
        return
    is_plain = output is TableFormat.TABLE
    if output is TableFormat.CSV:
        from watchbill.tabular import rows_as_csv

        clusters = await cluster_names(session)
        session.terminal.write(rows_as_csv([_CSV, *(_csv_row(unit, clusters) for unit in units)]))
        return
    shown = {unit.cluster_id for unit in units}
    clusters = await noted_cluster_names(session, shown, "figures")
    has_clusters = is_plain and len(shown) > 1
    parent = "department" if word == "projects" else "parent"
    columns = ["name", parent, *_FIGURES, *(() if is_plain else _WIDE)]
    rows = [_row(unit, clusters, is_wide=not is_plain) for unit in units]
    if has_clusters:
        columns.insert(1, "cluster")
        rows = [
            [row[0], clusters.get(unit.cluster_id, NONE), *row[1:]]
            for row, unit in zip(rows, units, strict=True)
        ]
    for line in table_lines(header_row(*columns) if has_headers else None, rows, session.terminal):
        session.terminal.print(line)
    if not units:
        session.terminal.note(
            f"No {word} visible to you; `watchbill clusters` shows which clusters report."
        )


def _quota_status(unit: "ProjectResponse | DepartmentResponse") -> "QuotaStatus | None":
    return None if unit.status is None else unit.status.quota_status


def _row(
    unit: "ProjectResponse | DepartmentResponse", clusters: dict[Any, str], *, is_wide: bool
) -> Row:
    status, live = _quota_status(unit), unit.workloads
    row: list[Cell | str] = [unit.name, unit.parent.name if unit.parent else NONE, _quota(unit)]
    if status is None or live is None:
        row += [NONE] * 5
    else:
        row += [
            format_known(status.allocated.gpu),
            format_known(status.requested.gpu),
            format_count(live.running),
            format_count(live.pending),
            format_known(live.idle_gpus),
        ]
    if is_wide:
        mean = unit.overtime_data.range24h_data if unit.overtime_data else None
        row += [
            _joined(unit.resources, "limit"),
            _joined(unit.resources, "over_quota_weight"),
            format_known(status.allocated.cpu and status.allocated.cpu / 1000) if status else NONE,
            format_known(status.allocated.memory, _size) if status else NONE,
            format_number(mean.average_gpu_allocation) if mean else NONE,
            clusters.get(unit.cluster_id, NONE),
        ]
    return row


def _quota(unit: "ProjectResponse | DepartmentResponse") -> str:
    """A queue that says nothing of GPUs, or grants slices of an unknown size, is not without a bound."""
    if unit.total_resources.gpu_quota is not None:
        return format_number(unit.total_resources.gpu_quota)
    quotas = [each.gpu.deserved for each in unit.resources]
    return UNLIMITED if any(quota is not None and quota < 0 for quota in quotas) else NONE


def _joined(resources: "Sequence[UnitResources]", member: str) -> str:
    """Of GPUs, node pool by node pool."""
    return ",".join(_bounded(getattr(each.gpu, member)) for each in resources) or NONE


def _bounded(amount: float | None) -> str:
    if amount is None:
        return NONE
    return UNLIMITED if amount < 0 else format_number(amount)


def _size(megabytes: float) -> str:
    return format_bytes(megabytes * _BYTES_PER_MEGABYTE)


def _csv_row(
    unit: "ProjectResponse | DepartmentResponse", clusters: dict[Any, str]
) -> Sequence[Any]:
    status, live = _quota_status(unit), unit.workloads
    figures: Sequence[Any] = [None] * 9
    if status is not None and live is not None:
        figures = (
            *(status.allocated.gpu, status.requested.gpu, status.allocated_non_preemptible.gpu),
            *(status.allocated.cpu, status.allocated.memory),
            *(live.total, live.running, live.pending, live.idle_gpus),
        )
    return (
        *(clusters.get(unit.cluster_id, str(unit.cluster_id)), unit.name),
        *(unit.parent.name if unit.parent else None, unit.scheduler),
        *(unit.total_resources.gpu_quota, *figures),
    )


def _project_lines(project: "ProjectResponse", clusters: dict[Any, str]) -> Iterator[str]:
    status = project.status.quota_status
    live = project.workloads
    message = f" ({project.status.phase_message})" if project.status.phase_message else ""
    facts = {
        "Project": project.name,
        "Department": project.parent.name if project.parent else "",
        "Cluster": clusters.get(project.cluster_id, str(project.cluster_id)),
        "Queue": f"{project.scheduler}, {project.status.phase}{message}"
        if project.scheduler
        else "none",
        "GPUs": f"{format_known(status.allocated.gpu)} allocated "
        f"({format_known(status.allocated_non_preemptible.gpu)} "
        f"not preemptible, {format_known(live.idle_gpus)} idle), "
        f"{format_known(status.requested.gpu)} requested, "
        f"quota {_quota(project)}",
        "Workloads": f"{format_count(live.total)}: {format_count(live.running)} running, "
        f"{format_count(live.pending)} pending",
    }
    for label, text in facts.items():
        if text:
            yield f"{label + ':':<12}{safe(text)}"
    by_pool = {
        each.node_pool_name: each.allocated for each in project.status.node_pool_quota_statuses
    }
    quotas = {each.node_pool.name if each.node_pool else "": each for each in project.resources}
    for pool in sorted(by_pool.keys() | quotas.keys()):
        allocated = format_known(by_pool[pool].gpu) if pool in by_pool else "0"
        quota = quotas.get(pool)
        yield safe(
            f"Node pool {pool or '(any)'}: {allocated} GPUs allocated"
            + (
                f", quota {_bounded(quota.gpu.deserved)}, limit {_bounded(quota.gpu.limit)}, "
                f"over-quota weight {_bounded(quota.gpu.over_quota_weight)}"
                if quota
                else ", no quota"
            )
        )

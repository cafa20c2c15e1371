"""`pods` and `logs`: the pods of workloads, and the kubectl commands that print what they wrote."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import (
    LookupScope,
    cluster_names,
    find_cluster,
    find_workload,
    noted_cluster_names,
)
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import NONE, format_age, format_count, format_number
from watchbill.cli.output.kubectl import log_lines
from watchbill.cli.output.terminal import (
    DOCUMENTS,
    PHASE_COLOURS,
    Cell,
    Row,
    TableFormat,
    Terminal,
    fitting_columns,
    table_lines,
    width,
)

if TYPE_CHECKING:
    from watchbill.responses.contract import PodResponse, PodsResponse

SHOWN_PODS = 50
_Deleted = Annotated[bool, typer.Option("--deleted", help="Deleted pods instead of live ones.")]
_Search = Annotated[
    str | None,
    typer.Option("--search", "-s", help="Text in the name of the pod, its workload or its node."),
]
POD_COLUMNS = (
    *("name", "status", "isReady", "restarts", "lastExit", "node", "nodePool", "allocatedGpus"),
    "age",
)
_LEFT_OUT = ("isReady", "nodePool", "allocatedGpus")
_LEFT_OUT_NEXT = ("workload", "lastExit")
"""Where there is still no room: a pod's name begins with that of its workload."""


@server_command
async def pods(
    session: CommandContext,
    typed: typer.Context,
    name: options.MaybeNamed = None,
    output: options.TableOutput = TableFormat.TABLE,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    deleted: _Deleted = False,
    search: _Search = None,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """List the pods of a workload, or of all workloads: status, restarts, node, GPUs.

    Of one workload what failed or cannot run comes first. Deleted pods are kept for 14 days. --project chooses
    between workloads of the same NAME.
    """
    if name is None and project is not None:
        if not _is_from_environment(typed, "project"):
            usage_error(
                "--project works only with the NAME of a workload; use --search or --cluster."
            )
        session.terminal.note("Pods of all projects: WATCHBILL_PROJECT does not narrow this list.")
    client, workload_id = session.client, None
    filters: tuple[str, ...] = ()
    if name is not None:
        scope = LookupScope(project=project, cluster=cluster)
        workload_id = (await find_workload(client, name, scope)).workload.id
    if name is None and cluster is not None:
        filters = (f"clusterId=={(await find_cluster(client, cluster)).id}",)
    is_for_people = output in (TableFormat.TABLE, TableFormat.WIDE)
    most = limit or (SHOWN_PODS if is_for_people else None)
    is_sorted = workload_id is not None and is_for_people
    first = None if is_sorted else most
    listed = await client.pods(
        workload_id, filters=filters, search=search, is_deleted=deleted, most=first
    )
    if is_sorted:
        from watchbill.client.selection import failing_first

        listed = failing_first(listed, most)
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output]({"pods": listed.pods}))
        return
    if output is TableFormat.CSV:
        session.terminal.write(_csv(listed.pods, await cluster_names(session)))
        return
    is_wide, of_one = output is TableFormat.WIDE, workload_id is not None
    _print_pods(session, listed, of_one=of_one, is_wide=is_wide, has_headers=not no_headers)
    if not listed.pods:
        session.terminal.note("No pods visible to you." if deleted else "No pods; see --deleted.")
    elif not deleted:
        await noted_cluster_names(session, {pod.cluster_id for pod in listed.pods}, "pods")


def _csv(listed: "Sequence[PodResponse]", clusters: Mapping[Any, str]) -> bytes:
    """Numbers as they are, and instants instead of ages."""
    from watchbill.tabular import CsvCell, rows_as_csv

    rows: list[Sequence[CsvCell]] = [
        (
            *("name", "id", "workload", "workloadId", "project", "cluster", "status", "isReady"),
            *(
                "restarts",
                "lastExit",
                "node",
                "nodePool",
                "allocatedGpus",
                "createdAt",
                "deletedAt",
            ),
        )
    ]
    rows += [
        (
            *(pod.name, str(pod.id), pod.workload_name, str(pod.workload_id), pod.project_name),
            *(clusters.get(pod.cluster_id, str(pod.cluster_id)), _status(pod).text),
            *("true" if pod.is_ready else "false", pod.restarts, next(_exits(pod), None)),
            *(pod.node_name, pod.current_node_pool),
            pod.allocated_resources.gpu if pod.allocated_resources else None,
            *(pod.created_at, pod.deleted_at),
        )
        for pod in listed
    ]
    return rows_as_csv(rows)


def _is_from_environment(typed: typer.Context, option: str) -> bool:
    source = typed.get_parameter_source(option)
    return source is not None and source.name == "ENVIRONMENT"


def _print_pods(
    session: CommandContext,
    listed: "PodsResponse",
    *,
    of_one: bool,
    is_wide: bool,
    has_headers: bool,
) -> None:
    columns = (*POD_COLUMNS, "ip", "id") if is_wide else POD_COLUMNS
    rows = pod_rows(listed.pods, session.now())
    if is_wide:
        rows = [
            [*row, pod.ip or NONE, str(pod.id)] for pod, row in zip(listed.pods, rows, strict=True)
        ]
    if not of_one:
        columns = ("workload", *columns)
        named = zip(listed.pods, rows, strict=True)
        rows = [[pod.workload_name or NONE, *row] for pod, row in named]
    for line in pod_lines(columns, rows, session.terminal, has_headers=has_headers):
        session.terminal.print(line)
    for line in _messages(listed.pods) if of_one else ():
        session.terminal.note(line)
    if listed.next_offset is not None:
        session.terminal.note(f"The first {format_count(len(rows))}; --limit shows more.")


def pod_lines(
    columns: Sequence[str],
    rows: Sequence[Row],
    terminal: Terminal,
    *,
    has_headers: bool = True,
    indent: str = "",
) -> list[str]:
    """Where a terminal has no room for all columns, without those that say least of what went wrong: pods of
    one workload begin with the same name, and what tells them apart would be cut."""

    def lines(columns: Sequence[str], rows: Sequence[Row], terminal: Terminal) -> list[str]:
        headers = header_row(*columns) if has_headers else None
        return table_lines(headers, rows, terminal, indent=indent)

    whole = lines(columns, rows, Terminal())
    if terminal.columns is None or max(map(width, whole), default=0) <= terminal.columns:
        return lines(columns, rows, terminal)
    kept = [at for at, column in enumerate(columns) if column not in _LEFT_OUT]
    headers, shown = header_row(*columns), [[row[at] for at in kept] for row in rows]
    left = fitting_columns(
        [headers[at] for at in kept], shown, terminal, header_row(*_LEFT_OUT_NEXT)
    )
    kept = [at for at in kept if headers[at] in left]
    return lines([columns[at] for at in kept], [[row[at] for at in kept] for row in rows], terminal)


def _messages(listed: "Sequence[PodResponse]") -> Iterator[str]:
    """A message that many pods have once."""
    names: dict[str, list[str]] = {}
    for pod in listed:
        if pod.message:
            names.setdefault(pod.message, []).append(pod.name)
    for message, (first, *others) in names.items():
        more = f" and {format_count(len(others))} more" if others else ""
        yield f"note: pod {first}{more}: {message}"


def pod_rows(listed: "Sequence[PodResponse]", now: datetime) -> list[Row]:
    return [
        [
            pod.name,
            _status(pod),
            "yes" if pod.is_ready else "no",
            format_count(pod.restarts),
            next(_exits(pod), NONE),
            pod.node_name or NONE,
            pod.current_node_pool or NONE,
            format_number(pod.allocated_resources.gpu) if pod.allocated_resources else NONE,
            format_age(pod.created_at, now),
        ]
        for pod in listed
    ]


def _status(pod: "PodResponse") -> Cell:
    """The reason where something is wrong, else the phase, as kubectl has it."""
    if pod.is_terminating and pod.deleted_at is None:
        return Cell("Terminating", PHASE_COLOURS.get("Terminating"))
    colour = PHASE_COLOURS.get("Failed" if pod.reason else pod.k8s_phase)
    return Cell(pod.reason or pod.k8s_phase, colour)


def _exits(pod: "PodResponse") -> Iterator[str]:
    """How containers ended last, the failed ones first."""
    ends = [
        (each.last_exit_code, each.last_reason)
        if each.state != "terminated"
        else (each.exit_code, each.reason)
        for each in pod.containers
    ]
    for code, reason in sorted(ends, key=lambda end: not end[0]):
        if code is not None:
            yield f"{reason or 'Error'} ({code})"


@server_command
async def logs(
    session: CommandContext,
    name: options.Named,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
) -> None:
    """Print the kubectl commands that show a workload's logs. Watchbill itself reads no logs."""
    from watchbill.client.selection import failing_first

    scope = LookupScope(project=project, cluster=cluster)
    workload = (await find_workload(session.client, name, scope)).workload
    listed = failing_first(await session.client.pods(workload.id), SHOWN_PODS)
    if not listed.pods:
        session.terminal.note("It has no live pods, so the cluster keeps no logs of it.")
        return
    for line in log_lines(listed.pods):
        session.terminal.print(line)
    if listed.next_offset is not None:
        session.terminal.note(f"Only its first {SHOWN_PODS} pods; `watchbill pods` lists all.")

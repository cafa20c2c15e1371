"""`get`, `count`, `export`: many workloads at once."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import (
    AI_WORK,
    GENERAL_WORK,
    LookupScope,
    find_workload,
    load_view,
    name_filters,
    scope_filters,
)
from watchbill.cli.connection.options import parse_moment, sort_field
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import (
    COLUMNS,
    TABLE,
    TABLE_ROWS,
    WIDE,
    ColumnView,
    TableColumn,
    note_stale_clusters,
    select_columns,
)
from watchbill.cli.output.formats import CsvList, JsonList, NameList, Writer, YamlList
from watchbill.cli.output.humanize import format_count, rfc3339
from watchbill.cli.output.terminal import DOCUMENTS, safe, table_lines

if TYPE_CHECKING:
    from watchbill.client import Client, Selection, WorkloadDocument
    from watchbill.responses.contract import WorkloadResponse


class ListFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    NAME = "name"
    ID = "id"


class ExportFormat(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"


@server_command
async def get(
    session: CommandContext,
    name: options.MaybeNamed = None,
    output: Annotated[ListFormat, typer.Option("--output", "-o", help="How to print.")] = (
        ListFormat.TABLE
    ),
    filters: options.Filters = None,
    search: options.Search = None,
    image: options.Image = None,
    node: options.Node = None,
    gpu_type: options.GpuType = None,
    labels: options.Labels = None,
    sort_by: options.SortBy = None,
    desc: options.Descending = False,
    deleted: options.Deleted = False,
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
    all_workloads: options.AllWorkloads = False,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
    columns: options.Columns = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Watch for changes until Ctrl-C.")
    ] = False,
) -> None:
    """List AI workloads, newest first, or show one workload.

    Tables hold 50 rows unless --limit says otherwise, and say how many there are; the other formats
    print all pages. On a terminal, cells too long for its width are cut with `…`; `-o wide` cuts
    none. GPUS(R/A) is requested/allocated; IDLE is `?` where nothing measures it.
    """
    from watchbill.cli.watch import watch_workloads
    from watchbill.client import Selection

    selected = select_columns(columns, WIDE if output is not ListFormat.TABLE else TABLE)
    named = None if columns is None else selected
    names = name_filters(image=image, node=node, gpu_type=gpu_type, labels=labels)
    if deleted and columns is None and output in TABLES:
        selected = (*selected, COLUMNS["deleted"])
    scope = LookupScope(
        project=project,
        cluster=cluster,
        is_deleted=deleted,
        is_everywhere=everywhere,
        is_ai_work=not all_workloads and not names_class(filters),
    )
    if watch and (name is not None or output not in WATCHED):
        _refuse_watch()
    if name is not None:
        document = await find_workload(session.client, name, scope)
        await _print_one(session, document, output, named, selected, no_headers=no_headers)
        return
    selection = Selection(
        filters=(*(filters or ()), *names, *await scope_filters(session.client, scope)),
        search=search,
        is_deleted=deleted,
        **_order(sort_by, deleted=deleted, desc=desc, is_table=output in TABLES),
    )
    if watch:
        name_or_id = output.value if output in (ListFormat.NAME, ListFormat.ID) else None
        await watch_workloads(
            session, selection, selected, limit=limit or TABLE_ROWS, name_or_id=name_or_id
        )
    elif output in TABLES:
        await print_table(
            session, selection, selected, limit=limit or TABLE_ROWS, has_headers=not no_headers
        )
    else:
        await print_data(
            session, selection, _writer(output, named, has_headers=not no_headers), limit=limit
        )


def _refuse_watch() -> NoReturn:
    usage_error(
        "--watch works with lists, as table, wide, name or id.",
        hint="choose what is listed with --filter or --search",
    )


def names_class(filters: Sequence[str] | None) -> bool:
    """Whether somebody chose among AI and other work already."""
    return any("workloadClass" in item for item in filters or ())


def _order(sort_by: str | None, *, deleted: bool, desc: bool, is_table: bool) -> dict[str, Any]:
    """People look for what is new; programs get the order that the API promises."""
    if sort_by is None and is_table:
        return {"sort_by": "deletedAt" if deleted else "createdAt", "is_descending": True}
    return {"sort_by": sort_by and sort_field(sort_by), "is_descending": desc}


TABLES = (ListFormat.TABLE, ListFormat.WIDE)
WATCHED = (ListFormat.TABLE, ListFormat.WIDE, ListFormat.NAME, ListFormat.ID)
_WRITERS: dict[ListFormat, Callable[[], Writer]] = {
    ListFormat.JSON: JsonList,
    ListFormat.YAML: YamlList,
    ListFormat.NAME: lambda: NameList("name"),
    ListFormat.ID: lambda: NameList("id"),
}


async def _print_one(
    session: CommandContext,
    document: "WorkloadDocument",
    output: ListFormat,
    named: Sequence[TableColumn] | None,
    columns: Sequence[TableColumn],
    *,
    no_headers: bool,
) -> None:
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output](document.raw))
    elif output in TABLES:
        view = await load_view(session)
        note_stale_clusters(session.terminal, view, [document.workload])
        _print_rows(session, [document.workload], columns, view, has_headers=not no_headers)
    else:
        writer = _writer(output, named, has_headers=not no_headers)
        for piece in (*writer.page([document]), writer.end(None)):
            session.terminal.write(piece)


def _writer(
    output: ListFormat, columns: Sequence[TableColumn] | None, *, has_headers: bool
) -> Writer:
    """`columns`: those that were named; CSV has all of an export's without."""
    if output is ListFormat.CSV:
        return CsvList(columns, has_headers=has_headers)
    return _WRITERS[output]()


async def print_table(
    session: CommandContext,
    selection: "Selection",
    columns: Sequence[TableColumn],
    *,
    limit: int | None,
    has_headers: bool,
) -> None:
    """The rows on stdout; on stderr what a reader must know besides."""
    import asyncio

    client, terminal = session.client, session.terminal
    view, workloads = await asyncio.gather(
        load_view(session), client.workloads(selection, most=limit)
    )
    _print_rows(session, workloads, columns, view, has_headers=has_headers)
    note_stale_clusters(terminal, view, workloads)
    if not workloads:
        terminal.note(_nothing(selection))
        async for hint in _meant(client, selection):
            terminal.note(hint)
    elif limit is not None and len(workloads) >= limit:
        count = await client.workload_count(selection)
        if count > limit:
            terminal.note(
                f"{format_count(limit)} of {format_count(count)} shown (--limit N for more)"
            )
    await _note_general(session, selection)


_FIELDS_WITH_FEW_VALUES = (
    *("phase", "type", "projectName", "departmentName", "category", "submittedBy"),
    *("priorityClassName", "distributedFramework"),
)

_MOST_FACETS = 6
"""In one request."""


async def _meant(client: "Client", selection: "Selection") -> AsyncIterator[str]:
    """For each filter by a value that no workload has, though one has nearly that: what may be meant."""
    import difflib

    from watchbill.client import Selection
    from watchbill.query import parse_filters
    from watchbill.workload import Phase

    wanted = {
        predicate.field: str(predicate.value)
        for predicate in parse_filters(selection.filters)
        if predicate.operator == "==" and predicate.field in _FIELDS_WITH_FEW_VALUES
    }
    if not wanted:
        return
    known = await client.facets(
        Selection(is_deleted=selection.is_deleted), tuple(wanted)[:_MOST_FACETS]
    )
    for facet in known.facets:
        value, values = wanted[facet.field], [each.value for each in facet.values]
        if facet.field == "phase":
            values = [phase.value for phase in Phase]
        by_lower_case = {each.lower(): each for each in values}
        nearest = difflib.get_close_matches(value.lower(), by_lower_case, n=1)
        if value not in values and nearest:
            meant = by_lower_case[nearest[0]]
            yield f"None has the {facet.field} '{safe(value)}'. Did you mean {safe(meant)}?"


async def _note_general(session: CommandContext, selection: "Selection") -> None:
    """How many match that are not AI work, where these are left out."""
    if AI_WORK not in selection.filters:
        return
    filters = tuple(GENERAL_WORK if item == AI_WORK else item for item in selection.filters)
    count = await session.client.workload_count(replace(selection, filters=filters))
    if count:
        session.terminal.note(
            f"{format_count(count)} not shown, since {'it is' if count == 1 else 'they are'} not AI work "
            "(--all-workloads shows all)"
        )


def _print_rows(
    session: CommandContext,
    workloads: "Sequence[WorkloadResponse]",
    columns: Sequence[TableColumn],
    view: ColumnView,
    *,
    has_headers: bool,
) -> None:
    if not workloads:
        return
    headers = [column.header for column in columns] if has_headers else None
    rows = [[column.show(workload, view) for column in columns] for workload in workloads]
    for line in table_lines(headers, rows, session.terminal):
        session.terminal.print(line)


def _nothing(selection: "Selection") -> str:
    kind = "deleted" if selection.is_deleted else "live"
    is_narrowed = bool(set(selection.filters) - {AI_WORK} or selection.search)
    return f"No {kind} workloads {'match' if is_narrowed else 'visible to you'}."


async def print_data(
    session: CommandContext,
    selection: "Selection",
    writer: Writer,
    *,
    limit: int | None,
) -> None:
    """On stdout all that match, as they were at one moment, or as many pages as a limit takes; on stderr
    whether it left some out."""
    next_offset, shown = None, 0
    is_whole = limit is None and not selection.offset
    client = session.client
    pages = client.snapshot(selection) if is_whole else client.pages(selection, most=limit)
    async for page in pages:
        for piece in writer.page(page.documents):
            session.terminal.write(piece)
        next_offset, shown = page.next_offset, shown + len(page.documents)
    session.terminal.write(writer.end(next_offset))
    if next_offset is not None:
        count = await session.client.workload_count(selection)
        session.terminal.note(f"{format_count(shown)} of {format_count(count)} printed")


@server_command
async def count(
    session: CommandContext,
    filters: options.Filters = None,
    search: options.Search = None,
    image: options.Image = None,
    node: options.Node = None,
    gpu_type: options.GpuType = None,
    labels: options.Labels = None,
    deleted: options.Deleted = False,
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
    all_workloads: options.AllWorkloads = False,
) -> None:
    """Print how many AI workloads match: one number."""
    from watchbill.client import Selection

    scope = LookupScope(
        project=project,
        cluster=cluster,
        is_everywhere=everywhere,
        is_ai_work=not all_workloads and not names_class(filters),
    )
    names = name_filters(image=image, node=node, gpu_type=gpu_type, labels=labels)
    selection = Selection(
        filters=(*(filters or ()), *names, *await scope_filters(session.client, scope)),
        search=search,
        is_deleted=deleted,
    )
    session.terminal.print(str(await session.client.workload_count(selection)))


@server_command
async def export(
    session: CommandContext,
    output: Annotated[ExportFormat, typer.Option("--output", "-o", help="How to print.")] = (
        ExportFormat.CSV
    ),
    filters: options.Filters = None,
    search: options.Search = None,
    image: options.Image = None,
    node: options.Node = None,
    gpu_type: options.GpuType = None,
    labels: options.Labels = None,
    deleted: options.Deleted = False,
    with_deleted: Annotated[
        bool, typer.Option("--with-deleted", help="Live and deleted workloads.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="AGO|DATE",
            help="Only those whose phase began since then: 30m, 12h, 7d or 2026-11-01.",
            show_default=False,
        ),
    ] = None,
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
) -> None:
    """Print every matching workload, streamed from one snapshot of the database.

    All that failed in the last week: export --with-deleted --since 7d -f phase==Failed
    """
    from watchbill.client import Selection

    scope = LookupScope(project=project, cluster=cluster, is_everywhere=everywhere)
    recent: tuple[str, ...] = ()
    if since is not None:
        start = parse_moment("--since", since, datetime.now(UTC))
        recent = (f"phaseUpdatedAt>={rfc3339(start)}",)
    names = name_filters(image=image, node=node, gpu_type=gpu_type, labels=labels)
    narrowing = (*(filters or ()), *names, *recent, *await scope_filters(session.client, scope))
    has_header = output is ExportFormat.CSV
    for is_deleted in (False, True) if with_deleted else (deleted,):
        selection = Selection(filters=narrowing, search=search, is_deleted=is_deleted)
        is_continued = with_deleted and is_deleted and has_header
        await _export(session, selection, output, has_header=not is_continued)


async def _export(
    session: CommandContext, selection: "Selection", output: ExportFormat, *, has_header: bool
) -> None:
    """`has_header` False leaves out the first line, which the rows before already have."""
    ending = _LINE_ENDS[output]
    before: bytes | None = None if has_header else b""
    with session.terminal.progress("Exporting", await _length(session, selection)) as done:
        async for chunk in session.client.export(selection, as_format=output.value):
            done(chunk.count(ending))
            rows = chunk
            if before is not None:
                before += chunk
                _, separator, rows = before.partition(ending)
                before = None if separator else before
            session.terminal.write(rows)


_LINE_ENDS = {ExportFormat.CSV: b"\r\n", ExportFormat.NDJSON: b"\n"}


async def _length(session: CommandContext, selection: "Selection") -> int:
    """How many rows to expect, where somebody watches."""
    if not session.terminal.shows_progress:
        return 0
    return await session.client.workload_count(selection)

"""`workload list` and `workload describe`: the words and flags of Run:ai's own command line."""

from typing import Annotated

import typer

from watchbill.cli.commands.describe import (
    SHOWN_ELEMENTS,
    ComputeSection,
    EventsSection,
    GeneralSection,
    NetworksSection,
    PodsSection,
    chosen_sections,
    print_description,
)
from watchbill.cli.commands.get import print_data, print_table
from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import LookupScope, filter_item, find_workload, scope_filters
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import select_columns
from watchbill.cli.output.formats import JsonList, YamlList
from watchbill.cli.output.terminal import DOCUMENTS, AnswerFormat, json_document

RUNAI_EVENTS = 50
"""As many events as Run:ai's own command shows."""
PAGE_SIZE, MAX_PAGE_SIZE = 100, 500
_COLUMNS = ("name", "type", "phase", "project", "owner", "pods", "gpu", "age")


@server_command
async def list_workloads(
    session: CommandContext,
    project: options.Project = None,
    everywhere: Annotated[
        bool, typer.Option("--all", "-A", help="Every project, whatever else is set.")
    ] = False,
    status: Annotated[
        str | None, typer.Option("--status", help="Only in this phase, as in Running.")
    ] = None,
    framework: Annotated[
        str | None, typer.Option("--framework", help="Only of this distributed framework.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only of this type.")] = None,
    deleted: options.Deleted = False,
    all_workloads: options.AllWorkloads = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Print the API's answer to one page.")] = False,
    page_size: Annotated[
        int, typer.Option(min=1, max=MAX_PAGE_SIZE, help="Workloads per request.")
    ] = PAGE_SIZE,
    next_token: Annotated[
        int, typer.Option(min=0, help="Start at this token: `next` of the answer before.")
    ] = 0,
    no_pagination: Annotated[bool, typer.Option("--no-pagination", help="One page only.")] = False,
    max_items: Annotated[
        int | None, typer.Option(min=1, help="At most this many.  [default: all]")
    ] = None,
    no_headers: options.NoHeaders = False,
    columns: options.Columns = None,
) -> None:
    """List AI workloads, with the flags of `runai workload list`."""
    from watchbill.client import Selection
    from watchbill.responses.contract import WorkloadsResponse

    if as_json + as_yaml + raw > 1:
        usage_error("--json, --yaml and --raw contradict each other.")
    wanted = {"phase": status, "distributedFramework": framework, "type": kind}
    selection = Selection(
        filters=(
            *(filter_item(field, value) for field, value in wanted.items() if value is not None),
            *await scope_filters(
                session.client,
                LookupScope(
                    project=project, is_everywhere=everywhere, is_ai_work=not all_workloads
                ),
            ),
        ),
        is_deleted=deleted,
        offset=next_token,
        page_size=page_size,
    )
    if raw:
        page = await session.client.workload_list(selection, offset=next_token, limit=page_size)
        workloads = tuple(document.raw for document in page.documents)
        answer = WorkloadsResponse(workloads=workloads, next_offset=page.next_offset)
        session.terminal.write(json_document(answer))
        return
    if no_pagination:
        max_items = min(page_size, max_items or page_size)
    if as_json or as_yaml:
        writer = JsonList() if as_json else YamlList()
        await print_data(session, selection, writer, limit=max_items)
    else:
        selected = select_columns(columns, _COLUMNS)
        await print_table(session, selection, selected, limit=max_items, has_headers=not no_headers)


@server_command
async def describe_workload(
    session: CommandContext,
    name: options.Named,
    project: options.Project = None,
    pod_limit: Annotated[
        int, typer.Option(min=0, max=MAX_PAGE_SIZE, help="At most this many elements.")
    ] = SHOWN_ELEMENTS,
    event_limit: Annotated[
        int, typer.Option(min=1, max=MAX_PAGE_SIZE, help="At most this many events.")
    ] = RUNAI_EVENTS,
    general: GeneralSection = None,
    compute: ComputeSection = None,
    pods: PodsSection = None,
    events: EventsSection = None,
    networks: NetworksSection = None,
    output: options.Output = AnswerFormat.TABLE,
) -> None:
    """Show one workload, with the flags of `runai workload describe`."""
    document = await find_workload(session.client, name, LookupScope(project=project))
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output](document.raw))
    else:
        sections = chosen_sections(
            general=general, compute=compute, pods=pods, events=events, networks=networks
        )
        await print_description(
            session,
            document.workload,
            sections=sections,
            max_elements=pod_limit,
            max_events=event_limit,
        )

"""`workload list` and `workload describe`: the words and flags of Run:ai's own command line."""

from typing import Annotated

import typer

from watchbill.cli import options
from watchbill.cli.columns import chosen
from watchbill.cli.describe import DescribeFormat, description
from watchbill.cli.failure import refuse
from watchbill.cli.find import Place, filters_of, find_workload, item, view_of
from watchbill.cli.formats import JsonList, YamlList, json_document, yaml_document
from watchbill.cli.listing import print_data, print_table
from watchbill.cli.session import Session, asks_server

PAGE_SIZE = 100
_COLUMNS = ("name", "type", "phase", "project", "owner", "pods", "gpu", "age")
_DOCUMENTS = {DescribeFormat.JSON: json_document, DescribeFormat.YAML: yaml_document}


@asks_server
async def list_workloads(
    session: Session,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML.")] = False,
    max_items: Annotated[
        int | None, typer.Option(min=1, help="At most so many.  [default: all]")
    ] = None,
    no_headers: options.NoHeaders = False,
    columns: options.Columns = None,
) -> None:
    """List workloads, with the flags of `runai workload list`."""
    from watchbill.client import Selection

    if as_json and as_yaml:
        refuse("--json and --yaml contradict each other.")
    wanted = {"phase": status, "distributedFramework": framework, "type": kind}
    selection = Selection(
        filters=(
            *(item(field, value) for field, value in wanted.items() if value is not None),
            *await filters_of(session.client, Place(project=project, is_everywhere=everywhere)),
        ),
        is_deleted=deleted,
    )
    if as_json or as_yaml:
        writer = JsonList() if as_json else YamlList()
        await print_data(session, selection, writer, limit=max_items)
    else:
        picked = chosen(columns, _COLUMNS)
        await print_table(session, selection, picked, limit=max_items, has_headers=not no_headers)


@asks_server
async def describe_workload(
    session: Session,
    name: options.Named,
    project: options.Project = None,
    output: Annotated[DescribeFormat, typer.Option("--output", "-o", help="How to print.")] = (
        DescribeFormat.TABLE
    ),
) -> None:
    """Show one workload, with the flags of `runai workload describe`."""
    workload = await find_workload(session.client, name, Place(project=project))
    if output in _DOCUMENTS:
        session.terminal.write(_DOCUMENTS[output](workload))
        return
    view, _ = await view_of(session.client)
    for line in description(workload, view, session.terminal):
        session.terminal.print(line)

"""`open`: the web page of what is asked for, in the browser where a person sits at a terminal."""

import sys
from typing import Annotated

import typer

from watchbill.cli import options
from watchbill.cli.find import Place, find_workload
from watchbill.cli.session import Session, asks_server


@asks_server
async def open_page(
    session: Session,
    name: options.MaybeNamed = None,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    only_print: Annotated[bool, typer.Option("--print", help="Open no browser.")] = False,
) -> None:
    """Print the address of the web page, or of one workload's, and open it where this is a terminal."""
    address = session.client.url + "/"
    if name is not None:
        place = Place(project=project, cluster=cluster)
        workload = await find_workload(session.client, name, place)
        address += f"workloads/{workload['id']}"
    session.terminal.print(address)
    if not only_print and sys.stdout.isatty():
        import webbrowser

        if not webbrowser.open(address):
            session.terminal.remark("No browser could be opened here.")

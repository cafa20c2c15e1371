"""`admin cluster …`: register a cluster, list what is registered, remove one."""

import sys
from typing import Annotated

import typer

from watchbill.cli.failure import refuse
from watchbill.cli.session import Session, asks_server
from watchbill.cli.text import safe

ClusterName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")]


@asks_server
async def create(session: Session, name: ClusterName) -> None:
    """Register a cluster and print its agent's credential: one line, shown this once."""
    made = await session.client.cluster_create(name)
    session.terminal.remark(f"Cluster {made['name']} has the id {made['id']}.")
    session.terminal.remark("Keep the line below in a file that only the agent may read. Start it:")
    session.terminal.remark(
        f"watchbill agent --server {session.client.url} --credential FILE [--kubeconfig FILE]"
    )
    session.terminal.print(made["credential"])


@asks_server
async def delete(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the cluster.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a cluster: its agent is shut out and its workloads become deleted ones."""
    from uuid import UUID

    from watchbill.cli.find import find_cluster

    cluster = await find_cluster(session.client, name)
    if not yes:
        _confirm(f"Remove cluster {safe(cluster['name'])} with {cluster['workloads']} workloads?")
    await session.client.cluster_delete(UUID(cluster["id"]))
    session.terminal.remark(f"Cluster {cluster['name']} is removed.")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty() or not typer.confirm(question, err=True):
        refuse("Nothing was removed.", hint="answer y, or pass --yes")

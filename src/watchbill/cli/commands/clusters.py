"""`clusters` and `admin cluster …`: what is registered, how it is heard; register and remove."""

import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.session import CommandContext, asks_server
from watchbill.cli.output.columns import JSON
from watchbill.cli.output.formats import DOCUMENTS
from watchbill.cli.output.humanize import NONE, grouped, number, plural, since
from watchbill.cli.output.table import Cell, lines
from watchbill.cli.output.terminal import PHASE_COLOURS, safe


class ClusterFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


_HEADERS = (
    *("NAME", "STATE", "LAST-CONTACT", "WORKLOADS", "NODES", "GPUS", "KUBERNETES", "AGENT"),
    *("PROBLEMS", "ID"),
)

ClusterName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster.")]


@asks_server
async def create(session: CommandContext, name: ClusterName) -> None:
    """Register a cluster and print its agent's credential: one line, shown this once."""
    made = await session.client.cluster_create(name)
    session.terminal.remark(f"Cluster {made['name']} has the id {made['id']}.")
    session.terminal.remark("Keep the line below in a file that only the agent may read. Start it:")
    session.terminal.remark(
        f"watchbill agent --server {session.client.url} --credential FILE [--kubeconfig FILE]"
    )
    session.terminal.print(made["credential"])


@asks_server
async def clusters(
    session: CommandContext,
    output: Annotated[ClusterFormat, typer.Option("--output", "-o", help="How to print.")] = (
        ClusterFormat.TABLE
    ),
    no_headers: options.NoHeaders = False,
) -> None:
    """List the clusters: whether they are heard of, what they hold, what of them cannot be seen."""
    found = await session.client.clusters()
    if output in DOCUMENTS:
        session.terminal.write(DOCUMENTS[output]({"clusters": found}))
        return
    if output is ClusterFormat.NAME:
        for cluster in found:
            session.terminal.print(safe(cluster["name"]))
        return
    if not found:
        session.terminal.remark(
            "No cluster is registered that you may see. An administrator registers one with "
            "`watchbill admin cluster create NAME`."
        )
        return
    now = datetime.now(UTC)
    rows = [_row(cluster, now) for cluster in found]
    for line in lines(None if no_headers else _HEADERS, rows, session.terminal):
        session.terminal.print(line)
    for cluster in found:
        for trouble in _troubles(cluster):
            session.terminal.remark(f"note: cluster {cluster['name']}: {trouble}")


def _row(cluster: JSON, now: datetime) -> list[Cell | str]:
    pools = cluster.get("nodePools") or []
    contact = cluster.get("lastContactAt")
    return [
        str(cluster["name"]),
        Cell(cluster["state"], PHASE_COLOURS.get(cluster["state"])),
        f"{since(contact, now)} ago" if contact else "never",
        grouped(cluster["workloads"]),
        grouped(sum(pool["nodes"] for pool in pools)),
        number(sum(pool["gpus"] for pool in pools)),
        str(cluster.get("kubernetesVersion") or NONE),
        str(cluster.get("agentVersion") or NONE),
        grouped(len(_troubles(cluster))),
        str(cluster["id"]),
    ]


def _troubles(cluster: JSON) -> list[str]:
    """What keeps the picture of this cluster from being whole."""
    unseen: dict[tuple[str, str | None], list[str]] = {}
    for kind in cluster.get("kinds") or []:
        if kind["state"] in ("forbidden", "failing"):
            unseen.setdefault((kind["state"], kind.get("message")), []).append(kind["kind"])
    found = [
        f"cannot be seen ({state}): {', '.join(kinds)}{_because(message)}"
        for (state, message), kinds in unseen.items()
    ]
    found += [
        f"workload {refused['id']} is refused: {refused['reason']}"
        for refused in cluster.get("refused") or []
    ]
    if cluster.get("takeovers"):
        found.append(
            f"{plural(cluster['takeovers'], 'takeover')}: do two agents run with one credential?"
        )
    return found


def _because(message: str | None) -> str:
    return f". {message}" if message else ""


@asks_server
async def delete(
    session: CommandContext,
    name: Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the cluster.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a cluster: its agent is shut out and its workloads become deleted ones."""
    from uuid import UUID

    from watchbill.cli.connection.lookup import find_cluster

    cluster = await find_cluster(session.client, name)
    if not yes:
        _confirm(f"Remove cluster {safe(cluster['name'])} with {cluster['workloads']} workloads?")
    await session.client.cluster_delete(UUID(cluster["id"]))
    session.terminal.remark(f"Cluster {cluster['name']} is removed.")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty() or not typer.confirm(question, err=True):
        usage_error("Nothing was removed.", hint="answer y, or pass --yes")

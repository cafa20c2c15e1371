"""`clusters` and `admin cluster …`: which are registered and their state; register and remove."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import note_no_cluster
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import (
    NONE,
    UNKNOWN,
    format_age,
    format_bytes,
    format_count,
    format_number,
    plural,
)
from watchbill.cli.output.terminal import (
    PHASE_COLOURS,
    TABLE_DOCUMENTS,
    Cell,
    safe,
    table_document,
    table_lines,
)

if TYPE_CHECKING:
    from watchbill.responses.fleet import Cluster, HeldDeletions

STORED_WARN_SHARE = 0.8
TAKEOVER_NOTED_FOR = timedelta(days=1)

ClusterArgument = Annotated[
    str, typer.Argument(metavar="NAME|ID", help="Name or id of the cluster.")
]
ClusterName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the new cluster.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


class ClusterFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    NAME = "name"


_COLUMNS = (
    *("name", "state", "lastContactAt", "workloads", "nodes", "gpus", "kubernetesVersion"),
    *("agentVersion", "problems"),
)


async def register_cluster(
    session: CommandContext, name: str, secret: AbstractContextManager[Callable[[bytes], object]]
) -> str:
    """The credential of the new cluster's agent, which `secret` takes: begun first, so that none is made that
    cannot be kept."""
    with secret as write:
        created = await session.client.cluster_create(name)
        write(created.credential.encode() + b"\n")
    session.terminal.note(f"Cluster {created.name} has the id {created.id}.")
    return created.credential


@server_command
async def create(
    session: CommandContext, name: ClusterName, output: options.CredentialFile = None
) -> None:
    """Register a cluster and print its agent's credential: one line, shown only once.

    With --output the credential goes into FILE; no cluster is registered if FILE cannot be written.
    """
    await register_cluster(session, name, session.terminal.secret(output))
    if output is None:
        session.terminal.note("Keep that line in a file that only the agent may read.")
    session.terminal.note(
        f"Start its agent: watchbill agent --server {session.client.url} "
        f"--credential {output or 'FILE'} [--kubeconfig FILE]"
    )


@server_command
async def clusters(
    session: CommandContext,
    output: Annotated[ClusterFormat, typer.Option("--output", "-o", help="How to print.")] = (
        ClusterFormat.TABLE
    ),
    no_headers: options.NoHeaders = False,
) -> None:
    """List clusters: connection state, workloads, capacity, and what their agents cannot read."""
    registered = await session.client.clusters()
    if output in TABLE_DOCUMENTS:
        from watchbill.responses.fleet import Cluster

        session.terminal.write(table_document(output, {"clusters": registered}, Cluster))
        return
    if output is ClusterFormat.NAME:
        for cluster in registered:
            session.terminal.print(safe(cluster.name))
        return
    if not registered:
        note_no_cluster(session.terminal, registered)
        return
    now = session.now()
    is_wide = output is ClusterFormat.WIDE
    columns = (*_COLUMNS, "id") if is_wide else _COLUMNS
    rows = [
        [*_row(cluster, now), *([str(cluster.id)] if is_wide else [])] for cluster in registered
    ]
    for line in table_lines(None if no_headers else header_row(*columns), rows, session.terminal):
        session.terminal.print(line)
    for cluster in registered:
        for problem in (*_problems(cluster, now), *_capacity_notes(cluster)):
            session.terminal.note(f"note: cluster {cluster.name}: {problem}")


def _row(cluster: "Cluster", now: datetime) -> list[Cell | str]:
    pools, contact = cluster.node_pools, cluster.last_contact_at
    return [
        cluster.name,
        Cell(cluster.state, PHASE_COLOURS.get(cluster.state)),
        f"{format_age(contact, now)} ago" if contact else "never",
        format_count(cluster.workloads),
        format_count(sum(pool.nodes for pool in pools)),
        _usable_gpus(cluster),
        cluster.kubernetes_version or NONE,
        cluster.agent_version or NONE,
        format_count(len(_problems(cluster, now))),
    ]


def _usable_gpus(cluster: "Cluster") -> str:
    """Physical GPUs that new pods can have; `?` where a node's labels do not tell."""
    gpus = [pool.gpus for pool in cluster.node_pools]
    return UNKNOWN if None in gpus else format_number(sum(count or 0 for count in gpus))


def _capacity_notes(cluster: "Cluster") -> Iterator[str]:
    """What the number of usable GPUs does not say."""
    unknown = [pool.node_pool for pool in cluster.node_pools if pool.gpus is None]
    if unknown:
        yield (
            f"the labels of nodes in {', '.join(unknown)} do not say how much a unit of their GPUs is"
        )
    unusable = [pool.unusable_gpus for pool in cluster.node_pools if pool.unusable_gpus]
    for name, where in (
        ("cordoned", "on cordoned nodes"),
        ("unreachable", "on nodes that are not ready"),
        ("lost", "lost by nodes that had more"),
    ):
        counts = [getattr(pool, name) for pool in unusable]
        if None in counts or sum(counts):
            count = UNKNOWN if None in counts else format_number(sum(counts))
            yield f"GPUs {where}, not counted: {count}"
    for kind in sorted({each.type for pool in cluster.node_pools for each in pool.accelerators}):
        pools = [
            each for pool in cluster.node_pools for each in pool.accelerators if each.type == kind
        ]
        usable, lost = (sum(each.usable for each in pools), sum(each.unusable for each in pools))
        yield f"{kind}: {usable} usable" + (f", {lost} not usable" if lost else "")


def _problems(cluster: "Cluster", now: datetime) -> list[str]:
    """What keeps the picture of this cluster from being complete."""
    problems = [cluster.reason] if cluster.reason else []
    for state in ("forbidden", "failing"):
        kinds = [kind for kind in cluster.kinds if kind.state == state]
        if kinds:
            message = next((kind.message for kind in kinds if kind.message), None)
            problems.append(
                f"cannot be read ({state}): {', '.join(kind.kind for kind in kinds)}"
                + (f". {message}" if message else "")
            )
    if cluster.refused:
        first = cluster.refused[0]
        problems.append(
            f"{plural(len(cluster.refused), 'workload')} rejected, the last one {first.id}: "
            f"{first.reason}"
        )
    if cluster.held_deletions:
        problems.append(held_text(cluster.held_deletions, cluster.name))
    if stored := stored_text(cluster):
        problems.append(stored)
    if taken_over := takeover_text(cluster, now):
        problems.append(f"{taken_over}: do two agents run with one credential?")
    return problems


def takeover_text(cluster: "Cluster", now: datetime) -> str | None:
    """Noted for a day: a rollout that overlapped is soon past, two agents take over again and again."""
    last_at = cluster.last_takeover_at
    if last_at is None or now - last_at >= TAKEOVER_NOTED_FOR:
        return None
    count = plural(cluster.takeovers, "takeover")
    return f"{count} by another agent, the last one {format_age(last_at, now)} ago"


def stored_text(cluster: "Cluster") -> str | None:
    """Noted where nearly as much is stored as may be."""
    stored, limit = cluster.stored_bytes, cluster.stored_bytes_limit
    if stored is None or not limit or stored < STORED_WARN_SHARE * limit:
        return None
    return f"{format_bytes(stored)} of {format_bytes(limit)} are stored; beyond that records are rejected"


def held_text(held: "HeldDeletions", name: str) -> str:
    count = plural(held.count, "workload")
    if held.is_refused:
        return f"{count} disappeared and are kept: `watchbill admin cluster release {name}` deletes them"
    return (
        f"{count} disappeared at once and are deleted if the next inventory confirms it; "
        f"`watchbill admin cluster release {name}` deletes them now, "
        f"`watchbill admin cluster refuse {name}` keeps them"
    )


@server_command
async def delete(
    session: CommandContext,
    name: ClusterArgument,
    yes: Yes = False,
) -> None:
    """Remove a cluster: its agent loses access and its workloads become deleted."""
    from watchbill.cli.connection.lookup import find_cluster

    cluster = await find_cluster(session.client, name)
    if not yes:
        _confirm(f"Remove cluster {safe(cluster.name)} with {cluster.workloads} workloads?")
    await session.client.cluster_delete(cluster.id)
    session.terminal.note(f"Cluster {cluster.name} is removed.")


@server_command
async def repin(
    session: CommandContext,
    name: ClusterArgument,
    yes: Yes = False,
) -> None:
    """Accept a rebuilt cluster: the next cluster that the agent reports takes the place of the old one."""
    from watchbill.cli.connection.lookup import find_cluster

    cluster = await find_cluster(session.client, name)
    if not yes:
        count = plural(cluster.workloads, "workload")
        _confirm(f"Accept another cluster as {safe(cluster.name)}, in place of its {count}?")
    await session.client.cluster_repin(cluster.id)
    session.terminal.note(f"The next cluster that the agent reports is accepted as {cluster.name}.")


def _held(cluster: "Cluster") -> str:
    return plural(cluster.held_deletions.count if cluster.held_deletions else 0, "workload")


@server_command
async def release(
    session: CommandContext,
    name: ClusterArgument,
    yes: Yes = False,
) -> None:
    """Delete the workloads whose deletion is held because too many disappeared at once."""
    from watchbill.cli.connection.lookup import find_cluster

    cluster = await find_cluster(session.client, name)
    held = _held(cluster)
    if not yes:
        _confirm(f"Delete {held} of {safe(cluster.name)}?")
    await session.client.held_release(cluster.id)
    session.terminal.note(f"Deleted {held} of {cluster.name}.")


@server_command
async def refuse(
    session: CommandContext,
    name: ClusterArgument,
) -> None:
    """Keep the workloads whose deletion is held, until they are seen again or released."""
    from watchbill.cli.connection.lookup import find_cluster

    cluster = await find_cluster(session.client, name)
    held = _held(cluster)
    await session.client.held_refuse(cluster.id)
    session.terminal.note(f"Kept {held} of {cluster.name}.")


def _confirm(question: str) -> None:
    if not sys.stdin.isatty() or not typer.confirm(question, err=True):
        usage_error("Nothing was changed.", hint="answer y, or pass --yes")

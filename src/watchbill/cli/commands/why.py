"""`why` without a name: everything that is pending and the reason of each, the longest waiting first.

`why`: why a workload waits, or what is true of one that does not. Only what the server has evidence for.
"""

from collections.abc import Iterator
from typing import Any

from watchbill.cli.commands.get import TABLE_ROWS
from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import Place, filters_of, find_workload, view_of
from watchbill.cli.connection.session import CommandContext, asks_server
from watchbill.cli.output.columns import COLUMNS, JSON, ColumnView, member
from watchbill.cli.output.humanize import NONE, grouped, instant, moment, number, since, span
from watchbill.cli.output.staleness import remark_silent_clusters, silence, silent_clusters
from watchbill.cli.output.table import Row, lines
from watchbill.cli.output.terminal import PHASE_COLOURS, Terminal, safe

NO_REASON = "no scheduler and no queue has given a reason yet"
_HEADERS = ("NAME", "TYPE", "PROJECT", "OWNER", "GPU(R/A)", "WAITS", "WHY")
_COLUMNS = ("name", "type", "project", "owner", "gpu")


async def print_waiting(
    session: CommandContext, place: Place, *, limit: int | None, has_headers: bool
) -> None:
    import asyncio

    from watchbill.client import Selection

    if place.is_deleted:
        usage_error(
            "Nothing that is deleted waits.", hint="name one: `watchbill why NAME --deleted`"
        )
    client, terminal = session.client, session.terminal
    filters = ("phase==Pending", *await filters_of(client, place))
    selection = Selection(filters=filters, sort_by="phaseUpdatedAt")
    shown = limit or TABLE_ROWS
    (view, clusters), found = await asyncio.gather(
        view_of(client), client.workloads(selection, most=shown)
    )
    if not found:
        terminal.remark("Nothing that you may see is pending here.")
        return
    rows: list[Row] = [
        [
            *(COLUMNS[name].shown(one, view) for name in _COLUMNS),
            since(one["phaseUpdatedAt"], view.now),
            reason(one),
        ]
        for one in found
    ]
    for line in lines(_HEADERS if has_headers else None, rows, terminal):
        terminal.print(line)
    remark_silent_clusters(terminal, clusters, found, view.now)
    if len(found) >= shown and (count := await client.workload_count(selection)) > shown:
        terminal.remark(f"{grouped(shown)} of {grouped(count)} shown (--limit N for more)")
    terminal.remark("hint: `watchbill why NAME` gives the evidence")


def reason(workload: JSON) -> str:
    """The dominant one: the server tells it first."""
    first: JSON = next(iter(member(workload, ("additionalFields", "pendingReasons")) or ()), {})
    told = first.get("userMessage") or first.get("message") or workload.get("phaseMessage")
    return str(told or NO_REASON)


_SOURCES = {
    "kai": "KAI scheduler",
    "kueue": "Kueue",
    "volcano": "Volcano",
    "scheduler": "the Kubernetes scheduler",
}


@asks_server
async def why(
    session: CommandContext,
    name: options.MaybeNamed = None,
    project: options.Project = None,
    everywhere: options.Everywhere = False,
    cluster: options.ClusterOption = None,
    deleted: options.Deleted = False,
    limit: options.Limit = None,
    no_headers: options.NoHeaders = False,
) -> None:
    """Say in plain words why a workload is pending, with the evidence; or how it stands.

    Without a name: everything that is pending, a line each with the reason, the longest waiting first.
    """
    place = Place(project=project, cluster=cluster, is_deleted=deleted, is_everywhere=everywhere)
    if name is None:
        await print_waiting(session, place, limit=limit, has_headers=not no_headers)
        return
    workload = await find_workload(session.client, name, place)
    view, clusters = await view_of(session.client)
    for line in explanation(workload, view, session.terminal):
        session.terminal.print(line)
    for silent in silent_clusters(clusters, [workload]):
        session.terminal.remark(silence(silent, view.now))


def explanation(workload: JSON, view: ColumnView, terminal: Terminal) -> Iterator[str]:
    yield _headline(workload, view, terminal)
    if workload.get("deletedAt"):
        yield f"It is gone since {moment(workload['deletedAt'], view.now)}."
    if workload["phase"] == "Pending" and not workload.get("deletedAt"):
        yield from _pending(workload, view)
    else:
        yield from _standing(workload, view)
    yield from _telling_conditions(workload, view, terminal)


def _headline(workload: JSON, view: ColumnView, terminal: Terminal) -> str:
    cluster_id = str(workload.get("clusterId", ""))
    cluster = view.cluster_names.get(cluster_id, cluster_id)
    phase = workload["phase"]
    who = f"{safe(workload['name'])} ({safe(workload['type'])})"
    where = f"in project {safe(workload.get('projectName') or NONE)} on cluster {safe(cluster)}"
    coloured = terminal.coloured(safe(phase), PHASE_COLOURS.get(phase))
    if workload.get("deletedAt"):
        return f"{who} {where} was {coloured} when it was deleted."
    return f"{who} {where} has been {coloured} for {since(workload['phaseUpdatedAt'], view.now)}."


def _pending(workload: JSON, view: ColumnView) -> Iterator[str]:
    reasons = (workload.get("additionalFields") or {}).get("pendingReasons") or []
    if not reasons:
        message = workload.get("phaseMessage")
        if message:
            yield f"It waits: {safe(message)}"
        yield "No scheduler and no queue has given a reason yet."
        return
    for number_, reason in enumerate(reasons):
        yield ""
        yield ("Because: " if number_ == 0 else "Also: ") + safe(
            reason.get("userMessage") or reason.get("message") or reason.get("reason")
        )
        yield from _evidence(reason, view)


def _evidence(reason: JSON, view: ColumnView) -> Iterator[str]:
    source = str(reason.get("source", ""))
    pool = reason.get("nodePool")
    facts: dict[str, Any] = {
        "said by": _SOURCES.get(source, source) + (f", for node pool {pool}" if pool else ""),
        "since": moment(reason.get("since"), view.now),
        "reason": reason.get("reason"),
        "in its words": reason.get("message"),
    }
    for label, value in facts.items():
        if value and value != NONE:
            yield f"  {label:<14}{safe(value)}"


def _standing(workload: JSON, view: ColumnView) -> Iterator[str]:
    """How a workload that does not wait stands."""
    if workload.get("phaseMessage"):
        yield f"It is said: {safe(workload['phaseMessage'])}"
    completed = workload.get("completedAt")
    if completed:
        yield f"It ended {moment(completed, view.now)}."
    else:
        yield from _running(workload)
    waited = workload.get("totalPendingTimeSeconds") or 0
    ran = workload.get("totalRunningTimeSeconds") or 0
    yield f"In all it waited {span(waited)} and ran {span(ran)}."


def _running(workload: JSON) -> Iterator[str]:
    if workload.get("deletedAt"):
        return
    wanted = member(workload, ("requestedPods", "number"))
    of_wanted = f" of {wanted}" if wanted is not None else ""
    gpus = member(workload, ("allocatedResources", "gpu")) or 0
    yield f"{workload.get('runningPods', 0)}{of_wanted} pods run; it holds {number(gpus)} GPUs."
    idle = workload.get("idleAllocatedGpus")
    if gpus and idle is None:
        yield "Nothing measures its GPUs: whether they are idle is not known."
    elif gpus and idle:
        yield f"{number(idle)} of them are idle."


def _telling_conditions(workload: JSON, view: ColumnView, terminal: Terminal) -> Iterator[str]:
    """The conditions that have something to say, the latest first."""
    told = [one for one in workload.get("conditions") or [] if one.get("message")]
    if not told:
        return
    told.sort(key=_changed_at, reverse=True)
    yield from ("", "Conditions that say more:")
    rows = [
        [
            f"{one.get('type')}={one.get('status')}",
            str(one.get("reason") or NONE),
            since(one.get("lastTransitionTime"), view.now),
            str(one["message"]),
        ]
        for one in told
    ]
    for line in lines(["CONDITION", "REASON", "AGE", "MESSAGE"], rows, terminal):
        yield f"  {line}"


def _changed_at(condition: JSON) -> float:
    at = instant(condition.get("lastTransitionTime"))
    return at.timestamp() if at else 0.0

"""From a name or id that a person typed to the workload or cluster, or an error that says what to type."""

import json
from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from watchbill.cli.connection.errors import Ambiguous, usage_error
from watchbill.cli.connection.kubectl_words import RESOURCES
from watchbill.cli.connection.session import CommandContext
from watchbill.cli.output.columns import ColumnView, note_no_cluster, note_stale, select_columns
from watchbill.cli.output.terminal import Terminal, table_lines
from watchbill.errors import NotFound

if TYPE_CHECKING:
    from watchbill.client import Client, WorkloadDocument
    from watchbill.responses.contract import WorkloadResponse
    from watchbill.responses.fleet import Cluster

CANDIDATES = 20
_OF_SELECTORS = (",", "!", "==", "(", " ")
"""What kubectl's selectors have and no label does, so that it would match nothing."""
AI_WORK, GENERAL_WORK = "workloadClass!=General", "workloadClass==General"
_CANDIDATE_COLUMNS = "id,type,phase,project,namespace,cluster,age,deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupScope:
    """Where to look."""

    project: str | None = None
    cluster: str | None = None
    is_deleted: bool = False
    is_everywhere: bool = False
    """Then the project does not count, as with kubectl's -A."""
    is_ai_work: bool = False
    """Only AI work, and what an agent has not classified yet."""


async def scope_filters(client: "Client", scope: LookupScope) -> tuple[str, ...]:
    """As items of filterBy."""
    filters = []
    if scope.project is not None and not scope.is_everywhere:
        filters.append(filter_item("projectName", scope.project))
    if scope.cluster is not None:
        filters.append(
            filter_item("clusterId", str((await find_cluster(client, scope.cluster)).id))
        )
    if scope.is_ai_work:
        filters.append(AI_WORK)
    return tuple(filters)


def filter_item(field: str, value: str, operator: str = "==") -> str:
    """One item of filterBy whose value is taken as it is, commas and all."""
    if not value:
        usage_error(f"An empty {field} matches nothing.")
    return json.dumps([f"{field}{operator}{value}"], ensure_ascii=False)


def name_filters(
    *,
    image: str | None = None,
    node: str | None = None,
    gpu_type: str | None = None,
    labels: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """What `--image`, `--node`, `--gpu-type` and `--label` mean, as items of filterBy."""
    parts = (("image", image, "=@"), ("node", node, "=="), ("gpuModel", gpu_type, "=@"))
    filters = [filter_item(name, text, op) for name, text, op in parts if text is not None]
    for label in labels or ():
        if any(mark in label for mark in _OF_SELECTORS):
            usage_error(
                f"--label takes one KEY=VALUE or one KEY, not '{label}'.",
                hint="repeat it for several labels; -f 'label!=KEY=VALUE' is all without one",
            )
        has_value = "=" in label
        filters.append(
            filter_item("label", label if has_value else f"{label}=", "==" if has_value else "=^")
        )
    return tuple(filters)


async def find_workload(client: "Client", name: str, scope: LookupScope) -> "WorkloadDocument":
    """The whole document, by id or by name: a live one before deleted ones. Raises NotFound, Ambiguous."""
    workload_id = _as_id(name)
    if workload_id is not None:
        return await client.workload_get(workload_id)
    from watchbill.client import Selection

    filters = (filter_item("name", name), *await scope_filters(client, scope))
    for is_deleted in (False, True) if not scope.is_deleted else (True,):
        selection = Selection(
            filters=filters, is_deleted=is_deleted, sort_by="createdAt", is_descending=True
        )
        page = await client.workload_list(selection, limit=CANDIDATES)
        workloads = [document.workload for document in page.documents]
        if len(workloads) > 1:
            is_cut = page.next_offset is not None
            raise await _ambiguous(client, name, workloads, is_cut=is_cut)
        if workloads:
            return await client.workload_get(workloads[0].id)
    raise await _absent(client, name, scope)


async def find_cluster(client: "Client", name: str) -> "Cluster":
    """By id or name. Raises NotFound, naming the clusters that there are."""
    clusters = await client.clusters()
    for cluster in clusters:
        if name in (str(cluster.id), cluster.name):
            return cluster
    names = ", ".join(cluster.name for cluster in clusters)
    raise NotFound(
        f"There is no cluster '{name}'.",
        details=f"clusters: {names}" if names else "no cluster is registered yet",
    )


async def cluster_names(session: CommandContext) -> dict[UUID, str]:
    return {cluster.id: cluster.name for cluster in await session.client.clusters()}


async def noted_cluster_names(
    session: CommandContext, shown: Container[UUID], what: str
) -> dict[UUID, str]:
    """The clusters' names; which of those that are `shown` were not observed for a while is noted, of
    `what`."""
    clusters = await session.client.clusters()
    of_shown = (cluster for cluster in clusters if cluster.id in shown)
    note_stale(session.terminal, of_shown, session.now(), what)
    return {cluster.id: cluster.name for cluster in clusters}


async def note_old_figures(session: CommandContext) -> None:
    """Which clusters were not observed for a while: what is summed over all counts them as they were."""
    clusters = await session.client.clusters()
    note_stale(session.terminal, clusters, session.now(), "figures")
    note_no_cluster(session.terminal, clusters)


async def load_view(session: CommandContext) -> ColumnView:
    """The clusters as they are now."""
    return ColumnView(session.now(), await session.client.clusters())


def _as_id(name: str) -> UUID | None:
    try:
        return UUID(name) if len(name) == 36 else None
    except ValueError:
        return None


async def _ambiguous(
    client: "Client", name: str, workloads: "list[WorkloadResponse]", *, is_cut: bool
) -> Ambiguous:
    view = ColumnView(datetime.now(UTC), await client.clusters())
    columns = select_columns(_CANDIDATE_COLUMNS, ())
    rows = [[column.show(workload, view) for column in columns] for workload in workloads]
    many = f"The newest {CANDIDATES} of more" if is_cut else str(len(workloads))
    return Ambiguous(
        f"'{name}' is the name of {'more than ' if is_cut else ''}{len(workloads)} workloads.",
        candidates=(
            *table_lines([column.header for column in columns], rows, Terminal()),
            *((f"{many} are listed.",) if is_cut else ()),
        ),
        details="give its id, or narrow with --project or --cluster",
    )


async def _absent(client: "Client", name: str, scope: LookupScope) -> NotFound:
    import asyncio

    from watchbill.client import Selection

    where = f" in project '{scope.project}'" if scope.project is not None else ""
    live, deleted = await asyncio.gather(
        client.workload_list(Selection(search=name), limit=3),
        client.workload_list(Selection(search=name, is_deleted=True), limit=3),
    )
    names = dict.fromkeys(
        document.workload.name for document in (*live.documents, *deleted.documents)
    )
    near = f"similar: {', '.join(names)}\n" if names else ""
    how = RESOURCES.get(
        name.lower(), "list what there is with `watchbill get --search TEXT`, or with --deleted"
    )
    return NotFound(
        f"There is no workload named '{name}'{where}, neither live nor deleted.",
        details=f"{near}{how}",
    )

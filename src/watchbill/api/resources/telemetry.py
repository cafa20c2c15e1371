"""Telemetry: present counts and sums, of workloads and of nodes, as JSON or CSV.

A group of which a part is not known has no value. Of a node that the caller does not see as a whole only what
the own workloads hold is counted: that is its total, and nothing of it is free.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from watchbill.api.http.call import Call
from watchbill.api.http.reply import CSV, Answer, Reply, encode, json_reply
from watchbill.query import NodeQuery, Predicate, TelemetryQuery
from watchbill.responses.contract import TelemetryGroup, TelemetryResponse, TelemetryValue
from watchbill.responses.nodes import NodeResponse
from watchbill.store.fleet.nodes import cluster_names, node_list
from watchbill.store.metrics.node_usage import NodeUsage, node_usage_list
from watchbill.store.workloads.telemetry import (
    PENDING_TIME,
    PENDING_TIME_KEY,
    telemetry_query,
)
from watchbill.tabular import CsvCell, rows_as_csv

CSV_TYPE = "text/csv; charset=utf-8; header=present"
ATTACHMENT = ((b"content-disposition", b'attachment; filename="telemetry.csv"'),)


async def get_workloads_telemetry(call: Call) -> Answer:
    query = TelemetryQuery(
        telemetry_type=call.values["telemetryType"],
        group_by=call.values["groupBy"],
        cluster_id=call.values["clusterId"],
        node_pool=call.values["nodepoolName"],
        department_id=call.values["departmentId"],
        phases=call.values["filterByPhases"],
    )
    result = await telemetry_query(call.db, call.access, query, call.now)
    partial = ((b"watchbill-partial", b"groups"),) if result.is_partial else ()
    if call.media_type == CSV:
        body = rows_as_csv(_workload_table(query, result.values, call.now))
        return Reply(body=body, media_type=CSV_TYPE, headers=(*ATTACHMENT, *partial))
    response = TelemetryResponse(
        type=query.telemetry_type, timestamp=call.now, values=tuple(result.values)
    )
    return Reply(body=encode(response), headers=partial)


def _workload_table(
    query: TelemetryQuery, values: Sequence[TelemetryValue], now: datetime
) -> Iterator[Sequence[CsvCell]]:
    """The columns follow from the question alone, so an empty answer has the same header."""
    keys = [*query.group_by]
    if query.telemetry_type == PENDING_TIME:
        keys.append(PENDING_TIME_KEY)
    yield ["type", "timestamp", *(f"{key}{end}" for key in keys for end in ("", "Name")), "value"]
    for value in values:
        groups = {group.key: group for group in value.groups}
        cells = [cell for key in keys for cell in (groups[key].value, groups[key].name)]
        yield [query.telemetry_type, now, *cells, Decimal(value.value)]


Figure = Callable[[NodeResponse], float | None]
"""What a node adds to a sum; None = not known."""
UsageFigure = Callable[[NodeUsage], float | None]
"""The same of what exporters measured on it."""


def _has_gpus(node: NodeResponse) -> bool:
    return bool(node.gpu_info)


def _total_gpus(node: NodeResponse) -> float | None:
    return node.allocated.gpus if node.is_partial else node.capacity.gpus


def _ready_gpus(node: NodeResponse) -> float | None:
    return _total_gpus(node) if node.status == "Ready" else 0.0


def _free_gpus(node: NodeResponse) -> float | None:
    return 0.0 if node.is_partial else node.free_gpus


def _is_fully_free(node: NodeResponse) -> float:
    is_free = node.is_schedulable and not node.is_partial and node.allocated.gpus == 0
    return float(_has_gpus(node) and is_free)


def _gpu_memory(node: NodeResponse) -> float | None:
    gpus = _total_gpus(node)
    if not gpus or node.gpu_memory_bytes is None:
        return 0.0 if gpus == 0 else None
    return gpus * node.gpu_memory_bytes


FIGURES: Mapping[str, Figure] = {
    "READY_GPU_NODES": lambda node: float(_has_gpus(node) and node.status == "Ready"),
    "READY_GPUS": _ready_gpus,
    "TOTAL_GPU_NODES": lambda node: float(_has_gpus(node)),
    "TOTAL_GPUS": _total_gpus,
    "IDLE_ALLOCATED_GPUS": lambda node: node.idle_allocated_gpus,
    "FREE_GPUS": _free_gpus,
    "ALLOCATED_GPUS": lambda node: node.allocated.gpus,
    "TOTAL_CPU_CORES": lambda node: (
        node.allocated.cpu_cores if node.is_partial else node.capacity.cpu_cores
    ),
    "ALLOCATED_CPU_CORES": lambda node: node.allocated.cpu_cores,
    "TOTAL_GPU_MEMORY_BYTES": _gpu_memory,
    "TOTAL_CPU_MEMORY_BYTES": lambda node: (
        node.allocated.cpu_memory_bytes if node.is_partial else node.capacity.cpu_memory_bytes
    ),
    "ALLOCATED_CPU_MEMORY_BYTES": lambda node: node.allocated.cpu_memory_bytes,
    "FULLY_FREE_GPU_NODES": _is_fully_free,
}
USAGE_FIGURES: Mapping[str, UsageFigure] = {
    "USED_CPU_CORES": lambda usage: usage.cpu_cores,
    "USED_CPU_MEMORY_BYTES": lambda usage: usage.cpu_memory_bytes,
    "USED_GPU_MEMORY_BYTES": lambda usage: usage.gpu_memory_bytes,
}
_GROUPS: Mapping[str, Callable[[NodeResponse, Mapping[UUID, str]], tuple[str, str]]] = {
    "ClusterId": lambda node, names: (str(node.cluster_uuid), names.get(node.cluster_uuid, "")),
    "Nodepool": lambda node, _: (node.node_pool, node.node_pool),
    "Node": lambda node, _: (str(node.id), node.name),
}
"""The value and the name of the group that a node is in."""


async def get_node_telemetry(call: Call) -> Answer:
    kind, keys = call.values["telemetryType"], tuple(dict.fromkeys(call.values["groupBy"]))
    pool = call.values["nodepoolName"]
    query = NodeQuery(
        cluster_id=call.values["clusterId"],
        predicates=() if pool is None else (Predicate("nodePool", "==", pool),),
        is_brief=True,
    )
    nodes = (await node_list(call.db, call.access, query, call.now)).nodes
    names = await cluster_names(call.db, call.access)
    figure = FIGURES[kind] if kind in FIGURES else await _used(call, kind, nodes)
    values = _values(nodes, figure, keys, names)
    if call.media_type == CSV:
        body = rows_as_csv(_node_table(kind, keys, values, call))
        return Reply(body=body, media_type=CSV_TYPE, headers=ATTACHMENT)
    return json_reply(TelemetryResponse(type=kind, timestamp=call.now, values=tuple(values)))


async def _used(call: Call, kind: str, nodes: Sequence[NodeResponse]) -> Figure:
    """What exporters measured now, of nodes that are in scope as a whole: of others it is not known."""
    whole = [node.id for node in nodes if not node.is_partial]
    measured = await node_usage_list(call.db, call.access.tenant_id, whole, call.now)
    figure, is_of_gpus = USAGE_FIGURES[kind], "GPU" in kind

    def used(node: NodeResponse) -> float | None:
        if is_of_gpus and node.capacity.gpus == 0:
            return 0.0
        return figure(measured.get(node.id, NodeUsage()))

    return used


def _values(
    nodes: Sequence[NodeResponse], figure: Figure, keys: Sequence[str], names: Mapping[UUID, str]
) -> list[TelemetryValue]:
    """In the order of the groups' values; without groups one value, of no nodes 0."""
    sums: dict[tuple[tuple[str, str], ...], list[float | None]] = {} if keys else {(): []}
    for node in nodes:
        groups = tuple(_GROUPS[key](node, names) for key in keys)
        sums.setdefault(groups, []).append(figure(node))
    values = []
    for groups, figures in sorted(sums.items()):
        known = [figure for figure in figures if figure is not None]
        if len(known) == len(figures):
            group_values = tuple(
                TelemetryGroup(key, value, name)
                for key, (value, name) in zip(keys, groups, strict=True)
            )
            values.append(TelemetryValue(_text(sum(known)), group_values))
    return values


def _text(figure: float) -> str:
    """A plain decimal, to a millionth, without trailing zeros."""
    return f"{figure:.6f}".rstrip("0").rstrip(".")


def _node_table(
    kind: str, keys: Sequence[str], values: Sequence[TelemetryValue], call: Call
) -> Iterator[Sequence[CsvCell]]:
    yield ["type", "timestamp", *(f"{key}{end}" for key in keys for end in ("", "Name")), "value"]
    for value in values:
        cells = [cell for group in value.groups for cell in (group.value, group.name)]
        yield [kind, call.now, *cells, Decimal(value.value)]


HANDLERS = (
    get_workloads_telemetry,
    get_node_telemetry,
)

"""Where a workload may run and where it runs: node pools and network topology."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    labels,
    mapping,
    name_key,
    objects,
    text,
)
from watchbill.kinds.objects.objects import ClusterObjects, PodCounts
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.workload import ActualPlacement, Topology

KUEUE_REQUIRED = "kueue.x-k8s.io/podset-required-topology"
KUEUE_PREFERRED = "kueue.x-k8s.io/podset-preferred-topology"


def node_pool_of(node_labels: Mapping[str, Any] | None, settings: DeriveSettings) -> str:
    """The pool of a node with these labels; a node without that label is in the default pool."""
    return text((node_labels or {}).get(settings.node_pool_label)) or settings.default_node_pool


def pod_node_pool(node: str, cluster: ClusterObjects, settings: DeriveSettings) -> str:
    return node_pool_of(cluster.node_labels.get(node), settings)


def current_node_pools(view: WorkloadView) -> tuple[str, ...]:
    """The pools of the nodes that hold its pods now."""
    nodes = {pod.node for pod in view.pods.live if pod.node}
    return tuple(sorted({pod_node_pool(node, view.cluster, view.settings) for node in nodes}))


def requested_node_pools(
    view: WorkloadView,
    *,
    is_kai: bool,
) -> tuple[str, ...]:
    """The pools that it may be placed in: from the pod group, a label, a selector or an affinity."""
    key = view.settings.node_pool_label
    pools = {text(labels(group).get(key)) for group in view.objects.pod_groups} - {""}
    pools = pools or {text(labels(view.root).get(key))} - {""}
    if not pools:
        for pod in view.pods.live:
            pools |= {pod.labels.get(key, ""), dict(pod.node_selector).get(key, "")}
        for role in view.facts.roles:
            if role.template is not None:
                pools |= {
                    role.template.labels.get(key, ""),
                    role.template.node_selector.get(key, ""),
                }
                for label, values in role.template.required_node_labels:
                    if label == key:
                        pools |= set(values)
        pools -= {""}
    if not pools and is_kai:
        pools = {view.settings.default_node_pool}
    return tuple(sorted(pools))


@dataclass(frozen=True, slots=True)
class _TopologyRequest:
    topology: str
    required: str
    preferred: str


def topology_of(view: WorkloadView) -> Topology | None:
    """The requested network topology, and the lowest level that all its pods share."""
    request = next(_topology_requests(view), None)
    if request is None:
        return None
    levels = _levels(view.cluster.topologies.get(request.topology))
    aliases = {alias: label for label, alias in levels if alias}
    return Topology(
        name=request.topology,
        required_placement=aliases.get(request.required, request.required) or None,
        preferred_placement=aliases.get(request.preferred, request.preferred) or None,
        actual_placement=_actual([label for label, _ in levels], view.pods, view.cluster),
    )


def _topology_requests(view: WorkloadView) -> Iterator[_TopologyRequest]:
    """From the pod group, its subgroups, the root's or a template's annotations; Kueue's after KAI's."""
    groups = sorted(view.objects.pod_groups, key=name_key)
    parts = [part for group in groups for part in objects(at(group, "spec", "subGroups"))]
    annotation_maps = [annotations(view.root)] + [
        role.template.annotations for role in view.facts.roles if role.template is not None
    ]
    required = next(_texts_of(annotation_maps, view.settings.required_placement_annotation), "")
    preferred = next(_texts_of(annotation_maps, view.settings.preferred_placement_annotation), "")
    for spec in (*(at(group, "spec") for group in groups), *parts):
        constraint = mapping(at(spec, "topologyConstraint"))
        name = text(constraint.get("topology"))
        if name:
            yield _TopologyRequest(
                name,
                text(constraint.get("requiredTopologyLevel")) or required,
                text(constraint.get("preferredTopologyLevel")) or preferred,
            )
    name = next(_texts_of(annotation_maps, view.settings.topology_annotation), "")
    if name:
        yield _TopologyRequest(name, required, preferred)
    yield from _kueue_topology_requests(annotation_maps, view.cluster)


def _kueue_topology_requests(
    annotation_maps: Iterable[Mapping[str, Any]], cluster: ClusterObjects
) -> Iterator[_TopologyRequest]:
    """Kueue's annotations name a level alone: the topology is the one that has it."""
    annotation_maps = list(annotation_maps)
    required = next(_texts_of(annotation_maps, KUEUE_REQUIRED), "")
    preferred = next(_texts_of(annotation_maps, KUEUE_PREFERRED), "")
    if not required and not preferred:
        return
    for name, topology in sorted(cluster.topologies.items()):
        if {required, preferred} & {label for label, _ in _levels(topology)}:
            yield _TopologyRequest(name, required, preferred)


def _texts_of(maps: Iterable[Mapping[str, Any]], key: str) -> Iterator[str]:
    return (value for values in maps if (value := text(values.get(key))))


def _levels(topology: Any) -> list[tuple[str, str]]:
    """Label and alias of each level, the widest first."""
    return [
        (text(level.get("nodeLabel")), text(level.get("alias")))
        for level in objects(at(topology, "spec", "levels"))
        if text(level.get("nodeLabel"))
    ]


def _actual(
    levels: Sequence[str], pods: PodCounts, cluster: ClusterObjects
) -> ActualPlacement | None:
    """The lowest level with one value. Values repeat under other parents, so whole paths are compared."""
    nodes = {pod.node for pod in pods.live if pod.node}
    if not nodes:
        return None
    paths = {_path(levels, cluster.node_labels.get(node)) for node in nodes}
    shortest = min(len(path) for path in paths)
    for depth in range(shortest, 0, -1):
        if len({path[:depth] for path in paths}) == 1:
            path = next(iter(paths))
            return ActualPlacement(level=levels[depth - 1], value=path[depth - 1])
    return None


def _path(levels: Iterable[str], node_labels: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The node's values from the widest level down, as far as it has them all."""
    path: list[str] = []
    for level in levels:
        value = text((node_labels or {}).get(level))
        if not value:
            break
        path.append(value)
    return tuple(path)

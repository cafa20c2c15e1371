"""What an agent would have derived of a workload at a moment of its past: the product's own derivation, fed
with the objects as the cluster held them then.
"""

from collections.abc import Iterable
from uuid import UUID

from simulator.apiserver.store import Store
from simulator.manifests.render import Rendered, render
from simulator.model.model import SimulatedWorkload
from simulator.resources import (
    NODES,
    POD_GROUPS,
    PODS,
    PRIORITY_CLASSES,
    QUEUES,
    SERVICES,
    TOPOLOGIES,
    ResourceType,
)
from simulator.simulation.world import World
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.derive import Derived, DeriveSettings, derive
from watchbill.kinds.objects.objects import ClusterObjects, Object, WorkloadObjects
from watchbill.kinds.objects.pod import read_pod

_NO_CHILDREN = frozenset(
    resource.full_name for resource in (PODS, POD_GROUPS, SERVICES)
) | frozenset({"ingresses.networking.k8s.io"})


class PastDeriver:
    """Derives workloads of one cluster. Raises Invalid like `derive`."""

    def __init__(self, world: World, cluster_id: UUID) -> None:
        self._nodes = world.nodes
        self._definitions = load_definitions(None)
        self._settings = DeriveSettings(cluster_id=cluster_id)
        self._cluster = _cluster_objects(world.store)

    def derive(self, workload: SimulatedWorkload) -> Derived | None:
        """None for what has no object of its own."""
        rendered = render(workload, self._nodes)
        root = next(
            (obj for obj in _whole(rendered) if obj["metadata"]["uid"] == workload.uid), None
        )
        if root is None:
            return None
        objects = WorkloadObjects(
            root=root,
            is_chain_truncated=False,
            is_root_listed=True,
            pods=[
                read_pod(document, extra_annotations=self._settings.pod_annotations)
                for resource, document in rendered
                if resource is PODS
            ],
            children=[
                obj
                for obj in _whole(
                    item for item in rendered if item[0].full_name not in _NO_CHILDREN
                )
                if obj is not root and obj["metadata"]["uid"] != workload.uid
            ],
            services=list(
                _whole(
                    item
                    for item in rendered
                    if item[0].full_name in _NO_CHILDREN and item[0] not in (PODS, POD_GROUPS)
                )
            ),
            pod_groups=list(_whole(item for item in rendered if item[0] is POD_GROUPS)),
            queue_workloads=(),
            cluster=self._cluster,
        )
        return derive(objects, self._definitions, self._settings)


def _whole(rendered: Iterable[tuple[ResourceType, Object]] | Rendered) -> Iterable[Object]:
    """The objects with the kind that lists leave out."""
    for resource, document in rendered:
        yield {**document, "apiVersion": resource.api_version, "kind": resource.kind}


def _cluster_objects(store: Store) -> ClusterObjects:
    nodes = dict(_by_name(store, NODES))
    return ClusterObjects(
        queues=dict(_by_name(store, QUEUES)),
        priority_classes=dict(_by_name(store, PRIORITY_CLASSES)),
        topologies=dict(_by_name(store, TOPOLOGIES)),
        node_labels={name: node["metadata"]["labels"] for name, node in nodes.items()},
        node_addresses={
            name: address["address"]
            for name, node in nodes.items()
            for address in node["status"]["addresses"]
            if address["type"] == "InternalIP"
        },
    )


def _by_name(store: Store, resource: ResourceType) -> Iterable[tuple[str, Object]]:
    table = store.table(resource.group, resource.plural)
    for stored in table.objects.values() if table is not None else ():
        (obj,) = _whole([(resource, stored.decode())])
        yield obj["metadata"]["name"], obj

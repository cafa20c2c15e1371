"""Settings of derivation: a cluster's own labels and categories, and the degree of redaction. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

RESERVATION_NAMESPACES = frozenset({"kai-resource-reservation", "runai-reservation"})


class Redaction(StrEnum):
    STRICT = "strict"
    """Names of variables only: every value is hidden."""
    DEFAULT = "default"
    """Values are presented unless their name or their form marks them as secrets."""
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeriveSettings:
    """Keys default to KAI-Scheduler's; a cluster with other habits may name its own."""

    cluster_id: UUID
    queue_label: str = "kai.scheduler/queue"
    node_pool_label: str = "kai.scheduler/node-pool"
    default_node_pool: str = "default"
    """The pool of a node, a queue or a pod group without that label."""
    project_label: str = "project"
    namespace_project_label: str = "runai/queue"
    """A namespace's label that names the project of everything in it."""
    namespace_projects: Mapping[str, str] = field(default_factory=dict)
    """Projects by namespace, for workloads that are in no queue; they come before the namespace's label."""
    priority_label: str = "priorityClassName"
    preemptibility_label: str = "kai.scheduler/preemptibility"
    user_key: str = "user"
    admission_user_key: str = ""
    """The annotation in which the cluster's admission control writes who created an object; "" = none."""
    topology_annotation: str = "kai.scheduler/topology"
    required_placement_annotation: str = "kai.scheduler/topology-required-placement"
    preferred_placement_annotation: str = "kai.scheduler/topology-preferred-placement"
    reservation_namespaces: frozenset[str] = RESERVATION_NAMESPACES
    """Where KAI's pods that reserve shared GPUs are; such a pod elsewhere is a pod like any other."""
    kai_schedulers: frozenset[str] = frozenset({"kai-scheduler", "runai-scheduler"})
    gpu_resources: tuple[str, ...] = ("nvidia.com/gpu",)
    """Extended resources of which one unit is one whole GPU; any other is listed as it is named. In one
    derivation also `name=other`, of which one is what one of the other is."""
    gpu_device_classes: frozenset[str] = frozenset()
    """Device classes (resource.k8s.io) of which a device is one GPU; none = those whose selectors
    say so, or else whose names do."""
    categories: Mapping[str, str] = field(default_factory=dict)
    """Category by `Kind.group` or `Kind`, in place of the definition's."""
    redaction: Redaction = Redaction.DEFAULT

    @property
    def pod_annotations(self) -> frozenset[str]:
        """What `read_pod` must keep of a pod's annotations beyond its defaults."""
        return frozenset(
            {
                self.user_key,
                self.topology_annotation,
                self.required_placement_annotation,
                self.preferred_placement_annotation,
            }
        )

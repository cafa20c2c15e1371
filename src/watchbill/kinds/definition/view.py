"""One workload as derivation sees it: its objects and what its kind's definition reads from them.

Every question about a workload is a function of one `WorkloadView`.
"""

import msgspec

from watchbill.kinds.definition.definition import Definition, Definitions
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.objects.json_access import metadata, text
from watchbill.kinds.objects.objects import ClusterObjects, Object, PodCounts, WorkloadObjects
from watchbill.kinds.objects.settings import DeriveSettings


class WorkloadView(msgspec.Struct, frozen=True, kw_only=True):
    """`own`: what the root states. `facts`: the same, completed by its children and autoscalers."""

    objects: WorkloadObjects
    definition: Definition
    definitions: Definitions
    own: Facts
    facts: Facts
    pods: PodCounts
    kai_groups: tuple[Object, ...]
    """KAI's pod groups, the one that counts first; so the next three."""
    volcano_groups: tuple[Object, ...]
    kubernetes_groups: tuple[Object, ...]
    kueue_workloads: tuple[Object, ...]
    settings: DeriveSettings

    @property
    def root(self) -> Object:
        return self.objects.root

    @property
    def cluster(self) -> ClusterObjects:
        return self.objects.cluster

    @property
    def namespace(self) -> str:
        return text(metadata(self.objects.root).get("namespace"))

"""What figures are of: workloads, and pods one by one; and how they travel. Pure."""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from uuid import UUID

from watchbill.agent.metrics.devices import PodName
from watchbill.agent.metrics.figures import CounterTotals, Figures
from watchbill.kinds.objects.pod import Pod
from watchbill.metric_types import DEVICE_METRICS
from watchbill.protocol import MAX_READING, Measured, Reading

MEASURED_PODS = 1_000
"""Of which samples are kept one by one: those with GPUs come first, then the oldest."""


@dataclass(slots=True)
class Subjects:
    """Workloads, or single pods: whose figures a round collects.

    `pods`: every living pod, with the id of what it counts for; of single pods its own.
    """

    pods: Mapping[PodName, tuple[str, Pod]]
    totals: CounterTotals
    figures: Figures = field(default_factory=dict)

    def add(self, part: Figures, incomplete: Set[str]) -> None:
        for subject, values in part.items():
            if subject not in incomplete and values:
                self.figures.setdefault(subject, {}).update(values)

    def on(self, nodes: Set[str]) -> set[str]:
        """Those with a pod on one of the nodes."""
        return {subject for subject, pod in self.pods.values() if pod.node in nodes}


def shown_pods(
    figures: Figures, by_uid: Mapping[str, tuple[str, Pod]], pods: Mapping[str | None, int]
) -> Figures:
    """Of the pods that are reported one by one. `pods`: how many each workload has.

    The only pod of a workload has its workload's figures: of it only those are reported that no workload has.
    """
    own = {
        uid: figures[uid]
        if pods.get(by_uid[uid][0], 0) > 1
        else {key: value for key, value in figures[uid].items() if key[0] in DEVICE_METRICS}
        for uid in figures.keys() & by_uid.keys()
    }
    shown = sorted(filter(own.get, own), key=lambda uid: _turn(by_uid[uid][1]))
    return {uid: own[uid] for uid in shown[:MEASURED_PODS]}


def _turn(pod: Pod) -> tuple[bool, str, str]:
    """Pods with GPUs before others, older ones before newer ones: so each keeps its place."""
    has_devices = bool(pod.resources.extended or pod.claims)
    return not has_devices, pod.created_at.isoformat() if pod.created_at else "", pod.uid


def measured(
    figures: Figures, pods: Mapping[str, tuple[str, Pod]] | None = None
) -> Iterable[Measured]:
    """`pods`: what the figures are of, with their workloads; None = they are of workloads and nodes."""
    for subject, values in figures.items():
        try:
            subject_id = UUID(subject)
            workload_id = None if pods is None else UUID(pods[subject][0])
        except ValueError:
            continue
        if not values:
            continue
        yield Measured(
            subject_id,
            tuple(
                Reading(kind, value, label)
                for (kind, label), value in sorted(values.items())
                if 0 <= value <= MAX_READING
            ),
            workload_id,
        )

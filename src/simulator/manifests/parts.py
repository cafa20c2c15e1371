"""What a kind's renderer hands over: the owner objects and how its pods hang below them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from simulator.apiserver.resources import ResourceType
from simulator.manifests.objects import Document, owner_reference, stamp
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload


def _no_labels(_: SimulatedPod) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """`owners` starts with the root (none where a pod is its own); `references` are by child key, "" = root."""

    owners: list[tuple[ResourceType, Document]]
    references: dict[str, Document]
    labels: Callable[[SimulatedPod], dict[str, str]] = field(default=_no_labels)
    restart: str = "Always"


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of some pods are in which state."""

    present: int
    active: int
    ready: int
    succeeded: int
    failed: int
    leaving: int


def tally(pods: Iterable[SimulatedPod]) -> Tally:
    found = list(pods)
    staying = [pod for pod in found if not pod.deleted_at]
    return Tally(
        present=sum(1 for pod in staying if not pod.is_over),
        active=sum(1 for pod in found if not pod.is_over and not pod.deleted_at),
        ready=sum(1 for pod in staying if pod.stage == "running"),
        succeeded=sum(1 for pod in found if pod.stage == "succeeded"),
        failed=sum(1 for pod in found if pod.stage == "failed"),
        leaving=sum(1 for pod in found if pod.deleted_at),
    )


def some(**counts: int) -> Document:
    """Counters as most controllers write them: absent where 0."""
    return {name: count for name, count in counts.items() if count}


def reference(resource: ResourceType, metadata: Document) -> Document:
    return owner_reference(resource.api_version, resource.kind, metadata["name"], metadata["uid"])


def condition(
    kind: str, is_true: bool, since: Seconds, reason: str = "", message: str = ""
) -> Document:
    """A condition as custom controllers write it."""
    return {
        "type": kind,
        "status": str(is_true),
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp(since),
    }


def with_update_time(document: Document) -> Document:
    """Deployments and training jobs also say when they last looked."""
    return document | {"lastUpdateTime": document["lastTransitionTime"]}


def with_probe_time(document: Document) -> Document:
    """Jobs repeat the moment as a probe's."""
    return document | {"lastProbeTime": document["lastTransitionTime"]}


def moment(workload: SimulatedWorkload, *candidates: Seconds) -> Seconds:
    """The first moment that is known, else when the present stage began."""
    return next((found for found in candidates if found), workload.since or workload.created_at)

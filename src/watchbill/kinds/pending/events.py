"""Events that explain a workload where no status does: failed creation, scheduling and start. No I/O."""

from collections.abc import Iterable
from datetime import datetime

from watchbill.kinds.objects.json_access import at, instant, message_of, text
from watchbill.kinds.objects.objects import Object

CREATION_FAILURES = frozenset(
    {
        "FailedCreate",
        "ReplicaSetCreateError",
        "FailedCreatePod",
        "FailedToCreateHeadPod",
        "FailedToCreateWorkerPod",
        "JobCreationFailed",
        "MPIJobFailed",
        "TrainJobResourcesCreationFailed",
    }
)
"""Of Kubernetes' controllers, then of Kubeflow's, KubeRay's, JobSet's, the MPI operator's and the Trainer's."""
SCHEDULING_FAILURES = frozenset(
    {"FailedScheduling", "Unschedulable", "FailedBinding", "BindingError", "PodGrouperWarning"}
)
GROUPING_FAILURES = frozenset({"PodGrouperWarning"})
START_FAILURES = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"}
)
EVENT_REASONS = CREATION_FAILURES | SCHEDULING_FAILURES | START_FAILURES


def newest(
    events: Iterable[Object], reasons: frozenset[str], *, about: str | None = None
) -> Object | None:
    """The newest event for one of the reasons; `about`: the UID of the object that it must be about."""
    matching = [
        event
        for event in events
        if text(event.get("reason")) in reasons
        and (about is None or text(at(event, "involvedObject", "uid")) == about)
    ]
    return max(
        matching, key=lambda event: (str(event_at(event) or ""), message_of(event)), default=None
    )


def event_at(event: Object) -> datetime | None:
    """Events of the newer API have `eventTime` and may lack the old members."""
    return instant(event.get("lastTimestamp")) or instant(event.get("eventTime"))

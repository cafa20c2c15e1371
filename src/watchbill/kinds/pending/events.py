"""Events that explain a workload where no status does: failed creation, scheduling and start. No I/O."""

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
CLAIM_FAILURES = frozenset({"FailedResourceClaimCreation"})
SCHEDULING_FAILURES = CLAIM_FAILURES | {
    "FailedScheduling",
    "Unschedulable",
    "FailedBinding",
    "BindingError",
    "PodGrouperWarning",
}
GROUPING_FAILURES = frozenset({"PodGrouperWarning"})
START_FAILURES = frozenset(
    {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"}
)
EVENT_REASONS = CREATION_FAILURES | SCHEDULING_FAILURES | START_FAILURES

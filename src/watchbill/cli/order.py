"""What `--sort-by` may be called: the API's field in any case, a column, or kubectl's path to it."""

_ALSO = {
    "metadata.name": "name",
    "metadata.namespace": "projectName",
    "metadata.creationtimestamp": "createdAt",
    "status.phase": "phase",
    "age": "createdAt",
    "created": "createdAt",
    "completed": "completedAt",
    "deleted": "deletedAt",
    "since": "phaseUpdatedAt",
    "project": "projectName",
    "department": "departmentName",
    "owner": "submittedBy",
    "cluster": "clusterId",
    "gpu": "allocatedGPU",
    "idle": "idleAllocatedGpus",
    "nodepools": "nodepool",
    "framework": "distributedFramework",
    "application": "aiApplicationName",
    "class": "priorityClassName",
    "pending": "totalPendingTimeSeconds",
    "running": "totalRunningTimeSeconds",
}


def sort_field(word: str) -> str:
    """The API's name of the field; a word that nobody knows stays, for the server to refuse it by name."""
    from watchbill.query import FIELDS

    known = {name.lower(): name for name in FIELDS}
    plain = word.strip("{}").lstrip(".").lower()
    return known.get(plain) or _ALSO.get(plain, word)

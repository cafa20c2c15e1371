"""Which pods a workload of each kind consists of, who owns them, and which of them are placed together.

Only structure: names, owners, gangs. What the objects look like is for the renderers.
"""

from collections.abc import Callable

from simulator.model.framework import FRAMEWORKS
from simulator.model.framework_slots import framework_slots
from simulator.model.mixture import UNKNOWN
from simulator.model.model import SimulatedPod, SimulatedWorkload
from simulator.model.scheduler import DEFAULT
from simulator.model.slot import Slot, template_hash


def slots(workload: SimulatedWorkload) -> list[Slot]:
    """The pods that should exist now."""
    found = _SLOTS[workload.kind](workload)
    if workload.scheduler != DEFAULT:
        return found
    return [
        Slot(s.role, s.index, s.owner, f"{s.role}-{s.index}-{s.owner}", s.prefix, s.is_name_whole)
        for s in found
    ]


def is_kept(pod: SimulatedPod, workload: SimulatedWorkload) -> bool:
    """Whether the pod stays when the work has ended; of a study none does."""
    if workload.kind not in FRAMEWORKS:
        return workload.kind != UNKNOWN
    keeps = FRAMEWORKS[workload.kind].keeps
    return keeps is None or pod.role in keeps


def replica_set_name(workload: SimulatedWorkload, revision: int) -> str:
    return f"{deployment_name(workload, revision)}-{template_hash(workload, revision)}"


def deployment_name(workload: SimulatedWorkload, revision: int) -> str:
    """Serverless revisions have a deployment each, everything else one under its own name."""
    if workload.kind == "KnativeService":
        return f"{revision_name(workload, revision)}-deployment"
    return workload.name


def revision_name(workload: SimulatedWorkload, revision: int) -> str:
    return f"{workload.name}-{revision:05d}"


def run_name(workload: SimulatedWorkload, run: int) -> str:
    """The job of a scheduled run; the number grows as minutes do."""
    return f"{workload.name}-{29_000_000 + int(workload.created_at) // 60 % 900_000 + run}"


def _pod(workload: SimulatedWorkload) -> list[Slot]:
    return [Slot("main", 0, "", "main", workload.name, is_name_whole=True)]


def _job(workload: SimulatedWorkload) -> list[Slot]:
    count = workload.replicas("main")
    return [Slot("main", i, "", "main", f"{workload.name}-") for i in range(count)]


def _cron_job(workload: SimulatedWorkload) -> list[Slot]:
    owner = f"run-{workload.runs}"
    prefix = f"{run_name(workload, workload.runs)}-"
    return [
        Slot("main", i, owner, owner, prefix)
        for i in range(workload.replicas("main") if workload.runs else 0)
    ]


def _deployment(workload: SimulatedWorkload) -> list[Slot]:
    revision = workload.revision
    prefix = f"{replica_set_name(workload, revision)}-"
    return [
        Slot("main", i, f"rs-{revision}", f"pod-{revision}-{i}", prefix)
        for i in range(workload.replicas("main"))
    ]


def _stateful_set(workload: SimulatedWorkload) -> list[Slot]:
    return [
        Slot("main", i, "", f"pod-{i}", f"{workload.name}-{i}", is_name_whole=True)
        for i in range(workload.replicas("main"))
    ]


def _pytorch_job(workload: SimulatedWorkload) -> list[Slot]:
    return [
        Slot(r.shape.role, i, "", "main", f"{workload.name}-{r.shape.role}-{i}", is_name_whole=True)
        for r in workload.roles
        for i in range(r.replicas)
    ]


def _ray_cluster(workload: SimulatedWorkload) -> list[Slot]:
    prefixes = {"head": f"{workload.name}-head-", "worker": f"{workload.name}-gpu-worker-"}
    return [
        Slot(r.shape.role, i, "", "main", prefixes[r.shape.role])
        for r in workload.roles
        for i in range(r.replicas)
    ]


JOB_SET_PARALLELISM = {"leader": 1, "workers": 2}


def _job_set(workload: SimulatedWorkload) -> list[Slot]:
    """`replicas` of a role are jobs; each has its fixed parallelism."""
    return [
        Slot(
            role.shape.role,
            index,
            f"{role.shape.role}-{job}",
            "main",
            f"{workload.name}-{role.shape.role}-{job}-{index}-",
        )
        for role in workload.roles
        for job in range(role.replicas)
        for index in range(JOB_SET_PARALLELISM[role.shape.role])
    ]


def _leader_worker_set(workload: SimulatedWorkload) -> list[Slot]:
    """`replicas` of the leader are groups, those of the worker the workers of one group."""
    found = []
    for group in range(workload.replicas("leader")):
        name = f"{workload.name}-{group}"
        gang = f"group-{group}"
        found.append(Slot("leader", group, "leaders", gang, name, is_name_whole=True))
        for index in range(1, workload.replicas("worker") + 1):
            found.append(Slot("worker", index, gang, gang, f"{name}-{index}", is_name_whole=True))
    return found


def _tuning_study(workload: SimulatedWorkload) -> list[Slot]:
    return [
        Slot("trial", i, "", "main", f"{workload.name}-trial-{i}", is_name_whole=True)
        for i in range(workload.replicas("trial"))
    ]


_SLOTS: dict[str, Callable[[SimulatedWorkload], list[Slot]]] = {
    **dict.fromkeys(FRAMEWORKS, framework_slots),
    "Pod": _pod,
    "Job": _job,
    "CronJob": _cron_job,
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "PyTorchJob": _pytorch_job,
    "RayCluster": _ray_cluster,
    "JobSet": _job_set,
    "LeaderWorkerSet": _leader_worker_set,
    "KnativeService": _deployment,
    "NIMService": _deployment,
    "TuningStudy": _tuning_study,
}

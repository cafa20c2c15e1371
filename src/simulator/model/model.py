"""The state of the simulated world: workloads and pods as the scenario thinks of them. Pure data, no clock.

Objects are rendered from this state and from nothing else, so it is all that has to be kept to go on later.
"""

import msgspec

Seconds = float
"""A moment: seconds since 1970, UTC."""


class Shape(msgspec.Struct, frozen=True):
    """What one pod of a role runs and asks for. At most one of the GPU members is set."""

    role: str
    image: str
    container: str
    cpu_millis: int
    memory_mib: int
    gpus: int = 0
    fraction_percent: int = 0
    gpu_memory_mib: int = 0
    mig: str = ""
    """A MIG profile, such as 1g.10gb."""

    @property
    def wants_gpu(self) -> bool:
        return bool(self.gpus or self.fraction_percent or self.gpu_memory_mib or self.mig)


class PodRole(msgspec.Struct):
    shape: Shape
    replicas: int


class DeviceGrant(msgspec.Struct, frozen=True):
    """Which of its node's devices a pod was given.

    `group` names the one that it shares with others; `instance` is the number among MIG instances of a profile.
    """

    group: str = ""
    devices: tuple[int, ...] = ()
    instance: int = -1


class SimulatedPod(msgspec.Struct):
    """`stage`: waiting, bound, unready, running, crashing, stuck, succeeded or failed."""

    name: str
    uid: str
    role: str
    index: int
    owner: str
    """Key of the owning child; empty = the workload's root."""
    gang: str
    created_at: Seconds
    revision: int = 1
    stage: str = "waiting"
    since: Seconds = 0.0
    node: str = ""
    grant: DeviceGrant = DeviceGrant()
    scheduled_at: Seconds = 0.0
    started_at: Seconds = 0.0
    ready_at: Seconds = 0.0
    finished_at: Seconds = 0.0
    restarts: int = 0
    reason: str = ""
    refused_at: Seconds = 0.0
    deleted_at: Seconds = 0.0

    @property
    def is_over(self) -> bool:
        return self.stage in ("succeeded", "failed")

    @property
    def holds_resources(self) -> bool:
        return bool(self.node) and not self.is_over


class Refusal(msgspec.Struct, frozen=True):
    """Why a gang was not placed. `reason` is the scheduler's; `queue` is what is over quota or limit."""

    reason: str
    message: str
    queue: str = ""
    is_department: bool = False
    requested: int = 0
    """Hundredths of GPUs, as all figures here."""
    allocated: int = 0
    allocated_fixed: int = 0
    """Held by workloads that cannot be preempted."""
    quota: int = 0
    limit: int = -1


class SimulatedWorkload(msgspec.Struct):
    """One top owner and everything below it."""

    kind: str
    name: str
    namespace: str
    uid: str
    project: str
    user: str
    family: str
    roles: list[PodRole]
    pool: str
    scheduler: str
    priority_class: str
    created_at: Seconds
    stage: str = "creating"
    since: Seconds = 0.0
    gangs: int = 1
    """Groups that are placed as one each: replicas of served kinds, else the whole."""
    topology: str = ""
    """required or preferred, where the pods should sit in one rack."""
    revision: int = 1
    restarts: int = 0
    is_suspended: bool = False
    deleted_at: Seconds = 0.0
    is_root_gone: bool = False
    first_ready_at: Seconds = 0.0
    finished_at: Seconds = 0.0
    suspended_at: Seconds = 0.0
    resumed_at: Seconds = 0.0
    runs: int = 0
    release: str = ""
    exposure: str = ""
    """How a served workload can be reached: cluster, balancer or ingress."""
    pods: list[SimulatedPod] = msgspec.field(default_factory=list)
    children: dict[str, Seconds] = msgspec.field(default_factory=dict)
    """Owned objects between root and pods, by key, with their creation times."""
    refusals: dict[str, Refusal] = msgspec.field(default_factory=dict)
    """By gang, while it waits."""
    placements: dict[str, Seconds] = msgspec.field(default_factory=dict)
    """By gang: when it was last placed."""

    def shape(self, role: str) -> Shape:
        return next(r.shape for r in self.roles if r.shape.role == role)

    def replicas(self, role: str) -> int:
        return next(r.replicas for r in self.roles if r.shape.role == role)

    def present_pods(self) -> list[SimulatedPod]:
        """Pods that are not on their way out."""
        return [pod for pod in self.pods if not pod.deleted_at]

"""Who gets which node: a small deterministic scheduler over finite machines and two levels of queues.

It places a gang whole or not at all, keeps quotas and limits, and gives the true reason for each refusal. It
knows nothing of objects, of time or of what the pods do once they are placed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from simulator.model.hardware import ONE_GPU, POOLS_BY_NAME, Node, NodeIndex
from simulator.model.model import DeviceGrant, Refusal, Shape, SimulatedPod, SimulatedWorkload
from simulator.model.names import DEPARTMENT_LIMITS, DEPARTMENTS, PROJECTS

PRIORITIES = {"train": 50, "build-preemptible": 75, "build": 100, "inference": 125}
FIXED_PRIORITY = 100
"""From here on a workload is not preempted."""
KAI = "kai-scheduler"
DEFAULT = "default-scheduler"

_MIG_SLICES = 7


@dataclass(slots=True)
class Queue:
    """All figures in hundredths of GPUs; limit -1 = none."""

    name: str
    parent: "Queue | None"
    quota: int
    limit: int = -1
    min_runtime: str | None = None
    allocated: int = 0
    allocated_fixed: int = 0

    def lineage(self) -> Iterator["Queue"]:
        yield self
        if self.parent is not None:
            yield self.parent

    def charge(self, amount: int, *, is_fixed: bool) -> None:
        for queue in self.lineage():
            queue.allocated += amount
            queue.allocated_fixed += amount if is_fixed else 0


def is_fixed(workload: SimulatedWorkload) -> bool:
    """Not preemptible."""
    return PRIORITIES[workload.priority_class] >= FIXED_PRIORITY


def counts_for_queues(workload: SimulatedWorkload) -> bool:
    """Only pods of the queueing scheduler are charged to a queue."""
    return workload.scheduler == KAI


@dataclass(slots=True)
class Scheduler:
    """Nodes and queues of one cluster."""

    nodes: dict[str, Node]
    queues: dict[str, Queue]
    _index: NodeIndex = field(init=False)

    def __post_init__(self) -> None:
        self._index = NodeIndex(self.nodes)

    def place(
        self, workload: SimulatedWorkload, gang: Sequence[SimulatedPod]
    ) -> dict[str, str] | Refusal:
        """Nodes by pod name, already taken and charged; or why not."""
        refusal = self.check_queues(workload, gang)
        if refusal is not None:
            return refusal
        shapes = [workload.shape(pod.role) for pod in gang]
        nodes = self._fit(workload, shapes)
        if nodes is None:
            return self._not_enough(workload, shapes)
        for pod, shape, node in zip(gang, shapes, nodes, strict=True):
            pod.grant = self._index.allocate(node, shape)
            pod.node = node.name
            self._charge(workload, node.pool.name, shape, 1)
        return {pod.name: pod.node for pod in gang}

    def reallocate(self, workload: SimulatedWorkload, pod: SimulatedPod) -> None:
        """Account again for a pod that was placed in an earlier life of the program."""
        node = self.nodes[pod.node]
        shape = workload.shape(pod.role)
        self._index.reallocate(node, shape, pod.grant)
        self._charge(workload, node.pool.name, shape, 1)

    def release(self, workload: SimulatedWorkload, pod: SimulatedPod) -> None:
        node = self.nodes[pod.node]
        shape = workload.shape(pod.role)
        self._index.release(node, shape, pod.grant)
        self._charge(workload, node.pool.name, shape, -1)

    def explain(self, workload: SimulatedWorkload, gang: Sequence[SimulatedPod]) -> Refusal | None:
        """Why the gang would be refused now; None where it would be placed. Takes nothing."""
        refusal = self.check_queues(workload, gang)
        if refusal is not None:
            return refusal
        shapes = [workload.shape(pod.role) for pod in gang]
        return None if self._fit(workload, shapes) else self._not_enough(workload, shapes)

    def check_queues(
        self, workload: SimulatedWorkload, gang: Sequence[SimulatedPod]
    ) -> Refusal | None:
        if not counts_for_queues(workload):
            return None
        requested = sum(
            hundredths(workload.shape(pod.role), self.pool_of(workload, pod)) for pod in gang
        )
        for queue in self.queues[workload.project].lineage():
            over_quota = (
                is_fixed(workload) and requested and queue.allocated_fixed + requested > queue.quota
            )
            if over_quota:
                return _refusal(queue, requested, "NonPreemptibleOverQuota")
            if queue.limit >= 0 and queue.allocated + requested > queue.limit:
                return _refusal(queue, requested, "OverLimit")
        return None

    def may_evict(self, workload: SimulatedWorkload, victim: SimulatedWorkload) -> bool:
        """A workload within its quota takes from those over theirs; else only within its project."""
        if is_fixed(victim) or victim.scheduler != KAI or workload.scheduler != KAI:
            return False
        mine, theirs = self.queues[workload.project], self.queues[victim.project]
        if mine is theirs:
            return PRIORITIES[workload.priority_class] > PRIORITIES[victim.priority_class]
        requested = sum(
            hundredths(role.shape, self._pool_of_shape(workload, role.shape)) * role.replicas
            for role in workload.roles
        )
        return theirs.allocated > theirs.quota and mine.allocated + requested <= mine.quota

    def nodes_of(self, pool: str) -> list[Node]:
        return self._index.pool(pool)

    def pool_of(self, workload: SimulatedWorkload, pod: SimulatedPod) -> str:
        return self._pool_of_shape(workload, workload.shape(pod.role))

    def _pool_of_shape(self, workload: SimulatedWorkload, shape: Shape) -> str:
        return workload.pool if shape.wants_gpu else "cpu"

    def _charge(self, workload: SimulatedWorkload, pool: str, shape: Shape, sign: int) -> None:
        if counts_for_queues(workload):
            amount = sign * hundredths(shape, pool)
            self.queues[workload.project].charge(amount, is_fixed=is_fixed(workload))

    def _fit(self, workload: SimulatedWorkload, shapes: Sequence[Shape]) -> list[Node] | None:
        """A node for each shape, all within one rack where that is required."""
        if workload.topology != "required":
            return self._pack(workload, shapes, None)
        needed = sum(hundredths(shape, workload.pool) for shape in shapes)
        for rack in self._index.racks(workload.pool):
            if sum(node.free_hundredths for node in rack) >= needed:
                packed = self._pack(workload, shapes, rack)
                if packed is not None:
                    return packed
        return None

    def _pack(
        self, workload: SimulatedWorkload, shapes: Sequence[Shape], rack: list[Node] | None
    ) -> list[Node] | None:
        """Tried with real allocations, which are all given back."""
        packed: list[Node] = []
        taken: list[tuple[Node, Shape, DeviceGrant]] = []
        try:
            for shape in shapes:
                chosen = self._choose(workload, shape, rack)
                if chosen is None:
                    return None
                taken.append((chosen, shape, self._index.allocate(chosen, shape)))
                packed.append(chosen)
            return packed
        finally:
            for used, shape, grant in reversed(taken):
                self._index.release(used, shape, grant)

    def _choose(
        self, workload: SimulatedWorkload, shape: Shape, rack: list[Node] | None
    ) -> Node | None:
        if rack is None or not shape.wants_gpu:
            return self._index.find(self._pool_of_shape(workload, shape), shape)
        fitting = [node for node in rack if node.shortage(shape) is None]
        return min(fitting, key=lambda node: (node.free_gpus, node.name), default=None)

    def _not_enough(self, workload: SimulatedWorkload, shapes: Sequence[Shape]) -> Refusal:
        amounts = [hundredths(shape, self._pool_of_shape(workload, shape)) for shape in shapes]
        message = (
            self._cluster_message(workload, shapes[0])
            if workload.scheduler == DEFAULT
            else _shortage_message(workload, shapes, sum(amounts))
        )
        return Refusal(reason="NotEnoughResources", message=message, requested=sum(amounts))

    def _cluster_message(self, workload: SimulatedWorkload, shape: Shape) -> str:
        """In the form of the standard scheduler: how many nodes fail for which cause."""
        pool = self._pool_of_shape(workload, shape)
        shortages = Counter(node.shortage(shape) for node in self._index.pool(pool))
        counts = sorted((name or "cpu", count) for name, count in shortages.items())
        causes = [f"{count} Insufficient {name}" for name, count in counts]
        others = len(self.nodes) - len(self._index.pool(pool))
        if others:
            causes.append(f"{others} node(s) didn't match Pod's node affinity/selector")
        total = len(self.nodes)
        return (
            f"0/{total} nodes are available: {', '.join(causes)}. no new claims to deallocate, "
            f"preemption: 0/{total} nodes are available: "
            f"{total} Preemption is not helpful for scheduling."
        )


def hundredths(shape: Shape, pool: str) -> int:
    """What a pod of that shape weighs in a queue."""
    if shape.mig:
        return int(shape.mig.partition("g")[0]) * ONE_GPU // _MIG_SLICES
    if shape.gpu_memory_mib:
        return -(-shape.gpu_memory_mib * ONE_GPU // POOLS_BY_NAME[pool].gpu_memory_mib)
    return shape.gpus * ONE_GPU + shape.fraction_percent


def figure(amount: int) -> str:
    """Hundredths as people write GPUs: 2, 0.5, 1.25."""
    return f"{amount / ONE_GPU:g}"


def build_queues(gpus: int) -> dict[str, Queue]:
    """Departments and projects over a cluster of `gpus` GPUs; quotas add up to the whole."""
    queues: dict[str, Queue] = {}
    for name, share in DEPARTMENTS.items():
        limit = DEPARTMENT_LIMITS.get(name)
        queues[name] = Queue(
            name=name,
            parent=None,
            quota=_gpus(gpus * share),
            limit=-1 if limit is None else _gpus(gpus * limit),
        )
    for project in PROJECTS:
        department = queues[project.department]
        quota = _gpus(department.quota / ONE_GPU * project.quota_share)
        limit_share = project.limit_share
        queues[project.name] = Queue(
            name=project.name,
            parent=department,
            quota=quota,
            limit=-1 if limit_share is None else _gpus(quota / ONE_GPU * limit_share),
            min_runtime=project.min_runtime,
        )
    return queues


def _gpus(amount: float) -> int:
    return max(1, round(amount)) * ONE_GPU


def _refusal(queue: Queue, requested: int, reason: str) -> Refusal:
    what = "project" if queue.parent is not None else "department"
    messages = {
        "OverLimit": (
            f"The workload asks for {figure(requested)} GPUs, which would take {what} "
            f"{queue.name} beyond its limit of {figure(queue.limit)} GPUs."
        ),
        "NonPreemptibleOverQuota": (
            f"The workload asks for {figure(requested)} GPUs and cannot be preempted, which would "
            f"take {what} {queue.name} beyond its quota of {figure(queue.quota)} GPUs."
        ),
    }
    return Refusal(
        reason=reason,
        message=messages[reason],
        queue=queue.name,
        is_department=queue.parent is None,
        requested=requested,
        allocated=queue.allocated,
        allocated_fixed=queue.allocated_fixed,
        quota=queue.quota,
        limit=queue.limit,
    )


def _shortage_message(workload: SimulatedWorkload, shapes: Sequence[Shape], requested: int) -> str:
    where = f"in node pool {workload.pool}"
    if workload.topology == "required":
        where = f"within one rack of node pool {workload.pool}"
    several = len(shapes) > 1
    pods = f"{len(shapes)} pods at once" if several else "1 pod"
    verb = "do" if several else "does"
    if requested:
        gpus = f"{figure(requested)} {'GPU' if figure(requested) == '1' else 'GPUs'}"
        return f"Not enough resources {where}: {pods} with {gpus} {verb} not fit."
    return f"Not enough resources in node pool cpu: {pods} {verb} not fit."

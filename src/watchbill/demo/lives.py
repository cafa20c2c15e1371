"""How workloads live, as tables: which kinds there are, what they ask for, and what befalls them how often.

A *hazard* is the chance per workload and unit of activity; the scenario draws the next event in proportion
to hazard times the number of workloads it could befall, so the mixture finds its own balance.
"""

from dataclasses import dataclass
from typing import Final

from watchbill.demo.names import (
    BATCH_TASKS,
    MODELS,
    SCHEDULED_TASKS,
    SERVING_TASKS,
    SESSION_TASKS,
    STORES,
    TRAINING_TASKS,
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One way to ask for GPUs, in one pool, with its weight among others of a kind."""

    weight: int
    pool: str
    gpus: int = 0
    fraction_percent: int = 0
    gpu_memory_mib: int = 0
    mig: str = ""


_TRAINING_ASKS = (Ask(5, "h100", gpus=8), Ask(4, "a100", gpus=4), Ask(2, "a100", gpus=8))
_SMALL_ASKS = (
    Ask(5, "a100", gpus=1),
    Ask(3, "h100", gpus=1),
    Ask(2, "h100", gpus=2),
    Ask(2, "mig", mig="3g.40gb"),
    Ask(2, "cpu"),
)
_SESSION_ASKS = (
    Ask(5, "l40s", fraction_percent=25),
    Ask(4, "l40s", fraction_percent=50),
    Ask(3, "mig", mig="1g.10gb"),
    Ask(2, "l40s", gpu_memory_mib=12288),
    Ask(2, "a100", gpus=1),
)
_SERVING_ASKS = (
    Ask(4, "l40s", gpus=1),
    Ask(3, "l40s", fraction_percent=50),
    Ask(3, "h100", gpus=1),
    Ask(2, "h100", gpus=2),
    Ask(2, "cpu"),
)


@dataclass(frozen=True, slots=True)
class KindTraits:
    """`family` names the life; `sizes` are the numbers of pods (or groups) to draw from."""

    kind: str
    family: str
    weight: int
    image: str
    priority_classes: tuple[str, ...]
    asks: tuple[Ask, ...]
    sizes: tuple[int, ...]
    first_words: tuple[str, ...]
    second_words: tuple[str, ...]
    default_scheduler_share: float = 0.0
    topology_share: float = 0.0


KINDS: Final = (
    KindTraits(
        "PyTorchJob",
        "finite",
        18,
        "train",
        ("train",),
        _TRAINING_ASKS,
        (2, 2, 2, 4, 4, 8, 16),
        MODELS,
        TRAINING_TASKS,
        topology_share=0.5,
    ),
    KindTraits(
        "Job",
        "finite",
        20,
        "batch",
        ("train",),
        _SMALL_ASKS,
        (1, 1, 1, 2, 4),
        MODELS,
        BATCH_TASKS,
        default_scheduler_share=0.2,
    ),
    KindTraits(
        "Pod",
        "session",
        14,
        "session",
        ("build", "build", "build-preemptible"),
        _SESSION_ASKS,
        (1,),
        SESSION_TASKS,
        MODELS,
    ),
    KindTraits(
        "Deployment",
        "serving",
        14,
        "serve",
        ("inference",),
        _SERVING_ASKS,
        (1, 2, 2, 3, 4),
        MODELS,
        SERVING_TASKS,
        default_scheduler_share=0.2,
    ),
    KindTraits(
        "StatefulSet",
        "serving",
        5,
        "store",
        ("inference",),
        (Ask(1, "cpu"),),
        (1, 3, 3),
        STORES,
        ("store", "db"),
        default_scheduler_share=1.0,
    ),
    KindTraits(
        "RayCluster",
        "resident",
        7,
        "ray",
        ("train", "build-preemptible"),
        (Ask(3, "a100", gpus=1), Ask(2, "h100", gpus=2), Ask(1, "l40s", gpus=1)),
        (2, 3, 4, 6),
        ("ray",),
        MODELS,
    ),
    KindTraits(
        "JobSet",
        "finite",
        5,
        "train",
        ("train",),
        (Ask(2, "h100", gpus=4), Ask(2, "a100", gpus=2)),
        (2, 2, 3),
        MODELS,
        TRAINING_TASKS,
    ),
    KindTraits(
        "LeaderWorkerSet",
        "serving",
        3,
        "serve",
        ("inference",),
        (Ask(2, "h100", gpus=4), Ask(1, "a100", gpus=8)),
        (1, 2),
        MODELS,
        SERVING_TASKS,
    ),
    KindTraits(
        "KnativeService",
        "serverless",
        4,
        "web",
        ("inference",),
        (Ask(2, "l40s", fraction_percent=25), Ask(2, "cpu")),
        (1, 2),
        MODELS,
        SERVING_TASKS,
        default_scheduler_share=0.5,
    ),
    KindTraits(
        "NIMService",
        "serving",
        5,
        "nim",
        ("inference",),
        (Ask(3, "l40s", gpus=1), Ask(3, "h100", gpus=2), Ask(1, "h100", gpus=4)),
        (1, 1, 2),
        MODELS,
        ("nim",),
    ),
    KindTraits(
        "CronJob",
        "recurring",
        3,
        "batch",
        ("train",),
        (Ask(2, "cpu"), Ask(1, "a100", gpus=1)),
        (1, 2),
        SCHEDULED_TASKS,
        MODELS,
        default_scheduler_share=0.5,
    ),
    KindTraits(
        "TuningStudy",
        "finite",
        2,
        "study",
        ("train",),
        (Ask(2, "a100", gpus=1), Ask(1, "l40s", fraction_percent=50)),
        (2, 4, 6),
        MODELS,
        ("tuning",),
    ),
)
UNKNOWN: Final = "TuningStudy"
"""The kind that no catalogue knows."""
KINDS_BY_NAME: Final = {traits.kind: traits for traits in KINDS}

FINITE: Final = frozenset({"finite"})
SUSPENDABLE: Final = frozenset(
    {
        "PyTorchJob",
        "Job",
        "JobSet",
        "RayCluster",
        "CronJob",
        "Deployment",
        "StatefulSet",
        "NIMService",
    }
)
"""Kinds that can be put on hold, by a flag or by scaling to zero."""
UPDATABLE: Final = frozenset({"Deployment", "StatefulSet", "NIMService", "LeaderWorkerSet"})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that befalls workloads in one of `stages`, of some families and kinds (empty = all)."""

    name: str
    hazard: float
    stages: tuple[str, ...]
    families: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


EVENTS: Final = (
    Event("complete", 1.0, ("running",), FINITE),
    Event("fail", 0.25, ("running",), FINITE),
    Event("fail", 3.0, ("degraded",), FINITE),
    Event("trouble", 0.25, ("running",)),
    Event("recover", 6.0, ("degraded",)),
    Event("update", 0.4, ("running",), frozenset(), UPDATABLE),
    Event("scale", 0.3, ("running",), frozenset(), frozenset({"Deployment", "RayCluster"})),
    Event("suspend", 0.12, ("running", "pending"), frozenset(), SUSPENDABLE),
    Event("resume", 2.0, ("stopped",)),
    Event("sleep", 0.8, ("running",), frozenset({"serverless"})),
    Event("wake", 2.0, ("idle",), frozenset({"serverless"})),
    Event("tick", 3.0, ("idle",), frozenset({"recurring"})),
    Event("finish_run", 3.0, ("running",), frozenset({"recurring"})),
    Event("give_up", 4.0, ("stuck",)),
    Event("mend", 2.0, ("stuck",)),
    Event("delete", 2.0, ("completed", "failed")),
    Event(
        "delete", 0.15, ("running",), frozenset({"serving", "resident", "serverless", "recurring"})
    ),
    Event("delete", 0.7, ("running",), frozenset({"session"})),
    Event("delete", 0.15, ("pending",)),
    Event("delete", 0.3, ("stopped",)),
    Event("exit", 0.25, ("running",), frozenset({"session"})),
)

FOLLOWS: Final[dict[str, tuple[str, float, float]]] = {
    "creating": ("make_pods", 1.0, 4.0),
    "resuming": ("make_pods", 1.0, 4.0),
    "starting": ("become_ready", 3.0, 15.0),
    "updating": ("advance_update", 3.0, 8.0),
    "stopping": ("clear_pods", 2.0, 6.0),
    "evicting": ("recreate_pods", 2.0, 6.0),
    "completing": ("settle", 1.0, 3.0),
    "failing": ("settle", 1.0, 3.0),
    "deleting": ("vanish", 2.0, 8.0),
    "scaling": ("settle_scale", 1.0, 4.0),
}
"""What controllers and kubelets do next of their own accord: step, and the seconds it takes."""

STUCK_SHARE: Final = 0.03
"""Starts that hang because the image cannot be pulled."""

FIRST_STAGES: Final = {
    "finite": (("running", 60), ("completed", 26), ("failed", 9), ("stopped", 4), ("degraded", 1)),
    "session": (("running", 85), ("completed", 8), ("failed", 4), ("degraded", 3)),
    "serving": (("running", 86), ("stopped", 6), ("degraded", 4), ("updating", 2), ("failed", 2)),
    "resident": (("running", 85), ("stopped", 10), ("degraded", 5)),
    "serverless": (("running", 65), ("idle", 35)),
    "recurring": (("idle", 75), ("running", 20), ("stopped", 5)),
}
"""Where workloads stand when a world begins; what does not fit then waits."""

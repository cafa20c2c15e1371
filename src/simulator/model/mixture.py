"""Which kinds of workloads there are, how many of each, and what they ask for: tables to draw from."""

from dataclasses import dataclass
from typing import Final

from simulator.model.framework import FRAMEWORKS, Framework
from simulator.model.names import (
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


_OWN = (
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
_ASKS = {
    "training": _TRAINING_ASKS,
    "small": _SMALL_ASKS,
    "session": _SESSION_ASKS,
    "serving": _SERVING_ASKS,
    "single": (Ask(3, "a100", gpus=1), Ask(2, "h100", gpus=1)),
    "none": (Ask(1, "cpu"),),
}
_WORDS = {
    "models": MODELS,
    "training": TRAINING_TASKS,
    "batch": BATCH_TASKS,
    "serving": SERVING_TASKS,
    "session": SESSION_TASKS,
    "stores": STORES,
    "scheduled": SCHEDULED_TASKS,
}


def _traits(framework: Framework) -> KindTraits:
    first, second = framework.words
    return KindTraits(
        framework.key,
        framework.family,
        framework.weight,
        framework.image,
        framework.priority_classes,
        _ASKS[framework.asks],
        framework.sizes,
        _WORDS[first],
        _WORDS[second],
    )


KINDS: Final = (*_OWN, *(_traits(framework) for framework in FRAMEWORKS.values()))
UNKNOWN: Final = "TuningStudy"
"""The kind that no catalogue knows."""
KINDS_BY_NAME: Final = {traits.kind: traits for traits in KINDS}

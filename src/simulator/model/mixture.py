"""Which kinds of workloads there are and what they ask for; tables that several kinds share have names here."""

from typing import Final

from simulator.model.framework import FRAMEWORKS, Ask, Framework
from simulator.model.names import (
    BATCH_TASKS,
    MODELS,
    SCHEDULED_TASKS,
    SERVING_TASKS,
    SESSION_TASKS,
    STORES,
    TRAINING_TASKS,
)

_ASKS: Final = {
    "training": (
        Ask(weight=5, pool="h100", gpus=8),
        Ask(weight=4, pool="a100", gpus=4),
        Ask(weight=2, pool="a100", gpus=8),
    ),
    "small": (
        Ask(weight=5, pool="a100", gpus=1),
        Ask(weight=3, pool="h100", gpus=1),
        Ask(weight=2, pool="h100", gpus=2),
        Ask(weight=2, pool="mig", mig="3g.40gb"),
        Ask(weight=2, pool="cpu"),
    ),
    "session": (
        Ask(weight=5, pool="l40s", fraction_percent=25),
        Ask(weight=4, pool="l40s", fraction_percent=50),
        Ask(weight=3, pool="mig", mig="1g.10gb"),
        Ask(weight=2, pool="l40s", gpu_memory_mib=12288),
        Ask(weight=2, pool="a100", gpus=1),
    ),
    "serving": (
        Ask(weight=4, pool="l40s", gpus=1),
        Ask(weight=3, pool="l40s", fraction_percent=50),
        Ask(weight=3, pool="h100", gpus=1),
        Ask(weight=2, pool="h100", gpus=2),
        Ask(weight=2, pool="cpu"),
    ),
    "single": (Ask(weight=3, pool="a100", gpus=1), Ask(weight=2, pool="h100", gpus=1)),
    "none": (Ask(weight=1, pool="cpu"),),
}
_WORDS: Final = {
    "models": MODELS,
    "training": TRAINING_TASKS,
    "batch": BATCH_TASKS,
    "serving": SERVING_TASKS,
    "session": SESSION_TASKS,
    "stores": STORES,
    "scheduled": SCHEDULED_TASKS,
}

KINDS: Final = tuple(FRAMEWORKS.values())
UNKNOWN: Final = "TuningStudy"
"""The kind that no catalogue knows."""


def asks_of(framework: Framework) -> tuple[Ask, ...]:
    """The ways to ask for GPUs that the kind draws from."""
    return _ASKS[framework.asks] if isinstance(framework.asks, str) else framework.asks


def name_words(framework: Framework) -> list[tuple[str, ...]]:
    """The first and the second words that names are made of."""
    return [_WORDS[words] if isinstance(words, str) else words for words in framework.words]

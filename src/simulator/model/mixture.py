"""Which kinds of workloads there are, what they ask for, and new ones drawn from these tables by a seeded
generator.
"""

import random
import uuid
from collections.abc import Mapping
from typing import Final

from simulator.model.framework import FRAMEWORKS, Framework, FrameworkRole, GpuRequest
from simulator.model.model import PodRole, Seconds, Shape, SimulatedWorkload
from simulator.model.names import (
    BATCH_TASKS,
    MODELS,
    PROJECTS,
    RELEASES,
    SCHEDULED_TASKS,
    SERVING_TASKS,
    SESSION_TASKS,
    STORES,
    TRAINING_TASKS,
    USERS,
    namespace_of,
)
from simulator.model.scheduler import DEFAULT, KAI

_ASKS: Final = {
    "training": (
        GpuRequest(weight=5, pool="h100", gpus=8),
        GpuRequest(weight=4, pool="a100", gpus=4),
        GpuRequest(weight=2, pool="a100", gpus=8),
    ),
    "small": (
        GpuRequest(weight=5, pool="a100", gpus=1),
        GpuRequest(weight=3, pool="h100", gpus=1),
        GpuRequest(weight=2, pool="h100", gpus=2),
        GpuRequest(weight=2, pool="mig", mig="3g.40gb"),
        GpuRequest(weight=2, pool="cpu"),
    ),
    "session": (
        GpuRequest(weight=5, pool="l40s", fraction_percent=25),
        GpuRequest(weight=4, pool="l40s", fraction_percent=50),
        GpuRequest(weight=3, pool="mig", mig="1g.10gb"),
        GpuRequest(weight=2, pool="l40s", gpu_memory_mib=12288),
        GpuRequest(weight=2, pool="a100", gpus=1),
    ),
    "serving": (
        GpuRequest(weight=4, pool="l40s", gpus=1),
        GpuRequest(weight=3, pool="l40s", fraction_percent=50),
        GpuRequest(weight=3, pool="h100", gpus=1),
        GpuRequest(weight=2, pool="h100", gpus=2),
        GpuRequest(weight=2, pool="cpu"),
    ),
    "single": (
        GpuRequest(weight=3, pool="a100", gpus=1),
        GpuRequest(weight=2, pool="h100", gpus=1),
    ),
    "none": (GpuRequest(weight=1, pool="cpu"),),
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


def asks_of(framework: Framework) -> tuple[GpuRequest, ...]:
    """The ways to ask for GPUs that the kind draws from."""
    return _ASKS[framework.asks] if isinstance(framework.asks, str) else framework.asks


def name_words(framework: Framework) -> list[tuple[str, ...]]:
    """The first and the second words that names are made of."""
    return [_WORDS[words] if isinstance(words, str) else words for words in framework.words]


_NO_GPU: Final = GpuRequest(weight=1, pool="cpu")
_RACK_GPUS = 32
_TOPOLOGY_MINIMUM = 4
"""Smaller groups do not care where they sit."""
_PROJECT_WEIGHTS = [project.demand for project in PROJECTS]


class NameGenerator:
    """Unused names: word-word-number, numbers counted up per pair of words."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}

    def next(self, rng: random.Random, framework: Framework) -> str:
        stem = "-".join(rng.choice(words) for words in name_words(framework))
        self.counters[stem] = self.counters.get(stem, 0) + 1
        return f"{stem}-{self.counters[stem]}"


def draw_kind(rng: random.Random, present: Mapping[str, int]) -> Framework:
    """Kinds that are rarer than their weight come sooner, so the mixture stays what the files say.

    One that is not there at all comes next: a cluster shows every kind.
    """
    missing = [kind for kind in KINDS if not present.get(kind.key)]
    if missing:
        return rng.choice(missing)
    whole, weights = sum(present.values()) + 1, sum(kind.weight for kind in KINDS)
    deficits = [
        max(0.2, kind.weight / weights * whole - present.get(kind.key, 0)) for kind in KINDS
    ]
    (framework,) = rng.choices(KINDS, deficits)
    return framework


def make_workload(
    rng: random.Random, names: NameGenerator, framework: Framework, *, created_at: Seconds
) -> SimulatedWorkload:
    """One of the given kind, in stage creating, without pods."""
    (project,) = rng.choices(PROJECTS, _PROJECT_WEIGHTS)
    asks = asks_of(framework)
    (ask,) = rng.choices(asks, [ask.weight for ask in asks])
    size = rng.choice(framework.sizes)
    is_plain = rng.random() < framework.default_scheduler_share and not ask.fraction_percent
    topology = ""
    if rng.random() < framework.topology_share and size >= _TOPOLOGY_MINIMUM:
        fits_a_rack = size * ask.gpus <= _RACK_GPUS
        topology = rng.choice(("required", "preferred")) if fits_a_rack else "preferred"
    is_serving = framework.family == "serving"
    return SimulatedWorkload(
        kind=framework.key,
        name=names.next(rng, framework),
        namespace=namespace_of(project.name),
        uid=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        project=project.name,
        user=rng.choice(USERS),
        family=framework.family,
        roles=_roles(framework, ask, size),
        pool=ask.pool,
        scheduler=DEFAULT if is_plain else KAI,
        priority_class=rng.choice(framework.priority_classes),
        created_at=created_at,
        since=created_at,
        topology=topology,
        release=rng.choice(RELEASES) if is_serving and rng.random() < 0.2 else "",
        exposure=rng.choice(("cluster", "cluster", "balancer", "ingress")),
    )


def _roles(framework: Framework, ask: GpuRequest, size: int) -> list[PodRole]:
    """What no role counts for itself goes to those without a count."""
    rest = size - sum(role.count for role in framework.roles)
    return [
        PodRole(_shape(framework, role, _NO_GPU if role.is_small else ask), role.count or rest)
        for role in framework.roles
    ]


def _shape(framework: Framework, role: FrameworkRole, ask: GpuRequest) -> Shape:
    is_small = ask.pool == "cpu"
    scale = 2 * ask.gpus if ask.gpus else 1
    return Shape(
        role=role.name,
        image=role.image or framework.image,
        container=role.container or framework.container,
        cpu_millis=2000 if is_small else 4000 * scale,
        memory_mib=8192 if is_small else 32768 * scale,
        gpus=ask.gpus,
        fraction_percent=ask.fraction_percent,
        gpu_memory_mib=ask.gpu_memory_mib,
        mig=ask.mig,
    )

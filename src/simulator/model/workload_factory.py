"""New workloads: what kind, whose, how large, under which name. Drawn from tables by a seeded generator."""

import random
import uuid
from collections.abc import Mapping

import msgspec

from simulator.manifests.shared_objects import namespace_of
from simulator.model.framework import FRAMEWORKS
from simulator.model.mixture import KINDS, Ask, KindTraits
from simulator.model.model import PodRole, Seconds, Shape, SimulatedWorkload
from simulator.model.names import PROJECTS, RELEASES, USERS
from simulator.model.scheduler import DEFAULT, KAI

_SMALL = ("cpu", 0, 0, 0, "")
_RACK_GPUS = 32
_TOPOLOGY_MINIMUM = 4
"""Smaller groups do not care where they sit."""
_PROJECT_WEIGHTS = [project.demand for project in PROJECTS]
_CONTAINERS = {
    "train": "pytorch",
    "batch": "main",
    "serve": "server",
    "nim": "nim",
    "session": "workspace",
    "ray": "ray",
    "store": "db",
    "web": "user-container",
    "study": "trial",
}


class Names:
    """Names that nobody bears yet: word-word-number, numbers counted up per pair of words."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}

    def next(self, rng: random.Random, traits: KindTraits) -> str:
        stem = f"{rng.choice(traits.first_words)}-{rng.choice(traits.second_words)}"
        self.counters[stem] = self.counters.get(stem, 0) + 1
        return f"{stem}-{self.counters[stem]}"


def draw_kind(rng: random.Random, present: Mapping[str, int]) -> KindTraits:
    """Kinds that are rarer than their weight come sooner, so the mixture stays what the table says.

    One that is not there at all comes next: a cluster shows every kind.
    """
    missing = [kind for kind in KINDS if not present.get(kind.kind)]
    if missing:
        return rng.choice(missing)
    whole, weights = sum(present.values()) + 1, sum(kind.weight for kind in KINDS)
    lacks = [max(0.2, kind.weight / weights * whole - present.get(kind.kind, 0)) for kind in KINDS]
    (traits,) = rng.choices(KINDS, lacks)
    return traits


def make_workload(
    rng: random.Random, names: Names, traits: KindTraits, *, created_at: Seconds
) -> SimulatedWorkload:
    """One of the given kind, in stage creating, without pods."""
    (project,) = rng.choices(PROJECTS, _PROJECT_WEIGHTS)
    (ask,) = rng.choices(traits.asks, [ask.weight for ask in traits.asks])
    size = rng.choice(traits.sizes)
    is_plain = rng.random() < traits.default_scheduler_share and not ask.fraction_percent
    topology = ""
    if rng.random() < traits.topology_share and size >= _TOPOLOGY_MINIMUM:
        fits_a_rack = size * ask.gpus <= _RACK_GPUS
        topology = rng.choice(("required", "preferred")) if fits_a_rack else "preferred"
    return SimulatedWorkload(
        kind=traits.kind,
        name=names.next(rng, traits),
        namespace=namespace_of(project.name),
        uid=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        project=project.name,
        user=rng.choice(USERS),
        family=traits.family,
        roles=_roles(traits, ask, size),
        pool=ask.pool,
        scheduler=DEFAULT if is_plain else KAI,
        priority_class=rng.choice(traits.priority_classes),
        created_at=created_at,
        since=created_at,
        topology=topology,
        release=rng.choice(RELEASES) if traits.family == "serving" and rng.random() < 0.2 else "",
        exposure=rng.choice(("cluster", "cluster", "balancer", "ingress")),
    )


def _roles(traits: KindTraits, ask: Ask, size: int) -> list[PodRole]:
    worker = _shape(traits, ask, "main")
    layouts = {
        "PyTorchJob": (("master", ask, 1), ("worker", ask, size - 1)),
        "RayCluster": (("head", None, 1), ("worker", ask, size - 1)),
        "JobSet": (("leader", None, 1), ("workers", ask, size)),
        "LeaderWorkerSet": (("leader", ask, size), ("worker", ask, 1)),
        "TuningStudy": (("trial", ask, size),),
    }
    if traits.kind in FRAMEWORKS:
        return _framework_roles(traits, ask, size)
    if traits.kind not in layouts:
        return [PodRole(worker, size)]
    return [
        PodRole(_shape(traits, found, role), count) for role, found, count in layouts[traits.kind]
    ]


def _framework_roles(traits: KindTraits, ask: Ask, size: int) -> list[PodRole]:
    """As the file says; what no role counts for itself goes to those without a count."""
    framework = FRAMEWORKS[traits.kind]
    rest = size - sum(role.count for role in framework.roles)
    found = []
    for role in framework.roles:
        shape = msgspec.structs.replace(
            _shape(traits, None if role.is_small else ask, role.name),
            image=role.image or framework.image,
            container=role.container or framework.container,
        )
        found.append(PodRole(shape, role.count or rest))
    return found


def _shape(traits: KindTraits, ask: Ask | None, role: str) -> Shape:
    pool, gpus, fraction, memory, mig = (
        (ask.pool, ask.gpus, ask.fraction_percent, ask.gpu_memory_mib, ask.mig) if ask else _SMALL
    )
    is_small = pool == "cpu"
    scale = 2 * gpus if gpus else 1
    return Shape(
        role=role,
        image=traits.image,
        container=_CONTAINERS.get(traits.image, "main"),
        cpu_millis=2000 if is_small else 4000 * scale,
        memory_mib=8192 if is_small else 32768 * scale,
        gpus=gpus,
        fraction_percent=fraction,
        gpu_memory_mib=memory,
        mig=mig,
    )

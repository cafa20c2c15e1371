"""Kinds of workloads that the simulated cluster plays: one file in `frameworks/` for each.

A file tells what the kind is, how it lives, what it asks for, which pods it has, and, as one jq expression over
the workload's state, which objects stand above the pods and what their controllers say. `frameworks/README.md`
tells the form. Nothing here knows what the product makes of any of it.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Final

import jq
import msgspec
import yaml

from simulator.resources import BUILT_IN, CUSTOM, ResourceType, custom

_FILES: Final = Path(__file__).parents[1] / "frameworks"


class GpuRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to ask for GPUs, in one node pool, with its weight among the others of a kind."""

    weight: int
    pool: str
    gpus: int = 0
    fraction_percent: int = 0
    gpu_memory_mib: int = 0
    mig: str = ""


class FrameworkRole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A set of equal pods. `pod`, `owner`, `gang` and `labels` may hold the words in braces of README.md."""

    name: str
    pod: str
    """The pods' name; a hyphen at its end calls for random letters."""
    owner: str = ""
    """Key of the object that owns the pods; empty = the workload itself, `pod:ROLE` = a pod of that role."""
    gang: str = "main"
    """Pods of one gang are placed together."""
    count: int = 0
    """0 = what the other roles leave of the workload's size."""
    groups: str = ""
    """The role whose replicas say how often this set exists; empty = once."""
    group_size: int = 0
    """Pods in one such set; 0 = the role's own replicas."""
    first_index: int = 0
    is_small: bool = False
    """It asks for no GPU, whatever the others do."""
    container: str = ""
    image: str = ""
    labels: dict[str, str] = {}


class FrameworkService(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Service in front of the pods; one with a single port may be exposed by an Ingress."""

    name: str = "{name}"
    selector: dict[str, str]
    ports: dict[str, int]
    """By name."""


class FrameworkResource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind as the cluster serves it."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def resource(self) -> ResourceType:
        for known in (*BUILT_IN, *CUSTOM):
            if (known.group, known.kind) == (self.group, self.kind):
                return known
        return custom(self.group, self.version, self.kind, self.plural)


class Framework(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """One file. `family` is a name in `lifecycles`; `asks` and `words` may be names in `mixture`."""

    name: str = ""
    """What the demo calls it; the kind, where that is not taken."""
    kinds: list[FrameworkResource]
    """The workload's own, then those between it and its pods that are not known otherwise."""
    family: str
    image: str
    container: str
    asks: str | tuple[GpuRequest, ...]
    sizes: tuple[int, ...]
    """Numbers of pods (or groups) to draw from."""
    words: tuple[str | tuple[str, ...], str | tuple[str, ...]]
    """First and second word of names."""
    priority_classes: tuple[str, ...] = ("train",)
    weight: int = 1
    """How many there are, in proportion to other kinds."""
    default_scheduler_share: float = 0.0
    topology_share: float = 0.0
    """Part of the large ones that asks to sit in one rack."""
    can_stop: bool = False
    """It can be put on hold, by a flag or by scaling to zero."""
    can_update: bool = False
    can_scale: bool = False
    has_deadline: bool = False
    """A start that hangs fails in time; of other kinds its user takes it back."""
    restart: str = "Always"
    keeps: list[str] | None = None
    """Roles whose pods stay when the work has ended; all where it is left out."""
    made_with_pods: tuple[str, ...] = ()
    """Keys of objects that are made together with the first pods."""
    labels: dict[str, str] = {}
    service: FrameworkService | None = None
    roles: list[FrameworkRole]
    objects: str

    @property
    def root(self) -> ResourceType:
        return self.kinds[0].resource

    @property
    def key(self) -> str:
        return self.name or self.kinds[0].kind

    @cached_property
    def program(self) -> Any:
        """The objects' expression, compiled at its first use."""
        return jq.compile(f"{_shared()} {self.objects}")


def _shared() -> str:
    return ". as $w | " + (_FILES / "shared.jq").read_text()


def _read_all() -> dict[str, Framework]:
    frameworks = {}
    for file in sorted(_FILES.rglob("*.yaml"), key=lambda file: file.name):
        framework = msgspec.convert(yaml.load(file.read_text(), Loader=yaml.CSafeLoader), Framework)
        frameworks[framework.key] = framework
    return frameworks


FRAMEWORKS: Final = _read_all()
SERVED: Final = tuple(
    {
        resource.full_name: resource
        for resource in (
            *CUSTOM,
            *(kind.resource for framework in FRAMEWORKS.values() for kind in framework.kinds),
        )
        if resource.is_custom
    }.values()
)
"""The custom kinds that a cluster serves."""
_BY_KIND: Final = {
    f"{resource.kind}.{resource.group}": resource for resource in (*BUILT_IN, *SERVED)
}


def resource_of(kind: str) -> ResourceType:
    """By `Kind.group`."""
    return _BY_KIND[kind]

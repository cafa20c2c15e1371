"""Kinds of workloads that the simulated cluster plays from files: one in `frameworks/` for each.

A file tells what the kind is, how it lives (in the words of `mixture`), which pods it has, and, as one jq
expression over the workload's state, which objects stand above the pods and what their controllers say.
`frameworks/README.md` tells the form. Nothing here knows what the product makes of any of it.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Final

import jq
import msgspec
import yaml

from simulator.apiserver.resources import BUILT_IN, CUSTOM, ResourceType, custom

_FILES: Final = Path(__file__).parents[1] / "frameworks"


class FrameworkRole(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A set of equal pods. `pod` and `labels` may hold {name}, {hash}, {role}, {index} and {run}."""

    name: str
    pod: str
    """The pods' name; a hyphen at its end calls for random letters."""
    owner: str = ""
    """Key of the object that owns the pods; empty = the workload itself, `pod:ROLE` = a pod of that role."""
    count: int = 0
    """0 = what the other roles leave of the workload's size."""
    is_small: bool = False
    """It asks for no GPU, whatever the others do."""
    is_gang: bool = True
    """Placed together with the rest of the workload."""
    container: str = ""
    image: str = ""
    labels: dict[str, str] = {}


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
    """One file. `asks`, `words` and `family` are names in `mixture` and `lives`."""

    name: str = ""
    """What the demo calls it; the kind, where that is not taken."""
    kinds: list[FrameworkResource]
    """The workload's own, then those between it and its pods that are not known otherwise."""
    family: str
    image: str
    container: str
    asks: str
    sizes: tuple[int, ...]
    words: tuple[str, str]
    priority_classes: tuple[str, ...] = ("train",)
    weight: int = 1
    can_stop: bool = False
    restart: str = "Always"
    keeps: list[str] | None = None
    """Roles whose pods stay when the work has ended; all where it is left out."""
    labels: dict[str, str] = {}
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
    found = {}
    for file in sorted(_FILES.rglob("*.yaml"), key=lambda file: file.name):
        framework = msgspec.convert(yaml.load(file.read_text(), Loader=yaml.CSafeLoader), Framework)
        found[framework.key] = framework
    return found


FRAMEWORKS: Final = _read_all()
SERVED: Final = tuple(
    {
        resource.full_name: resource
        for resource in (
            *CUSTOM,
            *(kind.resource for found in FRAMEWORKS.values() for kind in found.kinds),
        )
        if resource.is_custom
    }.values()
)
"""The custom kinds that a cluster serves."""
_BY_KIND: Final = {f"{found.kind}.{found.group}": found for found in (*BUILT_IN, *SERVED)}


def resource_of(kind: str) -> ResourceType:
    """By `Kind.group`."""
    return _BY_KIND[kind]

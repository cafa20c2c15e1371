"""What one owner object says, read by its kind's definition. Plain values; no pods, no decisions."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from watchbill.kinds.lookup import INT32_MAX
from watchbill.kinds.template import Template


class RoleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One set of equal pods. `pods`: the labels by which its pods are known, none = all of them.

    `max` is INT32_MAX where the object says that there is no bound.
    """

    name: str
    replicas: int
    min: int | None = None
    max: int | None = None
    template: Template | None = None
    pods: tuple[tuple[str, str], ...] = ()
    is_optional: bool = False


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    url: str = ""
    host: str = ""
    port: int | None = None
    path: str = ""
    is_tls: bool | None = None
    protocol: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`said`: the predicates of the definition that hold, each with its message ("" = none)."""

    roles: tuple[RoleFacts, ...] = ()
    number: int | None = None
    has_number: bool = False
    """`number` was said, though it may be nothing; else it follows from the roles."""
    min: int | None = None
    max: int | None = None
    parallelism: int | None = None
    completions: int | None = None
    needs: int | None = None
    """How many pods must run before the workload does; None = all of `number`."""
    said: Mapping[str, str] = {}
    scales_to_zero: bool = False
    framework: str = ""
    """The framework that this object runs, where its kind alone does not tell it."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    suspended_at: datetime | None = None
    resumed_at: datetime | None = None
    changed_at: datetime | None = None
    """When the status last moved, where the kind tells: the start of Updating or Degraded."""
    conditions: tuple[Mapping[str, Any], ...] = ()
    endpoints: tuple[EndpointFacts, ...] = ()
    embedded: tuple[Mapping[str, Any], ...] = ()
    """Whole objects that it holds inside and will make: their roles are its own."""

    @property
    def has_templates(self) -> bool:
        """Whether anything tells what its pods are made of; else the pods themselves have to."""
        return any(role.template is not None for role in self.roles)

    def says(self, predicate: str) -> bool:
        return predicate in self.said

    def with_roles(self, roles: Iterable[RoleFacts]) -> "Facts":
        """The same with other roles; they add up to `number` where nothing else was said."""
        known = tuple(roles)
        number = self.number
        if known and not self.has_number:
            total = sum(role.replicas for role in known if not role.is_optional)
            number = min(total, INT32_MAX)
        return msgspec.structs.replace(self, roles=known, number=number)


NO_FACTS = Facts()

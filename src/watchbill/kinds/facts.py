"""What one owner object says, read by its kind's definition. Plain values; no pods, no decisions."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from watchbill.kinds.template import Template


class RoleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One set of equal pods. `pods`: the labels by which its pods are known, none = all of them."""

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
    min: int | None = None
    max: int | None = None
    parallelism: int | None = None
    completions: int | None = None
    needs: int | None = None
    """How many pods must run before the workload does; None = all of `number`."""
    said: Mapping[str, str] = {}
    scales_to_zero: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    suspended_at: datetime | None = None
    resumed_at: datetime | None = None
    changed_at: datetime | None = None
    """When the status last moved, where the kind tells: the start of Updating or Degraded."""
    conditions: tuple[Mapping[str, Any], ...] = ()
    endpoints: tuple[EndpointFacts, ...] = ()

    def says(self, predicate: str) -> bool:
        return predicate in self.said


NO_FACTS = Facts()

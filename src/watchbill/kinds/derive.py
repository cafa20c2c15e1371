"""Objects in, record out: all that Watchbill says of one workload. Pure; no clock, no I/O."""

from dataclasses import dataclass

from watchbill.kinds.definition import Definitions
from watchbill.kinds.objects import WorkloadObjects
from watchbill.kinds.settings import DeriveSettings
from watchbill.sync import Record
from watchbill.workload import Transition

__all__ = ["DeriveSettings", "Derived", "derive"]


@dataclass(frozen=True, slots=True)
class Derived:
    """`transitions`: the phase history as the objects' own times tell it; the last is the present."""

    record: Record
    transitions: tuple[Transition, ...]


def derive(objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings) -> Derived:
    """The workload's record. Raises `Invalid` only where the root has no usable UID."""
    raise NotImplementedError

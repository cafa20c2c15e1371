"""Kind definitions: loading, checking, finding. The files are data; a new kind is a new file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchbill.kinds.objects import GroupKind


@dataclass(frozen=True, slots=True)
class Watched:
    """A kind that the agent must list and watch, where the cluster has it, in any served version.

    A kind not named here is met as an unknown owner: its metadata is enough.
    """

    group: str
    kind: str
    is_whole: bool
    """True: the whole object is needed. False: its metadata is enough to walk from pods upwards."""


class Definitions:
    """All definitions, found by group and kind."""

    def for_kind(self, key: GroupKind) -> Any:
        raise NotImplementedError

    def watched(self) -> tuple[Watched, ...]:
        raise NotImplementedError


def load_definitions(extra_dir: Path | None = None) -> Definitions:
    """The built-in definitions and those of `extra_dir`, which win. Raises Invalid, with the place."""
    raise NotImplementedError

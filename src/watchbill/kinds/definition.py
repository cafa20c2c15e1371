"""Kind definitions: all of them, found by group and kind. The files are data; a new kind is a new file."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from watchbill.errors import Invalid
from watchbill.kinds.definition_file import ANY, Definition, load_definition
from watchbill.kinds.facts import NO_FACTS, Facts
from watchbill.kinds.lookup import group_version, metadata, text
from watchbill.kinds.objects import GroupKind
from watchbill.kinds.remembered import Remembered

__all__ = [
    "Definition",
    "Definitions",
    "Watched",
    "load_definition",
    "load_definitions",
]

BUILT_IN = Path(__file__).parent / "definitions"


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
    """All definitions, found by group and kind; the facts they read are kept by uid and version."""

    def __init__(self, definitions: Iterable[Definition]) -> None:
        self._definitions = {definition.key: definition for definition in definitions}
        self._unknown = self._definitions.pop(GroupKind(ANY, ANY))
        self._remembered = Remembered()

    def for_kind(self, key: GroupKind) -> Definition | None:
        """The definition of exactly this kind, or None."""
        return self._definitions.get(key)

    def for_object(self, obj: Any) -> Definition:
        """The definition of the object's kind, or the rules for kinds that nobody defined."""
        group, _ = group_version(obj)
        kind = text(obj.get("kind"))
        return self._definitions.get(GroupKind(group, kind), self._unknown)

    def facts(self, obj: Mapping[str, Any]) -> Facts:
        """What the object says. One uid at one resourceVersion is read once."""
        meta = metadata(obj)
        uid, version = text(meta.get("uid")), text(meta.get("resourceVersion"))
        definition = self.for_object(obj)
        if "spec" not in obj and "status" not in obj:
            return NO_FACTS  # metadata alone
        if not uid or not version:
            return self._read(obj)
        key = (uid, definition.key.kind)
        found = self._remembered.find(key, version)
        if found is None:
            found = self._read(obj)
            self._remembered.keep(key, version, found)
        return found

    def _read(self, obj: Mapping[str, Any]) -> Facts:
        """Afresh. What is embedded is never kept: whoever writes it may put any uid into it."""
        found = self.for_object(obj).program(group_version(obj)[1]).facts(obj)
        if not found.embedded:
            return found
        inner = (role for part in found.embedded for role in self._read(part).roles)
        return found.with_roles((*found.roles, *inner))

    def watched(self) -> tuple[Watched, ...]:
        """Every defined kind whole, and the kinds between them and their pods by metadata."""
        whole = dict.fromkeys(self._definitions, True)
        between = dict.fromkeys(
            (key for found in self._definitions.values() for key in found.through), False
        )
        return tuple(
            Watched(key.group, key.kind, is_whole)
            for key, is_whole in sorted(
                (between | whole).items(), key=lambda item: (item[0].group, item[0].kind)
            )
        )


def load_definitions(extra_dir: Path | None = None) -> Definitions:
    """The built-in definitions and those of `extra_dir`, which win. Raises Invalid."""
    found = {definition.key: definition for definition in _load_folder(BUILT_IN)}
    if extra_dir is not None:
        if not extra_dir.is_dir():
            raise Invalid(f"{extra_dir} is no folder of kind definitions")
        found |= {definition.key: definition for definition in _load_folder(extra_dir)}
    return Definitions(found.values())


def _load_folder(folder: Path) -> Iterator[Definition]:
    seen: dict[GroupKind, str] = {}
    for path in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        definition = load_definition(path)
        first = seen.setdefault(definition.key, definition.file)
        if first != definition.file:
            name = f"{definition.key.kind}.{definition.key.group}".rstrip(".")
            raise Invalid(f"{path}:1: {name} is already defined in {first}")
        yield definition

"""Kind definitions, by group and kind. The files are data; a new kind is a new file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from watchbill.kinds.definition.facts import NO_FACTS, Facts, FactsCache, Key, PackedFacts, pack
from watchbill.kinds.definition.program import Program
from watchbill.kinds.objects.json_access import group_version, metadata, text
from watchbill.kinds.objects.objects import GroupKind
from watchbill.workload import WorkloadClass

ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementSource:
    """One source of elements: exactly one of `is_roles`, `objects` and `label` is set."""

    is_roles: bool = False
    objects: GroupKind | None = None
    label: str = ""
    with_pods: bool = False
    """Leave out objects that no pod belongs to."""
    without: str = ""
    """Leave out objects and pods that have this label."""
    name: str = "{value}"
    children: tuple["ElementSource", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One kind. `programs` by version, "*" for any other."""

    key: GroupKind
    file: str
    category: str
    workload_class: WorkloadClass
    """General: only what its pods ask for can tell that it is AI work."""
    distributed_framework: str | None
    runs_to_end: bool
    """Its pods end by themselves: one that succeeded counts as one that runs."""
    through: tuple[GroupKind, ...]
    prefers_children: bool
    """Its children's templates take precedence over its own roles, as soon as there are children."""
    hook: str
    elements: tuple[ElementSource, ...]
    programs: Mapping[str, Program]

    @property
    def is_schedule(self) -> bool:
        """Its children are runs, each of them over once it has ended."""
        return self.hook == "newest_run"

    def program(self, version: str) -> Program:
        return self.programs.get(version) or self.programs[ANY]


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
        self._facts_cache = FactsCache()

    def for_kind(self, key: GroupKind) -> Definition | None:
        """The definition of exactly this kind, or None."""
        return self._definitions.get(key)

    def for_object(self, obj: Any) -> Definition:
        """The definition of the object's kind, else the generic one."""
        group, _ = group_version(obj)
        kind = text(obj.get("kind"))
        return self._definitions.get(GroupKind(group, kind), self._unknown)

    def facts(self, obj: Mapping[str, Any]) -> Facts:
        """The object's facts. One uid at one resourceVersion is read once."""
        if _is_metadata_alone(obj):
            return NO_FACTS
        (uid, kind), version = self._place(obj)
        if not uid or not version:
            return self.facts_of_part(obj)
        facts = self._facts_cache.get((uid, kind), version)
        if facts is None:
            facts = self.facts_of_part(obj)
            self._facts_cache.put((uid, kind), version, facts)
        return facts

    def is_read(self, key: GroupKind, uid: str) -> bool:
        """Whether facts of that object are kept, of whatever version."""
        return (uid, self._definitions.get(key, self._unknown).key.kind) in self._facts_cache

    def read_packed(self, obj: Mapping[str, Any]) -> PackedFacts | None:
        """The object's facts for another process to keep; None where it would not look for them."""
        key, version = self._place(obj)
        if _is_metadata_alone(obj) or not key[0] or not version:
            return None
        return PackedFacts(key, version, pack(self.facts_of_part(obj)))

    def keep_packed(self, read: PackedFacts) -> None:
        self._facts_cache.put_packed(read.key, read.version, read.packed)

    def _place(self, obj: Mapping[str, Any]) -> tuple[Key, str]:
        meta = metadata(obj)
        key = (text(meta.get("uid")), self.for_object(obj).key.kind)
        return key, text(meta.get("resourceVersion"))

    def facts_of_part(self, obj: Mapping[str, Any]) -> Facts:
        """Afresh. What is embedded is never kept: whoever writes it may put any uid into it."""
        facts = self.for_object(obj).program(group_version(obj)[1]).facts(obj)
        if not facts.embedded:
            return facts
        parts = [self.facts_of_part(part) for part in facts.embedded]
        inner = (
            msgspec.structs.replace(role, is_embedded=True) for part in parts for role in part.roles
        )
        queue = facts.queue or next((part.queue for part in parts if part.queue), "")
        return msgspec.structs.replace(facts, queue=queue).with_roles((*facts.roles, *inner))

    def watched(self) -> tuple[Watched, ...]:
        """Every defined kind whole, and the kinds between them and their pods by metadata."""
        whole = dict.fromkeys(self._definitions, True)
        between = dict.fromkeys(
            (key for definition in self._definitions.values() for key in definition.through), False
        )
        return tuple(
            Watched(key.group, key.kind, is_whole)
            for key, is_whole in sorted(
                (between | whole).items(), key=lambda item: (item[0].group, item[0].kind)
            )
        )


def _is_metadata_alone(obj: Mapping[str, Any]) -> bool:
    return "spec" not in obj and "status" not in obj

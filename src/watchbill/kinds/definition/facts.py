"""Facts: what one owner object states, read by its kind's definition; and the cache of them.

Plain values; no pods, no decisions. An object is read once per resourceVersion, however often its pods change.
The cache keeps recent facts as objects and the others compressed: a thirtieth of the memory, and a twentieth of
the time that reading takes. What changes again, or goes, while it is recent is never compressed.
"""

import pickle
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from watchbill.kinds.objects.json_access import INT32_MAX
from watchbill.kinds.objects.template import Template

ENDS: Final = ("failed", "completed")
"""The predicates that say that an object has come to its end."""


class RoleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One set of equal pods. `pods`: the labels by which its pods are known, none = all of them.

    `max` is INT32_MAX where the object says that there is no bound. `left`: how many have yet to end, where the
    object tells; None = all.
    """

    name: str
    replicas: int
    left: int | None = None
    min: int | None = None
    max: int | None = None
    template: Template | None = None
    pods: tuple[tuple[str, str], ...] = ()
    is_optional: bool = False
    is_embedded: bool = False
    """Of an object that the root holds inside: what is made of that object tells better."""


class EndpointFacts(msgspec.Struct, frozen=True, kw_only=True):
    url: str = ""
    host: str = ""
    port: int | None = None
    path: str = ""
    is_tls: bool | None = None
    protocol: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`predicates`: those of the definition that hold, each with its message ("" = none)."""

    roles: tuple[RoleFacts, ...] = ()
    number: int | None = None
    has_number: bool = False
    """The definition states `number`, though it may yield null; else it follows from the roles."""
    min: int | None = None
    max: int | None = None
    parallelism: int | None = None
    completions: int | None = None
    needs: int | None = None
    """How many pods must run before the workload does; None = all of `number`."""
    predicates: Mapping[str, str] = {}
    scales_to_zero: bool = False
    framework: str = ""
    """The framework that this object runs, where its kind alone does not tell it."""
    queue: str = ""
    """Volcano's queue that the object names for the pod group to come."""
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

    @property
    def has_ended(self) -> bool:
        return any(self.holds(end) for end in ENDS)

    @property
    def needed(self) -> int | None:
        """How many pods must run before the workload does: all but those that come once it does."""
        if self.needs is not None or self.number is None or self.has_number:
            return self.number if self.needs is None else self.needs
        later = sum(role.replicas for role in self.roles if role.is_optional)
        return max(0, self.number - later)

    def holds(self, predicate: str) -> bool:
        return predicate in self.predicates

    def with_roles(self, roles: Iterable[RoleFacts]) -> "Facts":
        """The same with other roles; they add up to `number` unless the definition states it."""
        known = tuple(roles)
        number = self.number
        if known and not self.has_number:
            number = min(sum(role.replicas for role in known), INT32_MAX)
        return msgspec.structs.replace(self, roles=known, number=number)


NO_FACTS = Facts()


_RECENT: Final = 256
_MAX_BYTES: Final = 32 * 2**20
"""About 30,000 objects with a template of some size."""

Key = tuple[str, str]
"""uid and kind."""


class PackedFacts(msgspec.Struct, frozen=True, array_like=True):
    """Facts as they are kept, for another process to keep."""

    key: Key
    version: str
    packed: bytes


def pack(facts: Facts) -> bytes:
    """As they are kept."""
    return zlib.compress(pickle.dumps(facts, pickle.HIGHEST_PROTOCOL), 1)


class FactsCache:
    """By object, each with the resourceVersion that it was read at. What was used longest ago goes first."""

    def __init__(self, max_bytes: int = _MAX_BYTES, recent: int = _RECENT) -> None:
        self._max_recent = recent
        self._recent: OrderedDict[Key, tuple[str, Facts]] = OrderedDict()
        self._packed: OrderedDict[Key, tuple[str, bytes]] = OrderedDict()
        self._max_bytes = max_bytes
        self._packed_bytes = 0

    def get(self, key: Key, version: str) -> Facts | None:
        """None where the object was not read at that version, or too long ago."""
        recent = self._recent.get(key)
        if recent is not None and recent[0] == version:
            self._recent.move_to_end(key)
            return recent[1]
        packed = self._packed.get(key)
        if packed is None or packed[0] != version:
            return None
        self._packed.move_to_end(key)
        # Made by `pack`, in this process or in a child of it.
        facts: Facts = pickle.loads(zlib.decompress(packed[1]))  # noqa: S301
        self._put_recent(key, version, facts)
        return facts

    def __contains__(self, key: Key) -> bool:
        """At whatever version."""
        return key in self._recent or key in self._packed

    def put(self, key: Key, version: str, facts: Facts) -> None:
        self._drop(key)
        self._put_recent(key, version, facts)

    def _put_recent(self, key: Key, version: str, facts: Facts) -> None:
        self._recent[key] = (version, facts)
        self._recent.move_to_end(key)
        if len(self._recent) > self._max_recent:
            oldest, (its_version, its_facts) = self._recent.popitem(last=False)
            if oldest not in self._packed:  # `put` drops what is of another version
                self._put_packed(oldest, its_version, pack(its_facts))

    def put_packed(self, key: Key, version: str, packed: bytes) -> None:
        """What was read elsewhere, unless it was read here meanwhile, or others would have to go for it."""
        has_room = self._packed_bytes + len(packed) <= self._max_bytes
        if has_room and key not in self:
            self._put_packed(key, version, packed)

    def _put_packed(self, key: Key, version: str, packed: bytes) -> None:
        self._packed[key] = (version, packed)
        self._packed_bytes += len(packed)
        while self._packed_bytes > self._max_bytes:
            self._drop(next(iter(self._packed)))

    def _drop(self, key: Key) -> None:
        kept = self._packed.pop(key, None)
        if kept is not None:
            self._packed_bytes -= len(kept[1])

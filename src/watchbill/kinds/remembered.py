"""Facts that were read before: an object is read once for each of its versions, however often its pods change.

Those of the last few objects are kept as they are, those of the others packed: a thirtieth of the room, and a
twentieth of the time that reading takes.
"""

import pickle
import zlib
from collections import OrderedDict
from typing import Final

from watchbill.kinds.facts import Facts

_AT_HAND: Final = 256
_ROOM_BYTES: Final = 32 * 2**20
"""About 30,000 objects with a template of some size."""

Key = tuple[str, str]
"""uid and kind."""


class Remembered:
    """By object, each with the resourceVersion that it was read at. What was used longest ago goes first."""

    def __init__(self, room_bytes: int = _ROOM_BYTES) -> None:
        self._at_hand: OrderedDict[Key, tuple[str, Facts]] = OrderedDict()
        self._packed: OrderedDict[Key, tuple[str, bytes]] = OrderedDict()
        self._room_bytes = room_bytes
        self._held_bytes = 0

    def find(self, key: Key, version: str) -> Facts | None:
        """None where the object was not read at that version, or too long ago."""
        known = self._at_hand.get(key)
        if known is not None and known[0] == version:
            self._at_hand.move_to_end(key)
            return known[1]
        kept = self._packed.get(key)
        if kept is None or kept[0] != version:
            return None
        self._packed.move_to_end(key)
        # Made by `keep`, in this process.
        facts: Facts = pickle.loads(zlib.decompress(kept[1]))  # noqa: S301
        self._take_up(key, version, facts)
        return facts

    def keep(self, key: Key, version: str, facts: Facts) -> None:
        self._take_up(key, version, facts)
        self._drop(key)
        packed = zlib.compress(pickle.dumps(facts, pickle.HIGHEST_PROTOCOL), 1)
        self._packed[key] = (version, packed)
        self._held_bytes += len(packed)
        while self._held_bytes > self._room_bytes:
            self._drop(next(iter(self._packed)))

    def _take_up(self, key: Key, version: str, facts: Facts) -> None:
        self._at_hand[key] = (version, facts)
        self._at_hand.move_to_end(key)
        if len(self._at_hand) > _AT_HAND:
            self._at_hand.popitem(last=False)

    def _drop(self, key: Key) -> None:
        kept = self._packed.pop(key, None)
        if kept is not None:
            self._held_bytes -= len(kept[1])

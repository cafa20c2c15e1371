"""One object at one revision, and one change of it. Encoded JSON in three parts; no store, no HTTP."""

from dataclasses import dataclass
from typing import Any

import msgspec


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """One object at one revision. `head` is its metadata without revision, generation and last brace."""

    path: str
    uid: str
    head: bytes
    spec: bytes
    rest: bytes
    revision: int
    generation: int

    @property
    def metadata(self) -> bytes:
        generation = b',"generation":%d' % self.generation if self.generation else b""
        return b'%b,"resourceVersion":"%d"%b}' % (self.head, self.revision, generation)

    def decode(self) -> dict[str, Any]:
        """The object as JSON, without kind and apiVersion."""
        spec = b',"spec":' + self.spec if self.spec else b""
        document: dict[str, Any] = msgspec.json.decode(
            b'{"metadata":%b%b%b}' % (self.metadata, spec, self.rest)
        )
        return document


@dataclass(frozen=True, slots=True)
class Change:
    """`type` is the watch event; `new` is the object after it (of a deletion: its last state, new revision)."""

    revision: int
    type: str
    new: Stored
    old: Stored | None

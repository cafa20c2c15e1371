"""JSON that anybody may have written, decoded to a bounded depth and with bounded lists. No I/O.

A reader or writer of JSON goes down one call for each level, so what is nested deeper than `MAX_DEPTH` is left
out before anything goes down: first of the text, where it is too deep to be decoded at all, then of the object.
"""

import re
from typing import Any, Generic, Protocol, TypeVar

import msgspec

MAX_DEPTH = 64
"""Levels of lists and objects that are kept. Kubernetes' own kinds have fewer than 30."""
MAX_ITEMS = 2_000
"""Of a list; the rest is left out. A pod has fewer than a hundred containers."""
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?+|[\[\]{}]', re.DOTALL)
_OPENING = (b"{", b"[")
_CLOSING = (b"}", b"]")

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
Body = bytes | msgspec.Raw


class JsonDecoder(Protocol[_T_co]):
    def decode(self, buf: Body, /) -> _T_co: ...


class BoundedDecoder(Generic[_T]):
    """Decodes to a type, without what is nested deeper than `MAX_DEPTH` and `envelope_levels` around it."""

    def __init__(self, kind: type[_T], *, envelope_levels: int = 0) -> None:
        self._decoder: JsonDecoder[_T] = msgspec.json.Decoder(kind)
        self._levels = MAX_DEPTH + envelope_levels

    def decode(self, body: Body) -> _T:
        """Raises msgspec.DecodeError, UnicodeDecodeError."""
        try:
            return self._decoder.decode(body)
        except RecursionError:
            return self._decoder.decode(without_deep_text(bytes(body), self._levels))


_OBJECT: BoundedDecoder[dict[str, Any]] = BoundedDecoder(dict[str, Any])


def decode_object(body: Body) -> dict[str, Any]:
    """An object of at most `MAX_DEPTH` levels, those at the last one empty, with lists of at most `MAX_ITEMS`.

    Who manages which of its fields is left out. Raises msgspec.DecodeError, UnicodeDecodeError.
    """
    obj = _OBJECT.decode(body)
    metadata = obj.get("metadata")
    if type(metadata) is dict:
        metadata.pop("managedFields", None)
    cut(obj)
    return obj


def without_deep_text(body: bytes, levels: int) -> bytes:
    """The same JSON; lists and objects at the last level are empty. Takes time linear in its length."""
    parts: list[bytes] = []
    depth = start = 0
    for match in _TOKEN.finditer(body):
        mark = match[0]
        if mark in _OPENING:
            depth += 1
            if depth == levels:
                parts.append(body[start : match.end()])
        elif mark in _CLOSING:
            if depth == levels:
                start = match.start()
            depth -= 1
    return b"".join((*parts, body[start:])) if depth < levels else b"".join(parts)


def cut(obj: dict[str, Any]) -> None:
    """Leave out, in place, what is nested deeper than `MAX_DEPTH`, and items beyond `MAX_ITEMS` of a list."""
    level: list[Any] = [obj]
    for _ in range(MAX_DEPTH - 1):
        for parent in level:
            if len(parent) > MAX_ITEMS and type(parent) is list:
                del parent[MAX_ITEMS:]
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    for container in level:
        container.clear()

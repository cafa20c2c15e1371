"""A watch as bytes: lines out of chunks that may be cut anywhere, events out of lines. No I/O."""

import msgspec

from watchbill.agent.kubernetes.bounded_json import BoundedDecoder
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind, failure_of_event

LINE_BYTES = 64 * 1024 * 1024
"""More than any object that an API server stores; beyond it the stream is not what it claims to be."""


class LineSplitter:
    """Complete lines out of chunks. A line is copied once, however many chunks it came in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their ends; empty ones are left out."""
        head, *rest = chunk.split(b"\n")
        self._keep(head)
        if not rest:
            return []
        *middle, tail = rest
        lines = [b"".join(self._parts), *middle]
        self._parts, self._length = [], 0
        self._keep(tail)
        return [line for line in lines if line.strip()]

    def _keep(self, part: bytes) -> None:
        if part:
            self._parts.append(part)
            self._length += len(part)
        if self._length > LINE_BYTES:
            raise ApiFailure(
                ErrorKind.UNREACHABLE, "a line of the watch is too long to be an object"
            )


_KNOWN_TYPES = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK"})


class ObjectMeta(msgspec.Struct, frozen=True, rename="camel"):
    """As much of any object's metadata as list and watch need."""

    uid: str = ""
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class Head(msgspec.Struct, frozen=True):
    """Any object, read for its metadata alone."""

    metadata: ObjectMeta = ObjectMeta()


class WatchEvent(msgspec.Struct, frozen=True):
    """One event of a watch; `body` is the object, not yet decoded."""

    type: str
    meta: ObjectMeta
    body: bytes | msgspec.Raw

    @property
    def is_known(self) -> bool:
        """Types that later servers may invent are counted and passed over."""
        return self.type in _KNOWN_TYPES


class _Line(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw = msgspec.Raw(b"{}")


_LINE = BoundedDecoder(_Line, envelope_levels=1)
_HEAD = BoundedDecoder(Head)


def read_event(line: bytes) -> WatchEvent:
    """The event of one line. Raises ApiFailure for an ERROR event and for what is no event."""
    try:
        event = _LINE.decode(line)
        if event.type == "ERROR":
            raise failure_of_event(bytes(event.object))
        if event.type not in _KNOWN_TYPES:
            return WatchEvent(event.type, ObjectMeta(), b"")
        return WatchEvent(event.type, _HEAD.decode(event.object).metadata, event.object)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiFailure(
            ErrorKind.UNREACHABLE, f"the watch broke off or is garbled: {error}"
        ) from error


def read_head(body: bytes | msgspec.Raw) -> ObjectMeta:
    """An object's metadata. Raises msgspec.DecodeError where there is none to read."""
    return _HEAD.decode(body).metadata


def read_head_or_none(body: msgspec.Raw) -> ObjectMeta | None:
    """An object's metadata, None if it cannot be decoded."""
    try:
        return read_head(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None

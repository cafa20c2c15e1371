"""Access to untrusted JSON: every accessor returns a value, none raises, whatever the shape.

Objects come from any client that may write to a cluster, so a list may stand where a map is expected. A value
of the wrong shape reads as absent.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

INT32_MAX = 2**31 - 1
MESSAGE_LENGTH = 4_096
_NOTHING: Mapping[str, Any] = {}


def at(value: Any, *path: str) -> Any:
    """The value under `path`, or None where the path leaves the maps."""
    for name in path:
        if type(value) is not dict and not _is_map(value):  # nearly all are: without a call
            return None
        value = value.get(name)
    return value


def _is_map(value: Any) -> bool:
    """Decoded JSON has no maps but dicts or nothing: asking an abstract class takes ten times as long."""
    return type(value) is dict or (value is not None and isinstance(value, Mapping))


def mapping(value: Any) -> Mapping[str, Any]:
    return value if _is_map(value) else _NOTHING


def objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """The maps among a list's items."""
    if isinstance(value, list | tuple):
        for item in value:
            if _is_map(item):
                yield item


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def message_of(value: Any) -> str:
    """What a condition, an event or a state says, its first `MESSAGE_LENGTH` characters: nobody bounds it."""
    return text(mapping(value).get("message"))[:MESSAGE_LENGTH]


def texts(value: Any) -> tuple[str, ...]:
    """The strings among a list's items."""
    if not isinstance(value, list | tuple):
        return ()
    return tuple(item for item in value if isinstance(item, str))


def pairs(value: Any) -> dict[str, str]:
    """A map of strings, such as labels; entries that are anything else are left out."""
    return {
        key: item
        for key, item in mapping(value).items()
        if isinstance(key, str) and isinstance(item, str)
    }


def whole(value: Any) -> int | None:
    """A whole number within ±int32 (beyond it, the bound); JSON knows no other integers."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return None
        value = int(value)
    if not isinstance(value, int):
        return None
    return max(-INT32_MAX, min(INT32_MAX, value))


def instant(value: Any) -> datetime | None:
    """An RFC 3339 instant in UTC; Kubernetes' zero time and anything malformed are None."""
    return _instant(value) if isinstance(value, str) and len(value) <= 40 else None


@lru_cache(maxsize=8192)
def _instant(value: str) -> datetime | None:
    try:
        parsed = datetime.fromisoformat(value)
        parsed = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return parsed if parsed.year > 1 else None


def condition(conditions: Any, kind: str) -> Mapping[str, Any] | None:
    """The condition of that type, or None: conditions are present or absent, not assumed False."""
    for entry in objects(conditions):
        if entry.get("type") == kind:
            return entry
    return None


def is_true(conditions: Any, kind: str) -> bool:
    entry = condition(conditions, kind)
    return entry is not None and entry.get("status") == "True"


def metadata(value: Any) -> Mapping[str, Any]:
    return mapping(at(value, "metadata"))


def labels(value: Any) -> Mapping[str, Any]:
    return mapping(at(value, "metadata", "labels"))


def annotations(value: Any) -> Mapping[str, Any]:
    return mapping(at(value, "metadata", "annotations"))


def has_labels(actual: Mapping[str, Any], wanted: Iterable[tuple[str, str]]) -> bool:
    """Every label has its value; `!x` = any value but x, `*` = any value at all."""
    for key, value in wanted:
        if value == "*":
            if key not in actual:
                return False
        elif value.startswith("!"):
            if actual.get(key) == value[1:]:
                return False
        elif actual.get(key) != value:
            return False
    return True


def name_key(value: Any) -> tuple[str, str, str]:
    """An order of objects that does not depend on who listed them: by name, kind and uid."""
    meta = metadata(value)
    return text(meta.get("name")), text(at(value, "kind")), text(meta.get("uid"))


def group_version(value: Any) -> tuple[str, str]:
    """Group and version out of an object's or reference's `apiVersion`."""
    group, slash, version = text(at(value, "apiVersion")).rpartition("/")
    return (group, version) if slash else ("", version)


def newest_event(
    events: Iterable[Mapping[str, Any]], reasons: frozenset[str]
) -> Mapping[str, Any] | None:
    """The newest event for one of the reasons."""
    return max(newest_events(events, reasons).values(), key=_event_order, default=None)


def newest_events(
    events: Iterable[Mapping[str, Any]], reasons: frozenset[str]
) -> dict[str, Mapping[str, Any]]:
    """The newest event for one of the reasons about each object, by its UID."""
    newest: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if text(event.get("reason")) in reasons:
            about = text(at(event, "involvedObject", "uid"))
            newest[about] = max(newest.get(about, event), event, key=_event_order)
    return newest


def _event_order(event: Mapping[str, Any]) -> tuple[str, str]:
    return str(event_at(event) or ""), message_of(event)


def event_at(event: Mapping[str, Any]) -> datetime | None:
    """Events of the newer API have `eventTime` and may not have the old members."""
    return instant(event.get("lastTimestamp")) or instant(event.get("eventTime"))

"""Bytes of objects as answers carry them, put together from their stored parts."""

from typing import Final

from watchbill.demo.resources import Resource
from watchbill.demo.stored import Stored

PLAIN: Final = ("metadata", "spec", "rest")
"""Order of an object's parts as the reference server writes them."""
_MANAGED: Final = (
    b',"managedFields":[{"manager":"controller","operation":"Update","apiVersion":"v1",'
    b'"time":"2026-01-12T08:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":'
    b'{".":{},"f:app":{}}},"f:spec":{"f:priority":{}}}}]'
)


def object_bytes(
    stored: Stored, layout: tuple[str, ...], *, kind: str = "", api_version: str = ""
) -> bytes:
    """One whole object; built-in kinds stand in lists without kind and apiVersion."""
    parts = {
        "metadata": b'"metadata":%b%b}' % (stored.metadata[:-1], _MANAGED),
        "spec": b'"spec":' + stored.spec if stored.spec else b"",
        "rest": stored.rest[1:],
    }
    members = [parts[name] for name in layout if parts[name]]
    if kind:
        typed = b'"kind":"%b","apiVersion":"%b"' % (kind.encode(), api_version.encode())
        members.insert(0 if layout == PLAIN else len(members), typed)
    return b"{%b}" % b",".join(members)


def partial_bytes(stored: Stored) -> bytes:
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%b%b}}' % (
        stored.metadata[:-1],
        _MANAGED,
    )


def bookmark_bytes(
    resource: Resource, api_version: str, revision: int, *, is_partial: bool
) -> bytes:
    """A watch line that only moves the revision on."""
    return _bookmark(resource, api_version, is_partial, b'"resourceVersion":"%d"' % revision)


def initial_end_bytes(
    resource: Resource, api_version: str, revision: int, *, is_partial: bool
) -> bytes:
    """The bookmark that ends the initial events."""
    mark = b'"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}' % revision
    return _bookmark(resource, api_version, is_partial, mark)


def _bookmark(resource: Resource, api_version: str, is_partial: bool, metadata: bytes) -> bytes:
    kind, version = (
        ("PartialObjectMetadata", "meta.k8s.io/v1") if is_partial else (resource.kind, api_version)
    )
    return b'{"type":"BOOKMARK","object":{"kind":"%b","apiVersion":"%b","metadata":{%b}}}\n' % (
        kind.encode(),
        version.encode(),
        metadata,
    )

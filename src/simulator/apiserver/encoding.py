"""Content negotiation (JSON objects, or their metadata alone) and the bytes of objects in answers."""

from enum import Enum
from typing import Final

from simulator.apiserver import errors
from simulator.apiserver.store import StoredObject
from simulator.resources import ResourceType


class MediaType(Enum):
    WHOLE = "whole"
    PARTIAL = "partial"


_AS = {"object": "PartialObjectMetadata", "watch": "PartialObjectMetadata"}
_ACCEPTED = "application/json"
_NONE_OFFERED = (
    "406: Not Acceptable\n\nAvailable representations: application/json, "
    "application/json;stream=watch"
)
_NO_SUCH_FORM = f"only the following media types are accepted: {_ACCEPTED}"


def negotiate(accept: str, kind: str, requested: str) -> MediaType:
    """`requested` is object, list or watch. Raises ApiError (406)."""
    ranges = [_parse(item) for item in (accept or "*/*").split(",")]
    has_json = False
    for media_type, parameters in ranges:
        if media_type not in (_ACCEPTED, "*/*", "application/*"):
            continue
        has_json = True
        form = _form(parameters, kind, requested)
        if form is not None:
            return form
    raise errors.not_acceptable(_NO_SUCH_FORM if has_json else _NONE_OFFERED)


def _form(parameters: dict[str, str], kind: str, requested: str) -> MediaType | None:
    form = parameters.get("as")
    if form is None:
        return MediaType.WHOLE
    if (parameters.get("g"), parameters.get("v")) != ("meta.k8s.io", "v1"):
        return None
    if requested == "list" and form == "PartialObjectMetadata":
        raise errors.not_acceptable(
            f"you requested {form}, but the requested object is a list ({kind}List)"
        )
    return MediaType.PARTIAL if form == _AS.get(requested, "PartialObjectMetadataList") else None


def _parse(item: str) -> tuple[str, dict[str, str]]:
    media_type, *parameters = (part.strip() for part in item.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    return media_type, {name: value for name, _, value in pairs}


PLAIN: Final = ("metadata", "spec", "rest")
"""Order of an object's parts as the reference server writes them."""
_MANAGED: Final = (
    b',"managedFields":[{"manager":"controller","operation":"Update","apiVersion":"v1",'
    b'"time":"2026-01-12T08:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:metadata":{"f:labels":'
    b'{".":{},"f:app":{}}},"f:spec":{"f:priority":{}}}}]'
)


def object_bytes(
    stored: StoredObject, layout: tuple[str, ...], *, kind: str = "", api_version: str = ""
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


def partial_bytes(stored: StoredObject) -> bytes:
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%b%b}}' % (
        stored.metadata[:-1],
        _MANAGED,
    )


def bookmark_bytes(
    resource: ResourceType, api_version: str, revision: int, *, is_partial: bool
) -> bytes:
    """A watch line that only moves the revision on."""
    return _bookmark(resource, api_version, is_partial, b'"resourceVersion":"%d"' % revision)


def initial_end_bytes(
    resource: ResourceType, api_version: str, revision: int, *, is_partial: bool
) -> bytes:
    """The bookmark that ends the initial events."""
    mark = b'"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}' % revision
    return _bookmark(resource, api_version, is_partial, mark)


def _bookmark(resource: ResourceType, api_version: str, is_partial: bool, metadata: bytes) -> bytes:
    kind, version = (
        ("PartialObjectMetadata", "meta.k8s.io/v1") if is_partial else (resource.kind, api_version)
    )
    return b'{"type":"BOOKMARK","object":{"kind":"%b","apiVersion":"%b","metadata":{%b}}}\n' % (
        kind.encode(),
        version.encode(),
        metadata,
    )

"""Objects at rest: pruned, encoded, compressed. A decoded object takes twenty times the room. No I/O."""

import zlib
from typing import Any

import msgspec

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ENCODER = msgspec.json.Encoder()


def prune(obj: dict[str, Any], *, api_version: str, kind: str) -> dict[str, Any]:
    """Without what nobody reads, with the kind that list items lack and metadata requests replace."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(_LAST_APPLIED, None)
    return obj | {"apiVersion": api_version, "kind": kind}


def compress(obj: dict[str, Any]) -> bytes:
    return zlib.compress(_ENCODER.encode(obj), 1)


def decompress(packed: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(zlib.decompress(packed))
    return found

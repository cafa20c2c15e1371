"""Stored objects: pruned, encoded, compressed. A decoded object takes twenty times the memory. No I/O."""

import zlib
from typing import Any

import msgspec

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_ENCODER = msgspec.json.Encoder()


def prune(obj: dict[str, Any], *, api_version: str, kind: str) -> dict[str, Any]:
    """Drop what is never used; add the kind, which list items lack and metadata requests replace."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop(_LAST_APPLIED, None)
    return obj | {"apiVersion": api_version, "kind": kind}


def compress(obj: dict[str, Any]) -> bytes:
    return zlib.compress(_ENCODER.encode(obj), 1)


def decompress(compressed: bytes) -> dict[str, Any]:
    obj: dict[str, Any] = msgspec.json.decode(zlib.decompress(compressed))
    return obj

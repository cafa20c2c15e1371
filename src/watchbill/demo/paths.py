"""What a request's path names. No HTTP, no store."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names."""

    group: str
    version: str
    namespace: str | None = None
    plural: str | None = None
    name: str | None = None
    subresource: str | None = None
    tail: str = ""
    """What follows the subresource: the path behind a proxy."""


def read_path(path: str) -> Target | None:
    """Read a path below /api/v1 or /apis; None where it is neither."""
    segments = path.strip("/").split("/")
    if segments[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", segments[2:]
    elif segments[0] == "apis" and len(segments) > 1:
        group, version, rest = segments[1], "".join(segments[2:3]), segments[3:]
    else:
        return None
    namespace: str | None = None
    if rest[:1] == ["namespaces"] and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest[:3], None, None, None)[:3]
    return Target(group, version, namespace, plural, name, subresource, "/".join(rest[3:]))

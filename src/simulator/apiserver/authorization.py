"""What a request's path names, and who may read it: the agent everything that is not forbidden."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from simulator.apiserver import errors


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """What a path names."""

    group: str
    version: str
    namespace: str | None = None
    plural: str | None = None
    name: str | None = None
    subresource: str | None = None
    tail: str = ""
    """What follows the subresource: the path that is proxied."""


def read_path(path: str) -> RequestTarget | None:
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
    return RequestTarget(group, version, namespace, plural, name, subresource, "/".join(rest[3:]))


AGENT: Final = "system:serviceaccount:watchbill:watchbill-agent"
ANONYMOUS: Final = "system:anonymous"
_VERBS: Final = {
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


def user_of(authorization: str | None, users: Mapping[str, str]) -> str | None:
    """None = anonymous. A wrong token is refused everywhere, no token only where rights are needed."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or token not in users:
        raise errors.unauthorized()
    return users[token]


def reject_anonymous(method: str, path: str) -> NoReturn:
    """Raises ApiError."""
    target = read_path(path)
    if target is None or target.plural is None:
        raise errors.forbidden_path(ANONYMOUS, path)
    raise _forbidden(ANONYMOUS, _VERBS.get(method, "list"), target)


def authorize(
    target: RequestTarget,
    *,
    method: str,
    user: str,
    is_watch: bool,
    forbidden: set[tuple[str, str, str]],
) -> None:
    """Raises ApiError."""
    is_read = method == "GET"
    verb = _VERBS.get(method, "get")
    if is_read and target.name is None:
        verb = "watch" if is_watch else "list"
    if user != AGENT or not is_read or (target.group, target.plural, verb) in forbidden:
        raise _forbidden(user, verb, target)


def _forbidden(user: str, verb: str, target: RequestTarget) -> errors.ApiError:
    return errors.forbidden(
        user=user,
        verb=verb,
        group=target.group,
        plural=target.plural or "",
        namespace=target.namespace,
        name=target.name,
    )

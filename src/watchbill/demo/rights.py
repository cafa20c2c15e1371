"""Who may read what: the agent everything that is not forbidden it, everybody else nothing but discovery."""

from collections.abc import Mapping
from typing import Final, NoReturn

from watchbill.demo import answers
from watchbill.demo.paths import Target, read_path

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
        raise answers.unauthorized()
    return users[token]


def refuse_stranger(method: str, path: str) -> NoReturn:
    """Raises answers.Refused."""
    target = read_path(path)
    if target is None or target.plural is None:
        raise answers.forbidden_path(ANONYMOUS, path)
    raise _forbidden(ANONYMOUS, _VERBS.get(method, "list"), target)


def authorize(
    target: Target,
    *,
    method: str,
    user: str,
    is_watch: bool,
    forbidden: set[tuple[str, str]],
) -> None:
    """Raises answers.Refused."""
    is_read = method == "GET"
    verb = _VERBS.get(method, "get")
    if is_read and target.name is None:
        verb = "watch" if is_watch else "list"
    if user != AGENT or not is_read or (target.group, target.plural) in forbidden:
        raise _forbidden(user, verb, target)


def _forbidden(user: str, verb: str, target: Target) -> answers.Refused:
    return answers.forbidden(
        user=user,
        verb=verb,
        group=target.group,
        plural=target.plural or "",
        namespace=target.namespace,
        name=target.name,
    )

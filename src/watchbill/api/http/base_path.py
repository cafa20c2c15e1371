"""The path that the server's public address ends with, such as `/watchbill` behind a proxy of several programs.

Requests are served with it and without it, whether the proxy strips it or not; what leads back to us has it.
"""

from starlette.types import Scope

BASE_PATH = "watchbill.base_path"


def strip_base_path(scope: Scope, base_path: str) -> None:
    """Leave the rest of the path to the application, and note what was in front for `base_path_of`."""
    scope[BASE_PATH] = base_path
    if base_path and scope["path"].startswith((f"{base_path}/", base_path)):
        rest = scope["path"][len(base_path) :]
        if rest[:1] in ("", "/"):
            raw = scope.get("raw_path") or b""
            scope["path"] = rest or "/"
            scope["raw_path"] = raw.removeprefix(base_path.encode()) or b"/"


def base_path_of(scope: Scope) -> str:
    """ "" or a path without a slash at its end."""
    return str(scope.get(BASE_PATH, ""))

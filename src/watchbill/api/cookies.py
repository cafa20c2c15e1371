"""Cookies: never readable by script, bound to this host and to HTTPS wherever there is HTTPS."""

from collections.abc import Mapping

from starlette.types import Scope

SESSION_COOKIE = "watchbill_session"


def cookie_name(scope: Scope, name: str) -> str:
    """Over HTTPS the prefix binds the cookie to this host and to HTTPS."""
    return f"__Host-{name}" if scope["scheme"] == "https" else name


def read_cookie(scope: Scope, headers: Mapping[bytes, bytes], name: str) -> str | None:
    wanted = cookie_name(scope, name)
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        found, _, value = pair.strip().partition("=")
        if found == wanted:
            return value
    return None


def set_cookie(
    scope: Scope, name: str, value: str, *, max_age_seconds: int, same_site: str = "Strict"
) -> tuple[bytes, bytes]:
    secure = "; Secure" if scope["scheme"] == "https" else ""
    text = (
        f"{cookie_name(scope, name)}={value}; Max-Age={max_age_seconds}; Path=/; "
        f"HttpOnly; SameSite={same_site}{secure}"
    )
    return b"set-cookie", text.encode()

"""What may be an address: of the database, and of a server. Mistakes are named at start, passwords never."""

import getpass
import os
import re
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from watchbill.errors import Invalid

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
DATABASE_VARIABLE = "WATCHBILL_DATABASE_URL"
_EXAMPLE = "For example postgresql://watchbill:PASSWORD@db.example.com/watchbill"
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%a-z]+\]|[^\[\]:]*)(?::(?P<port>\d*))?", re.ASCII)


def check_database_url(url: str, variable: str = DATABASE_VARIABLE) -> None:
    """Raises Invalid, saying what is wrong with the address and never its password.

    `variable`: where it was set. Several hosts, separated by commas, are one database with replicas, as libpq
    has it.
    """
    named = f"The address of the database ({variable})"
    scheme = url.partition(":")[0] if ":" in url else ""
    if scheme not in ("postgresql", "postgres"):
        raise Invalid(
            f"{named} must begin with postgresql://, "
            + (f"got {scheme}://." if scheme else "got no scheme."),
            details=_EXAMPLE,
        )
    login, _, _ = url.partition("://")[2].rpartition("@")
    if re.search(r"[/?#]", login):
        raise Invalid(
            f"{named} cannot be read, got {without_password(url)}",
            details="In the password, write / as %2F, ? as %3F, # as %23 and @ as %40.",
        )
    address = re.split(r"[/?#]", url.partition("://")[2].rpartition("@")[2], maxsplit=1)[0]
    for host in address.split(","):
        _check_host(host, url, named)
    query = parse_qs(url.rpartition("@")[2].partition("?")[2])
    _check_tls(query, named)
    if not login and "user" not in query:
        _check_user(named)


def _check_host(host: str, url: str, named: str) -> None:
    match = _HOST.fullmatch(host)
    if match is None and "[" in host + "]":
        raise Invalid(
            f"{named} has a host that cannot be read, got {without_password(url)}",
            details=f"An IPv6 address stands in brackets, as in [2001:db8::1]:5432. {_EXAMPLE}",
        )
    if match is None or (match["port"] and not 1 <= int(match["port"]) <= 65_535):
        raise Invalid(
            f"{named} has a port that is not a number from 1 to 65535, got {without_password(url)}"
        )


def _check_tls(query: Mapping[str, list[str]], named: str) -> None:
    for mode in query.get("sslmode", ()):
        if mode not in SSL_MODES:
            raise Invalid(
                f"{named} has the sslmode '{mode[:40]}'.",
                details=f"It may be one of: {', '.join(SSL_MODES)}.",
            )
    for option in ("sslrootcert", "sslcert", "sslkey"):
        for file in query.get(option, ()):
            if not os.access(file, os.R_OK):
                raise Invalid(
                    f"{named} names a file in {option} that cannot be read: {file[:200]}",
                    details="Check the path, and that the user that Watchbill runs as may read it.",
                )


def _check_user(named: str) -> None:
    """Without a name in the address the system's user counts, who may have none (in a container)."""
    if os.environ.get("PGUSER"):
        return
    try:
        getpass.getuser()
    except (KeyError, OSError) as error:
        raise Invalid(
            f"{named} names no user, and the system's user {os.geteuid()} has no name.",
            details=_EXAMPLE,
        ) from error


def without_password(url: str) -> str:
    """The address of a database, fit to be shown, also where its password breaks the address."""
    scheme, separator, rest = url.partition("://")
    login, at, host = rest.rpartition("@")
    if not at:
        return f"{scheme}{separator}…" if ":" in rest else url.partition("?")[0]
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}{colon and ':***'}{at}{host.partition('?')[0]}"


def check_http_url(source: str, url: str) -> None:
    """An absolute http or https URL of a server, without query or fragment. Raises Invalid, naming `source`."""
    details = "Write it with its scheme and host, as in https://watchbill.example.com"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or re.search(r"[\s?#\\]", url) is not None or "@" in parts.netloc:
        shown = url.partition("?")[0].rpartition("@")[2]
        raise Invalid(
            f"{source} must be the URL of a server, got '{shown[:100]}'.", details=details
        )

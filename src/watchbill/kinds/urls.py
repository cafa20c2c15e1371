"""Endpoints out of hosts, ports and paths that nobody vouches for: what is no host or no URL is left out."""

import re
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from watchbill.kinds.facts import EndpointFacts
from watchbill.workload import Endpoint

DEFAULT_PORTS = {"http": 80, "https": 443}
WEB = frozenset({"http", "https", "http2", "h2c"})
_STATED_SCHEMES = frozenset({"http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "ray"})
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,126}\.?", re.ASCII)
_PLAIN_PATH = re.compile(r"[^(\[*^$\\?|{]*")
_SAFE_IN_PATH = "/%:@!$&'+,;=~-._"
_MAX_PATH = 1_024
_MAX_URL = 2_048


def endpoint(
    host: str,
    port: int | None,
    path: str,
    scheme: str,
    *,
    is_tls: bool | None = None,
    protocol: str = "",
) -> Endpoint | None:
    """One endpoint, None where there is nothing to reach; it has a URL where its scheme is the web's."""
    host = known_host(host)
    port = port if port is not None and 0 < port < 65_536 else None
    if not host and port is None:
        return None
    path = clean_path(path)
    scheme = "https" if is_tls and scheme in WEB else scheme
    url = None
    if host and "*" not in host and scheme in WEB:
        scheme = "https" if scheme == "https" else "http"
        shown_port = "" if port in (None, DEFAULT_PORTS[scheme]) else f":{port}"
        url = f"{scheme}://{_in_url(host)}{shown_port}{path}"
    return Endpoint(
        host=host or None,
        port=port,
        path=path or None,
        tls_enabled=True if scheme == "https" else is_tls,
        protocol=(protocol or scheme.upper())[:32] or None,
        url=url,
    )


def stated(said: EndpointFacts) -> Endpoint | None:
    """What a kind says of itself; a URL is taken apart and written anew."""
    if not said.url:
        return endpoint(
            said.host,
            said.port,
            said.path,
            said.protocol.lower(),
            is_tls=said.is_tls,
            protocol=said.protocol,
        )
    try:
        parts = urlsplit(said.url[:_MAX_URL])
        port = parts.port
        host = known_host(parts.hostname or "")
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _STATED_SCHEMES or not host:
        return None
    path = clean_path(parts.path)
    default = DEFAULT_PORTS.get(scheme)
    user, at_sign, _ = parts.netloc.rpartition("@")
    shown_port = "" if port in (None, default) else f":{port}"
    query = f"?{quote(parts.query, safe=_SAFE_IN_PATH + '?')}" if parts.query else ""
    return Endpoint(
        host=host,
        port=port or default,
        path=path or None,
        tls_enabled=scheme == "https" if scheme in DEFAULT_PORTS else None,
        protocol=scheme.upper(),
        url=f"{scheme}://{quote(user, safe=':%')}{at_sign}{_in_url(host)}{shown_port}{path}{query}",
    )


def known_host(host: str) -> str:
    """The host in lower case, "" where it is neither a name nor an address."""
    host = host.strip("[]")[:253].lower()
    try:
        return str(ip_address(host))
    except ValueError:
        return host.rstrip(".") if _HOST.fullmatch(host) else ""


def clean_path(path: str) -> str:
    """As it stands in a URL; "/" is no path of its own, and a pattern ends where it begins to be one."""
    path = _PLAIN_PATH.match(path[:_MAX_PATH])[0]  # type: ignore[index]  # it matches anything
    path = quote(path, safe=_SAFE_IN_PATH)
    if path and not path.startswith("/"):
        path = f"/{path}"
    return "" if path == "/" else path


def covers(pattern: str, host: str) -> bool:
    """Whether a certificate's or listener's host, perhaps `*.example.com`, stands for the host."""
    if pattern in ("", "*") or pattern == host:
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:]) and not host.startswith("*")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

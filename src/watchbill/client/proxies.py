"""Which proxy a request takes, as kubectl and curl understand HTTP_PROXY, HTTPS_PROXY and NO_PROXY."""

import ipaddress
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp

_VARIABLES = {"http": ("HTTP_PROXY", "http_proxy"), "https": ("HTTPS_PROXY", "https_proxy")}
_PORTS = {"http": 80, "https": 443}
_SOCKS_PORT = 1080
"""Where the proxy's URL names none."""


def proxy_for(url: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The proxy's URL, None for a direct connection. This machine is never asked by way of a proxy.

    None also for what is no URL: whoever sends the request gets that error.
    """
    try:
        parts = urlsplit(url)
        own_port = parts.port
    except ValueError:
        return None
    host, scheme = (parts.hostname or "").rstrip("."), parts.scheme
    proxy = _first(environment, *_VARIABLES.get(scheme, ()))
    if not proxy or _is_this_machine(host):
        return None
    port = own_port or _PORTS[scheme]
    exceptions = _first(environment, "NO_PROXY", "no_proxy").split(",")
    if any(_is_exempt(host, port, entry.strip()) for entry in exceptions):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def connector_for(proxy: str | None, *, limit: int = 100) -> aiohttp.BaseConnector:
    """The connector that reaches servers through this proxy; of HTTP proxies every request names its own."""
    if not is_socks(proxy):
        return aiohttp.TCPConnector(limit=limit)
    from aiohttp_socks import ProxyConnector, ProxyError

    class SocksConnector(ProxyConnector):
        """What the proxy refuses is a connection that cannot be made, as any other."""

        async def connect(self, *args: Any, **options: Any) -> Any:
            try:
                return await super().connect(*args, **options)
            except ProxyError as error:
                raise aiohttp.ClientConnectionError(f"the SOCKS proxy: {error}") from error

    assert proxy is not None
    url = proxy.replace("socks5h://", "socks5://", 1).rstrip("/")
    if urlsplit(url).port is None:
        url = f"{url.removesuffix(':')}:{_SOCKS_PORT}"
    connector: aiohttp.BaseConnector = SocksConnector.from_url(url, rdns=True, limit=limit)
    return connector


def is_socks(proxy: str | None) -> bool:
    return proxy is not None and proxy.startswith(("socks5://", "socks5h://"))


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_exempt(host: str, port: int, entry: str) -> bool:
    """An entry is `*`, an address, a network, or a domain with all below it, each perhaps with a port."""
    if entry == "*":
        return True
    name, _, its_port = entry.rpartition(":")
    if its_port.isdecimal() and not _is_network(entry):
        if int(its_port) != port:
            return False
        entry = name.strip("[]")
    address = _address(host)
    if _is_network(entry):
        return address is not None and address in ipaddress.ip_network(entry, strict=False)
    domain = entry.lower().removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True

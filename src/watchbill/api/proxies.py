"""Who really asks, where a proxy stands in front: `X-Forwarded-For` and `-Proto`, from named proxies alone."""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

from watchbill.errors import Invalid

MAX_HOPS = 20


class Proxies:
    """The proxies whose word counts. From anybody else these header fields are as good as absent."""

    def __init__(self, networks: Iterable[str], *, is_https: bool = False) -> None:
        """`is_https`: people's own address is, whatever the last hop says. Raises Invalid where one of the
        networks is no address and no network."""
        self._is_https = is_https
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in networks:
            try:
                self._networks.append(ip_network(text))
            except ValueError as error:
                raise Invalid(f"'{text}' is no address or network of a proxy.") from error
        self._is_trusted = lru_cache(maxsize=4096)(self._lies_within)

    def apply(self, scope: Scope) -> None:
        """Put the client's own address and scheme into the request."""
        self._apply_headers(scope)
        if self._is_https:
            scope["scheme"] = "https"

    def _apply_headers(self, scope: Scope) -> None:
        client = scope.get("client")
        if not self._networks or client is None or not self._is_trusted(client[0]):
            return
        sent = {
            name: value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"x-forwarded-for", b"x-forwarded-proto")
        }
        scheme = sent.get(b"x-forwarded-proto", "").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        scope["client"] = (self._origin(client[0], sent.get(b"x-forwarded-for", "")), 0)

    def _origin(self, nearest: str, forwarded: str) -> str:
        """From the right, the first address that is no proxy of ours: whatever stands left of it is hearsay."""
        origin = nearest
        for text in reversed(forwarded.split(",")[-MAX_HOPS:]):
            address = _address(text.strip())
            if address is None:
                return origin
            origin = str(address)
            if not self._is_trusted(origin):
                return origin
        return origin

    def _lies_within(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address

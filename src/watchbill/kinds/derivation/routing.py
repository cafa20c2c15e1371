"""Routes that lead to a workload's services: Ingress, Gateway API, OpenShift, Istio; and endpoints as URLs.

A route belongs to the workload that owns it or whose service is its backend. One of another namespace counts
only where a ReferenceGrant (gateway.networking.k8s.io) in the service's namespace permits it. Hosts come from
the route and from the gateways that accepted it. Hosts, ports and paths are untrusted: what is not a valid
host or URL is left out.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from watchbill.kinds.definition.facts import EndpointFacts
from watchbill.kinds.derivation.route_backends import (
    Backend,
    ingress_backend,
    istio_backend,
    istio_gateway,
    reference_backend,
)
from watchbill.kinds.objects.json_access import (
    at,
    group_version,
    is_true,
    metadata,
    objects,
    text,
    texts,
    whole,
)
from watchbill.kinds.objects.objects import ClusterObjects, Object
from watchbill.workload import Endpoint

DEFAULT_PORTS = {"http": 80, "https": 443}
WEB = frozenset({"http", "https", "http2", "h2c"})
_STATED_SCHEMES = frozenset({"http", "https", "grpc", "grpcs", "ws", "wss", "tcp", "ray"})
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,126}\.?", re.ASCII)
_PLAIN_PATH = re.compile(r"[^(\[*^$\\?|{]*")
_SAFE_IN_PATH = "/%:@!$&'+,;=~-._"
_MAX_PATH = 1_024
_T = TypeVar("_T")
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
    host = valid_host(host)
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


def declared_endpoint(declared: EndpointFacts) -> Endpoint | None:
    """The endpoint that an object states itself; a URL is parsed and built again."""
    if not declared.url:
        return endpoint(
            declared.host,
            declared.port,
            declared.path,
            declared.protocol.lower(),
            is_tls=declared.is_tls,
            protocol=declared.protocol,
        )
    try:
        parts = urlsplit(declared.url[:_MAX_URL])
        port = parts.port
        host = valid_host(parts.hostname or "")
    except ValueError:
        return None
    scheme = parts.scheme.lower()
    if scheme not in _STATED_SCHEMES or not host:
        return None
    path = clean_path(parts.path)
    default = DEFAULT_PORTS.get(scheme)
    user, at_sign, _ = parts.netloc.rpartition("@")
    shown_port = "" if port in (None, default) else f":{port}"
    query = f"?{_quoted(parts.query, _SAFE_IN_PATH + '?')}" if parts.query else ""
    return Endpoint(
        host=host,
        port=port or default,
        path=path or None,
        tls_enabled=scheme == "https" if scheme in DEFAULT_PORTS else None,
        protocol=scheme.upper(),
        url=f"{scheme}://{_quoted(user, ':%')}{at_sign}{_in_url(host)}{shown_port}{path}{query}",
    )


def valid_host(host: str) -> str:
    """The host in lower case, "" where it is neither a name nor an address."""
    host = host.strip("[]")[:253].lower()
    try:
        return str(ip_address(host))
    except ValueError:
        return host.rstrip(".") if _HOST.fullmatch(host) else ""


def clean_path(path: str) -> str:
    """Percent-encoded; "/" counts as no path, and a pattern is cut where its first wildcard begins."""
    path = _PLAIN_PATH.match(path[:_MAX_PATH])[0]  # type: ignore[index]  # it matches anything
    path = _quoted(path, _SAFE_IN_PATH)
    if path and not path.startswith("/"):
        path = f"/{path}"
    return "" if path == "/" else path


def _quoted(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="replace")


def covers(pattern: str, host: str) -> bool:
    """Whether a certificate's or listener's host, perhaps `*.example.com`, stands for the host."""
    if pattern in ("", "*") or pattern == host:
        return True
    return pattern.startswith("*.") and host.endswith(pattern[1:]) and not host.startswith("*")


class HostPatterns:
    """Many patterns, asked in time that depends on the host alone."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = frozenset(patterns)
        self._cover_all = not self._patterns.isdisjoint(("", "*"))

    def cover(self, host: str) -> bool:
        """Whether `covers` holds for one of them."""
        if self._cover_all or host in self._patterns:
            return True
        dots = (place for place, character in enumerate(host) if character == ".")
        return not host.startswith("*") and any(f"*{host[dot:]}" in self._patterns for dot in dots)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


ReferenceGrants = Mapping[str, Mapping[str, Object]]
"""By namespace, then by name."""
_WEB_PROTOCOLS = frozenset({"HTTP", "HTTPS", "HTTP2", "HTTP/2", "TLS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """The services of one workload in its namespace, by kind and name."""

    namespace: str
    names: Set[tuple[str, str]]
    cluster: ClusterObjects

    def has(self, backend: Backend, route: Object) -> bool:
        """Whether what the route names is a service of the workload, and may be named."""
        namespace, kind, name = backend._replace(namespace=backend.namespace or _namespace(route))
        if namespace != self.namespace or (kind, name) not in self.names:
            return False
        if namespace == _namespace(route):
            return True
        return any(
            target.get("kind") == kind and text(target.get("name")) in ("", name)
            for target in _granted_targets(route, namespace, self.cluster.reference_grants)
        )


def is_admitted(route: Object, namespace: str, grants: ReferenceGrants) -> bool:
    """Whether a ReferenceGrant of the namespace permits routes like this one anything there."""
    return any(True for _ in _granted_targets(route, namespace, grants))


def _granted_targets(
    route: Object, namespace: str, grants: ReferenceGrants
) -> Iterator[Mapping[str, Any]]:
    """The `to` of every grant of the namespace whose `from` means routes of this kind and namespace."""
    wanted = {
        "group": group_version(route)[0],
        "kind": text(route.get("kind")),
        "namespace": _namespace(route),
    }
    for grant in grants.get(namespace, {}).values():
        spec = at(grant, "spec")
        if any(
            {key: text(source.get(key)) for key in wanted} == wanted
            for source in objects(at(spec, "from"))
        ):
            yield from objects(at(spec, "to"))


@dataclass(frozen=True, slots=True)
class _Listener:
    """Where a gateway listens: its hosts ("" = any), port and whether it speaks TLS."""

    hosts: tuple[str, ...]
    port: int | None
    is_tls: bool | None


def route_endpoints(route: Object, backends: Backends, *, is_owned: bool) -> Iterator[Endpoint]:
    """The endpoints under which the route serves the workload; none where it leads elsewhere."""
    reader = _READERS.get(text(route.get("kind")))
    if reader is not None:
        for endpoint_ in islice(reader(route, backends, is_owned), MAX_COMBINATIONS):
            if endpoint_ is not None:
                yield endpoint_


MAX_COMBINATIONS = 1_000
"""Hosts, gateways and paths of one object multiply: what it writes in 4 KB would else take minutes."""

MAX_LISTED = 64
"""Gateways, listeners, hosts and paths, each, that count of one route: as many as a Gateway may have."""
MAX_HOST = 253

_Endpoints = Iterator[Endpoint | None]


def _first(items: Iterable[_T]) -> tuple[_T, ...]:
    """The first different ones of so many: what is multiplied must be few."""
    return tuple(dict.fromkeys(islice(items, MAX_LISTED * MAX_LISTED)))[:MAX_LISTED]


def _ingress(ingress: Object, backends: Backends, is_owned: bool) -> _Endpoints:
    spec = at(ingress, "spec")
    balancers = [
        text(entry.get("hostname")) or text(entry.get("ip"))
        for entry in objects(at(ingress, "status", "loadBalancer", "ingress"))
    ]
    fallback = balancers[0] if balancers else ""
    if _is_ingress_backend(at(spec, "defaultBackend"), backends, ingress) and fallback:
        yield endpoint(fallback, 80, "", "http")
    secure = HostPatterns(
        host for entry in objects(at(spec, "tls")) for host in texts(entry.get("hosts")) or ("",)
    )
    for rule in objects(at(spec, "rules")):
        host = text(rule.get("host"))[:MAX_HOST]
        is_tls = secure.cover(host)
        for path in objects(at(rule, "http", "paths")):
            is_ours = _is_ingress_backend(path.get("backend"), backends, ingress)
            if (is_owned or is_ours) and (host or fallback):
                yield endpoint(
                    host or fallback,
                    443 if is_tls else 80,
                    text(path.get("path")),
                    "https" if is_tls else "http",
                    is_tls=is_tls,
                )


def _is_ingress_backend(backend: Any, backends: Backends, ingress: Object) -> bool:
    return backends.has(ingress_backend(backend), ingress)


def _gateway_route(route: Object, backends: Backends, is_owned: bool) -> _Endpoints:
    """An HTTPRoute or GRPCRoute, as far as a gateway accepted it."""
    is_grpc = route.get("kind") == "GRPCRoute"
    accepted = (
        parent
        for parent in objects(at(route, "status", "parents"))
        if is_true(parent.get("conditions"), "Accepted")
    )
    listeners = _first(
        listener
        for parent in islice(accepted, MAX_LISTED)
        for listener in _gateway_listeners(parent.get("parentRef"), route, backends.cluster)
    )
    hostnames = _first(texts(at(route, "spec", "hostnames")))
    paths = _first(_route_paths(route, backends, is_owned))
    for listener in listeners:
        scheme = "" if is_grpc or listener.port is None else "http"
        for host in _hosts(hostnames, listener):
            for path in paths:
                yield endpoint(
                    host,
                    listener.port,
                    path,
                    scheme,
                    is_tls=listener.is_tls,
                    protocol="GRPC" if is_grpc else "HTTPS" if listener.is_tls else "HTTP",
                )


def _route_paths(route: Object, backends: Backends, is_owned: bool) -> Iterator[str]:
    paths_by_rule: dict[str, None] = {}
    for rule in objects(at(route, "spec", "rules")):
        references = objects(rule.get("backendRefs"))
        if is_owned or any(backends.has(reference_backend(each), route) for each in references):
            paths = [text(at(match, "path", "value")) for match in objects(rule.get("matches"))]
            paths_by_rule |= dict.fromkeys(paths or [""])
    yield from paths_by_rule


def _gateway_listeners(parent: Any, route: Object, cluster: ClusterObjects) -> Iterator[_Listener]:
    """The listeners that a parent reference selects; one without a port where the gateway is unknown."""
    namespace = text(at(parent, "namespace")) or _namespace(route)
    gateway = cluster.gateways.get((namespace, text(at(parent, "name"))))
    if gateway is None:
        yield _Listener(("",), None, None)
        return
    section, port = text(at(parent, "sectionName")), whole(at(parent, "port"))
    addresses = _first(
        text(entry.get("value")) for entry in objects(at(gateway, "status", "addresses"))
    )
    for listener in islice(objects(at(gateway, "spec", "listeners")), MAX_LISTED):
        protocol = text(listener.get("protocol"))
        is_meant = section in ("", listener.get("name")) and port in (None, listener.get("port"))
        if is_meant and protocol in _WEB_PROTOCOLS:
            host = text(listener.get("hostname"))
            hosts = (host,) if host else ("", *addresses)
            yield _Listener(hosts, whole(listener.get("port")), protocol in ("HTTPS", "TLS"))


def _hosts(hostnames: tuple[str, ...], listener: _Listener) -> Iterator[str]:
    """The route's own hosts that the listener takes; without any, the listener's or its addresses."""
    pattern = listener.hosts[0]
    if hostnames:
        yield from (host for host in hostnames if covers(pattern, host) or covers(host, pattern))
    else:
        yield from (host for host in listener.hosts if host)


def _openshift_route(route: Object, backends: Backends, is_owned: bool) -> _Endpoints:
    spec = at(route, "spec")
    targets = [at(spec, "to"), *objects(at(spec, "alternateBackends"))]
    if not is_owned and not any(backends.has(reference_backend(each), route) for each in targets):
        return
    is_tls = at(spec, "tls") is not None
    taken = list(objects(at(route, "status", "ingress")))
    hosts = [
        text(entry.get("host")) for entry in taken if is_true(entry.get("conditions"), "Admitted")
    ]
    for host in dict.fromkeys(hosts if taken else [text(at(spec, "host"))]):
        yield endpoint(
            host,
            443 if is_tls else 80,
            text(at(spec, "path")),
            "https" if is_tls else "http",
            is_tls=is_tls,
        )


def _virtual_service(service: Object, backends: Backends, is_owned: bool) -> _Endpoints:
    """An Istio VirtualService on gateways; one for the mesh alone is not reachable from outside."""
    namespace = _namespace(service)
    paths: dict[str, None] = {}
    for rule in objects(at(service, "spec", "http")):
        hosts = [
            text(at(destination, "destination", "host"))
            for destination in objects(rule.get("route"))
        ]
        if is_owned or any(_is_istio_backend(host, backends, service) for host in hosts):
            uris = [mapped for match in objects(rule.get("match")) for mapped in _uris(match)]
            paths |= dict.fromkeys(uris or [""])
    listeners = _first(
        listener
        for gateway in _first(texts(at(service, "spec", "gateways")))
        for listener in _istio_listeners(gateway, namespace, backends.cluster)
    )
    hostnames = _first(texts(at(service, "spec", "hosts")))
    for listener in listeners:
        for host in _istio_hosts(hostnames, listener):
            for path in _first(paths):
                scheme = "http" if listener.port is not None else ""
                protocol = "HTTPS" if listener.is_tls else "HTTP"
                yield endpoint(
                    host, listener.port, path, scheme, is_tls=listener.is_tls, protocol=protocol
                )


def _uris(match: Mapping[str, Any]) -> Iterator[str]:
    for form in ("exact", "prefix"):
        uri = text(at(match, "uri", form))
        if uri:
            yield clean_path(uri)


def _is_istio_backend(host: str, backends: Backends, service: Object) -> bool:
    return backends.has(istio_backend(host), service)


def _istio_listeners(name: str, namespace: str, cluster: ClusterObjects) -> Iterator[_Listener]:
    if name == "mesh":
        return
    gateway = cluster.istio_gateways.get(istio_gateway(name, namespace))
    if gateway is None:
        yield _Listener(("",), None, None)
        return
    for server in islice(objects(at(gateway, "spec", "servers")), MAX_LISTED):
        protocol = text(at(server, "port", "protocol")).upper()
        # `httpsRedirect` alone is no TLS.
        is_tls = protocol in ("HTTPS", "TLS") or bool(text(at(server, "tls", "mode")))
        hosts = _first(host.rpartition("/")[2] for host in texts(server.get("hosts")))
        if protocol in _WEB_PROTOCOLS:
            yield _Listener(hosts or ("",), whole(at(server, "port", "number")), is_tls)


def _istio_hosts(hostnames: tuple[str, ...], listener: _Listener) -> Iterator[str]:
    for host in hostnames:
        if host == "*":
            yield from (
                listener_host for listener_host in listener.hosts if listener_host not in ("", "*")
            )
        elif any(covers(pattern, host) for pattern in listener.hosts):
            yield host


def _namespace(obj: Object) -> str:
    return text(metadata(obj).get("namespace"))


_READERS = {
    "Ingress": _ingress,
    "HTTPRoute": _gateway_route,
    "GRPCRoute": _gateway_route,
    "Route": _openshift_route,
    "VirtualService": _virtual_service,
}

"""Endpoints out of hosts, ports and paths that nobody vouches for: what is no host or no URL is left out.

Routes that lead to a workload's services: Ingress, Gateway API, OpenShift, Istio.

A route belongs to the workload that owns it or whose backend it names; where it answers is said by it and by
the gateways that took it.
"""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from watchbill.kinds.definition.facts import EndpointFacts
from watchbill.kinds.objects.json_access import at, is_true, metadata, objects, text, texts, whole
from watchbill.kinds.objects.objects import ClusterObjects, Object
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


_MAX_NAMESPACES = 20
_WEB_PROTOCOLS = frozenset({"HTTP", "HTTPS", "HTTP2", "HTTP/2", "TLS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """What of a namespace leads to one workload, by kind and name."""

    namespace: str
    names: Set[tuple[str, str]]
    cluster: ClusterObjects

    def has(self, reference: Any, namespace: str) -> bool:
        """Whether a reference made in `namespace` means one of them."""
        where = text(at(reference, "namespace")) or namespace
        kind = text(at(reference, "kind")) or "Service"
        return where == self.namespace and (kind, text(at(reference, "name"))) in self.names


@dataclass(frozen=True, slots=True)
class _Door:
    """Where a gateway listens: its hosts ("" = any), port and whether it speaks TLS."""

    hosts: tuple[str, ...]
    port: int | None
    is_tls: bool | None


def named_namespaces(route: Object) -> frozenset[str]:
    """Namespaces beside its own whose services it names."""
    found: dict[str, None] = {}
    for rule in (*objects(at(route, "spec", "rules")), *objects(at(route, "spec", "http"))):
        for reference in objects(rule.get("backendRefs")):
            found[text(reference.get("namespace"))] = None
        for destination in objects(rule.get("route")):
            found[_istio_service(text(at(destination, "destination", "host")))[1]] = None
    return frozenset([namespace for namespace in found if namespace][:_MAX_NAMESPACES])


def route_endpoints(route: Object, backends: Backends, *, is_owned: bool) -> Iterator[Endpoint]:
    """Where it answers for the workload; nothing where it leads elsewhere or is no route."""
    reader = _READERS.get(text(route.get("kind")))
    if reader is not None:
        for found in reader(route, backends, is_owned):
            if found is not None:
                yield found


_Found = Iterator[Endpoint | None]


def _ingress(ingress: Object, backends: Backends, is_owned: bool) -> _Found:
    spec = at(ingress, "spec")
    namespace = _namespace(ingress)
    balancers = [
        text(entry.get("hostname")) or text(entry.get("ip"))
        for entry in objects(at(ingress, "status", "loadBalancer", "ingress"))
    ]
    fallback = balancers[0] if balancers else ""
    if _is_ingress_backend(at(spec, "defaultBackend"), backends, namespace) and fallback:
        yield endpoint(fallback, 80, "", "http")
    for rule in objects(at(spec, "rules")):
        host = text(rule.get("host"))
        is_tls = any(_is_secure(entry, host) for entry in objects(at(spec, "tls")))
        for path in objects(at(rule, "http", "paths")):
            is_ours = _is_ingress_backend(path.get("backend"), backends, namespace)
            if (is_owned or is_ours) and (host or fallback):
                yield endpoint(
                    host or fallback,
                    443 if is_tls else 80,
                    text(path.get("path")),
                    "https" if is_tls else "http",
                    is_tls=is_tls,
                )


def _is_secure(entry: Mapping[str, Any], host: str) -> bool:
    hosts = texts(entry.get("hosts"))
    return not hosts or any(covers(secure, host) for secure in hosts)


def _is_ingress_backend(backend: Any, backends: Backends, namespace: str) -> bool:
    name = text(at(backend, "service", "name")) or text(at(backend, "serviceName"))
    return backends.has({"name": name}, namespace)


def _gateway_route(route: Object, backends: Backends, is_owned: bool) -> _Found:
    """An HTTPRoute or GRPCRoute, as far as a gateway accepted it."""
    is_grpc = route.get("kind") == "GRPCRoute"
    doors = [
        door
        for parent in objects(at(route, "status", "parents"))
        if is_true(parent.get("conditions"), "Accepted")
        for door in _doors(parent.get("parentRef"), route, backends.cluster)
    ]
    stated = texts(at(route, "spec", "hostnames"))
    paths = tuple(_route_paths(route, backends, is_owned))
    for door in doors:
        scheme = "" if is_grpc or door.port is None else "http"
        for host in _hosts(stated, door):
            for path in paths:
                yield endpoint(
                    host,
                    door.port,
                    path,
                    scheme,
                    is_tls=door.is_tls,
                    protocol="GRPC" if is_grpc else "HTTPS" if door.is_tls else "HTTP",
                )


def _route_paths(route: Object, backends: Backends, is_owned: bool) -> Iterator[str]:
    namespace = _namespace(route)
    found: dict[str, None] = {}
    for rule in objects(at(route, "spec", "rules")):
        references = objects(rule.get("backendRefs"))
        if is_owned or any(backends.has(one, namespace) for one in references):
            paths = [text(at(match, "path", "value")) for match in objects(rule.get("matches"))]
            found |= dict.fromkeys(paths or [""])
    yield from found


def _doors(parent: Any, route: Object, cluster: ClusterObjects) -> Iterator[_Door]:
    """The listeners that a parent reference means; one that knows no port where the gateway is unknown."""
    namespace = text(at(parent, "namespace")) or _namespace(route)
    gateway = cluster.gateways.get((namespace, text(at(parent, "name"))))
    if gateway is None:
        yield _Door(("",), None, None)
        return
    section, port = text(at(parent, "sectionName")), whole(at(parent, "port"))
    addresses = tuple(
        text(entry.get("value")) for entry in objects(at(gateway, "status", "addresses"))
    )
    for listener in objects(at(gateway, "spec", "listeners")):
        protocol = text(listener.get("protocol"))
        is_meant = section in ("", listener.get("name")) and port in (None, listener.get("port"))
        if is_meant and protocol in _WEB_PROTOCOLS:
            host = text(listener.get("hostname"))
            hosts = (host,) if host else ("", *addresses)
            yield _Door(hosts, whole(listener.get("port")), protocol in ("HTTPS", "TLS"))


def _hosts(stated: tuple[str, ...], door: _Door) -> Iterator[str]:
    """The route's own hosts that the listener takes; without any, the listener's or its addresses."""
    pattern = door.hosts[0]
    if stated:
        yield from (host for host in stated if covers(pattern, host) or covers(host, pattern))
    else:
        yield from (host for host in door.hosts if host)


def _openshift_route(route: Object, backends: Backends, is_owned: bool) -> _Found:
    spec = at(route, "spec")
    targets = [at(spec, "to"), *objects(at(spec, "alternateBackends"))]
    if not is_owned and not any(backends.has(one, _namespace(route)) for one in targets):
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


def _virtual_service(service: Object, backends: Backends, is_owned: bool) -> _Found:
    """An Istio VirtualService on gateways; one for the mesh alone answers nobody from outside."""
    namespace = _namespace(service)
    paths: dict[str, None] = {}
    for rule in objects(at(service, "spec", "http")):
        hosts = [text(at(one, "destination", "host")) for one in objects(rule.get("route"))]
        if is_owned or any(_is_istio_backend(host, backends, namespace) for host in hosts):
            uris = [mapped for match in objects(rule.get("match")) for mapped in _uris(match)]
            paths |= dict.fromkeys(uris or [""])
    for gateway in texts(at(service, "spec", "gateways")):
        for door in _istio_doors(gateway, namespace, backends.cluster):
            for host in _istio_hosts(texts(at(service, "spec", "hosts")), door):
                for path in paths:
                    scheme = "http" if door.port is not None else ""
                    protocol = "HTTPS" if door.is_tls else "HTTP"
                    yield endpoint(
                        host, door.port, path, scheme, is_tls=door.is_tls, protocol=protocol
                    )


def _uris(match: Mapping[str, Any]) -> Iterator[str]:
    for form in ("exact", "prefix"):
        found = text(at(match, "uri", form))
        if found:
            yield clean_path(found)


def _istio_service(host: str) -> tuple[str, str]:
    """Name and namespace ("" = the route's own) of the service that a destination means."""
    parts = host.split(".")
    if len(parts) >= 3 and parts[2] == "svc":
        return parts[0], parts[1]
    return host, ""


def _is_istio_backend(host: str, backends: Backends, namespace: str) -> bool:
    name, where = _istio_service(host)
    return backends.has({"name": name, "namespace": where}, namespace)


def _istio_doors(name: str, namespace: str, cluster: ClusterObjects) -> Iterator[_Door]:
    if name == "mesh":
        return
    where, slash, plain = name.rpartition("/")
    gateway = cluster.istio_gateways.get((where if slash else namespace, plain))
    if gateway is None:
        yield _Door(("",), None, None)
        return
    for server in objects(at(gateway, "spec", "servers")):
        protocol = text(at(server, "port", "protocol")).upper()
        # `httpsRedirect` alone is no TLS.
        is_tls = protocol in ("HTTPS", "TLS") or bool(text(at(server, "tls", "mode")))
        hosts = tuple(host.rpartition("/")[2] for host in texts(server.get("hosts")))
        if protocol in _WEB_PROTOCOLS:
            yield _Door(hosts or ("",), whole(at(server, "port", "number")), is_tls)


def _istio_hosts(stated: tuple[str, ...], door: _Door) -> Iterator[str]:
    for host in stated:
        if host == "*":
            yield from (one for one in door.hosts if one not in ("", "*"))
        elif any(covers(pattern, host) for pattern in door.hosts):
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

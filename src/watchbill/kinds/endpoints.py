"""Where a workload answers: its kind's own word, Services, Ingresses and routes that lead to its pods.

A Service belongs to a workload that owns it or whose pods its selector finds; an Ingress or route belongs to
the one whose Service it names. What can be reached from outside the cluster is listed first.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from watchbill.kinds.census import Census
from watchbill.kinds.facts import EndpointFacts, Facts
from watchbill.kinds.lookup import at, is_true, labels, metadata, objects, text, texts, whole
from watchbill.kinds.objects import Object, WorkloadObjects
from watchbill.kinds.pod import owners
from watchbill.workload import Endpoint

MAX_ENDPOINTS = 50
_DEFAULT_PORTS = {"http": 80, "https": 443}
_WEB = frozenset({"http", "https", "http2", "h2c"})
# Knative's own plumbing: a placeholder and a private Service beside each revision.
_KNATIVE_INTERNAL = "networking.internal.knative.dev/serviceType"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    endpoint: Endpoint
    is_internal: bool = False


def endpoints_of(objects_: WorkloadObjects, facts: Facts, census: Census) -> tuple[Endpoint, ...]:
    found = [_Found(endpoint=_stated(said)) for said in facts.endpoints if said.url or said.host]
    chain = {text(metadata(obj).get("uid")) for obj in (objects_.root, *objects_.children)} - {""}
    services = [
        obj
        for obj in objects_.services
        if text(obj.get("kind")) == "Service" and _leads_here(obj, chain, census)
    ]
    names = {text(metadata(service).get("name")) for service in services}
    for service in services:
        found += _service(service)
    for obj in objects_.services:
        reader = _ROUTES.get(text(obj.get("kind")))
        if reader is not None:
            found += reader(obj, names, _is_owned(obj, chain))
    ordered = sorted(found, key=_order)
    return tuple(dict.fromkeys(item.endpoint for item in ordered if item.endpoint != Endpoint()))[
        :MAX_ENDPOINTS
    ]


def _order(found: _Found) -> tuple[bool, bool, str, int, str, str, str]:
    endpoint = found.endpoint
    return (
        found.is_internal,
        endpoint.url is None,
        endpoint.host or "",
        endpoint.port or 0,
        endpoint.path or "",
        endpoint.protocol or "",
        endpoint.url or "",
    )


def _stated(said: EndpointFacts) -> Endpoint:
    if not said.url:
        scheme = said.protocol.lower()
        return _endpoint(
            said.host, said.port, said.path, scheme, is_tls=said.is_tls, protocol=said.protocol
        )
    try:
        parts = urlsplit(said.url)
        port = parts.port
    except ValueError:
        return Endpoint(url=said.url[:2048])
    scheme = parts.scheme.lower()
    return Endpoint(
        host=(parts.hostname or "")[:253] or None,
        port=port or _DEFAULT_PORTS.get(scheme),
        path=parts.path[:1024] or None,
        tls_enabled=scheme == "https" if scheme in _DEFAULT_PORTS else None,
        protocol=scheme.upper()[:32] or None,
        url=said.url[:2048],
    )


def _endpoint(
    host: str,
    port: int | None,
    path: str,
    scheme: str,
    *,
    is_tls: bool | None = None,
    protocol: str = "",
) -> Endpoint:
    """One endpoint; it has a URL where its scheme is one of the web's."""
    host, path = host[:253], path[:1024]
    scheme = "https" if is_tls and scheme in _WEB else scheme
    url = None
    if host and scheme in _WEB:
        scheme = "https" if scheme == "https" else "http"
        shown_port = "" if port in (None, _DEFAULT_PORTS[scheme]) else f":{port}"
        url = f"{scheme}://{f'[{host}]' if ':' in host else host}{shown_port}{path}"
    return Endpoint(
        host=host or None,
        port=port,
        path=path or None,
        tls_enabled=True if scheme == "https" else is_tls,
        protocol=(protocol or scheme.upper())[:32] or None,
        url=url,
    )


def _leads_here(service: Object, chain: Set[str], census: Census) -> bool:
    if _KNATIVE_INTERNAL in labels(service):
        return False
    if _is_owned(service, chain):
        return True
    selector = at(service, "spec", "selector")
    if not isinstance(selector, Mapping) or not selector:
        return False
    wanted = selector.items()
    return any(all(pod.labels.get(key) == value for key, value in wanted) for pod in census.live)


def _is_owned(obj: Object, chain: Set[str]) -> bool:
    return any(owner.uid in chain for owner in owners(obj))


def _service(service: Object) -> Iterator[_Found]:
    spec = at(service, "spec")
    kind = text(at(spec, "type")) or "ClusterIP"
    if kind == "ExternalName":
        return
    meta = metadata(service)
    inner_host = f"{text(meta.get('name'))}.{text(meta.get('namespace'))}.svc.cluster.local"
    for port in objects(at(spec, "ports")):
        scheme, protocol = _scheme(port)
        number = whole(port.get("port"))
        if kind == "LoadBalancer":
            for entry in objects(at(service, "status", "loadBalancer", "ingress")):
                host = text(entry.get("hostname")) or text(entry.get("ip"))
                yield _Found(endpoint=_endpoint(host, number, "", scheme, protocol=protocol))
        node_port = whole(port.get("nodePort"))
        if kind == "NodePort" and node_port:
            # Any node's address will do, and none is kept.
            yield _Found(endpoint=_endpoint("", node_port, "", scheme, protocol=protocol))
        yield _Found(
            endpoint=_endpoint(inner_host, number, "", scheme, protocol=protocol), is_internal=True
        )


def _scheme(port: Mapping[str, Any]) -> tuple[str, str]:
    """Scheme and protocol of a Service's port, by appProtocol, else the start of its name."""
    stated = text(port.get("appProtocol")).lower().rpartition("/")[2]
    named = text(port.get("name")).lower().partition("-")[0]
    for candidate in (stated, named):
        if candidate in {"http", "https", "grpc", "h2c", "http2"}:
            return candidate, candidate.upper()
    return "", (stated or text(port.get("protocol")) or "TCP").upper()


def _ingress(ingress: Object, services: Set[str], is_owned: bool) -> Iterator[_Found]:
    spec = at(ingress, "spec")
    secure = {host for tls in objects(at(spec, "tls")) for host in texts(tls.get("hosts"))}
    balancers = [
        text(entry.get("hostname")) or text(entry.get("ip"))
        for entry in objects(at(ingress, "status", "loadBalancer", "ingress"))
    ]
    fallback = balancers[0] if balancers else ""
    rules = list(objects(at(spec, "rules")))
    if _backend(at(spec, "defaultBackend")) in services and not rules:
        yield _Found(endpoint=_endpoint(fallback, 80, "", "http"))
    for rule in rules:
        host = text(rule.get("host"))
        is_tls = host in secure
        for path in objects(at(rule, "http", "paths")):
            if is_owned or _backend(path.get("backend")) in services:
                yield _Found(
                    endpoint=_endpoint(
                        host or fallback,
                        443 if is_tls else 80,
                        _plain_path(text(path.get("path"))),
                        "https" if is_tls else "http",
                        is_tls=is_tls,
                    )
                )


def _backend(backend: Any) -> str:
    return text(at(backend, "service", "name")) or text(at(backend, "serviceName"))


def _plain_path(path: str) -> str:
    """The path before a rewrite's pattern begins; "/" is no path of its own."""
    plain = path.partition("(")[0]
    return "" if plain == "/" else plain


def _route(route: Object, services: Set[str], is_owned: bool) -> Iterator[_Found]:
    """An HTTPRoute or GRPCRoute that a gateway accepted. Its port and TLS are the gateway's, unknown here."""
    parents = objects(at(route, "status", "parents"))
    if not any(is_true(parent.get("conditions"), "Accepted") for parent in parents):
        return
    protocol = "GRPC" if route.get("kind") == "GRPCRoute" else "HTTP"
    for rule in objects(at(route, "spec", "rules")):
        names = {text(backend.get("name")) for backend in objects(rule.get("backendRefs"))}
        if not is_owned and not names & services:
            continue
        paths = [
            _plain_path(text(at(match, "path", "value"))) for match in objects(rule.get("matches"))
        ]
        for host in texts(at(route, "spec", "hostnames")):
            for path in dict.fromkeys(paths or [""]):
                yield _Found(endpoint=_endpoint(host, None, path, "", protocol=protocol))


def _openshift_route(route: Object, services: Set[str], is_owned: bool) -> Iterator[_Found]:
    if not is_owned and text(at(route, "spec", "to", "name")) not in services:
        return
    is_tls = at(route, "spec", "tls") is not None
    yield _Found(
        endpoint=_endpoint(
            text(at(route, "spec", "host")),
            443 if is_tls else 80,
            text(at(route, "spec", "path")),
            "https" if is_tls else "http",
            is_tls=is_tls,
        )
    )


_ROUTES = {
    "Ingress": _ingress,
    "HTTPRoute": _route,
    "GRPCRoute": _route,
    "Route": _openshift_route,
}

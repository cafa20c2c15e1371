"""Endpoints of a workload: those it states itself, Services, and routes that lead to them.

A Service belongs to a workload that owns it or whose pods its selector finds. What can be reached from outside
the cluster is listed first.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from typing import Any

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.route_backends import TARGET_KINDS, selecting, selector_of
from watchbill.kinds.derivation.routing import (
    MAX_COMBINATIONS,
    Backends,
    declared_endpoint,
    endpoint,
    route_endpoints,
)
from watchbill.kinds.objects.json_access import at, labels, metadata, objects, text, texts, whole
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.pod import owners
from watchbill.workload import Endpoint

MAX_ENDPOINTS = 50
_NAMED_PROTOCOLS = frozenset({"http", "https", "grpc", "h2c", "http2"})
# Knative's own plumbing: a placeholder and a private Service beside each revision.
_KNATIVE_INTERNAL = "networking.internal.knative.dev/serviceType"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    endpoint: Endpoint | None
    is_internal: bool = False


def endpoints_of(view: WorkloadView) -> tuple[Endpoint, ...]:
    candidates = [
        _Candidate(endpoint=declared_endpoint(declared))
        for declared in view.facts.endpoints
        if declared.url or declared.host
    ]
    chain = {text(metadata(obj).get("uid")) for obj in (view.root, *view.objects.children)} - {""}
    namespace = text(metadata(view.root).get("namespace"))
    is_selecting = selecting(
        (pod.labels for pod in view.pods.live), map(selector_of, view.objects.services)
    )
    targets = [
        obj
        for obj in view.objects.services
        if text(obj.get("kind")) in TARGET_KINDS
        and text(metadata(obj).get("namespace")) == namespace
        and _leads_to_workload(obj, chain, is_selecting)
    ]
    address = _node_address(view)
    for target in targets:
        if target.get("kind") == "Service":
            candidates += islice(_service(target, address), MAX_COMBINATIONS)
    backends = Backends(
        namespace=namespace,
        names={
            (text(target.get("kind")), text(metadata(target).get("name"))) for target in targets
        },
        cluster=view.cluster,
    )
    for obj in view.objects.services:
        routes = route_endpoints(obj, backends, is_owned=_is_owned(obj, chain, namespace))
        candidates += [_Candidate(endpoint=route) for route in routes]
    ordered = sorted(
        (
            (_order(candidate.endpoint, candidate.is_internal), candidate.endpoint)
            for candidate in candidates
            if candidate.endpoint
        ),
        key=lambda pair: pair[0],
    )
    return tuple(dict.fromkeys(endpoint for _, endpoint in ordered))[:MAX_ENDPOINTS]


def _order(endpoint_: Endpoint, is_internal: bool) -> tuple[bool, bool, str, int, str, str, str]:
    return (
        is_internal,
        endpoint_.url is None,
        endpoint_.host or "",
        endpoint_.port or 0,
        endpoint_.path or "",
        endpoint_.protocol or "",
        endpoint_.url or "",
    )


def _leads_to_workload(
    target: Object, chain: Set[str], is_selecting: Callable[[Mapping[str, Any]], bool]
) -> bool:
    if _KNATIVE_INTERNAL in labels(target):
        return False
    if _is_owned(target, chain, text(metadata(target).get("namespace"))):
        return True
    return is_selecting(selector_of(target))


def _is_owned(obj: Object, chain: Set[str], namespace: str) -> bool:
    if text(metadata(obj).get("namespace")) != namespace:
        return False
    return any(owner.uid in chain for owner in owners(obj))


def _node_address(view: WorkloadView) -> str:
    """Address of a node that runs one of the pods: reachable under every traffic policy."""
    nodes = sorted({pod.node for pod in view.pods.active if pod.node})
    addresses = view.cluster.node_addresses
    return next((addresses[node] for node in nodes if addresses.get(node)), "")


def _service(service: Object, node_address: str) -> Iterator[_Candidate]:
    spec = at(service, "spec")
    kind = text(at(spec, "type")) or "ClusterIP"
    if kind == "ExternalName":
        return
    meta = metadata(service)
    inner_host = f"{text(meta.get('name'))}.{text(meta.get('namespace'))}.svc.cluster.local"
    outer_hosts = [*texts(at(spec, "externalIPs"))]
    if kind == "LoadBalancer":
        outer_hosts += [
            text(entry.get("hostname")) or text(entry.get("ip"))
            for entry in objects(at(service, "status", "loadBalancer", "ingress"))
        ]
    for port in objects(at(spec, "ports")):
        scheme, protocol = _scheme(port)
        number = whole(port.get("port"))
        for host in outer_hosts:
            yield _Candidate(endpoint=endpoint(host, number, "", scheme, protocol=protocol))
        node_port = whole(port.get("nodePort"))
        if kind == "NodePort" and node_port:
            yield _Candidate(
                endpoint=endpoint(node_address, node_port, "", scheme, protocol=protocol)
            )
        yield _Candidate(
            endpoint=endpoint(inner_host, number, "", scheme, protocol=protocol), is_internal=True
        )


def _scheme(port: Mapping[str, Any]) -> tuple[str, str]:
    """Scheme and protocol of a Service's port, by appProtocol, else the start of its name."""
    app_protocol = text(port.get("appProtocol")).lower().rpartition("/")[2]
    name_prefix = text(port.get("name")).lower().partition("-")[0]
    for candidate in (app_protocol, name_prefix):
        if candidate in _NAMED_PROTOCOLS:
            return candidate, candidate.upper()
    return "", (app_protocol or text(port.get("protocol")) or "TCP").upper()

"""What services, inference pools and routes name: the pods of a selector, backends, gateways."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from watchbill.kinds.objects.json_access import at, metadata, objects, text, texts
from watchbill.kinds.objects.objects import Object

TARGET_KINDS = frozenset({"Service", "InferencePool"})
"""What a route may lead to."""
MAX_BACKENDS = 500
"""Of one route; further ones do not count."""
_MAX_NAMESPACES = 20


class Backend(NamedTuple):
    """What a route leads to. `namespace`: "" = the route's own."""

    namespace: str
    kind: str
    name: str


def selector_of(target: Object) -> Mapping[str, Any]:
    """The labels of the pods that a Service or an InferencePool selects; empty = it selects none."""
    selector = at(target, "spec", "selector")
    # An InferencePool of the first version selects as a Service does, later ones by matchLabels.
    if target.get("kind") == "InferencePool" and isinstance(at(selector, "matchLabels"), Mapping):
        selector = at(selector, "matchLabels")
    return selector if isinstance(selector, Mapping) else {}


def selects(selector: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Whether a selector that is not empty finds a pod with the labels."""
    return all(labels.get(key) == value for key, value in selector.items())


def selecting(
    label_sets: Iterable[Mapping[str, Any]], selectors: Iterable[Mapping[str, Any]]
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether one of the selectors, which is not empty, finds one of many pods, by their labels.

    A namespace may hold thousands of pods and of services, so no pod is looked at for each service: a bit per
    pod says which have a label. Pods that share one mapping count once, and labels that no selector names are
    not counted: each pod may have a hundred that no other has.
    """
    having = dict.fromkeys((pair for each in selectors for pair in label_pairs(each)), 0)
    distinct = {id(each): each for each in label_sets} if having else {}
    for number, labels in enumerate(distinct.values()):
        bit = 1 << number
        for pair in label_pairs(labels):
            if pair in having:
                having[pair] |= bit

    def is_selecting(selector: Mapping[str, Any]) -> bool:
        pairs = tuple(label_pairs(selector))
        left = -1 if pairs and len(pairs) == len(selector) else 0
        for pair in pairs:
            left &= having.get(pair, 0)
        return left != 0

    return is_selecting


def label_pairs(labels: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values; what is no text is no label."""
    return ((name, value) for name, value in labels.items() if isinstance(value, str))


def backends_of(route: Object) -> tuple[Backend, ...]:
    """Each once, in the route's order."""
    reader = _READERS.get(text(route.get("kind")))
    if reader is None:
        return ()
    own = text(metadata(route).get("namespace"))
    named = (each._replace(namespace=each.namespace or own) for each in reader(route))
    return tuple(islice(dict.fromkeys(named), MAX_BACKENDS))


def backend_namespaces(route: Object) -> frozenset[str]:
    """Namespaces beside its own whose services it names."""
    own = text(metadata(route).get("namespace"))
    named = dict.fromkeys(backend.namespace for backend in backends_of(route))
    return frozenset(islice((name for name in named if name != own), _MAX_NAMESPACES))


def reference_backend(reference: Any) -> Backend:
    """Of a reference as Gateway API and OpenShift write it."""
    kind = text(at(reference, "kind")) or "Service"
    return Backend(text(at(reference, "namespace")), kind, text(at(reference, "name")))


def ingress_backend(backend: Any) -> Backend:
    name = text(at(backend, "service", "name")) or text(at(backend, "serviceName"))
    return Backend("", "Service", name)


def istio_backend(host: str) -> Backend:
    """The service that a destination of Istio means."""
    parts = host.split(".")
    if len(parts) >= 3 and parts[2] == "svc":
        return Backend(parts[1], "Service", parts[0])
    return Backend("", "Service", host)


def _ingress(ingress: Object) -> Iterator[Backend]:
    spec = at(ingress, "spec")
    yield ingress_backend(at(spec, "defaultBackend"))
    for rule in objects(at(spec, "rules")):
        for path in objects(at(rule, "http", "paths")):
            yield ingress_backend(path.get("backend"))


def _gateway_route(route: Object) -> Iterator[Backend]:
    for rule in objects(at(route, "spec", "rules")):
        yield from map(reference_backend, objects(rule.get("backendRefs")))


def _openshift_route(route: Object) -> Iterator[Backend]:
    spec = at(route, "spec")
    # Openshift's name no namespace: they lead to their own alone.
    for target in (at(spec, "to"), *objects(at(spec, "alternateBackends"))):
        yield reference_backend(target)


def _virtual_service(service: Object) -> Iterator[Backend]:
    for rule in objects(at(service, "spec", "http")):
        for destination in objects(rule.get("route")):
            yield istio_backend(text(at(destination, "destination", "host")))


_READERS: Mapping[str, Callable[[Object], Iterator[Backend]]] = {
    "Ingress": _ingress,
    "HTTPRoute": _gateway_route,
    "GRPCRoute": _gateway_route,
    "Route": _openshift_route,
    "VirtualService": _virtual_service,
}


def gateways_of(route: Object) -> frozenset[tuple[str, str]]:
    """Namespaces and names of the gateways that it refers to."""
    own = text(metadata(route).get("namespace"))
    parents = {
        (text(parent.get("namespace")) or own, text(parent.get("name")))
        for parent in objects(at(route, "spec", "parentRefs"))
    }
    istio = {istio_gateway(name, own) for name in texts(at(route, "spec", "gateways"))}
    return frozenset(parents | istio)


def istio_gateway(name: str, namespace: str) -> tuple[str, str]:
    """Namespace and name of a gateway as an object in the namespace writes it."""
    where, slash, plain = name.rpartition("/")
    return (where if slash else namespace, plain)

"""Pods whose metrics are scraped, and pods that reserve devices for others. Filled from every pod, no I/O.

GPU exporters are trusted by namespace: anybody can run a pod that claims to be an exporter and names
other people's pods. An inference server reports only on itself, so those are scraped in any namespace.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    labels,
    mapping,
    metadata,
    objects,
    text,
)
from watchbill.kinds.objects.pod import RESERVATION_ANNOTATION, TERMINAL_POD_PHASES
from watchbill.kinds.objects.settings import RESERVATION_NAMESPACES

DCGM_PORT = 9400
INFERENCE_PORT = 8000
GROUP_LABEL = "runai-gpu-group"
_EXPORTER_LABELS = {
    "app": {"nvidia-dcgm-exporter", "dcgm-exporter"},
    "app.kubernetes.io/name": {"dcgm-exporter", "nvidia-dcgm-exporter"},
    "app.kubernetes.io/component": {"dcgm-exporter"},
}
_INFERENCE_IMAGE = re.compile(r"(^|/)(nim|vllm)(?=[/:@-]|$)")
_DEVICE = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/_-]+")


@dataclass(frozen=True, slots=True)
class ScrapeTarget:
    """A port of a pod, and the paths where metrics may be."""

    uid: str
    namespace: str
    pod: str
    node: str
    address: str
    port: int
    is_in_host_network: bool = False
    paths: tuple[str, ...] = ("/metrics",)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A pod that reserves a device which others share. `groups`: the labels of those others."""

    namespace: str
    pod: str
    groups: frozenset[str]
    device: str


@dataclass(slots=True)
class ScrapeTargets:
    """By UID of their pods. `trusted`: namespaces of exporters; `reserved`: namespaces of reservations."""

    trusted: frozenset[str]
    reserved: frozenset[str] = RESERVATION_NAMESPACES
    exporters: dict[str, ScrapeTarget] = field(default_factory=dict)
    untrusted_exporters: dict[str, ScrapeTarget] = field(default_factory=dict)
    """Exporters in other namespaces; they are reported, not scraped."""
    inference: dict[str, ScrapeTarget] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)

    def put(self, obj: Mapping[str, Any]) -> None:
        """Add or replace a pod, as the API server returns it."""
        uid = text(metadata(obj).get("uid"))
        reservation = self._reservation(obj)
        if reservation is not None:
            self.reservations[uid] = reservation
            return
        self.remove(uid)
        target = _exporter(obj)
        if target is not None:
            by_uid = (
                self.exporters if target.namespace in self.trusted else self.untrusted_exporters
            )
            by_uid[uid] = target
        elif (server := _inference_server(obj)) is not None:
            self.inference[uid] = server

    def _reservation(self, obj: Mapping[str, Any]) -> Reservation | None:
        name, groups = (
            text(annotations(obj).get(RESERVATION_ANNOTATION)),
            groups_of(_texts(labels(obj))),
        )
        namespace = text(metadata(obj).get("namespace"))
        if namespace not in self.reserved or not (name or groups):
            return None
        return Reservation(namespace, text(metadata(obj).get("name")), groups, device_id(name))

    def remove(self, uid: str) -> None:
        for by_uid in (self.exporters, self.untrusted_exporters, self.inference, self.reservations):
            by_uid.pop(uid, None)


class AddressClaims:
    """Which addresses of pods are believed: whoever may write `pods/status` can give a pod another's address.

    A pod that came with another address and then has one that another pod has, too, is not believed: a pod's
    own seldom changes. A node's address is that of the pods in its host's network, and of no others."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}
        self._pods: Mapping[str, str] = {}
        self._claimed: Counter[str] | None = None
        self._nodes: Mapping[str, Set[str]] = {}
        self._of_nodes: frozenset[str] = frozenset()

    def update(self, pods: Mapping[str, str], nodes: Mapping[str, Set[str]]) -> None:
        """The addresses of all pods that live, by UID, and the canonical ones of each node, by name."""
        self._first = {uid: self._first.get(uid, address) for uid, address in pods.items()}
        self._pods, self._claimed = pods, None
        self._nodes, self._of_nodes = nodes, frozenset().union(*nodes.values())

    def objection(self, target: ScrapeTarget, api_server: str = "") -> str | None:
        """Why the target's address is not believed. `api_server`: its host."""
        address, own = canonical_address(target.address), self._nodes.get(target.node, ())
        if target.is_in_host_network:
            is_known = not own or address in own
            return (
                None if is_known else "it gives an address as its own that its node does not have"
            )
        if address == canonical_address(api_server) and not address.startswith("127."):
            return "it gives the API server's address as its own"
        if address in self._of_nodes:
            return "it gives a node's address as its own"
        first = canonical_address(self._first.get(target.uid, target.address))
        if first != address and self._claims(address) > 1:
            return "it came to give another pod's address as its own"
        return None

    def _claims(self, address: str) -> int:
        """How many pods have it; of all pods this is reckoned only where one came to have another address."""
        if self._claimed is None:
            self._claimed = Counter(map(canonical_address, self._pods.values()))
        return self._claimed[address]


_LEADING_TO_IPV4 = frozenset(
    inet_pton(AF_INET6, network)[:12]
    for network in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::")
)


def canonical_address(address: str) -> str:
    """An address in the one spelling that is compared; of one that leads to an IPv4 address, that."""
    if ":" not in address:
        return address  # of IPv4 there is one spelling
    try:
        packed = inet_pton(AF_INET6, address)
    except (OSError, ValueError):
        return address
    if packed[:12] in _LEADING_TO_IPV4:
        return inet_ntop(AF_INET, packed[12:])
    return inet_ntop(AF_INET6, packed)


def device_id(name: str) -> str:
    """The device's id, without a runtime's prefix; "" if there is none."""
    match = _DEVICE.search(name)
    return match[0] if match else ""


def groups_of(pod_labels: Mapping[str, str]) -> frozenset[str]:
    """The shared devices' names in a pod's labels."""
    return frozenset(
        value
        for key, value in pod_labels.items()
        if value and (key == GROUP_LABEL or key.startswith(f"{GROUP_LABEL}/"))
    )


def _exporter(obj: Mapping[str, Any]) -> ScrapeTarget | None:
    pod_labels = labels(obj)
    if not any(text(pod_labels.get(key)) in names for key, names in _EXPORTER_LABELS.items()):
        return None
    ports = dict(_ports(obj))
    return _target(obj, ports.get("metrics") or next(iter(ports.values()), DCGM_PORT))


def _inference_server(obj: Mapping[str, Any]) -> ScrapeTarget | None:
    """A pod that runs NIM or vLLM, by its image or label."""
    images = [text(container.get("image")) for container in objects(at(obj, "spec", "containers"))]
    is_labelled = labels(obj).get("run.ai/nim-workload") == "true"
    if not is_labelled and not any(_INFERENCE_IMAGE.search(image) for image in images):
        return None
    ports = dict(_ports(obj))
    declared = text(annotations(obj).get("prometheus.io/port"))
    path = text(annotations(obj).get("prometheus.io/path"))
    named = next((ports[name] for name in _SERVING_PORTS if name in ports), 0)
    port = int(declared) if _PORT.fullmatch(declared) else 0
    if not 0 < port < 65536:
        port = named or next(iter(ports.values()), INFERENCE_PORT)
    paths = (*([path] if _PATH.fullmatch(path) else []), "/v1/metrics", "/metrics")
    return _target(obj, port, paths=tuple(dict.fromkeys(paths)))


_PORT = re.compile(r"[0-9]{1,5}")
_PATH = re.compile(r"(?=.{1,100}\Z)(?:/(?!\.+(?:/|\Z))[A-Za-z0-9._-]+)+")
"""Segments without dot segments; nothing that would have to be encoded."""
_SERVING_PORTS = ("metrics", "serving-port", "api", "http", "service-port", "http-openai")


def _target(
    obj: Mapping[str, Any], port: int, *, paths: tuple[str, ...] = ("/metrics",)
) -> ScrapeTarget | None:
    """None while the pod cannot be scraped."""
    meta, status = metadata(obj), mapping(at(obj, "status"))
    address = text(status.get("podIP"))
    if not address or text(status.get("phase")) in TERMINAL_POD_PHASES:
        return None
    return ScrapeTarget(
        uid=text(meta.get("uid")),
        namespace=text(meta.get("namespace")),
        pod=text(meta.get("name")),
        node=text(at(obj, "spec", "nodeName")),
        address=address,
        port=port,
        is_in_host_network=at(obj, "spec", "hostNetwork") is True,
        paths=paths,
    )


def _ports(obj: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    for container in objects(at(obj, "spec", "containers")):
        for port in objects(container.get("ports")):
            number = port.get("containerPort")
            if type(number) is int and 0 < number < 65536:
                yield text(port.get("name")), number


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in values.items() if isinstance(value, str)}

"""Which pods serve metrics that count, and which pods hold devices for others. Filled from every pod, no I/O.

Who may speak of devices is decided by namespace: anybody can run a pod that calls itself an exporter and names
other people's pods. An inference server speaks of nobody but itself, so those are asked wherever they run.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
    """A port of a pod, and where on it metrics may be."""

    uid: str
    namespace: str
    pod: str
    node: str
    address: str
    port: int
    paths: tuple[str, ...] = ("/metrics",)


@dataclass(frozen=True, slots=True)
class Reservation:
    """A pod that holds a device which others share. `groups`: what those others are labelled with."""

    namespace: str
    pod: str
    groups: frozenset[str]
    device: str


@dataclass(slots=True)
class ScrapeTargets:
    """By UID of their pods. `trusted`: namespaces whose exporters are believed."""

    trusted: frozenset[str]
    exporters: dict[str, ScrapeTarget] = field(default_factory=dict)
    untrusted_exporters: dict[str, ScrapeTarget] = field(default_factory=dict)
    """Exporters elsewhere; they are shown, not asked."""
    inference: dict[str, ScrapeTarget] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)

    def put(self, obj: Mapping[str, Any]) -> None:
        """A pod as the API server tells it."""
        uid = text(metadata(obj).get("uid"))
        reservation = _reservation(obj)
        if reservation is not None:
            self.reservations[uid] = reservation
            return
        self.remove(uid)
        target = _exporter(obj)
        if target is not None:
            believed = (
                self.exporters if target.namespace in self.trusted else self.untrusted_exporters
            )
            believed[uid] = target
        elif (server := _inference_server(obj)) is not None:
            self.inference[uid] = server

    def remove(self, uid: str) -> None:
        for known in (self.exporters, self.untrusted_exporters, self.inference, self.reservations):
            known.pop(uid, None)


def device_id(name: str) -> str:
    """The device's own id, without what a runtime puts before it; "" where there is none."""
    found = _DEVICE.search(name)
    return found[0] if found else ""


def groups_of(found: Mapping[str, str]) -> frozenset[str]:
    """The shared devices' names that a pod is labelled with."""
    return frozenset(
        value
        for key, value in found.items()
        if value and (key == GROUP_LABEL or key.startswith(f"{GROUP_LABEL}/"))
    )


def _reservation(obj: Mapping[str, Any]) -> Reservation | None:
    name = text(annotations(obj).get(RESERVATION_ANNOTATION))
    groups = groups_of(_texts(labels(obj)))
    if not name and not (groups and text(metadata(obj).get("namespace")) in _RESERVED):
        return None
    meta = metadata(obj)
    return Reservation(text(meta.get("namespace")), text(meta.get("name")), groups, device_id(name))


_RESERVED = frozenset({"kai-resource-reservation", "runai-reservation"})


def _exporter(obj: Mapping[str, Any]) -> ScrapeTarget | None:
    found = labels(obj)
    if not any(found.get(key) in names for key, names in _EXPORTER_LABELS.items()):
        return None
    ports = dict(_ports(obj))
    return _target(obj, ports.get("metrics") or next(iter(ports.values()), DCGM_PORT))


def _inference_server(obj: Mapping[str, Any]) -> ScrapeTarget | None:
    """A pod that runs NIM or vLLM by its image or label, or that asks to be scraped and does so."""
    notes = annotations(obj)
    images = [text(container.get("image")) for container in objects(at(obj, "spec", "containers"))]
    is_labelled = labels(obj).get("run.ai/nim-workload") == "true"
    if not is_labelled and not any(_INFERENCE_IMAGE.search(image) for image in images):
        return None
    ports = dict(_ports(obj))
    told = text(notes.get("prometheus.io/port"))
    port = int(told) if told.isascii() and told.isdigit() else 0
    named = next((ports[name] for name in _SERVING_PORTS if name in ports), 0)
    path = text(notes.get("prometheus.io/path"))
    first = (path,) if re.fullmatch(r"/[A-Za-z0-9._/-]{1,100}", path) else ()
    if not 0 < port < 65536:
        port = named or next(iter(ports.values()), INFERENCE_PORT)
    return _target(obj, port, paths=tuple(dict.fromkeys((*first, "/v1/metrics", "/metrics"))))


_SERVING_PORTS = ("metrics", "serving-port", "api", "http", "service-port", "http-openai")


def _target(
    obj: Mapping[str, Any], port: int, *, paths: tuple[str, ...] = ("/metrics",)
) -> ScrapeTarget | None:
    """None while the pod cannot be asked."""
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
        paths=paths,
    )


def _ports(obj: Mapping[str, Any]) -> Iterable[tuple[str, int]]:
    for container in objects(at(obj, "spec", "containers")):
        for port in objects(container.get("ports")):
            number = port.get("containerPort")
            if isinstance(number, int) and 0 < number < 65536:
                yield text(port.get("name")), number


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return {key: value for key, value in found.items() if isinstance(value, str)}

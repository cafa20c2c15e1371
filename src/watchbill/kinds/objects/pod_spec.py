"""What a pod's spec says, whichever node the pod is on. Pods of one template share it."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from watchbill.kinds.objects.containers import read_node_affinity, read_tolerations, short
from watchbill.kinds.objects.json_access import at, mapping, objects, whole
from watchbill.kinds.objects.resources import NO_RESOURCES, Resources, pod_resources
from watchbill.kinds.objects.template import images_of
from watchbill.workload_pod import NodeAffinity, Toleration

_TEXT_LENGTH = 1024
_MAX_TEXTS = 100
_MAX_GATES = 8
_SHARED_BYTES = 4_096
"""Of a spec that is kept for the next pods of its template."""
_ENCODER = msgspec.json.Encoder()


class PodSpec(NamedTuple):
    scheduler_name: str
    priority: int | None
    priority_class_name: str
    node_selector: tuple[tuple[str, str], ...]
    resources: Resources
    images: tuple[str, ...]
    tolerations: tuple[Toleration, ...]
    node_affinity: NodeAffinity | None
    scheduling_group: str
    gates: tuple[str, ...]


def read_spec(spec: Mapping[str, Any]) -> PodSpec:
    """Specs of one template differ by their nodes: each is read once, not with every change of every pod."""
    common = {name: value for name, value in spec.items() if name != "nodeName"}
    try:
        encoded = _ENCODER.encode(common)
    except (msgspec.MsgspecError, OverflowError, UnicodeError, RecursionError):
        return read_afresh(spec)  # JSON that nobody can write again
    return _shared(encoded) if len(encoded) <= _SHARED_BYTES else read_afresh(spec)


@lru_cache(maxsize=2048)
def _shared(encoded: bytes) -> PodSpec:
    return read_afresh(msgspec.json.decode(encoded))


def read_afresh(spec: Mapping[str, Any]) -> PodSpec:
    return PodSpec(
        scheduler_name=short(spec.get("schedulerName")),
        priority=whole(spec.get("priority")),
        priority_class_name=short(spec.get("priorityClassName")),
        node_selector=_shared_pairs(short_texts(mapping(spec.get("nodeSelector")))),
        resources=pod_resources(spec) if spec else NO_RESOURCES,
        images=_shared_images(images_of(spec)),
        tolerations=read_tolerations(spec),
        node_affinity=read_node_affinity(spec),
        scheduling_group=short(at(spec, "schedulingGroup", "podGroupName")),
        gates=_gates(spec),
    )


def _gates(spec: Mapping[str, Any]) -> tuple[str, ...]:
    gates = islice(objects(spec.get("schedulingGates")), _MAX_GATES)
    return tuple(short(gate.get("name")) for gate in gates)


def short_texts(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Labels, annotations or a selector: the first in order, without texts that are too long."""
    flat = sorted(
        (key, value)
        for key, value in values.items()
        if isinstance(key, str) and isinstance(value, str) and len(key) + len(value) <= _TEXT_LENGTH
    )
    return tuple(flat[:_MAX_TEXTS])


@lru_cache(maxsize=4096)
def _shared_images(images: tuple[str, ...]) -> tuple[str, ...]:
    return images


@lru_cache(maxsize=4096)
def _shared_pairs(flat: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    return flat

"""Resources of a workload: requested (templates times pods yet to end; existing pods), allocated, idle.

Idle GPUs are measured by the agent. Nothing here depends on the clock: a record changes when a device starts or
stops being idle, not while it is.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction
from itertools import chain
from typing import Any, Literal

from watchbill.kinds.definition.facts import RoleFacts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.claim_parts import ClaimParts, requested_by_roles
from watchbill.kinds.derivation.claims import (
    NO_DEVICES,
    UNKNOWN_DEVICES,
    Devices,
    add_others,
    known_sum,
    requested_by_claim,
    together,
    unseen_claims,
    users_of_claims,
)
from watchbill.kinds.derivation.done import wanted_pods
from watchbill.kinds.derivation.placement import pod_node_pool
from watchbill.kinds.objects.gpu_units import gpu_bytes, gpu_model
from watchbill.kinds.objects.json_access import metadata, text
from watchbill.kinds.objects.objects import IdleGpus, PodCounts
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.resources import (
    Gpus,
    Resources,
    allocated_gpu_bytes,
    allocated_gpus,
    requested_gpus,
)
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.protocol import MAX_MILLICORES, MAX_POOL_BYTES, HostResources
from watchbill.quantity import Amount, as_float, format_bytes, format_count, plus
from watchbill.workload import (
    AllocatedResources,
    Cores,
    ExtendedResource,
    Quantity,
    RequestedResources,
    Usage,
    gpu_millionths,
)


def idle_millionths(measured: IdleGpus | None, *, allocated: int | None) -> int | None:
    """The idle part of what is allocated. None = nothing measures it, or it is not known how much that is."""
    if allocated == 0:
        return 0
    if allocated is None or measured is None or measured.millionths is None:
        return None
    return min(measured.millionths, allocated)


def idle_fields(measured: IdleGpus | None, idle: int | None) -> dict[str, Any]:
    """Since when, and the GPU-hours of idle intervals that have ended; readers add those of open intervals."""
    if measured is None or (not idle and not measured.gpu_hours):
        return {}
    fields: dict[str, Any] = {
        "idleGpuHours": round(measured.gpu_hours, 4),
        "idleMeasuredSince": _instant(measured.measured_since),
    }
    if idle and measured.since is not None and measured.mean_since is not None:
        fields["idleSince"] = _instant(measured.since)
        fields["idleMeanSince"] = _instant(measured.mean_since)
    return fields


def _instant(at: datetime) -> str:
    return at.replace(microsecond=0).isoformat().replace("+00:00", "Z")


_MAX_EXTENDED = 32
_MAX_BYTES = 2**63 - 1


@dataclass(slots=True)
class ResourceSum:
    """Amounts added up; None = nobody stated any."""

    cpu_request: Amount | None = None
    cpu_limit: Amount | None = None
    memory_request: Amount | None = None
    memory_limit: Amount | None = None
    gpus: Fraction | None = Fraction(0)
    """None = units of a size that is not known are among them."""
    gpu_memory_bytes: int = 0
    extended: dict[str, Amount | None] = field(default_factory=dict)
    """None = of an unknown number."""

    def add(self, resources: Resources, gpus: Gpus, times: int) -> None:
        for name in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
            amount = getattr(resources, name)
            if amount is not None:
                setattr(self, name, plus(getattr(self, name), amount, times))
        for resource, amount in resources.extended:
            known = self.extended.get(resource, 0)
            self.extended[resource] = None if known is None else plus(known, amount, times)
        if self.gpus is None or gpus.portion is None:
            self.gpus = None
        elif gpus.portion:
            self.gpus += gpus.portion * times
        self.gpu_memory_bytes += (gpus.memory_bytes or 0) * times

    def add_claimed(self, devices: Devices) -> None:
        self.gpus = known_sum((self.gpus, devices.gpus))
        add_others(self.extended, devices.others)

    def raise_to(self, least: "ResourceSum") -> tuple[str, ...]:
        """At least as much of each resource as `least`; returns which were raised, as the API names them."""
        raised = []
        for name, shown in _SUMS.items():
            own, other = getattr(self, name), getattr(least, name)
            if name == "gpus" and own is None:
                continue
            if other is not None and (own is None or other > own):
                setattr(self, name, other)
                raised.append(shown)
        for resource, amount in least.extended.items():
            known = self.extended.get(resource, 0)
            if known is not None and (amount is None or amount > known):
                self.extended[resource] = amount
                raised.append(resource)
        return tuple(dict.fromkeys(raised))


_SUMS = {
    "cpu_request": "cpu",
    "cpu_limit": "cpu",
    "memory_request": "cpuMemory",
    "memory_limit": "cpuMemory",
    "gpus": "gpu",
    "gpu_memory_bytes": "gpuMemory",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceTotals:
    workload: RequestedResources
    pods: RequestedResources
    allocated: AllocatedResources
    usage: Usage
    host: HostResources
    gpu_millionths_by_node_pool: dict[str, int]
    gpu_millionths_by_model: dict[str, int]
    raised_by_pods: tuple[str, ...]
    """Resources of which the pods ask for more than the templates state, as operators and webhooks add them."""


def totals_of(view: WorkloadView) -> ResourceTotals:
    pods, parts = wanted_pods(view), ClaimParts(view)
    claimed = _claimed_by_templates(pods, view, parts)
    requested = ResourceSum(gpus=claimed.gpus, extended=dict(claimed.others))
    for role, wanted in pods:
        if role.template is not None and wanted:
            gpus = requested_gpus(
                role.template.resources, role.template.annotations, view.settings.gpu_resources
            )
            requested.add(role.template.resources, gpus, wanted)
    existing = _with_claims(view.pods.live, view, parts)
    # Pods on their way out are replaced, so they are not asked for beyond what templates state.
    active = _with_claims(view.pods.active, view, parts) if view.facts.has_templates else existing
    raised = requested.raise_to(active)
    placed_pods = [pod for pod in view.pods.live if pod.node]
    allocated = _summed(placed_pods, view.settings)
    held = _allocated_gpus(placed_pods, view, parts)
    add_others(allocated.extended, tuple(held.others.items()))
    millionths = None if held.by_pool is None else sum(held.by_pool.values())
    return ResourceTotals(
        workload=_requested(requested, view.settings),
        pods=_requested(existing, view.settings),
        allocated=_allocated(allocated, millionths, held.memory_bytes, view.settings),
        usage=_usage(view.pods, existing, millionths, held.memory_bytes),
        host=_host(requested, allocated),
        gpu_millionths_by_node_pool=held.by_pool or {},
        gpu_millionths_by_model=held.by_model,
        raised_by_pods=tuple(name for name in raised if name not in view.settings.gpu_resources)
        if view.facts.has_templates
        else (),
    )


def _claimed_by_templates(
    pods: Sequence[tuple[RoleFacts, int]], view: WorkloadView, parts: ClaimParts
) -> Devices:
    """What they leave open, as alternatives do, their pods tell when all of them are there."""
    claimed = requested_by_roles(pods, view, parts)
    if claimed.gpus is not None and all(number is not None for _, number in claimed.others):
        return claimed
    wanted = sum(
        number
        for role, number in pods
        if role.template is not None and (role.template.claims or role.template.claim_templates)
    )
    present = [pod for pod in view.pods.active if pod.claims]
    if len(present) < wanted:
        return claimed
    return parts.requested(present)


def _with_claims(pods: Sequence[Pod], view: WorkloadView, parts: ClaimParts) -> ResourceSum:
    total = _summed(pods, view.settings)
    total.add_claimed(parts.requested(pods))
    return total


def _summed(pods: Iterable[Pod], settings: DeriveSettings) -> ResourceSum:
    """Pods of one template share their resources and annotations, so each pair is added up once."""
    groups: dict[tuple[int, int], tuple[Pod, int]] = {}
    for pod in pods:
        key = (id(pod.resources), id(pod.annotations))
        first, times = groups.get(key, (pod, 0))
        groups[key] = (first, times + 1)
    total = ResourceSum()
    for pod, times in groups.values():
        gpus = requested_gpus(pod.resources, pod.annotations, settings.gpu_resources)
        total.add(pod.resources, gpus, times)
    return total


@dataclass(frozen=True, slots=True)
class _Allocated:
    """GPUs in millionths, None where any are not known; `memory_bytes` of those that tell it."""

    by_pool: dict[str, int] | None
    by_model: dict[str, int]
    memory_bytes: int | None
    others: Mapping[str, Amount | None]
    """Accelerators held through claims that are no NVIDIA GPUs, by resource."""


def _allocated_gpus(pods: Sequence[Pod], view: WorkloadView, parts: ClaimParts) -> _Allocated:
    by_pool: dict[str, Fraction] = {}
    by_model: dict[str, Fraction] = {}
    memory_bytes: Amount | None = None
    others: dict[str, Amount | None] = {}
    is_known = True
    for pod, devices, size in _allocations(pods, view, parts):
        add_others(others, devices.others)
        allocated = devices.gpus
        if size is not None:
            memory_bytes = (memory_bytes or 0) + size
        if allocated is None:
            is_known = False
            continue
        pool = pod_node_pool(pod.node, view.cluster, view.settings)
        by_pool[pool] = by_pool.get(pool, Fraction(0)) + allocated
        model = gpu_model(view.cluster.node_labels.get(pod.node, {}))
        by_model[model] = by_model.get(model, Fraction(0)) + allocated
    size = _bytes(memory_bytes)
    if not is_known:
        return _Allocated(None, {}, size, others)
    return _Allocated(_millionths(by_pool), _millionths(by_model), size, others)


def _millionths(gpus: Mapping[str, Fraction]) -> dict[str, int]:
    return {name: gpu_millionths(float(held)) for name, held in sorted(gpus.items()) if held}


def _allocations(
    pods: Sequence[Pod], view: WorkloadView, parts: ClaimParts
) -> Iterator[tuple[Pod, Devices, Amount | None]]:
    """Who holds which devices and how much GPU memory: through resources, then through claims."""
    nodes = view.cluster.node_labels
    for pod in pods:
        held = (
            pod.resources,
            pod.annotations,
            nodes.get(pod.node, {}),
            view.settings.gpu_resources,
        )
        allocated = allocated_gpus(*held)
        if allocated != 0:
            yield pod, Devices(allocated), allocated_gpu_bytes(*held)
    for _, pod in unseen_claims(view.objects.claims, pods):
        yield pod, UNKNOWN_DEVICES, None
    for pod, devices in parts.allocated(pods):
        if devices != NO_DEVICES:
            size = gpu_bytes(nodes.get(pod.node, {}))
            yield pod, devices, devices.gpus * size if devices.gpus and size else None


def _requested(total: ResourceSum, settings: DeriveSettings) -> RequestedResources:
    gpus = None if total.gpus is None else _gpu_number(total.gpus)
    by_memory: Literal["memory"] | None = "memory" if total.gpu_memory_bytes else None
    return RequestedResources(
        gpu_request_type="portion" if gpus else by_memory,
        gpu=Cores(limit=gpus, request=gpus) if gpus else None,
        gpu_memory=_quantity(total.gpu_memory_bytes or None, None),
        cpu=_cores(total.cpu_request, total.cpu_limit),
        cpu_memory=_quantity(total.memory_request, total.memory_limit),
        extended_resources=_extended(total.extended, settings),
    )


def _allocated(
    allocated: ResourceSum, millionths: int | None, gpu_bytes: int | None, settings: DeriveSettings
) -> AllocatedResources:
    return AllocatedResources(
        gpu=None if millionths is None else millionths / 1_000_000,
        gpu_memory=format_bytes(gpu_bytes) if gpu_bytes else None,
        cpu=as_float(allocated.cpu_request),
        cpu_memory=None
        if allocated.memory_request is None
        else format_bytes(allocated.memory_request),
        extended_resources=_extended(allocated.extended, settings),
    )


def _usage(
    pods: PodCounts, existing: ResourceSum, millionths: int | None, gpu_bytes: int | None
) -> Usage:
    return Usage(
        pod_count=len(pods.all),
        running_pod_count=pods.running,
        gpu_millionths=millionths,
        gpu_memory_request_bytes=max(gpu_bytes or 0, existing.gpu_memory_bytes),
        cpu_request_cores=as_float(existing.cpu_request),
        cpu_limit_cores=as_float(existing.cpu_limit),
        cpu_memory_request_bytes=_bytes(existing.memory_request),
        cpu_memory_limit_bytes=_bytes(existing.memory_limit),
    )


def _host(requested: ResourceSum, allocated: ResourceSum) -> HostResources:
    """What nobody asked for is held by nobody."""
    return HostResources(
        requested_cpu_millicores=_millicores(requested.cpu_request),
        requested_memory_bytes=min(_bytes(requested.memory_request) or 0, MAX_POOL_BYTES),
        allocated_cpu_millicores=_millicores(allocated.cpu_request),
        allocated_memory_bytes=min(_bytes(allocated.memory_request) or 0, MAX_POOL_BYTES),
    )


def _millicores(cores: Amount | None) -> int:
    return max(0, min(math.ceil((cores or 0) * 1000), MAX_MILLICORES))


class PodResources:
    """What each pod of a workload asks for and holds. Pods of one template share what they ask for."""

    def __init__(self, view: WorkloadView) -> None:
        self._view = view
        placed = [pod for pod in view.pods.live if pod.node]
        self._held: dict[str, tuple[Devices, Amount | None]] = {}
        for pod, devices, size in _allocations(placed, view, ClaimParts(view)):
            known, known_size = self._held.get(pod.uid, (NO_DEVICES, None))
            both = None if size is None and known_size is None else (size or 0) + (known_size or 0)
            self._held[pod.uid] = (together((known, devices)), both)
        self._claimed: dict[str, list[Devices]] = {}
        """What claims ask for, by the name that pods use: each is read once, however many pods share it."""
        for claim, users in users_of_claims(view.objects.claims, view.pods.all):
            asked = requested_by_claim(claim, view.settings, view.cluster, users[0].node)
            self._claimed.setdefault(text(metadata(claim).get("name")), []).append(asked)
        for name, _ in unseen_claims(view.objects.claims, view.pods.all):
            self._claimed[name] = [UNKNOWN_DEVICES]
        self._requested: dict[tuple[int, int], RequestedResources] = {}
        self._allocated: dict[tuple[int, int, Devices, int | None], AllocatedResources] = {}

    def requested(self, pod: Pod) -> RequestedResources:
        if pod.claims:
            total = _summed([pod], self._view.settings)
            claimed = (self._claimed.get(name, ()) for name in dict.fromkeys(pod.claims))
            total.add_claimed(together(chain.from_iterable(claimed)))
            return _requested(total, self._view.settings)
        key = (id(pod.resources), id(pod.annotations))
        if key not in self._requested:
            total = _summed([pod], self._view.settings)
            self._requested[key] = _requested(total, self._view.settings)
        return self._requested[key]

    def allocated(self, pod: Pod) -> AllocatedResources | None:
        """None for a pod without a node, and for one that has ended."""
        if not pod.node or pod.is_terminal:
            return None
        held, memory = self._held.get(pod.uid, (NO_DEVICES, None))
        size = _bytes(memory)
        millionths = None if held.gpus is None else gpu_millionths(float(held.gpus))
        key = (id(pod.resources), id(pod.annotations), held, size)
        if key not in self._allocated:
            total = _summed([pod], self._view.settings)
            add_others(total.extended, held.others)
            self._allocated[key] = _allocated(total, millionths, size, self._view.settings)
        return self._allocated[key]


def _gpu_number(gpus: Fraction) -> float:
    return gpu_millionths(float(gpus)) / 1_000_000


def _cores(request: Amount | None, limit: Amount | None) -> Cores | None:
    if request is None and limit is None:
        return None
    return Cores(request=as_float(request), limit=as_float(limit))


def _quantity(request: Amount | None, limit: Amount | None) -> Quantity | None:
    if request is None and limit is None:
        return None
    return Quantity(
        request=None if request is None else format_bytes(request),
        limit=None if limit is None else format_bytes(limit),
    )


def _bytes(amount: Amount | None) -> int | None:
    return None if amount is None else min(int(amount), _MAX_BYTES)


def _extended(
    amounts: Mapping[str, Amount | None], settings: DeriveSettings
) -> tuple[ExtendedResource, ...]:
    named = [each for each in sorted(amounts.items()) if each[0] not in settings.gpu_resources]
    return tuple(
        ExtendedResource(
            resource=name[:317], quantity=None if amount is None else format_count(amount)
        )
        for name, amount in named[:_MAX_EXTENDED]
    )

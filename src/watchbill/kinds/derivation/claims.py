"""GPUs requested and allocated through ResourceClaims: devices of GPU classes, each claim counted once.

A MIG slice counts as its share, where the claim or the device's name tells the profile; a part of a device's
memory as that part, where the node tells how much a GPU has. None where the number cannot be known.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from watchbill.kinds.definition.facts import RoleFacts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.device_slices import PROFILE_IN_NAME, PoolKey
from watchbill.kinds.objects.gpu_units import gpu_bytes, gpu_model, mig_share
from watchbill.kinds.objects.json_access import at, metadata, objects, text, whole
from watchbill.kinds.objects.objects import ClusterObjects, Object
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.quantity import parse_quantity

_MAX_DEVICES = 1_024
_NOTHING_GIVEN: Mapping[str, int] = {}
_NO_LABELS: Mapping[str, Any] = {}
Profiles = Mapping[PoolKey, Mapping[str, str]]
"""As ResourceSlices tell them, of the devices whose names do not."""
_NO_PROFILES: Profiles = {}
_NO_CLUSTER = ClusterObjects()
# In a selector, as device.attributes['gpu.nvidia.com'].profile == '1g.10gb'.
_SELECTED = re.compile(r"profile\W{1,20}([1-9]g\.[0-9]{1,4}gb)", re.IGNORECASE)
_MIG_CLASS = re.compile(r"(?<![a-z])mig(?![a-z])", re.IGNORECASE)
_NVIDIA = "gpu.nvidia.com"
_WHOLE = re.compile(r"gpu-(?:vfio-)?[0-9]{1,4}", re.ASCII)
"""Names of NVIDIA's driver for GPUs that are not cut."""


def used_claims(claims: Iterable[Object], pods: Iterable[Pod]) -> Iterator[tuple[Object, Pod]]:
    """Each claim that one of the pods uses, once, with the first pod that does."""
    users: dict[str, Pod] = {}
    for pod in pods:
        for name in pod.claims:
            users.setdefault(name, pod)
    seen: set[str] = set()
    for claim in sorted(claims, key=_key):
        uid, user = _key(claim)[1], users.get(_key(claim)[0])
        if user is not None and uid not in seen:
            seen.add(uid)
            yield claim, user


def _key(claim: Object) -> tuple[str, str]:
    meta = metadata(claim)
    return text(meta.get("name")), text(meta.get("uid"))


def known_sum(parts: Iterable[Fraction | None]) -> Fraction | None:
    """None where any part is not known."""
    total = Fraction(0)
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def claimed_gpus(
    claims: Iterable[Object],
    pods: Iterable[Pod],
    settings: DeriveSettings,
    cluster: ClusterObjects = _NO_CLUSTER,
) -> Fraction | None:
    """GPUs that the pods request through claims, each claim once."""
    return known_sum(
        requested_by_claim(claim, settings, cluster, pod.node)
        for claim, pod in used_claims(claims, pods)
    )


def requested_by_claim(
    claim: Object, settings: DeriveSettings, cluster: ClusterObjects = _NO_CLUSTER, node: str = ""
) -> Fraction | None:
    """GPUs that a claim requests; among alternatives the allocated one.

    A class may have any name, and take its profile from anywhere, and a part of a device's memory is a part of
    what that device has: what was given then tells what was asked for. `node`: where its pods are.
    """
    given = Counter(text(result.get("request")) for result in _results(claim))
    requested = requested_devices(at(claim, "spec", "devices"), settings, given)
    if requested or not given:
        return requested
    labels = cluster.node_labels.get(node, _NO_LABELS)
    return allocated_devices(claim, settings, labels, cluster.device_profiles) or requested


def requested_devices(
    devices: Any, settings: DeriveSettings, given: Mapping[str, int] = _NOTHING_GIVEN
) -> Fraction | None:
    """GPUs that `spec.devices` of a claim requests; among alternatives the one in `given`, else the first.

    `given`: how many devices were allocated, by request. A part of a device's capacity is no number of GPUs.
    """
    total = known_sum(
        _requested(alternatives, settings, given)
        for request in objects(at(devices, "requests"))
        if (alternatives := _alternatives(request))
    )
    return None if total is None else min(total, Fraction(_MAX_DEVICES))


def _requested(
    alternatives: list[tuple[str, Mapping[str, Any]]],
    settings: DeriveSettings,
    given: Mapping[str, int],
) -> Fraction | None:
    name, chosen = next(
        (alternative for alternative in alternatives if alternative[0] in given), alternatives[0]
    )
    share, count = _share(chosen, settings), _count(chosen, given.get(name, 0))
    if share == 0 or count == 0:
        return Fraction(0)
    is_part = bool(at(chosen, "capacity", "requests"))
    return None if share is None or count is None or is_part else share * count


def _results(claim: Object) -> Iterator[Mapping[str, Any]]:
    return objects(at(claim, "status", "allocation", "devices", "results"))


def allocated_devices(
    claim: Object,
    settings: DeriveSettings,
    node_labels: Mapping[str, Any] = _NO_LABELS,
    profiles: Profiles = _NO_PROFILES,
) -> Fraction | None:
    """GPUs allocated to the claim; administrative access adds nothing."""
    requests: dict[str, Mapping[str, Any]] = {}
    for request in objects(at(claim, "spec", "devices", "requests")):
        requests |= dict(_alternatives(request))
    total = known_sum(
        _allocated(
            _device_share(result, requests, settings, gpu_model(node_labels), profiles),
            result,
            node_labels,
        )
        for result in _results(claim)
        if result.get("adminAccess") is not True
    )
    return None if total is None else min(total, Fraction(_MAX_DEVICES))


def _allocated(
    share: Fraction | None, result: Mapping[str, Any], node_labels: Mapping[str, Any]
) -> Fraction | None:
    """One device, or by its consumed memory the part of one that several claims share."""
    consumed = result.get("consumedCapacity")
    if not share or not (result.get("shareID") or consumed):
        return share
    size, amount = gpu_bytes(node_labels), parse_quantity(at(consumed, "memory"))
    if size is None or amount is None or not 0 <= amount <= size:
        return None
    return Fraction(amount) / size


def _device_share(
    result: Mapping[str, Any],
    requests: Mapping[str, Mapping[str, Any]],
    settings: DeriveSettings,
    product: str,
    profiles: Profiles,
) -> Fraction | None:
    """The share of a GPU that a device is, by its own name or slice, else by what it was given for."""
    request = requests.get(text(result.get("request")), {})
    device, driver = text(result.get("device")), text(result.get("driver"))
    share = _share(request, settings, product)
    is_nvidia = driver == _NVIDIA and bool(request) and not settings.gpu_device_classes
    if share == 0 and not is_nvidia:
        return share
    named = PROFILE_IN_NAME.search(device)
    sliced = profiles.get((driver, text(result.get("pool"))), {}).get(device)
    profile = f"{named[1]}.{named[2]}" if named else sliced
    if profile:
        return mig_share(profile, product) or share or None
    return Fraction(1) if share == 0 and _WHOLE.fullmatch(device) else share


def requested_by_roles(
    pods: Iterable[tuple[RoleFacts, int]], view: WorkloadView
) -> Fraction | None:
    """GPUs that the templates request: claims made for each pod that is wanted, shared ones once."""
    namespace = text(metadata(view.root).get("namespace"))
    shared: set[str] = set()
    parts: list[Fraction | None] = []
    for role, wanted in pods:
        if role.template is None or not wanted:
            continue
        shared |= set(role.template.claims)
        for name in role.template.claim_templates:
            template = view.cluster.claim_templates.get((namespace, name))
            devices = at(template, "spec", "spec", "devices")
            gpus = requested_devices(devices, view.settings)
            parts.append(None if gpus is None else gpus * wanted)
    nodes = {name: pod.node for pod in view.pods.live if pod.node for name in pod.claims}
    for claim in view.objects.claims:
        if text(metadata(claim).get("name")) in shared:
            parts.append(
                requested_by_claim(
                    claim, view.settings, view.cluster, nodes.get(_key(claim)[0], "")
                )
            )
    return known_sum(parts)


def _share(
    request: Mapping[str, Any], settings: DeriveSettings, product: str = ""
) -> Fraction | None:
    """The share of a GPU that each of its devices is, 0 if it is no GPU; None = not known."""
    for selector in objects(request.get("selectors")):
        profile = _SELECTED.search(text(at(selector, "cel", "expression")))
        if profile:
            return mig_share(profile[1].lower(), product)
    if _is_gpu(request, settings):
        return Fraction(1)
    name = text(request.get("deviceClassName"))
    if not _MIG_CLASS.search(name):
        return Fraction(0)
    match = PROFILE_IN_NAME.search(name)
    return mig_share(f"{match[1]}.{match[2]}", product) if match else None


def _alternatives(request: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The request's alternatives by the name that results use: the request itself, or those inside it."""
    name = text(request.get("name"))
    several = list(objects(request.get("firstAvailable")))
    if several:
        return [(f"{name}/{text(alternative.get('name'))}", alternative) for alternative in several]
    exactly = request.get("exactly")
    # Before v1beta2 the members stand in the request itself.
    return [(name, exactly if isinstance(exactly, Mapping) else request)]


def _is_gpu(request: Mapping[str, Any], settings: DeriveSettings) -> bool:
    name = text(request.get("deviceClassName"))
    if settings.gpu_device_classes:
        return name in settings.gpu_device_classes
    return "gpu" in name.lower()


def _count(request: Mapping[str, Any], given: int) -> int | None:
    """How many devices; `All` is what was allocated, and not known until something was."""
    if request.get("adminAccess") is True:
        return 0
    if request.get("allocationMode") == "All":
        return given or None
    number = whole(request.get("count"))
    return 1 if number is None else max(0, number)

"""GPUs requested and allocated through ResourceClaims: devices of GPU classes, each claim counted once.

A MIG slice counts as its share, where the claim or the device's name tells the profile.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from watchbill.kinds.definition.facts import RoleFacts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import at, metadata, objects, text, whole
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.resources import mig_share
from watchbill.kinds.objects.settings import DeriveSettings

_MAX_DEVICES = 1_024
_NOTHING_GIVEN: Mapping[str, int] = {}
# In a selector, as device.attributes['gpu.nvidia.com'].profile == '1g.10gb'; in a class's name; in a device's,
# which may hold no dot, as gpu-0-mig-1g10gb-19-2.
_SELECTED = re.compile(r"profile\W{1,20}([1-9]g\.[0-9]{1,4}gb)", re.IGNORECASE)
_NAMED = re.compile(r"mig-([1-9]g)\.?([0-9]{1,4}gb)", re.ASCII)


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


def claimed_gpus(
    claims: Iterable[Object], pods: Iterable[Pod], settings: DeriveSettings
) -> Fraction:
    """GPUs that the pods request through claims, each claim once."""
    return sum(
        (requested_by_claim(claim, settings) for claim, _ in used_claims(claims, pods)), Fraction(0)
    )


def requested_by_claim(claim: Object, settings: DeriveSettings) -> Fraction:
    """GPUs that a claim requests; among alternatives the allocated one."""
    given = Counter(text(result.get("request")) for result in _results(claim))
    return requested_devices(at(claim, "spec", "devices"), settings, given)


def requested_devices(
    devices: Any, settings: DeriveSettings, given: Mapping[str, int] = _NOTHING_GIVEN
) -> Fraction:
    """GPUs that `spec.devices` of a claim requests; among alternatives the one in `given`, else the first.

    `given`: how many devices were allocated, by request. A part of a device's capacity is no number of GPUs.
    """
    total = Fraction(0)
    for request in objects(at(devices, "requests")):
        alternatives = _alternatives(request)
        if alternatives:
            name, chosen = next(
                (alternative for alternative in alternatives if alternative[0] in given),
                alternatives[0],
            )
            if not at(chosen, "capacity", "requests"):
                total += _share(chosen, settings) * _count(chosen, given.get(name, 0))
    return min(total, Fraction(_MAX_DEVICES))


def _results(claim: Object) -> Iterator[Mapping[str, Any]]:
    return objects(at(claim, "status", "allocation", "devices", "results"))


def allocated_devices(claim: Object, settings: DeriveSettings) -> Fraction:
    """GPUs allocated to the claim; administrative access and shares of unknown size add nothing."""
    requests: dict[str, Mapping[str, Any]] = {}
    for request in objects(at(claim, "spec", "devices", "requests")):
        requests |= dict(_alternatives(request))
    total = Fraction(0)
    for result in _results(claim):
        if result.get("adminAccess") is not True and not result.get("shareID"):
            request = requests.get(text(result.get("request")), {})
            total += _named_share(text(result.get("device")), request) or _share(request, settings)
    return min(total, Fraction(_MAX_DEVICES))


def requested_by_roles(roles: Iterable[RoleFacts], view: WorkloadView) -> Fraction:
    """GPUs that the templates request: claims made for each pod times replicas, shared ones once."""
    namespace = text(metadata(view.root).get("namespace"))
    shared: set[str] = set()
    total = Fraction(0)
    for role in roles:
        if role.template is None or not role.replicas:
            continue
        shared |= set(role.template.claims)
        for name in role.template.claim_templates:
            template = view.cluster.claim_templates.get((namespace, name))
            devices = at(template, "spec", "spec", "devices")
            total += requested_devices(devices, view.settings) * role.replicas
    for claim in view.objects.claims:
        if text(metadata(claim).get("name")) in shared:
            total += requested_by_claim(claim, view.settings)
    return total


def _share(request: Mapping[str, Any], settings: DeriveSettings) -> Fraction:
    """The share of a GPU that each of its devices is: 1, a slice's share, or 0 if it is no GPU or unknown."""
    for selector in objects(request.get("selectors")):
        profile = _SELECTED.search(text(at(selector, "cel", "expression")))
        if profile:
            return mig_share(profile[1].lower())
    if _is_gpu(request, settings):
        return Fraction(1)
    return _named_share(text(request.get("deviceClassName")), request)


def _named_share(name: str, request: Mapping[str, Any]) -> Fraction:
    """The slice that a device or a class of them is by its name; 0 where its class is not one of slices."""
    if "mig" not in text(request.get("deviceClassName")).lower():
        return Fraction(0)
    match = _NAMED.search(name)
    return mig_share(f"{match[1]}.{match[2]}") if match else Fraction(0)


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


def _count(request: Mapping[str, Any], given: int) -> int:
    """How many devices; `All` is what was allocated, and 1 until something was."""
    if request.get("adminAccess") is True:
        return 0
    if request.get("allocationMode") == "All":
        return max(1, given)
    number = whole(request.get("count"))
    return 1 if number is None else max(0, number)

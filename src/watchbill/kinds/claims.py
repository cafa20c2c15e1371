"""GPUs that pods ask for and hold through ResourceClaims: devices of GPU classes, each claim counted once."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from watchbill.kinds.facts import RoleFacts
from watchbill.kinds.lookup import at, metadata, objects, text, whole
from watchbill.kinds.objects import Object, WorkloadObjects
from watchbill.kinds.pod import Pod
from watchbill.kinds.settings import DeriveSettings

_MAX_DEVICES = 1_024


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


def asked_devices(devices: Any, settings: DeriveSettings) -> int:
    """GPUs that `spec.devices` of a claim asks for; of several that would do, the first is meant."""
    total = 0
    for request in objects(at(devices, "requests")):
        wanted = _alternatives(request)
        if wanted and _is_gpu(wanted[0][1], settings):
            total += _count(wanted[0][1])
    return min(total, _MAX_DEVICES)


def held_devices(claim: Object, settings: DeriveSettings) -> int:
    """GPUs that were allocated to the claim; administrators' looks at devices hold nothing."""
    requests: dict[str, Mapping[str, Any]] = {}
    for request in objects(at(claim, "spec", "devices", "requests")):
        requests |= dict(_alternatives(request))
    results = objects(at(claim, "status", "allocation", "devices", "results"))
    held = [
        result
        for result in results
        if result.get("adminAccess") is not True
        and _is_gpu(requests.get(text(result.get("request")), {}), settings)
    ]
    return min(len(held), _MAX_DEVICES)


def asked_by_roles(
    roles: Iterable[RoleFacts], found: WorkloadObjects, settings: DeriveSettings
) -> int:
    """GPUs that the templates ask for: of claims made for each pod times replicas, of shared ones once."""
    namespace = text(metadata(found.root).get("namespace"))
    shared: set[str] = set()
    total = 0
    for role in roles:
        if role.template is None or not role.replicas:
            continue
        shared |= set(role.template.claims)
        for name in role.template.claim_templates:
            template = found.cluster.claim_templates.get((namespace, name))
            devices = at(template, "spec", "spec", "devices")
            total += asked_devices(devices, settings) * role.replicas
    for claim in found.claims:
        if text(metadata(claim).get("name")) in shared:
            total += asked_devices(at(claim, "spec", "devices"), settings)
    return total


def _alternatives(request: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """What would do for a request, by the name that results use: itself, or one of several inside it."""
    name = text(request.get("name"))
    several = list(objects(request.get("firstAvailable")))
    if several:
        return [(f"{name}/{text(one.get('name'))}", one) for one in several]
    exactly = request.get("exactly")
    # Before v1beta2 the members stand in the request itself.
    return [(name, exactly if isinstance(exactly, Mapping) else request)]


def _is_gpu(request: Mapping[str, Any], settings: DeriveSettings) -> bool:
    name = text(request.get("deviceClassName"))
    if settings.gpu_device_classes:
        return name in settings.gpu_device_classes
    return "gpu" in name.lower()


def _count(request: Mapping[str, Any]) -> int:
    """How many devices; of `All` only the allocation can tell, one is the least."""
    if request.get("adminAccess") is True:
        return 0
    if request.get("allocationMode") == "All":
        return 1
    number = whole(request.get("count"))
    return 1 if number is None else max(0, number)

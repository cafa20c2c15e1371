"""Devices requested and allocated through ResourceClaims, each claim once: GPUs, and other accelerators.

A MIG slice counts as its share, where the claim or the device's name tells the profile; a part of a device's
memory as that part, where the node tells how much a GPU has. None where the number cannot be known, as of
alternatives that are different numbers of GPUs, until one of them is allocated.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.gpu_units import (
    DEVICE_CLASS,
    DRIVERS_OF_OTHERS,
    NVIDIA_DRIVER,
    PROFILE_IN_NAME,
    device_class_type,
    gpu_bytes,
    gpu_model,
    mig_share,
    resource_like,
)
from watchbill.kinds.objects.json_access import at, metadata, objects, text, whole
from watchbill.kinds.objects.objects import ClusterObjects, Object
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.quantity import Amount, exact, parse_quantity

_MAX_DEVICES = 1_024
_MAX_NAMES = 64
"""Of classes in one claim; Kubernetes takes 32 requests."""
_NOTHING_GIVEN: Mapping[str, int] = {}
_NO_LABELS: Mapping[str, Any] = {}
_MAX_CLASSES = 200
_MAX_EXPRESSIONS = 32
# In a selector, as device.attributes['gpu.nvidia.com'].profile == '1g.10gb'.
_PROFILE = re.compile(r"profile\W{1,20}([1-9]g\.[0-9]{1,4}gb)", re.IGNORECASE)
_DRIVER = re.compile(r"device\.driver\s{0,9}==\s{0,9}['\"]([a-z0-9.-]{1,63})['\"]", re.ASCII)
_ATTRIBUTE = re.compile(r"device\.attributes\[['\"]([a-z0-9.-]{1,63})['\"]\]", re.ASCII)
_CUT = re.compile(r"\.type\s{0,9}==\s{0,9}['\"]mig['\"]", re.ASCII)
_MIG_CLASS = re.compile(r"(?<![a-z])mig(?![a-z])", re.IGNORECASE)
_NO_CLUSTER = ClusterObjects()
_WHOLE = re.compile(r"gpu-(?:vfio-)?[0-9]{1,4}", re.ASCII)
"""Names of NVIDIA's driver for GPUs that are not cut."""


class DeviceClasses(NamedTuple):
    by_name: Mapping[str, Object]
    are_read: bool
    """Whether there are no others."""


_NO_CLASSES = DeviceClasses({}, are_read=True)


Others = tuple[tuple[str, Amount | None], ...]


class Devices(NamedTuple):
    """`gpus` None = not known. `others`: accelerators that are no NVIDIA GPUs, by the name that Kubernetes has
    for a class's devices as a resource; None = of an unknown number."""

    gpus: Fraction | None = Fraction(0)
    others: Others = ()


NO_DEVICES, UNKNOWN_DEVICES = Devices(), Devices(None)


class DeviceKind(NamedTuple):
    """`share`: of a GPU that each device is, 0 if it is none, None where that is not known.

    `is_other`: an accelerator that is no NVIDIA GPU.
    """

    share: Fraction | None = Fraction(0)
    is_other: bool = False
    is_cut: bool = False


_NO_GPU, _GPU, _OTHER = DeviceKind(), DeviceKind(Fraction(1)), DeviceKind(is_other=True)
_SLICE = DeviceKind(None, is_cut=True)
_UNDECIDED = DeviceKind(None)
_UNREAD = DeviceKind(None)
"""Of a class whose name tells nothing, and that cannot be read."""


def device_classes(cluster: ClusterObjects) -> DeviceClasses:
    return DeviceClasses(cluster.device_classes, cluster.are_device_classes_read)


def known_sum(parts: Iterable[Fraction | None]) -> Fraction | None:
    """None where any part is not known."""
    total = Fraction(0)
    for part in parts:
        if part is None:
            return None
        if part:
            total += part
    return total


def together(parts: Iterable[Devices]) -> Devices:
    """The sum, of each claim `_MAX_DEVICES` at most."""
    present = list(parts)
    others: dict[str, Amount | None] = {}
    for each in present:
        add_others(others, each.others)
    return Devices(known_sum(each.gpus for each in present), tuple(sorted(others.items())))


def add_others(total: dict[str, Amount | None], others: Others) -> None:
    for name, number in others:
        known = total.get(name, 0)
        total[name] = None if known is None or number is None else known + number


def requested_by_claim(
    claim: Object, settings: DeriveSettings, cluster: ClusterObjects = _NO_CLUSTER, node: str = ""
) -> Devices:
    """What a claim requests, and once it was given something what that is.

    A class may have any name, and take its profile from anywhere, alternatives may differ, and a part of a
    device's memory is a part of what that device has: what was given then tells what was asked for.
    `node`: where its pods are.
    """
    given = Counter(text(result.get("request")) for result in _results(claim))
    devices = at(claim, "spec", "devices")
    requested = requested_devices(devices, settings, device_classes(cluster), given)
    if not given:
        return requested
    allocated = allocated_devices(claim, settings, cluster, cluster.node_labels.get(node))
    if allocated.gpus is not None or any(_is_part(result) for result in _results(claim)):
        return allocated
    return requested


def requested_devices(
    devices: Any,
    settings: DeriveSettings,
    classes: DeviceClasses = _NO_CLASSES,
    given: Mapping[str, int] = _NOTHING_GIVEN,
) -> Devices:
    """What `spec.devices` of a claim requests.

    `given`: how many devices were allocated, by request. A part of a device's capacity is no number of GPUs.
    """
    return _bounded(
        together(
            _requested(alternatives, settings, classes, given)
            for request in objects(at(devices, "requests"))
            if (alternatives := _alternatives(request))
        )
    )


def _bounded(devices: Devices) -> Devices:
    gpus = None if devices.gpus is None else min(devices.gpus, Fraction(_MAX_DEVICES))
    return Devices(
        gpus,
        tuple(
            (name, None if number is None else min(number, _MAX_DEVICES))
            for name, number in devices.others[:_MAX_NAMES]
        ),
    )


def _requested(
    alternatives: list[tuple[str, Mapping[str, Any]]],
    settings: DeriveSettings,
    classes: DeviceClasses,
    given: Mapping[str, int],
) -> Devices:
    """Of several alternatives the one that was given; before that, what is the same of all of them."""
    chosen = [each for each in alternatives if each[0] in given] or alternatives
    amounts = {
        _amount(request, device_kind(request, settings, classes), given.get(name, 0))
        for name, request in chosen
    }
    if len(amounts) == 1:
        return amounts.pop()
    gpus, others = {each.gpus for each in amounts}, {each.others for each in amounts}
    undecided = tuple(sorted({(name, None) for each in others for name, _ in each}))
    return Devices(
        gpus.pop() if len(gpus) == 1 else None, others.pop() if len(others) == 1 else undecided
    )


def _amount(request: Mapping[str, Any], kind: DeviceKind, given: int) -> Devices:
    count = _count(request, given)
    if count == 0:
        return NO_DEVICES
    if kind.is_other:
        is_part = bool(at(request, "capacity", "requests"))
        return Devices(others=((_class_resource(request), None if is_part else count),))
    if kind.share == 0:
        return NO_DEVICES
    is_part = bool(at(request, "capacity", "requests"))
    return Devices(None if kind.share is None or count is None or is_part else kind.share * count)


def _class_resource(request: Mapping[str, Any]) -> str:
    return f"{DEVICE_CLASS}{text(request.get('deviceClassName'))[:253]}"


def _results(claim: Object) -> Iterator[Mapping[str, Any]]:
    return objects(at(claim, "status", "allocation", "devices", "results"))


def _is_part(result: Mapping[str, Any]) -> bool:
    """Of a device that several claims share."""
    return bool(result.get("shareID") or result.get("consumedCapacity"))


def allocated_devices(
    claim: Object,
    settings: DeriveSettings,
    cluster: ClusterObjects = _NO_CLUSTER,
    node_labels: Mapping[str, Any] | None = None,
) -> Devices:
    """What is allocated to the claim; administrative access adds nothing."""
    labels = node_labels or _NO_LABELS
    requests: dict[str, Mapping[str, Any]] = {}
    for request in objects(at(claim, "spec", "devices", "requests")):
        requests |= dict(_alternatives(request))
    others: dict[str, Amount | None] = {}
    shares: list[Fraction | None] = []
    for result in _results(claim):
        request = requests.get(text(result.get("request")), {})
        if result.get("adminAccess") is True:
            continue
        kind = _given_kind(result, request, settings, cluster, gpu_model(labels))
        if kind.is_other:
            add_others(others, ((_class_resource(request), None if _is_part(result) else 1),))
        shares.append(_allocated(kind.share, result, labels))
    return _bounded(Devices(known_sum(shares), tuple(sorted(others.items()))))


def _allocated(
    share: Fraction | None, result: Mapping[str, Any], node_labels: Mapping[str, Any]
) -> Fraction | None:
    """One device, or by its consumed memory the part of one that several claims share."""
    if not share or not _is_part(result):
        return share
    consumed = result.get("consumedCapacity")
    memory = at(consumed, "memory") or at(consumed, f"{text(result.get('driver'))}/memory")
    size, amount = gpu_bytes(node_labels), parse_quantity(memory)
    if size is None or amount is None or not 0 <= amount <= size:
        return None
    return Fraction(amount) / size


def _given_kind(
    result: Mapping[str, Any],
    request: Mapping[str, Any],
    settings: DeriveSettings,
    cluster: ClusterObjects,
    product: str,
) -> DeviceKind:
    """What a device is: by its driver, its own name or slice, else by what it was given for."""
    device, driver = text(result.get("device")), text(result.get("driver"))
    kind = device_kind(request, settings, device_classes(cluster), product)
    is_named = text(request.get("deviceClassName")) in settings.gpu_device_classes
    if driver in DRIVERS_OF_OTHERS and not is_named:
        return _OTHER
    if kind.is_other and driver != NVIDIA_DRIVER:
        return kind
    if kind is _UNREAD and driver != NVIDIA_DRIVER:
        kind = _of_driver(driver)
    is_nvidia = driver == NVIDIA_DRIVER and bool(request) and not settings.gpu_device_classes
    if kind.share == 0 and not is_nvidia:
        return kind
    named = PROFILE_IN_NAME.search(device)
    sliced = cluster.device_profiles.get((driver, text(result.get("pool"))), {}).get(device)
    profile = f"{named[1]}.{named[2]}" if named else sliced
    if profile:
        return DeviceKind(mig_share(profile, product) or kind.share or None)
    is_whole = is_nvidia and not kind.is_cut and _WHOLE.fullmatch(device)
    return _GPU if is_whole else kind


def multiplied(devices: Devices, times: Fraction | None) -> Devices:
    """So many times the devices, or that part of them; None = not known."""
    if times == 0:
        return NO_DEVICES
    if times is None:
        unknown = tuple((name, None) for name, _ in devices.others)
        return Devices(devices.gpus and None, unknown)
    others = tuple(
        (name, None if each is None else exact(each * times)) for name, each in devices.others
    )
    return Devices(None if devices.gpus is None else devices.gpus * times, others)


def _alternatives(request: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The request's alternatives by the name that results use: the request itself, or those inside it."""
    name = text(request.get("name"))
    several = list(objects(request.get("firstAvailable")))
    if several:
        return [(f"{name}/{text(alternative.get('name'))}", alternative) for alternative in several]
    exactly = request.get("exactly")
    # Before v1beta2 the members stand in the request itself.
    return [(name, exactly if isinstance(exactly, Mapping) else request)]


def _count(request: Mapping[str, Any], given: int) -> int | None:
    """How many devices; `All` is what was allocated, and not known until something was."""
    if request.get("adminAccess") is True:
        return 0
    if request.get("allocationMode") == "All":
        return given or None
    number = whole(request.get("count"))
    return 1 if number is None else max(0, number)


def device_kind(
    request: Mapping[str, Any], settings: DeriveSettings, classes: DeviceClasses, product: str = ""
) -> DeviceKind:
    """What a request's devices are. `product`: of the node that they are on."""
    name = text(request.get("deviceClassName"))
    expressions = _expressions_of(request, classes)
    if profile := _profile(expressions):
        return DeviceKind(mig_share(profile, product), is_cut=True)
    if name in settings.gpu_device_classes:
        return _GPU
    is_unread = not classes.are_read and name not in classes.by_name
    kind = _by_selectors(expressions) or _by_name(name, product, is_unread=is_unread)
    is_cut = kind is _GPU and any(_CUT.search(each) for each in expressions)
    if is_cut or (kind is _GPU and _MIG_CLASS.search(name)):
        return _slice_by_name(name, product)
    is_by_class = kind is _GPU or kind is _UNREAD
    return _NO_GPU if is_by_class and settings.gpu_device_classes else kind


def extended_gpus(classes: DeviceClasses, settings: DeriveSettings) -> tuple[str, ...]:
    """The extended resources behind which a class of GPUs or MIG slices stands, those of the settings first."""
    stating = [
        (name, each)
        for name, each in islice(classes.by_name.items(), _MAX_CLASSES)
        if at(each, "spec", "extendedResourceName")
    ]
    stating.sort(key=lambda item: item[0])
    # Of several classes the one that was made last, and of those made at once the first by name.
    stating.sort(key=lambda item: text(metadata(item[1]).get("creationTimestamp")), reverse=True)
    behind: dict[str, str] = {}
    for name, each in stating:
        behind.setdefault(text(at(each, "spec", "extendedResourceName")), name)
    named = (_extended(resource, name, settings, classes) for resource, name in behind.items())
    return tuple(dict.fromkeys((*settings.gpu_resources, *filter(None, named))))


def _extended(
    resource: str, name: str, settings: DeriveSettings, classes: DeviceClasses
) -> str | None:
    """As settings name resources of GPUs; None where it is one already, or no GPU."""
    request = {"deviceClassName": name}
    kind = device_kind(request, settings, classes) if resource else _NO_GPU
    if resource in settings.gpu_resources or kind == _GPU:
        return resource
    if not kind.is_cut:
        return None
    profile = _profile(_expressions_of(request, classes)) or _profile_in_name(name)
    return resource_like(resource, f"nvidia.com/mig-{profile}" if profile else f"{DEVICE_CLASS}mig")


def _expressions_of(request: Mapping[str, Any], classes: DeviceClasses) -> list[str]:
    """The request's selectors, and those of its class."""
    named = classes.by_name.get(text(request.get("deviceClassName")))
    return [*_expressions(request), *_expressions(at(named, "spec"))]


def _profile(expressions: list[str]) -> str | None:
    matches = (_PROFILE.search(each) for each in expressions)
    return next((match[1].lower() for match in matches if match), None)


def _expressions(part: Any) -> Iterator[str]:
    for selector in islice(objects(at(part, "selectors")), _MAX_EXPRESSIONS):
        yield text(at(selector, "cel", "expression"))


def _by_selectors(expressions: list[str]) -> DeviceKind | None:
    """By the drivers that they name; None where they name none."""
    drivers = {driver for each in expressions for driver in _DRIVER.findall(each)}
    if not drivers:
        named = {domain for each in expressions for domain in _ATTRIBUTE.findall(each)}
        drivers = named & {NVIDIA_DRIVER, *DRIVERS_OF_OTHERS}
    kinds = {_of_driver(driver) for driver in drivers}
    if len(kinds) > 1:
        return _UNDECIDED if _GPU in kinds else _NO_GPU
    return kinds.pop() if kinds else None


def _of_driver(driver: str) -> DeviceKind:
    if driver in DRIVERS_OF_OTHERS:
        return _OTHER
    return _GPU if "gpu" in driver else _NO_GPU


def _by_name(name: str, product: str, *, is_unread: bool) -> DeviceKind:
    if device_class_type(name) is not None:
        return _OTHER
    if _MIG_CLASS.search(name):
        return _slice_by_name(name, product)
    if "gpu" in name.lower():
        return _GPU
    return _UNREAD if is_unread else _NO_GPU


def _slice_by_name(name: str, product: str) -> DeviceKind:
    profile = _profile_in_name(name)
    return DeviceKind(mig_share(profile, product), is_cut=True) if profile else _SLICE


def _profile_in_name(name: str) -> str | None:
    match = PROFILE_IN_NAME.search(name)
    return f"{match[1]}.{match[2]}" if match else None


def users_of_claims(
    claims: Iterable[Object], pods: Iterable[Pod]
) -> Iterator[tuple[Object, list[Pod]]]:
    """Each claim that pods use, once, with the pods that do."""
    users: dict[str, list[Pod]] = {}
    for pod in pods:
        for name in dict.fromkeys(pod.claims):
            users.setdefault(name, []).append(pod)
    seen: set[str] = set()
    for claim in sorted(claims, key=claim_key) if users else ():
        name, uid = claim_key(claim)
        if name in users and uid not in seen:
            seen.add(uid)
            yield claim, users[name]


def unseen_claims(claims: Iterable[Object], pods: Iterable[Pod]) -> Iterator[tuple[str, Pod]]:
    """Claims that live pods use and that are not there: not read yet, or not readable."""
    present: set[str] | None = None
    for pod in pods:
        if not pod.claims or pod.is_terminal:
            continue
        if present is None:
            present = {claim_key(claim)[0] for claim in claims}
        for name in pod.claims:
            if name not in present:
                yield name, pod


def claim_key(claim: Object) -> tuple[str, str]:
    meta = metadata(claim)
    return text(meta.get("name")), text(meta.get("uid"))


def claimed_devices(view: WorkloadView, pods: Sequence[Pod]) -> Devices:
    """What the pods' claims are of, each whole, whoever shares it; not known where one cannot be seen."""
    claims = view.objects.claims
    unseen = [UNKNOWN_DEVICES] if any(unseen_claims(claims, pods)) else []
    asked = (requested_of(claim, view, users) for claim, users in users_of_claims(claims, pods))
    return together([*unseen, *asked])


def requested_of(claim: Object, view: WorkloadView, users: Sequence[Pod]) -> Devices:
    """What a claim of these pods requests."""
    node = next((pod.node for pod in users if pod.node), "")
    return requested_by_claim(claim, view.settings, view.cluster, node)

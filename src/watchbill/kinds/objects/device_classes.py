"""What the devices of a DeviceClass (resource.k8s.io) are: by its selectors, else by its name."""

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

from watchbill.kinds.objects.gpu_units import (
    DRIVERS_OF_OTHERS,
    NVIDIA_DRIVER,
    device_class_type,
    mig_share,
)
from watchbill.kinds.objects.json_access import at, objects, text
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.settings import DeriveSettings

Classes = Mapping[str, Object]
PROFILE_IN_NAME = re.compile(r"mig-([1-9]g)\.?([0-9]{1,4}gb)", re.ASCII)
"""In a device's name, which may hold no dot, as gpu-0-mig-1g10gb-19-2; in a class's with it."""
_MAX_CLASSES = 200
_MAX_EXPRESSIONS = 32
# In a selector, as device.attributes['gpu.nvidia.com'].profile == '1g.10gb'.
_PROFILE = re.compile(r"profile\W{1,20}([1-9]g\.[0-9]{1,4}gb)", re.IGNORECASE)
_DRIVER = re.compile(r"device\.driver\s{0,9}==\s{0,9}['\"]([a-z0-9.-]{1,63})['\"]", re.ASCII)
_ATTRIBUTE = re.compile(r"device\.attributes\[['\"]([a-z0-9.-]{1,63})['\"]\]", re.ASCII)
_CUT = re.compile(r"\.type\s{0,9}==\s{0,9}['\"]mig['\"]", re.ASCII)
_MIG_CLASS = re.compile(r"(?<![a-z])mig(?![a-z])", re.IGNORECASE)


class DeviceKind(NamedTuple):
    """`share`: of a GPU that each device is, 0 if it is none, None where that is not known.

    `is_other`: an accelerator that is no NVIDIA GPU.
    """

    share: Fraction | None = Fraction(0)
    is_other: bool = False
    is_cut: bool = False


_NO_GPU, _WHOLE, _OTHER = DeviceKind(), DeviceKind(Fraction(1)), DeviceKind(is_other=True)
_SLICE = DeviceKind(None, is_cut=True)
_UNDECIDED = DeviceKind(None)


def device_kind(
    request: Mapping[str, Any], settings: DeriveSettings, classes: Classes, product: str = ""
) -> DeviceKind:
    """What a request's devices are. `product`: of the node that they are on."""
    name = text(request.get("deviceClassName"))
    expressions = [*_expressions(request), *_expressions(at(classes.get(name), "spec"))]
    for expression in expressions:
        if profile := _PROFILE.search(expression):
            return DeviceKind(mig_share(profile[1].lower(), product), is_cut=True)
    if name in settings.gpu_device_classes:
        return _WHOLE
    kind = _by_selectors(expressions) or _by_name(name, product)
    is_cut = kind is _WHOLE and any(_CUT.search(each) for each in expressions)
    if is_cut or (kind is _WHOLE and _MIG_CLASS.search(name)):
        return _slice_by_name(name, product)
    return _NO_GPU if kind is _WHOLE and settings.gpu_device_classes else kind


def extended_gpus(classes: Classes, settings: DeriveSettings) -> tuple[str, ...]:
    """The extended resources behind which a class of whole GPUs stands, in the order of the settings first."""
    named = (
        text(at(each, "spec", "extendedResourceName"))
        for name, each in islice(classes.items(), _MAX_CLASSES)
        if at(each, "spec", "extendedResourceName")
        and device_kind({"deviceClassName": name}, settings, classes) == _WHOLE
    )
    return tuple(dict.fromkeys((*settings.gpu_resources, *filter(None, named))))


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
        return _UNDECIDED if _WHOLE in kinds else _NO_GPU
    return kinds.pop() if kinds else None


def _of_driver(driver: str) -> DeviceKind:
    if driver in DRIVERS_OF_OTHERS:
        return _OTHER
    return _WHOLE if "gpu" in driver else _NO_GPU


def _by_name(name: str, product: str) -> DeviceKind:
    if device_class_type(name) is not None:
        return _OTHER
    if _MIG_CLASS.search(name):
        return _slice_by_name(name, product)
    return _WHOLE if "gpu" in name.lower() else _NO_GPU


def _slice_by_name(name: str, product: str) -> DeviceKind:
    match = PROFILE_IN_NAME.search(name)
    return (
        DeviceKind(mig_share(f"{match[1]}.{match[2]}", product), is_cut=True) if match else _SLICE
    )

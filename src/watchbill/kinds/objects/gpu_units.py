"""What one unit of an extended resource is on a node: a GPU, a share, a MIG slice, another accelerator. Pure.

The node's labels decide, as GPU Feature Discovery or GKE writes them. They are claims: where they are missing,
unreadable or contradict each other although the unit is cut or shared, the unit is not known: None, not 0 or 1.
"""

import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal

import msgspec

from watchbill.protocol import MAX_MODEL_CHARACTERS
from watchbill.quantity import Amount, parse_quantity

GPU = "nvidia.com/gpu"
VOLCANO_GPU = "volcano.sh/vgpu-number"
GPU_MEMORY_LABEL = f"{GPU}.memory"
SHARED_SUFFIX = ".shared"
MEBIBYTE = 1024**2
MAX_UNITS = 1_000_000
"""Of one resource of one node or pod; a larger number is no count of devices."""
_MAX_REPLICAS = 10_000
_MAX_MEMORY_BYTES = 2**44
_BYTES_FROM = 100_000_000
"""From here on a label of memory states bytes, as on some clusters, not MiB."""

_SLICES = 7
# Products that divide into fewer slices, by a part of their name.
_FEWER_SLICES = {"A30": 4, "RTX-PRO-6000": 4, "RTX-PRO-5000": 2, "RTX-PRO-4500": 2}
# Profiles that only such products have, and those of which their products alone tell how much they are.
_SLICES_BY_PROFILE = {"1g.6gb": 4, "2g.12gb": 4, "4g.24gb": 4, "4g.96gb": 4, "2g.32gb": 2}
_AMBIGUOUS = frozenset({"1g.16gb", "1g.24gb", "2g.48gb"})
# One slice with the memory of two: four of them fill a GPU. 1g.10gb is one on GPUs of 40 GB only.
_DOUBLE_MEMORY = frozenset(
    {"1g.20gb", "1g.24gb", "1g.35gb", "1g.36gb", "1g.45gb", "1g.47gb", "1g.67gb"}
)
_PROFILE = r"(?:([1-7])c\.)?([1-9]g\.[0-9]{1,4}gb)(?:[.+][a-z][a-z0-9.+-]{0,30})?"
_MIG_RESOURCE = re.compile(rf"nvidia\.com/mig-{_PROFILE}", re.ASCII)
_MIG_PRODUCT = re.compile(rf"(.*)-MIG-{_PROFILE}", re.ASCII)
_MIG_CONFIG = re.compile(rf"all-{_PROFILE}", re.ASCII)
DEVICE_CLASS = "deviceclass.resource.kubernetes.io/"
_PASSED_THROUGH = re.compile(
    r"nvidia\.com/(?:[A-Z]{2}[0-9]{3}[A-Z0-9]{0,8}_[\w-]{1,100}|pgpu)", re.ASCII
)
"""A whole GPU passed through to a virtual machine, by its chip: `nvidia.com/GA102GL_A10`."""
_VIRTUAL = re.compile(r"nvidia\.com/(?:GRID_[\w-]{1,100}|NVIDIA_[\w-]{1,100}|vgpu)", re.ASCII)
"""A share of a GPU for a virtual machine, of a size that its name does not state in GPUs."""

_MODEL_LABELS = (
    f"{GPU}.product",
    "cloud.google.com/gke-accelerator",
    "k8s.amazonaws.com/accelerator",
)
_MIG_SUFFIX = re.compile(rf"-MIG-{_PROFILE}\Z", re.ASCII)

_ACCELERATORS = (
    (re.compile(r"amd\.com/(?:gpu|spx_nps[1248])", re.ASCII), "AMD GPU"),
    (re.compile(r"amd\.com/[dtqc]px_nps[1248]", re.ASCII), "AMD GPU partition"),
    (re.compile(r"gpu\.intel\.com/(?:i915|xe)", re.ASCII), "Intel GPU"),
    (re.compile(r"google\.com/tpu", re.ASCII), "TPU"),
    (re.compile(r"habana\.ai/gaudi", re.ASCII), "Gaudi"),
    (re.compile(r"aws\.amazon\.com/neuron(?:device)?", re.ASCII), "Neuron"),
    (re.compile(r"aws\.amazon\.com/neuroncore", re.ASCII), "NeuronCore"),
)

PROFILE_IN_NAME = re.compile(r"mig-([1-9]g)\.?([0-9]{1,4}gb)", re.ASCII)
"""In a device's name, which may hold no dot, as gpu-0-mig-1g10gb-19-2; in a class's with it."""
NVIDIA_DRIVER = "gpu.nvidia.com"
DRIVERS_OF_OTHERS = {
    "gpu.amd.com": "AMD GPU",
    "gpu.intel.com": "Intel GPU",
    "gaudi.intel.com": "Gaudi",
    "tpu.google.com": "TPU",
    "neuron.aws.com": "Neuron",
}
"""Drivers (resource.k8s.io) of accelerators that are no NVIDIA GPUs, by the type that node pools count."""
_CLASSES_OF_OTHERS = (
    (re.compile(r"(?<![a-z])(?:gaudi|habana)"), "Gaudi"),
    (re.compile(r"(?<![a-z])tpu"), "TPU"),
    (re.compile(r"(?<![a-z])neuron"), "Neuron"),
    (re.compile(r"(?<![a-z])amd(?![a-z]).{0,80}gpu|gpu.{0,80}(?<![a-z])amd(?![a-z])"), "AMD GPU"),
    (
        re.compile(r"(?<![a-z])intel(?![a-z]).{0,80}gpu|gpu.{0,80}(?<![a-z])intel(?![a-z])"),
        "Intel GPU",
    ),
)

_AMD_PARTITIONS = "amd.com/gpu.compute-memory-partition"
"""How the GPUs of a node are partitioned, as `cpx_nps4`, where its resource is `amd.com/gpu` all the same."""

Labels = Mapping[str, Any]
_NO_LABELS: Labels = {}


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of a resource. `gpus` None = it is a part of a GPU and nothing says which part.

    `per_gpu`: so many units make one physical GPU. `replicas`: so many share one device (time slicing, MPS).
    `split`: a node offers each GPU so many times over, and pods say how much of it each of them has (HAMi).
    """

    gpus: Fraction | None
    per_gpu: int = 1
    replicas: int = 1
    split: int = 1
    is_slice: bool = False
    has_own_memory: bool = False
    """`nvidia.com/gpu.memory` is the slice's own, not the physical GPU's."""

    @property
    def is_shared(self) -> bool:
        """A slice of an unknown size is still one pod's alone, where nothing says that it is shared."""
        is_of_unknown_use = self.gpus is None and not self.is_slice
        return is_of_unknown_use or self.replicas > 1 or self.split > 1


_WHOLE = Unit(gpus=Fraction(1))
_UNKNOWN = Unit(gpus=None)
_UNKNOWN_SLICE = Unit(gpus=None, is_slice=True)


def unit_of(resource: str, labels: Labels, gpu_resources: Iterable[str] = (GPU,)) -> Unit | None:
    """One unit of the resource on a node with these labels; None where the resource is no GPU."""
    name = resource.removesuffix(SHARED_SUFFIX)
    is_renamed = name != resource
    if name in gpu_resources:
        unit = _shared(_uncut(name, labels), name, labels, is_renamed=is_renamed)
        return _split(unit, name, labels) if split_label(name) in labels else unit
    if resource == VOLCANO_GPU:
        return _split(_WHOLE, resource, labels)
    if match := _MIG_RESOURCE.fullmatch(name):
        product = _text(labels.get(f"{GPU}.product"))
        return _shared(_slice(match, product), name, labels, is_renamed=is_renamed)
    if name.startswith("nvidia.com/mig-"):
        return _UNKNOWN_SLICE
    if _VIRTUAL.fullmatch(resource):
        return _UNKNOWN
    if resource.startswith(DEVICE_CLASS):
        return _unit_of_class(resource)
    for each in gpu_resources:
        if each.startswith(f"{resource}="):
            return unit_of(each.partition("=")[2], labels)
    return _WHOLE if _PASSED_THROUGH.fullmatch(resource) else None


def resource_like(resource: str, other: str) -> str:
    """For `gpu_resources`: a resource of which one unit is what one of another is."""
    return f"{resource}={other}"


def _unit_of_class(resource: str) -> Unit | None:
    """A device of the class that the resource names, as pods ask for one without a claim."""
    if device_class_type(resource) is not None:
        return None
    if re.search(r"(?<![a-z])mig(?![a-z])", resource):
        return _UNKNOWN_SLICE
    return _WHOLE if "gpu" in resource else None


def gpu_model(labels: Labels) -> str:
    """What a node says that its GPUs are, however they are cut or shared; "" where it says nothing."""
    model = next(filter(None, (_text(labels.get(name)) for name in _MODEL_LABELS)), "")
    return _MIG_SUFFIX.sub("", model.removesuffix("-SHARED"))[:MAX_MODEL_CHARACTERS]


def is_node_cut(
    resources: Iterable[str], labels: Labels, gpu_resources: Iterable[str] = (GPU,)
) -> bool:
    """Whether a unit of any of these resources is a slice of a GPU (MIG)."""
    units = (unit_of(resource, labels, gpu_resources) for resource in resources)
    return any(unit is not None and unit.is_slice for unit in units)


def node_sharing(
    resources: Iterable[str], labels: Labels, gpu_resources: Iterable[str] = (GPU,)
) -> Literal["time-slicing", "mps"] | None:
    """How several pods use one GPU at the same time; None where they do not."""
    units = (unit_of(resource, labels, gpu_resources) for resource in resources)
    if not any(unit is not None and unit.is_shared for unit in units):
        return None
    strategies = {_text(labels.get(f"{GPU}.sharing-strategy"))}
    strategies.add(_text(labels.get("cloud.google.com/gke-gpu-sharing-strategy")))
    return "mps" if "mps" in strategies else "time-slicing"


def accelerator_type(resource: str) -> str | None:
    """The type of an accelerator that is no NVIDIA GPU; None for any other resource."""
    if resource.startswith(DEVICE_CLASS):
        return device_class_type(resource)
    return next((name for form, name in _ACCELERATORS if form.fullmatch(resource)), None)


def device_class_type(name: str) -> str | None:
    """The same of a DeviceClass, by its name."""
    return next((kind for form, kind in _CLASSES_OF_OTHERS if form.search(name.lower())), None)


def accelerators(
    amounts: Iterable[tuple[str, Amount]],
    gpu_resources: Iterable[str],
    labels: Labels = _NO_LABELS,
) -> dict[str, int]:
    """Accelerators of other vendors by type; resources that name the same devices twice count once.

    A partition of an AMD GPU is a type of its own. `labels`: those of the node that offers them.
    """
    totals: dict[str, int] = {}
    partition = _text(labels.get(_AMD_PARTITIONS))
    for resource, amount in amounts:
        if resource == "amd.com/gpu" and partition:
            resource = f"amd.com/{partition}"
        kind = None if resource in gpu_resources else accelerator_type(resource)
        if kind is not None and 0 < amount <= MAX_UNITS:
            known = totals.get(kind, 0)
            totals[kind] = max(known, int(amount)) if kind == "Neuron" else known + int(amount)
    return totals


def mig_share(profile: str, product: str = "") -> Fraction | None:
    """How much of a GPU a slice is, by its profile, as `3g.40gb`; None where that depends on the product."""
    slices = _slices(profile, product)
    return None if slices is None else Fraction(min(int(profile[0]), slices), slices)


def mig_slice_of_gpu(profile: str, product: str = "") -> Fraction | None:
    """The same by a profile as DCGM writes it; None where it is none."""
    match = re.fullmatch(_PROFILE, profile, re.ASCII)
    return _slice(match, product).gpus if match else None


def gpus_of(
    amounts: Iterable[tuple[str, Amount]], labels: Labels, gpu_resources: Iterable[str] = (GPU,)
) -> Fraction | None:
    """GPUs that so many units amount to on a node with these labels; None where that cannot be known."""
    total = Fraction(0)
    for resource, amount in amounts:
        unit = unit_of(resource, labels, gpu_resources) if amount else None
        if unit is None:
            continue
        if unit.gpus is None or not 0 <= amount <= MAX_UNITS:
            return None
        total += unit.gpus * int(amount)
    return total


def missing_gpus(
    amounts: Iterable[tuple[str, Amount]], labels: Labels, gpu_resources: Iterable[str] = (GPU,)
) -> Fraction | None:
    """GPUs that a node has and does not offer, by the units that are missing; None where it cannot be known."""
    total = Fraction(0)
    for resource, amount in amounts:
        gpus = gpus_of([(resource, amount)], labels, gpu_resources)
        if gpus is None:
            return None
        unit = unit_of(resource, labels, gpu_resources)
        total += gpus / (unit.split if unit is not None else 1)
    return total


def physical_gpus(
    amounts: Iterable[tuple[str, Amount]], labels: Labels, gpu_resources: Iterable[str] = (GPU,)
) -> Fraction | None:
    """Physical GPUs of a node that offers so many units; None where that cannot be known.

    A GPU whose slices leave a rest is one GPU still: the mixed strategy's label counts them, if it can be true.
    """
    whole, slices, instances = Fraction(0), Fraction(0), 0
    for resource, amount in amounts:
        unit = unit_of(resource, labels, gpu_resources) if amount else None
        if unit is None:
            continue
        if unit.gpus is None or not 0 <= amount <= MAX_UNITS:
            return None
        if unit.is_slice and resource.startswith("nvidia.com/mig-"):
            slices += unit.gpus * int(amount)
            instances += int(amount)
        else:
            whole += Fraction(int(amount), unit.per_gpu * unit.split)
    cut = Fraction(math.ceil(slices))
    counted = whole_number(labels.get(f"{GPU}.count"))
    if slices and counted is not None and whole + cut <= counted <= whole + instances:
        return Fraction(counted)
    return whole + cut


def gpu_bytes(labels: Labels) -> int | None:
    """Memory of one physical GPU of a node; None where nothing tells it."""
    if "-MIG-" in _text(labels.get(f"{GPU}.product")) or _uncut(GPU, labels).has_own_memory:
        return None
    return label_bytes(labels, GPU_MEMORY_LABEL)


def unit_bytes(resource: str, unit: Unit, labels: Labels) -> int | None:
    """Memory of one unit of a resource, all that a pod may have with it; None where nothing tells it."""
    if unit.gpus is None:
        return None
    if unit.is_slice:
        name = GPU if unit.has_own_memory else resource.removesuffix(SHARED_SUFFIX)
        own = label_bytes(labels, f"{name}.memory")
        if own is not None or unit.has_own_memory:
            return None if own is None else own // unit.replicas
    size = label_bytes(labels, GPU_MEMORY_LABEL)
    return None if size is None else int(unit.gpus * size)


def whole_number(value: Any) -> int | None:
    """A count as labels and nodes write it; None where it is none."""
    text = _text(value)
    if not re.fullmatch(r"[0-9]{1,7}", text, re.ASCII):
        return None
    return number if (number := int(text)) <= MAX_UNITS else None


def _uncut(name: str, labels: Labels) -> Unit:
    """One device that the resource stands for before it is shared: a GPU, or a slice by the single strategy."""
    if name != GPU:
        return _WHOLE
    product = _text(labels.get(f"{GPU}.product")).removesuffix("-SHARED")
    strategy = _text(labels.get("nvidia.com/mig.strategy"))
    partition = _text(labels.get("cloud.google.com/gke-gpu-partition-size"))
    if "-MIG-" in product:
        match = _MIG_PRODUCT.fullmatch(product)
        return (
            _UNKNOWN
            if match is None or strategy == "mixed"
            else _by_labels(match, match[1], labels)
        )
    if partition:
        match = re.fullmatch(_PROFILE, partition, re.ASCII)
        return _slice(match, product) if match else _UNKNOWN
    if strategy != "single" or labels.get("nvidia.com/mig.capable") == "false":
        return _WHOLE
    instances = labels.get(f"{GPU}.slices.gi")
    if product:
        # Named like an uncut GPU: so it is, unless slices are counted beside it.
        return _WHOLE if instances is None or whole_number(instances) == 0 else _UNKNOWN
    config = _text(labels.get("nvidia.com/mig.config"))
    match = _MIG_CONFIG.fullmatch(config)
    if match:
        return _by_labels(match, "", labels)
    return _WHOLE if config == "all-disabled" and instances is None else _UNKNOWN


def _by_labels(match: re.Match[str], product: str, labels: Labels) -> Unit:
    """The slice, unless the label of its size contradicts its name."""
    instances = labels.get(f"{GPU}.slices.gi")
    unit = _slice(match, product)
    if instances is not None and whole_number(instances) != int(match.groups()[-1][0]):
        return _UNKNOWN
    return msgspec.structs.replace(unit, has_own_memory=True)


def _slice(match: re.Match[str], product: str) -> Unit:
    compute, profile = match.groups()[-2:]
    share, per_gpu = mig_share(profile, product), _per_gpu(profile, product)
    if share is None or per_gpu is None:
        return _UNKNOWN_SLICE
    size = int(profile[0])
    if compute is not None:
        if int(compute) > size:
            return _UNKNOWN
        share = share * int(compute) / size
    return Unit(gpus=share, per_gpu=per_gpu, is_slice=True)


def _slices(profile: str, product: str) -> int | None:
    """Into how many slices a GPU with this profile divides."""
    name = re.sub(r"[ _]", "-", f"-{product}-").upper()
    fewer = next((count for part, count in _FEWER_SLICES.items() if f"-{part}-" in name), None)
    if fewer is None and not product and profile in _AMBIGUOUS:
        return None
    return fewer or _SLICES_BY_PROFILE.get(profile, _SLICES)


def _per_gpu(profile: str, product: str) -> int | None:
    """How many of these slices one GPU gives."""
    slices = _slices(profile, product)
    if slices is None:
        return None
    # 1g.24gb is an ordinary slice of a GB200.
    is_double = profile in _DOUBLE_MEMORY and not (
        profile == "1g.24gb" and "B200" in product.upper()
    )
    if slices == _SLICES and (is_double or (profile == "1g.10gb" and "40GB" in product)):
        return 4
    return slices // min(int(profile[0]), slices)


def _shared(unit: Unit, name: str, labels: Labels, *, is_renamed: bool) -> Unit:
    """The unit, divided by as many as share it."""
    replicas = _replicas(name, labels, is_renamed=is_renamed)
    if replicas is None:
        return _UNKNOWN
    if replicas == 1:
        return unit
    if unit.gpus is None:
        return msgspec.structs.replace(unit, replicas=replicas)
    return msgspec.structs.replace(
        unit, gpus=unit.gpus / replicas, per_gpu=unit.per_gpu * replicas, replicas=replicas
    )


def _replicas(name: str, labels: Labels, *, is_renamed: bool) -> int | None:
    """How many units stand for one device; None where it is shared and nothing says by how many."""
    count = labels.get(f"{name}.replicas")
    strategy = _text(labels.get(f"{name}.sharing-strategy"))
    if name == GPU and count is None:
        count = labels.get("cloud.google.com/gke-max-shared-clients-per-gpu")
        strategy = strategy or _text(labels.get("cloud.google.com/gke-gpu-sharing-strategy"))
    is_named_shared = is_renamed or _text(labels.get(f"{name}.product")).endswith("-SHARED")
    if count is None:
        return None if is_named_shared or strategy not in ("", "none") else 1
    replicas = whole_number(count)
    if replicas is None or not 1 <= replicas <= _MAX_REPLICAS:
        return None
    is_contradicted = is_named_shared if replicas == 1 else strategy == "none"
    return None if is_contradicted else replicas


def split_label(resource: str) -> str:
    """What stands beside a node's labels where it offers each GPU several times over: how often."""
    return f"{resource}.split"


def _split(unit: Unit, name: str, labels: Labels) -> Unit:
    split = whole_number(labels.get(split_label(name)))
    if unit.gpus is None or split is None or not 1 <= split <= _MAX_REPLICAS:
        return _UNKNOWN
    return msgspec.structs.replace(unit, split=split)


def label_bytes(labels: Labels, name: str) -> int | None:
    """Memory that a label states, in MiB or bytes; None where it states none, or more than any GPU has."""
    amount = parse_quantity(_text(labels.get(name)).strip())
    if amount is None or amount < 1:
        return None
    size = int(amount) if amount > _BYTES_FROM else int(amount) * MEBIBYTE
    return size if size <= _MAX_MEMORY_BYTES else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

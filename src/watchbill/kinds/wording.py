"""Resources and amounts as people say them: GPUs as decimals, memory in binary units, never as quantities.

What is asked for is rounded up and what is free down, so that a sentence never promises room.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from math import ceil, floor

from watchbill.kinds.pod import Pod
from watchbill.kinds.quantity import Amount, parse_quantity
from watchbill.kinds.resources import requested_gpus

GPU_RESOURCES = ("nvidia.com/gpu",)
_WORDS = {
    "cpu": ("CPU core", "CPU cores"),
    "gpu": ("GPU", "GPUs"),
    "memory": ("memory", "memory"),
    "ephemeral-storage": ("local disk", "local disk"),
    "storage": ("storage", "storage"),
    "pods": ("pod", "pods"),
}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_IN_BYTES = ("memory", "storage", "ephemeral-storage")


def is_gpu(resource: str, gpu_resources: tuple[str, ...] = GPU_RESOURCES) -> bool:
    return resource == "gpu" or resource in gpu_resources


def resource_word(resource: str, gpu_resources: tuple[str, ...] = GPU_RESOURCES) -> str:
    """`GPUs`, `CPU cores`, `memory`; a resource that has no word is called by its name."""
    found = _WORDS.get("gpu" if is_gpu(resource, gpu_resources) else resource)
    return found[1] if found else resource[:100]


def figure(amount: Amount, *, rounds_up: bool = True) -> str:
    """A decimal number with two digits at most: 2, 0.5, 2.81."""
    hundredths = (ceil if rounds_up else floor)(amount * 100)
    whole, rest = divmod(hundredths, 100)
    return f"{whole}.{rest:02}".rstrip("0") if rest else str(whole)


def amount_of(resource: str, amount: Amount, *, rounds_up: bool = True) -> str:
    """The amount without the resource's word: `2.81`, `64 GiB`."""
    if resource not in _IN_BYTES and not resource.startswith("hugepages-"):
        return figure(amount, rounds_up=rounds_up)
    power = 0
    while power < len(_UNITS) - 1 and amount >= 1024 ** (power + 1):
        power += 1
    return f"{figure(Fraction(amount) / 1024**power, rounds_up=rounds_up)} {_UNITS[power]}"


def counted(resource: str, amount: Amount, gpu_resources: tuple[str, ...] = GPU_RESOURCES) -> str:
    """The amount with its word: `16 GPUs`, `1 GPU`, `64 GiB of memory`."""
    said = amount_of(resource, amount)
    if " " in said:
        return f"{said} of {resource_word(resource)}"
    words = _WORDS.get("gpu" if is_gpu(resource, gpu_resources) else resource)
    return f"{said} {words[said != '1'] if words else resource[:100]}"


def pods_word(number: int) -> str:
    return f"{number} pod" if number == 1 else f"{number} pods"


def bounded_amounts(resource: str, *, asked: Amount, used: Amount, bound: Amount) -> str:
    """`16 asked for, 2.81 of 62 free`."""
    free = amount_of(resource, max(0, bound - used), rounds_up=False)
    return (
        f"{amount_of(resource, asked)} asked for,"
        f" {free} of {amount_of(resource, bound, rounds_up=False)} free"
    )


def asked_by(
    pods: Iterable[Pod],
    gpu_resources: tuple[str, ...] = GPU_RESOURCES,
    claimed: Fraction = Fraction(0),
) -> str:
    """`2 pods ask for 16 GPUs together`; of pods without GPUs their CPU cores and memory.

    `claimed`: GPUs that they ask for through claims, beside their containers.
    """
    number = 0
    totals: dict[str, Amount] = {"gpu": claimed} if claimed else {}
    for pod in pods:
        number += 1
        for resource, amount in _asks(pod, gpu_resources):
            totals[resource] = totals.get(resource, 0) + amount
    if not number:
        return ""
    gpus = {resource: amount for resource, amount in totals.items() if "gpu" in resource}
    said = [
        f"{amount_of('memory', amount)} of GPU memory"
        if resource == "gpu-memory"
        else counted(resource, amount, gpu_resources)
        for resource, amount in (gpus or totals).items()
        if amount
    ]
    if not said:
        return f"{pods_word(number)} {'waits' if number == 1 else 'wait'}"
    verb = "asks" if number == 1 else "ask"
    together = "" if number == 1 else " together"
    return f"{pods_word(number)} {verb} for {' and '.join(said)}{together}"


def _asks(pod: Pod, gpu_resources: tuple[str, ...]) -> Iterable[tuple[str, Amount]]:
    found = pod.resources
    gpus = requested_gpus(found, pod.annotations, gpu_resources)
    yield "gpu", gpus.portion
    yield "gpu-memory", gpus.memory_bytes or 0
    yield "cpu", found.cpu_request or 0
    yield "memory", found.memory_request or 0


def plain(message: str, length: int = 400) -> str:
    """A scheduler's text on one line, without the full stop at its end."""
    return " ".join(message[: 2 * length].split())[:length].rstrip(" .")


_QUOTA = re.compile(
    r"exceeded quota: (\S{1,253}), requested: (\S{1,1000}), used: (\S{1,1000}), limited to: (\S{1,1000})"
)


def quota_message(message: str) -> str:
    """The API server's refusal for want of a namespace's quota, in plain words; "" for other texts."""
    match = _QUOTA.search(message)
    if match is None:
        return ""
    asked, used, bounds = (_quota_amounts(part) for part in match.groups()[1:])
    for name, amount in asked.items():
        bound, held = bounds.get(name), used.get(name, 0)
        if bound is not None and held + amount > bound:
            resource = name.removeprefix("requests.").removeprefix("limits.")
            what = resource_word(resource)
            figures = bounded_amounts(resource, asked=amount, used=held, bound=bound)
            return (
                f"Quota {match[1]} of the namespace has too {_little(what)} {what} left – {figures}"
                f" – free {what} in the namespace, ask for less, or raise the quota."
            )
    return ""


def _little(word: str) -> str:
    return "little" if word in ("memory", "local disk", "storage") else "few"


def _quota_amounts(written: str) -> dict[str, Amount]:
    """`cpu=4,requests.nvidia.com/gpu=8` as amounts."""
    found: dict[str, Amount] = {}
    for pair in written.rstrip(",;.").split(","):
        name, _, value = pair.partition("=")
        amount = parse_quantity(value)
        if amount is not None:
            found[name] = amount
    return found

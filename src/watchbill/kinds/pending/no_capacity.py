"""Insufficient capacity: schedulers' messages parsed for what is short and on how many nodes.

Amounts are written for people: GPUs as decimals, memory in binary units. Requests are rounded up and free
amounts down, so that a sentence never promises capacity that is not there.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.claims import NO_DEVICES, Devices, claimed_devices
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.resources import requested_gpus
from watchbill.quantity import Amount, parse_quantity
from watchbill.workload import PendingReason

StatedReason = tuple[PendingReason, Callable[[], str]]
"""A reason, and what writes its `user_message`, for those alone that are shown: each may look at all pods."""
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
    """`GPUs`, `CPU cores`, `memory`; any other resource keeps its name."""
    words = _WORDS.get("gpu" if is_gpu(resource, gpu_resources) else resource)
    return words[1] if words else resource[:100]


def format_decimal(amount: Amount, *, rounds_up: bool = True) -> str:
    """A decimal number with two digits at most: 2, 0.5, 2.81."""
    hundredths = (ceil if rounds_up else floor)(amount * 100)
    whole, rest = divmod(hundredths, 100)
    return f"{whole}.{rest:02}".rstrip("0") if rest else str(whole)


def format_amount(resource: str, amount: Amount, *, rounds_up: bool = True) -> str:
    """The amount without the resource's word: `2.81`, `64 GiB`."""
    if resource not in _IN_BYTES and not resource.startswith("hugepages-"):
        return format_decimal(amount, rounds_up=rounds_up)
    power = 0
    while power < len(_UNITS) - 1 and amount >= 1024 ** (power + 1):
        power += 1
    return f"{format_decimal(Fraction(amount) / 1024**power, rounds_up=rounds_up)} {_UNITS[power]}"


def amount_with_word(
    resource: str, amount: Amount, gpu_resources: tuple[str, ...] = GPU_RESOURCES
) -> str:
    """The amount with its word: `16 GPUs`, `1 GPU`, `64 GiB of memory`."""
    amount_text = format_amount(resource, amount)
    if " " in amount_text:
        return f"{amount_text} of {resource_word(resource)}"
    words = _WORDS.get("gpu" if is_gpu(resource, gpu_resources) else resource)
    return f"{amount_text} {words[amount_text != '1'] if words else resource[:100]}"


def pods_word(number: int) -> str:
    return f"{number} pod" if number == 1 else f"{number} pods"


def requested_and_free(resource: str, *, requested: Amount, used: Amount, bound: Amount) -> str:
    """`16 requested, 2.81 of 62 free`."""
    free = format_amount(resource, max(0, bound - used), rounds_up=False)
    return (
        f"{format_amount(resource, requested)} requested,"
        f" {free} of {format_amount(resource, bound, rounds_up=False)} free"
    )


def request_text(
    pods: Iterable[Pod],
    gpu_resources: tuple[str, ...] = GPU_RESOURCES,
    claimed: Devices = NO_DEVICES,
) -> str:
    """`2 pods request 16 GPUs in total`; for pods without GPUs their CPU cores and memory.

    `claimed`: what they request through claims, in addition to their containers.
    """
    number = 0
    totals: dict[str, Amount] = {"gpu": claimed.gpus} if claimed.gpus else {}
    for pod in pods:
        number += 1
        for resource, amount in _requested_amounts(pod, gpu_resources):
            totals[resource] = totals.get(resource, 0) + amount
    if not number:
        return ""
    gpus = {resource: amount for resource, amount in totals.items() if "gpu" in resource}
    amounts = list(_through_claims(claimed))
    amounts += [
        f"{format_amount('memory', amount)} of GPU memory"
        if resource == "gpu-memory"
        else amount_with_word(resource, amount, gpu_resources)
        for resource, amount in (gpus or totals).items()
        if amount
    ]
    if not amounts:
        return f"{pods_word(number)} {'waits' if number == 1 else 'wait'}"
    verb = "requests" if number == 1 else "request"
    together = "" if number == 1 else " in total"
    return f"{pods_word(number)} {verb} {' and '.join(amounts)}{together}"


def _through_claims(claimed: Devices) -> Iterable[str]:
    """Devices other than a number of GPUs that is known."""
    if claimed.gpus is None:
        yield "GPUs through claims"
    for resource, number in claimed.others:
        devices = "1 device" if number == 1 else f"{number or ''} devices".lstrip()
        yield f"{devices} of class {resource.rpartition('/')[2][:100]}"


def _requested_amounts(pod: Pod, gpu_resources: tuple[str, ...]) -> Iterable[tuple[str, Amount]]:
    resources = pod.resources
    gpus = requested_gpus(resources, pod.annotations, gpu_resources)
    yield "gpu", gpus.portion or 0
    yield "gpu-memory", gpus.memory_bytes or 0
    yield "cpu", resources.cpu_request or 0
    yield "memory", resources.memory_request or 0


def one_line(message: str, length: int = 400) -> str:
    """A scheduler's message on one line, without the full stop at its end."""
    return " ".join(message[: 2 * length].split())[:length].rstrip(" .")


_QUOTA = re.compile(
    r"exceeded quota: (\S{1,253}), requested: (\S{1,1000}), used: (\S{1,1000}), limited(?: to)?: (\S{1,1000})"
)


def quota_message(message: str) -> str:
    """A sentence for the API server's "exceeded quota" error; "" for any other message."""
    match = _QUOTA.search(message)
    if match is None:
        return ""
    requested, used, bounds = (_quota_amounts(part) for part in match.groups()[1:])
    for name, amount in requested.items():
        bound, allocated = bounds.get(name), used.get(name, 0)
        if bound is not None and allocated + amount > bound:
            resource = name.removeprefix("requests.").removeprefix("limits.")
            what = resource_word(resource)
            figures = requested_and_free(resource, requested=amount, used=allocated, bound=bound)
            return (
                f"Quota {match[1]} of the namespace has too {_little(what)} {what} left – {figures}"
                f" – free {what} in the namespace, request less, or raise the quota."
            )
    return ""


def _little(word: str) -> str:
    return "little" if word in ("memory", "local disk", "storage") else "few"


def _quota_amounts(written: str) -> dict[str, Amount]:
    """`cpu=4,requests.nvidia.com/gpu=8` as amounts."""
    amounts: dict[str, Amount] = {}
    for pair in written.rstrip(",;.").split(","):
        name, _, value = pair.partition("=")
        amount = parse_quantity(value)
        if amount is not None:
            amounts[name] = amount
    return amounts


WAIT_ADVICE = "wait, request less, or add nodes"

# What a node's rejection means, and what would help; the first that occurs in the message counts.
REJECTIONS: tuple[tuple[str, str, str], ...] = (
    (
        "node affinity",
        "No node fits its node selector or affinity",
        "change the selector or label nodes",
    ),
    (
        "untolerated taint",
        "Its pods do not tolerate the taints of nodes",
        "tolerate the taint or free nodes",
    ),
    (
        "cannot allocate all claims",
        "No node has the devices that its claims request",
        "free devices, request fewer, or add nodes",
    ),
    (
        "resourceclaim not available",
        "Its resource claims hold devices that these nodes do not reach",
        "free the nodes that do, or use other claims",
    ),
    ("unbound immediate", "Its volumes are not bound", "check the claims and their storage class"),
    (
        "volume node affinity",
        "Its volumes are bound to other nodes",
        "free those nodes or move the volume",
    ),
    (
        "topology spread",
        "Its topology spread cannot be kept",
        "relax the constraint or free nodes",
    ),
    ("anti-affinity", "Its pod anti-affinity forbids the nodes", "relax it or add nodes"),
    (
        "pod affinity",
        "Its pod affinity finds no node",
        "relax it or start the pods that it must run beside",
    ),
    ("unschedulable", "Nodes are cordoned", "uncordon nodes or add some"),
    ("free ports", "The host ports that it requests are in use", "use other ports or add nodes"),
    ("Too many pods", "Nodes run their maximum number of pods", "free or add nodes"),
)
_GANG = re.compile(r"Resources were found for ([0-9]{1,7}) pods while ([0-9]{1,7}) are required")
_COUNTED = re.compile(
    r"([0-9]{1,7}) (node\(s\) .{1,300}?)(?=[.,;] ?[0-9]{1,7} node\(s\) |$)", re.DOTALL
)
_SHORTAGE = re.compile(
    r"(?:have )?enough (?:resources: |of mig profile: )(GPU memory|CPU cores|[^\s,;]{1,253})"
)
_ON_NODE = re.compile(
    r"Node (\S{1,253}) didn't have enough resources: (GPU memory|CPU cores|[^\s,;]{1,253}),"
    r" requested: ([0-9.]{1,20}), used: ([0-9.]{1,20}), capacity: ([0-9.]{1,20})"
)
_NOT_ENOUGH = re.compile(
    r"Not enough resources(?: (within .{1,60}?) of| in)? ?(?:node[ -]pool (\S{1,253}?))?: (.+)",
    re.DOTALL,
)
_WITHOUT_REASON = re.compile(r"(?:Unable to schedule pod\w*|Unschedulable)?\W*", re.IGNORECASE)
_NO_ROOM = re.compile(
    r"(?:Not enough resources(?: for the workload)?|no nodes with enough resources were found)\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InsufficientCapacity:
    """`place`: `Node pool a100`, or "" where the scheduler names none; `requested`: which pods request what."""

    place: str
    message: str
    requested: str
    gpu_resources: tuple[str, ...] = field(default=())


def insufficient_capacity(shortage: InsufficientCapacity) -> str:
    """The sentence for a message in KAI's format, or quoting any other message."""
    text = one_line(shortage.message, 2_000)
    node = _ON_NODE.search(text)
    if node:
        return _on_one_node(shortage, node)
    nodes_by_cause = {what: int(number) for number, what in _COUNTED.findall(text)}
    facts = [shortage.requested, *_gang(text)]
    short = short_of(nodes_by_cause)
    if short:
        resource = max(sorted(short), key=lambda name: (name.startswith("GPU"), short[name]))
        few = "little" if resource in ("memory", "GPU memory") else "few"
        place = f"{shortage.place} has" if shortage.place else "The nodes have"
        facts.append(nodes_that(short[resource], f"has too {few}", f"have too {few}"))
        return f"{place} too {few} free {resource} – {_listed(facts)} – {WAIT_ADVICE}."
    rejected = rejection(nodes_by_cause)
    if rejected is not None:
        problem, number, remedy = rejected
        facts.append(nodes_that(number, "rejects it", "reject it"))
        return f"{_placed(shortage.place, problem)} – {_listed(facts)} – {remedy}."
    return _quoted_message(shortage, text, facts)


def requests_of(pods: Sequence[Pod], view: WorkloadView) -> str:
    """What the pods request, through containers and through claims: `2 pods request 16 GPUs in total`."""
    claimed = claimed_devices(view, pods)
    return request_text(pods, view.settings.gpu_resources, claimed)


def short_of(nodes_by_cause: Mapping[str, int]) -> dict[str, int]:
    """How many nodes have too little of each resource."""
    nodes_by_resource: dict[str, int] = {}
    for what, number in nodes_by_cause.items():
        match = _SHORTAGE.search(what)
        if match:
            word = resource_word(match[1])
            nodes_by_resource[word] = nodes_by_resource.get(word, 0) + number
    return nodes_by_resource


def rejection(nodes_by_cause: Mapping[str, int]) -> tuple[str, int, str] | None:
    """The problem, how many nodes have it, and what would help."""
    for phrase, problem, remedy in REJECTIONS:
        number = sum(count for what, count in nodes_by_cause.items() if phrase in what)
        if number:
            return problem, number, remedy
    return None


def nodes_that(number: int, one_does: str, many_do: str) -> str:
    return f"1 node {one_does}" if number == 1 else f"{number} nodes {many_do}"


def _on_one_node(shortage: InsufficientCapacity, match: re.Match[str]) -> str:
    node, resource, *amounts = match.groups()
    requested, used, capacity = (parse_quantity(amount) or 0 for amount in amounts)
    word = resource_word(resource)
    few = "little" if "memory" in word else "few"
    place = f"{shortage.place} has" if shortage.place else "The nodes have"
    free = requested_and_free("gpu", requested=requested, used=used, bound=capacity)
    unit = " (GB)" if word == "memory" else ""
    return f"{place} too {few} free {word}{unit} – {free} on node {node} – {WAIT_ADVICE}."


def _gang(text: str) -> Iterator[str]:
    match = _GANG.search(text)
    if match:
        yield f"only {match[1]} of the {match[2]} that must start together fit"


def is_uninformative(message: str) -> bool:
    """Whether a scheduler's message names no reason at all."""
    return _WITHOUT_REASON.fullmatch(message.strip()) is not None


def _quoted_message(shortage: InsufficientCapacity, text: str, facts: list[str]) -> str:
    match = _NOT_ENOUGH.fullmatch(text)
    if match:
        within = f" {match[1]}" if match[1] else ""
        place = f"Node pool {match[2]}" if match[2] else shortage.place or "The cluster"
        return f"{place} has no capacity{within} – {one_line(match[3])} – {WAIT_ADVICE}."
    if is_uninformative(text):
        prefix = f"{shortage.place}: the" if shortage.place else "The"
        return (
            f"{prefix} scheduler has not placed its pods and says no reason – {_listed(facts)}"
            " – see its events or the scheduler's log."
        )
    if _NO_ROOM.fullmatch(text):
        place = shortage.place or "No node"
        room = "has no capacity for it" if shortage.place else "has capacity for it"
        return f"{place} {room} – {_listed(facts)} – {WAIT_ADVICE}."
    pool = shortage.place.rpartition(" ")[2]
    stated = one_line(text)
    prefix = f"{shortage.place}: " if shortage.place and pool not in stated else ""
    return f"{prefix}{stated} – {_listed(facts)} – {WAIT_ADVICE}."


def _placed(place: str, problem: str) -> str:
    return f"{place}: {problem[0].lower()}{problem[1:]}" if place else problem


def _listed(facts: list[str]) -> str:
    return ", ".join(fact for fact in facts if fact) or "amount unknown"

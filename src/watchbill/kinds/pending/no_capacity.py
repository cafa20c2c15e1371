"""Resources and amounts as people say them: GPUs as decimals, memory in binary units, never as quantities.

What is asked for is rounded up and what is free down, so that a sentence never promises room.

Why no node takes a pod: schedulers' texts read for what is short and on how many nodes, in plain words.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.claims import claimed_gpus
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.quantity import Amount, parse_quantity
from watchbill.kinds.objects.resources import requested_gpus

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


WAIT = "wait, ask for less, or add nodes"

# What a node's refusal means, and what would help; the first that is found in the message counts.
REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        "node affinity",
        "No node fits its node selector or affinity",
        "change the selector or label nodes",
    ),
    (
        "untolerated taint",
        "Nodes are kept for other work by taints",
        "tolerate the taint or free nodes",
    ),
    (
        "cannot allocate all claims",
        "No node has the devices that its claims ask for",
        "free devices, ask for fewer, or add nodes",
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
        "loosen the constraint or free nodes",
    ),
    ("anti-affinity", "Its pod anti-affinity forbids the nodes", "loosen it or add nodes"),
    ("pod affinity", "Its pod affinity finds no node", "loosen it or start the pods it follows"),
    ("unschedulable", "Nodes are cordoned", "uncordon nodes or add some"),
    ("free ports", "The host ports it asks for are taken", "use other ports or add nodes"),
    ("Too many pods", "Nodes hold as many pods as they may", "free or add nodes"),
)
_GANG = re.compile(r"Resources were found for ([0-9]{1,7}) pods while ([0-9]{1,7}) are required")
_COUNTED = re.compile(
    r"([0-9]{1,7}) (node\(s\) .{1,300}?)(?=[.,;] ?[0-9]{1,7} node\(s\) |$)", re.DOTALL
)
_LACKING = re.compile(
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
_SAYS_NOTHING = re.compile(
    r"(?:Unable to schedule pod\w*|Not enough resources(?: for the workload)?|Unschedulable"
    r"|no nodes with enough resources were found)\W*",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InsufficientCapacity:
    """`place`: `Node pool a100`, or "" where the scheduler knows of none; `asked`: who asks for what."""

    place: str
    message: str
    asked: str
    gpu_resources: tuple[str, ...] = field(default=())


def insufficient_capacity(found: InsufficientCapacity) -> str:
    """The sentence for a text of KAI's, or of any scheduler that speaks as it does."""
    text = plain(found.message, 2_000)
    node = _ON_NODE.search(text)
    if node:
        return _on_one_node(found, node)
    counted = {what: int(number) for number, what in _COUNTED.findall(text)}
    facts = [found.asked, *_gang(text)]
    short = short_of(counted)
    if short:
        resource = max(sorted(short), key=lambda name: (name.startswith("GPU"), short[name]))
        few = "little" if resource in ("memory", "GPU memory") else "few"
        place = f"{found.place} has" if found.place else "The nodes have"
        facts.append(nodes_that("lack", short[resource], "it" if few == "little" else "them"))
        return f"{place} too {few} free {resource} – {_listed(facts)} – {WAIT}."
    refused = refusal(counted)
    if refused is not None:
        problem, number, remedy = refused
        facts.append(nodes_that("refuse", number))
        return f"{_placed(found.place, problem)} – {_listed(facts)} – {remedy}."
    return _as_said(found, text, facts)


def who_asks(pods: Sequence[Pod], view: WorkloadView) -> str:
    """Which of the pods ask for what, through containers and through claims."""
    claimed = claimed_gpus(view.objects.claims, pods, view.settings)
    return asked_by(pods, view.settings.gpu_resources, claimed)


def short_of(counted: Mapping[str, int]) -> dict[str, int]:
    """Resources that nodes lack, by their words, and how many nodes lack each."""
    found: dict[str, int] = {}
    for what, number in counted.items():
        match = _LACKING.search(what)
        if match:
            word = resource_word(match[1])
            found[word] = found.get(word, 0) + number
    return found


def refusal(counted: Mapping[str, int]) -> tuple[str, int, str] | None:
    """The problem, how many nodes have it, and what would help."""
    for phrase, problem, remedy in REFUSALS:
        number = sum(count for what, count in counted.items() if phrase in what)
        if number:
            return problem, number, remedy
    return None


def nodes_that(verb: str, number: int, what: str = "it") -> str:
    return f"1 node {verb}s {what}" if number == 1 else f"{number} nodes {verb} {what}"


def _on_one_node(found: InsufficientCapacity, match: re.Match[str]) -> str:
    node, resource, *amounts = match.groups()
    asked, used, capacity = (parse_quantity(amount) or 0 for amount in amounts)
    word = resource_word(resource)
    few = "little" if "memory" in word else "few"
    place = f"{found.place} has" if found.place else "The nodes have"
    free = bounded_amounts("gpu", asked=asked, used=used, bound=capacity)
    unit = " (GB)" if word == "memory" else ""
    return f"{place} too {few} free {word}{unit} – {free} on node {node} – {WAIT}."


def _gang(text: str) -> Iterator[str]:
    match = _GANG.search(text)
    if match:
        yield f"only {match[1]} of the {match[2]} that must start together find room"


def _as_said(found: InsufficientCapacity, text: str, facts: list[str]) -> str:
    match = _NOT_ENOUGH.fullmatch(text)
    if match:
        within = f" {match[1]}" if match[1] else ""
        place = f"Node pool {match[2]}" if match[2] else found.place or "The cluster"
        return f"{place} has no room{within} – {plain(match[3])} – {WAIT}."
    if not text or _SAYS_NOTHING.fullmatch(text):
        place = found.place or "No node"
        room = "has no room for it" if found.place else "has room for it"
        return f"{place} {room} – {_listed(facts)} – {WAIT}."
    pool = found.place.rpartition(" ")[2]
    said = plain(text)
    prefix = f"{found.place}: " if found.place and pool not in said else ""
    return f"{prefix}{said} – {_listed(facts)} – {WAIT}."


def _placed(place: str, problem: str) -> str:
    return f"{place}: {problem[0].lower()}{problem[1:]}" if place else problem


def _listed(facts: list[str]) -> str:
    return ", ".join(fact for fact in facts if fact) or "how much is not said"

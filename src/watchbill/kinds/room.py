"""Why no node takes a pod: schedulers' texts read for what is short and on how many nodes, in plain words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from watchbill.kinds.claims import claimed_gpus
from watchbill.kinds.objects import WorkloadObjects
from watchbill.kinds.pod import Pod
from watchbill.kinds.quantity import parse_quantity
from watchbill.kinds.settings import DeriveSettings
from watchbill.kinds.wording import asked_by, bounded_amounts, plain, resource_word

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
class NoRoom:
    """`place`: `Node pool a100`, or "" where the scheduler knows of none; `asked`: who asks for what."""

    place: str
    message: str
    asked: str
    gpu_resources: tuple[str, ...] = field(default=())


def no_room(found: NoRoom) -> str:
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


def who_asks(pods: Sequence[Pod], workload: WorkloadObjects, settings: DeriveSettings) -> str:
    """Which of the pods ask for what, through containers and through claims."""
    claimed = claimed_gpus(workload.claims, pods, settings)
    return asked_by(pods, settings.gpu_resources, claimed)


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


def _on_one_node(found: NoRoom, match: re.Match[str]) -> str:
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


def _as_said(found: NoRoom, text: str, facts: list[str]) -> str:
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

"""What schedulers write on the pods themselves, and Volcano on its pod groups, in plain words."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Literal

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.claims import claimed_gpus
from watchbill.kinds.derivation.organisation import volcano_groups
from watchbill.kinds.objects.json_access import at, condition, instant, metadata, text
from watchbill.kinds.objects.objects import Object, WorkloadObjects
from watchbill.kinds.objects.pod import Pod, PodCondition
from watchbill.kinds.objects.quantity import Amount, parse_quantity
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.kinds.pending import events
from watchbill.kinds.pending.no_capacity import (
    WAIT,
    InsufficientCapacity,
    amount_of,
    counted,
    insufficient_capacity,
    plain,
    refusal,
    resource_word,
    who_asks,
)
from watchbill.workload import PendingReason

_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_MESSAGES = 5
_NODES = re.compile(r"0/([0-9]{1,7}) nodes are available: ?(.*)", re.DOTALL)
_CLAIM = re.compile(r'persistentvolumeclaim "?([\w.-]{1,253})"? not found')
_COUNTED = re.compile(r"(?:^|, )([0-9]{1,7}) (.{1,300}?)(?=, [0-9]{1,7} |$)")
_TAIL = re.compile(r"\.? ?(?:no new claims to deallocate, ?)?preemption: .*", re.DOTALL)
_INSUFFICIENT = re.compile(r"Insufficient (\S{1,317})")

_GANG = re.compile(r"([0-9]{1,7})/([0-9]{1,7}) tasks in gang unschedulable")
_CAPABILITY = re.compile(r"queue resource quota|queue.{0,80}overused", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Pods that wait with one and the same message, the oldest first."""

    pods: tuple[Pod, ...]
    reason: str
    message: str
    since: datetime


def pod_reasons(view: WorkloadView) -> Iterator[PendingReason]:
    groups: dict[tuple[str, str], _Group] = {}
    for pod in view.pods.unscheduled:
        said = pod.scheduled or _event_about(pod, view.objects)
        if said is None or said.status == "True":
            continue
        key = (said.reason, said.message)
        held = groups.get(key)
        since = said.at or pod.created_at or _EPOCH
        groups[key] = _Group(
            pods=(*held.pods, pod) if held else (pod,),
            reason=said.reason or "Unschedulable",
            message=said.message,
            since=min(held.since, since) if held else since,
        )
    # The message of the most pods first, then the newest.
    ordered = sorted(groups.values(), key=lambda group: (-len(group.pods), group.message))
    for group in ordered[:_MAX_MESSAGES]:
        yield PendingReason(
            source=_source(group.pods[0], view.settings),
            reason=group.reason,
            message=group.message or group.reason,
            user_message=_user_message(group, view),
            since=group.since,
        )


def _event_about(pod: Pod, objects: WorkloadObjects) -> PodCondition | None:
    """What an event says of a pod on which no scheduler has written anything."""
    if not objects.scheduling_events:
        return None
    found = events.newest(objects.scheduling_events, events.SCHEDULING_FAILURES, about=pod.uid)
    if found is None:
        return None
    reason = text(found.get("reason"))
    return PodCondition("False", reason, events.message(found), events.event_at(found))


def _source(pod: Pod, settings: DeriveSettings) -> Literal["kai", "volcano", "scheduler"]:
    if pod.scheduler_name in settings.kai_schedulers:
        return "kai"
    return "volcano" if pod.scheduler_name == "volcano" else "scheduler"


def _user_message(group: _Group, view: WorkloadView) -> str:
    if group.reason == "SchedulingGated":
        return (
            "A scheduling gate holds its pods – no scheduler looks at them yet"
            " – whoever set the gate has to remove it."
        )
    if group.reason == "PodGrouperWarning":
        return (
            f"KAI cannot group its pods, so no scheduler looks at them – {plain(group.message)}"
            " – mend the owner that it names, or ask who runs KAI."
        )
    claim = _CLAIM.search(group.message)
    if claim:
        return f"Volume claim {claim[1]} does not exist – the pod asks for it – create the claim."
    nodes = _NODES.search(group.message)
    if nodes is not None:
        return _no_node(group, int(nodes[1]), _TAIL.sub("", nodes[2]), view)
    pool = group.pods[0].labels.get(view.settings.node_pool_label, "")
    return insufficient_capacity(
        InsufficientCapacity(
            place=f"Node pool {pool}" if pool else "",
            message=group.message,
            asked=who_asks(group.pods, view),
        )
    )


def _no_node(group: _Group, nodes: int, refusals: str, view: WorkloadView) -> str:
    causes = {what: int(number) for number, what in _COUNTED.findall(refusals.rstrip("."))}
    short = {
        match[1]: number
        for what, number in causes.items()
        if (match := _INSUFFICIENT.search(what)) is not None
    }
    if short:
        resource = max(sorted(short), key=lambda name: (_is_gpu(name, view.settings), short[name]))
        return _short_of(resource, group, short[resource], nodes, view)
    refused = refusal(causes)
    if refused is not None:
        problem, number, remedy = refused
        verb = "refuses" if number == 1 else "refuse"
        fact = f"{number} of {nodes} nodes {verb} it for that"
        if claimed_gpus(view.objects.claims, group.pods, view.settings):
            fact = f"{who_asks(group.pods, view)}, {fact}"
        return f"{problem} – {fact} – {remedy}."
    said = plain(refusals) or who_asks(group.pods, view)
    return f"No node fits – {said} – {WAIT}."


def _short_of(
    resource: str,
    group: _Group,
    lacking: int,
    nodes: int,
    view: WorkloadView,
) -> str:
    asked = _asked(group.pods[0], resource)
    word = resource_word(resource, view.settings.gpu_resources)
    largest = _largest_node(view.cluster.node_labels) if word == "GPUs" else None
    one = counted(resource, asked or 0, view.settings.gpu_resources)
    said = "how much is not said"
    if asked:
        said = f"{amount_of(resource, asked)} asked for by one pod"
    if largest is not None and asked is not None and asked > largest:
        return (
            f"No node has {one} – the largest has {largest}"
            f" – ask for at most {largest} per pod, or add larger nodes."
        )
    them = "it" if word in ("memory", "local disk") else "them"
    said += f", {lacking} of {nodes} nodes {'lacks' if lacking == 1 else 'lack'} {them}"
    others = nodes - lacking
    if others > 0:
        said += f", the other {f'{others} do' if others > 1 else 'does'} not fit"
    return f"No node has enough free {word} – {said} – {WAIT}."


def _is_gpu(resource: str, settings: DeriveSettings) -> bool:
    return resource in settings.gpu_resources


def _asked(pod: Pod, resource: str) -> Amount | None:
    if resource == "memory":
        return pod.resources.memory_request
    if resource == "cpu":
        return pod.resources.cpu_request
    return dict(pod.resources.extended).get(resource)


def _largest_node(nodes: Mapping[str, Mapping[str, str]]) -> int | None:
    """The most GPUs that any node has, where all nodes with GPUs say how many."""
    counts = [parse_quantity(labels.get("nvidia.com/gpu.count")) for labels in nodes.values()]
    known = [int(Fraction(number)) for number in counts if number is not None]
    return max(known, default=None)


def volcano_reasons(view: WorkloadView) -> Iterator[PendingReason]:
    if not view.pods.unscheduled:
        return
    for group in volcano_groups(view.objects):
        found = condition(at(group, "status", "conditions"), "Unschedulable")
        if found is None or found.get("status") != "True":
            continue
        message = text(found.get("message"))
        since = instant(found.get("lastTransitionTime")) or instant(
            metadata(group).get("creationTimestamp")
        )
        yield PendingReason(
            source="volcano",
            reason=text(found.get("reason"))[:253] or "Unschedulable",
            message=message or "Unschedulable",
            user_message=_volcano_message(group, message, view),
            since=since or _EPOCH,
        )


def _volcano_message(
    group: Object,
    message: str,
    view: WorkloadView,
) -> str:
    """Its groups are its own affair: what counts is how many pods find no node, and the queue's bound."""
    queue = text(at(group, "spec", "queue")) or "default"
    asked = who_asks(view.pods.unscheduled, view)
    if _CAPABILITY.search(message):
        return (
            f"Queue {queue} has too little left for it – {asked}{_capability(queue, view.objects)}"
            " – free some in the queue, ask for less, or raise its capability."
        )
    gang = _GANG.search(message)
    if gang:
        waits = "finds no node" if gang[1] == "1" else "find no node"
        return (
            f"Its pods start together or not at all, and {gang[1]} of {gang[2]} {waits}"
            f" – {asked} in queue {queue} – {WAIT}."
        )
    return insufficient_capacity(
        InsufficientCapacity(place="", message=message, asked=f"{asked} in queue {queue}")
    )


def _capability(queue: str, objects: WorkloadObjects) -> str:
    bounds = at(objects.cluster.volcano_queues.get(queue), "spec", "capability")
    for resource in ("nvidia.com/gpu", "cpu", "memory"):
        bound = parse_quantity(at(bounds, resource))
        if bound is not None:
            return f", it may hold {counted(resource, bound)}"
    return ""

"""Reasons that schedulers state on the pods themselves, and Volcano on its pod groups."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from typing import Literal

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.claims import NO_DEVICES, claimed_devices
from watchbill.kinds.objects.json_access import (
    at,
    condition,
    event_at,
    instant,
    message_of,
    metadata,
    newest_events,
    text,
)
from watchbill.kinds.objects.objects import Object, WorkloadObjects
from watchbill.kinds.objects.pod import Pod, PodCondition
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.kinds.pending import events
from watchbill.kinds.pending.no_capacity import (
    WAIT_ADVICE,
    InsufficientCapacity,
    StatedReason,
    amount_with_word,
    format_amount,
    insufficient_capacity,
    is_uninformative,
    one_line,
    quota_message,
    rejection,
    requests_of,
    resource_word,
)
from watchbill.quantity import Amount, parse_quantity
from watchbill.workload import PendingReason

_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_MESSAGES = 5
_NODES = re.compile(r"0/([0-9]{1,7}) nodes are available: ?(.*)", re.DOTALL)
_NOT_MADE = re.compile("ResourceClaim not created yet|to create the resourceclaim")
_OBJECTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r'persistentvolumeclaim "?([\w.-]{1,253})"? not found'),
        "Volume claim {} does not exist – a pod uses it – create the claim.",
    ),
    (
        re.compile(r"device class ([\w.-]{1,253}) does not exist"),
        "Device class {} does not exist – a resource claim of its pods names it"
        " – install the driver that brings it, or name another class.",
    ),
    (
        re.compile(r'could not find ResourceClaim "?(?:[\w.-]{1,253}/)?([\w.-]{1,253})'),
        "Resource claim {} does not exist – a pod uses it – create the claim.",
    ),
    (
        re.compile(r'resourceclaim "?([\w.-]{1,253})"? is being deleted'),
        "Resource claim {} is being deleted – a pod uses it"
        " – end the pods that still hold it, and create it again.",
    ),
    (
        re.compile(r'resource claim template "([\w.-]{1,253})": .{0,300}not found'),
        "Resource claim template {} does not exist – its pods name it – create it.",
    ),
    (
        re.compile(r"PodResourceClaim ([\w.-]{1,253}): (.{1,300})"),
        "Resource claim {} of its pods cannot be made – {} – correct the template or what refuses it.",
    ),
    (
        _NOT_MADE,
        "A resource claim of its pods is not there yet – Kubernetes makes it from the template that they name"
        " – check that the ResourceClaimTemplate exists.",
    ),
)
"""What a message says of an object that pods use, and what that means and asks for; `{}` is what it names."""
_COUNTED = re.compile(r"(?:^|, )([0-9]{1,7}) (.{1,300}?)(?=, [0-9]{1,7} |$)")
_TAIL = re.compile(r"\.? ?(?:no new claims to deallocate, ?)?preemption: .*", re.DOTALL)
_INSUFFICIENT = re.compile(r"Insufficient (\S{1,317})")

_GANG = re.compile(r"([0-9]{1,7})/([0-9]{1,7}) tasks in gang unschedulable")
_CAPABILITY = re.compile(r"queue resource quota|queue.{0,80}overused", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class _Group:
    """Pods that wait with one and the same message but for their names, the oldest first."""

    reason: str
    message: str
    since: datetime
    pods: list[Pod] = field(default_factory=list)


def pod_reasons(view: WorkloadView) -> Iterator[StatedReason]:
    groups: dict[tuple[str, str], _Group] = {}
    stated_events = view.objects.scheduling_events
    failures = newest_events(stated_events, events.SCHEDULING_FAILURES)
    grouping = newest_events(stated_events, events.GROUPING_FAILURES)
    claiming = newest_events(stated_events, events.CLAIM_FAILURES)
    for pod in view.pods.unscheduled:
        condition_ = _stated(pod, failures, grouping, claiming)
        if condition_ is None or condition_.status == "True":
            continue
        since = condition_.at or pod.created_at or _EPOCH
        # Some messages name the very pod, and say the same of each.
        common = condition_.message.replace(f'"{pod.namespace}/{pod.name}"', "")
        group = groups.setdefault(
            (condition_.reason, common),
            _Group(
                reason=condition_.reason or "Unschedulable",
                message=condition_.message,
                since=since,
            ),
        )
        group.pods.append(pod)
        group.since = min(group.since, since)
    # The message of the most pods first, then the newest.
    ordered = sorted(groups.values(), key=lambda group: (-len(group.pods), group.message))
    for group in ordered[:_MAX_MESSAGES]:
        reason = PendingReason(
            source=_source(group.pods[0], view.settings),
            reason=group.reason,
            message=group.message or group.reason,
            user_message="",
            since=group.since,
        )
        yield reason, partial(_user_message, group, view)


def _stated(
    pod: Pod,
    failures: Mapping[str, Object],
    grouping: Mapping[str, Object],
    claiming: Mapping[str, Object],
) -> PodCondition | None:
    """Why the pod waits: its condition, else the newest event; KAI's grouper where these say nothing, and why
    a claim was not made where they say no more than that."""
    stated = pod.scheduled or _as_condition(failures.get(pod.uid))
    if stated is not None and is_uninformative(stated.message):
        return _as_condition(grouping.get(pod.uid)) or stated
    if stated is not None and _NOT_MADE.search(stated.message):
        return _as_condition(claiming.get(pod.uid)) or stated
    return stated


def _as_condition(event: Object | None) -> PodCondition | None:
    """The condition that an event stands for, where no scheduler has set one on the pod."""
    if event is None:
        return None
    reason = text(event.get("reason"))
    return PodCondition("False", reason, message_of(event), event_at(event))


def _source(pod: Pod, settings: DeriveSettings) -> Literal["kai", "volcano", "scheduler"]:
    if pod.scheduler_name in settings.kai_schedulers:
        return "kai"
    return "volcano" if pod.scheduler_name == "volcano" else "scheduler"


def _gated(gates: Sequence[str]) -> str:
    if len(gates) > 1:
        return (
            f"Scheduling gates {', '.join(gates)} block its pods – no scheduler considers them until all are "
            "removed – the controllers that set the gates must remove them."
        )
    return (
        f"{f'Scheduling gate {gates[0]}' if gates else 'A scheduling gate'} blocks its pods"
        " – no scheduler considers them until it is removed"
        " – the controller that set the gate must remove it."
    )


def _user_message(group: _Group, view: WorkloadView) -> str:
    if group.reason == "SchedulingGated":
        return _gated([name for name in group.pods[0].gates if name])
    queue = group.pods[0].labels.get(view.settings.queue_label, "")
    is_kai = _source(group.pods[0], view.settings) == "kai"
    if is_kai and queue and view.cluster.queues and queue not in view.cluster.queues:
        return (
            f"Queue {queue} does not exist – KAI schedules no pod of it"
            " – create it or name another queue."
        )
    if group.reason == "PodGrouperWarning":
        remedy = "fix the owner named there, or ask the KAI administrator"
        if queue:
            remedy = f"check its owner and whether queue {queue} exists"
        return (
            f"KAI cannot group its pods, so they are not scheduled – {one_line(group.message)}"
            f" – {remedy}."
        )
    if over_quota := quota_message(group.message):
        return over_quota
    for pattern, sentence in _OBJECTS:
        if match := pattern.search(group.message):
            return sentence.format(*match.groups())
    # What preemption could do on how many nodes is said of any refusal.
    message = _TAIL.sub("", group.message)
    nodes = _NODES.search(message)
    if nodes is not None:
        return _no_node(group, int(nodes[1]), nodes[2], view)
    pool = group.pods[0].labels.get(view.settings.node_pool_label, "")
    return insufficient_capacity(
        InsufficientCapacity(
            place=f"Node pool {pool}" if pool else "",
            message=message or group.message,
            requested=requests_of(group.pods, view),
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
    refused = rejection(causes)
    if refused is not None:
        problem, number, remedy = refused
        verb = "rejects" if number == 1 else "reject"
        fact = f"{number} of {nodes} nodes {verb} it for this reason"
        if claimed_devices(view, group.pods) != NO_DEVICES:
            fact = f"{requests_of(group.pods, view)}, {fact}"
        return f"{problem} – {fact} – {remedy}."
    stated = one_line(refusals) or requests_of(group.pods, view)
    return f"No node fits – {stated} – {WAIT_ADVICE}."


def _short_of(
    resource: str,
    group: _Group,
    insufficient: int,
    nodes: int,
    view: WorkloadView,
) -> str:
    requested = _requested_amount(group.pods[0], resource)
    word = resource_word(resource, view.settings.gpu_resources)
    largest = _largest_node(view.cluster.node_labels) if word == "GPUs" else None
    requested_text = amount_with_word(resource, requested or 0, view.settings.gpu_resources)
    amount_text = "amount unknown"
    if requested:
        amount_text = f"{format_amount(resource, requested)} requested by one pod"
    if largest is not None and requested is not None and requested > largest:
        return (
            f"No node has {requested_text} – the largest has {largest}"
            f" – request at most {largest} per pod, or add larger nodes."
        )
    few = "little" if word in ("memory", "local disk") else "few"
    amount_text += (
        f", {insufficient} of {nodes} nodes {'has' if insufficient == 1 else 'have'} too {few}"
    )
    others = nodes - insufficient
    if others > 0:
        amount_text += f", the other {f'{others} do' if others > 1 else 'does'} not fit"
    return f"No node has enough free {word} – {amount_text} – {WAIT_ADVICE}."


def _is_gpu(resource: str, settings: DeriveSettings) -> bool:
    return resource in settings.gpu_resources


def _requested_amount(pod: Pod, resource: str) -> Amount | None:
    if resource == "memory":
        return pod.resources.memory_request
    if resource == "cpu":
        return pod.resources.cpu_request
    return dict(pod.resources.extended).get(resource)


def _largest_node(nodes: Mapping[str, Mapping[str, str]]) -> int | None:
    """The most GPUs on any node, by the label `nvidia.com/gpu.count`."""
    counts = [parse_quantity(labels.get("nvidia.com/gpu.count")) for labels in nodes.values()]
    known = [int(Fraction(number)) for number in counts if number is not None]
    return max(known, default=None)


def volcano_reasons(view: WorkloadView) -> Iterator[StatedReason]:
    if not view.pods.unscheduled:
        return
    for group in view.volcano_groups:
        unschedulable = condition(at(group, "status", "conditions"), "Unschedulable")
        if unschedulable is None or unschedulable.get("status") != "True":
            continue
        if _is_superseded(unschedulable, condition(at(group, "status", "conditions"), "Scheduled")):
            continue
        message = message_of(unschedulable)
        since = instant(unschedulable.get("lastTransitionTime")) or instant(
            metadata(group).get("creationTimestamp")
        )
        reason = PendingReason(
            source="volcano",
            reason=text(unschedulable.get("reason"))[:253] or "Unschedulable",
            message=message or "Unschedulable",
            user_message="",
            since=since or _EPOCH,
        )
        yield reason, partial(_volcano_message, group, message, view)


def _is_superseded(unschedulable: Object, scheduled: Object | None) -> bool:
    """Volcano leaves the old condition True when the gang was scheduled later."""
    if scheduled is None or scheduled.get("status") != "True":
        return False
    at_ = [instant(condition.get("lastTransitionTime")) for condition in (unschedulable, scheduled)]
    return at_[0] is not None and at_[1] is not None and at_[1] > at_[0]


def _volcano_message(
    group: Object,
    message: str,
    view: WorkloadView,
) -> str:
    """By the queue's capability or the gang's size, else quoting the message."""
    queue = text(at(group, "spec", "queue")) or "default"
    requests = requests_of(view.pods.unscheduled, view)
    if _CAPABILITY.search(message):
        return (
            f"Queue {queue} has too little capacity left for it – {requests}{_capability(queue, view.objects)}"
            " – free some in the queue, request less, or raise its capability."
        )
    gang = _GANG.search(message)
    if gang:
        waits = "finds no node" if gang[1] == "1" else "find no node"
        return (
            f"Its pods are scheduled together or not at all, and {gang[1]} of {gang[2]} {waits}"
            f" – {requests} in queue {queue} – {WAIT_ADVICE}."
        )
    return insufficient_capacity(
        InsufficientCapacity(place="", message=message, requested=f"{requests} in queue {queue}")
    )


def _capability(queue: str, objects: WorkloadObjects) -> str:
    bounds = at(objects.cluster.volcano_queues.get(queue), "spec", "capability")
    for resource in ("nvidia.com/gpu", "cpu", "memory"):
        bound = parse_quantity(at(bounds, resource))
        if bound is not None:
            return f", its capability is {amount_with_word(resource, bound)}"
    return ""

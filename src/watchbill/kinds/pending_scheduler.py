"""What schedulers write on the pods themselves, and Volcano on its pod groups, in plain words."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Literal

from watchbill.kinds.census import Census
from watchbill.kinds.lookup import (
    at,
    condition,
    group_version,
    instant,
    metadata,
    name_key,
    text,
)
from watchbill.kinds.objects import Object, WorkloadObjects
from watchbill.kinds.pod import Pod
from watchbill.kinds.quantity import format_bytes, format_count, parse_quantity
from watchbill.kinds.settings import DeriveSettings
from watchbill.workload import PendingReason

VOLCANO_GROUP = "scheduling.volcano.sh"
_EPOCH = datetime.fromtimestamp(0, UTC)
_MAX_MESSAGES = 5
_NODES = re.compile(r"0/([0-9]{1,7}) nodes are available: ?(.*)", re.DOTALL)
_CLAIM = re.compile(r'persistentvolumeclaim "?([\w.-]{1,253})"? not found')
_COUNTED = re.compile(r"(?:^|, )([0-9]{1,7}) (.{1,300}?)(?=, [0-9]{1,7} |$)")
_TAIL = re.compile(r"\.? ?(?:no new claims to deallocate, ?)?preemption: .*", re.DOTALL)
_INSUFFICIENT = re.compile(r"Insufficient (\S{1,317})")

# What a node's refusal means, and what would help; the first that is found in the message counts.
_REFUSALS: tuple[tuple[str, str, str], ...] = (
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
    ("were unschedulable", "Nodes are cordoned", "uncordon nodes or add some"),
    ("free ports", "The host ports it asks for are taken", "use other ports or add nodes"),
    ("Too many pods", "Nodes hold as many pods as they may", "free or add nodes"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Pods that wait with one and the same message; `pod` is the one that says so since longest."""

    pod: Pod
    reason: str
    message: str
    count: int
    since: datetime


def pod_reasons(
    objects: WorkloadObjects, census: Census, settings: DeriveSettings
) -> Iterator[PendingReason]:
    groups: dict[tuple[str, str], _Group] = {}
    for pod in census.unscheduled:
        said = pod.scheduled
        if said is None or said.status == "True":
            continue
        key = (said.reason, said.message)
        held = groups.get(key)
        since = said.at or pod.created_at or _EPOCH
        groups[key] = _Group(
            pod=held.pod if held else pod,
            reason=said.reason or "Unschedulable",
            message=said.message,
            count=held.count + 1 if held else 1,
            since=min(held.since, since) if held else since,
        )
    # The message of the most pods first, then the newest.
    ordered = sorted(groups.values(), key=lambda group: (-group.count, group.message))
    for group in ordered[:_MAX_MESSAGES]:
        yield PendingReason(
            source=_source(group.pod, settings),
            reason=group.reason,
            message=group.message or group.reason,
            user_message=_user_message(group, objects, settings),
            since=group.since,
        )


def _source(pod: Pod, settings: DeriveSettings) -> Literal["kai", "volcano", "scheduler"]:
    if pod.scheduler_name in settings.kai_schedulers:
        return "kai"
    return "volcano" if pod.scheduler_name == "volcano" else "scheduler"


def _user_message(group: _Group, objects: WorkloadObjects, settings: DeriveSettings) -> str:
    if group.reason == "SchedulingGated":
        return (
            "A scheduling gate holds its pods – no scheduler looks at them yet"
            " – whoever set the gate has to remove it."
        )
    claim = _CLAIM.search(group.message)
    if claim:
        return f"Volume claim {claim[1]} does not exist – the pod asks for it – create the claim."
    nodes = _NODES.search(group.message)
    if nodes is None:
        said = " ".join(group.message.split()).rstrip(".") or "No scheduler has placed its pods"
        return f"{said} – {group.count} of its pods wait – wait, ask for less, or add nodes."
    return _no_node(group, int(nodes[1]), _TAIL.sub("", nodes[2]), objects, settings)


def _no_node(
    group: _Group, nodes: int, refusals: str, objects: WorkloadObjects, settings: DeriveSettings
) -> str:
    counted = {what: int(number) for number, what in _COUNTED.findall(refusals.rstrip("."))}
    short = {
        match[1]: number
        for what, number in counted.items()
        if (match := _INSUFFICIENT.search(what)) is not None
    }
    if short:
        resource = max(sorted(short), key=lambda name: (_is_gpu(name, settings), short[name]))
        others = nodes - short[resource]
        beside = f", {others} others do not fit" if others > 0 else ""
        return _short_of(
            resource,
            group.pod,
            f"{short[resource]} of {nodes} nodes lack it{beside}",
            objects,
            settings,
        )
    for phrase, problem, remedy in _REFUSALS:
        number = sum(count for what, count in counted.items() if phrase in what)
        if number:
            return f"{problem} – {number} of {nodes} nodes refuse it for that – {remedy}."
    said = " ".join(refusals.split()).rstrip(".") or "no node fits"
    return f"No node fits – {said} – wait, ask for less, or add nodes."


def _short_of(
    resource: str, pod: Pod, lacking: str, objects: WorkloadObjects, settings: DeriveSettings
) -> str:
    asked = _asked(pod, resource)
    word = "GPUs" if _is_gpu(resource, settings) else resource
    largest = _largest_node(objects.cluster.node_labels) if word == "GPUs" else None
    each = f"{asked} asked for by one pod" if asked else "how much is not said"
    if largest is not None and asked.isdigit() and int(asked) > largest:
        return (
            f"No node has {asked} GPUs – {each}, the largest node has {largest}"
            f" – ask for at most {largest} per pod, or add larger nodes."
        )
    return f"No node has enough free {word} – {each}, {lacking} – wait, ask for less, or add nodes."


def _is_gpu(resource: str, settings: DeriveSettings) -> bool:
    return resource in settings.gpu_resources


def _asked(pod: Pod, resource: str) -> str:
    if resource == "memory":
        amount = pod.resources.memory_request
        return format_bytes(amount) if amount else ""
    amount = pod.resources.cpu_request if resource == "cpu" else None
    amount = amount or dict(pod.resources.extended).get(resource)
    return format_count(amount) if amount else ""


def _largest_node(nodes: Mapping[str, Mapping[str, str]]) -> int | None:
    """The most GPUs that any node has, where all nodes with GPUs say how many."""
    counts = [parse_quantity(labels.get("nvidia.com/gpu.count")) for labels in nodes.values()]
    known = [int(Fraction(number)) for number in counts if number is not None]
    return max(known, default=None)


def volcano_reasons(groups: Sequence[Object], census: Census) -> Iterator[PendingReason]:
    if not census.unscheduled:
        return
    for group in sorted(groups, key=name_key):
        if group_version(group)[0] != VOLCANO_GROUP:
            continue
        found = condition(at(group, "status", "conditions"), "Unschedulable")
        if found is None or found.get("status") != "True":
            continue
        message = text(found.get("message"))
        since = instant(found.get("lastTransitionTime")) or instant(
            metadata(group).get("creationTimestamp")
        )
        queue = text(at(group, "spec", "queue")) or "default"
        said = " ".join(message.split()).rstrip(".") or "Not all pods of the group can be placed"
        yield PendingReason(
            source="volcano",
            reason=text(found.get("reason"))[:253] or "Unschedulable",
            message=message or "Unschedulable",
            user_message=f"{said} – queue {queue} – wait, ask for less, or add nodes.",
            since=since or _EPOCH,
        )

"""Hooks: the few rules that no expression over one object can state, named by definitions.

Each takes the workload's view and returns its facts, changed by what the root's children and pods state.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from watchbill.kinds.definition.facts import ENDS, Facts, RoleFacts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    group_version,
    instant,
    metadata,
    text,
    whole,
)
from watchbill.kinds.objects.objects import GroupKind, Object
from watchbill.kinds.objects.pod import Pod, owners, plain_group, read_pod
from watchbill.kinds.objects.template import Template

_OF_THE_RUN = (
    "completed",
    "failed",
    "running",
    "reported",
    "initializing",
    "pending",
    "degraded",
    "ran",
)

Hook = Callable[[WorkloadView], Facts]


def ordered_pods(view: WorkloadView) -> Facts:
    """Pods that start in order: one not ready below one that is ready has run before."""
    if at(view.root, "spec", "podManagementPolicy") == "Parallel":
        return view.facts
    ready = [_ordinal(pod) for pod in view.pods.active if pod.is_ready]
    if not ready:
        return view.facts
    below = set(range(max(ready))) - set(ready)
    start = min((_ordinal(pod) for pod in view.pods.active), default=0)
    if not any(ordinal >= start for ordinal in below):
        return view.facts
    return msgspec.structs.replace(view.facts, predicates={**view.facts.predicates, "ran": ""})


def _ordinal(pod: Pod) -> int:
    digits = pod.name.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 7 else 0


def newest_run(view: WorkloadView) -> Facts:
    """A schedule's phase is that of its newest run that goes on; between runs, of how the last one ended.

    Where that run was cleared away, what the schedule remembers of it stands for it.
    """
    run_facts = [view.definitions.facts(run) for run in runs_of(view)]
    going = [run for run in run_facts if not run.has_ended]
    facts = view.facts
    predicates = dict(facts.predicates)
    if going and view.pods.active:
        # What holds back further runs, or failed to start one, says nothing of a run that goes on.
        predicates.pop("stopped", None)
        predicates.pop("degraded", None)
    if facts.embedded:
        facts = _with_roles_of(going, facts)
    if not run_facts:
        return facts
    predicates.pop("ran", None)
    run = (going or run_facts)[-1]
    if facts.has_ended and facts.finished_at is not None:
        if not going and not _is_as_late(run, facts.finished_at):
            return msgspec.structs.replace(facts, predicates=predicates)
        predicates = {name: value for name, value in predicates.items() if name not in ENDS}
    predicates |= {name: run.predicates[name] for name in _OF_THE_RUN if run.holds(name)}
    return msgspec.structs.replace(
        facts, predicates=predicates, started_at=run.started_at, finished_at=run.finished_at
    )


def runs_of(view: WorkloadView) -> list[Object]:
    """The runs of a schedule that are there, the oldest first."""
    uid = metadata(view.root).get("uid")
    runs = [
        child
        for child in view.objects.children
        if any(owner.uid == uid for owner in owners(child))
        and view.definitions.for_kind(GroupKind(group_version(child)[0], text(child.get("kind"))))
    ]
    return sorted(runs, key=_age_key)


def _is_as_late(run: Facts, at: datetime) -> bool:
    """The run began or ended then or later, so that what was known before is about an older one."""
    return any(known is not None and known >= at for known in (run.started_at, run.finished_at))


def _with_roles_of(going: list[Facts], facts: Facts) -> Facts:
    """The pods of the runs that go on; between two, what the next will have, and none of it now."""
    roles = [role for run in going for role in run.roles]
    if roles:
        needs = facts.needs or going[-1].needs
        return msgspec.structs.replace(facts, needs=needs).with_roles(roles)
    return facts.with_roles(
        msgspec.structs.replace(role, replicas=0, min=None, max=None) for role in facts.roles
    )


def plain_pods(view: WorkloadView) -> Facts:
    """Pods that name one pod group and have no owner are one workload; a pod alone stays as it is.

    It has ended when all of them have, and asks for what they ask for. A failed pod is not counted beside
    others, which may replace it.
    """
    uid = metadata(view.root).get("uid")
    own = next((pod for pod in view.pods.all if pod.uid == uid), None)
    group = plain_group(own or read_pod(view.root))
    members = [pod for pod in view.pods.all if group is not None and plain_group(pod) == group]
    lasting = [pod for pod in members if pod.phase != "Failed"] or members
    has_ended = all(pod.is_terminal for pod in members)
    total, least = _total_count(view.root), _least_members(view)
    number = max(total, least, len(members if has_ended and not total else lasting))
    if not members or number < 2:
        return view.facts
    ends = {}
    if has_ended:
        if sum(pod.phase == "Succeeded" for pod in members) >= number:
            ends["completed"] = ""
        elif len(lasting) < len(members) or lasting[0].phase == "Failed":
            ends["failed"] = next((pod.message for pod in members if pod.phase == "Failed"), "")
    predicates = {
        name: message for name, message in view.facts.predicates.items() if name not in ENDS
    }
    facts = msgspec.structs.replace(
        view.facts,
        predicates=predicates | ends,
        number=number,
        has_number=True,
        min=least or None,
        needs=least if 1 < least < number else number,
    )
    return facts.with_roles(_roles_of_pods(lasting, view.facts))


def _total_count(root: Mapping[str, Any]) -> int:
    """How many pods make up the group, as Kueue counts them."""
    stated = text(annotations(root).get("kueue.x-k8s.io/pod-group-total-count"))
    return int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 7 else 0


def _least_members(view: WorkloadView) -> int:
    """How many pods the group needs to start at all, by its PodGroup; 0 where there is none."""
    stated = (
        whole(at(group, "spec", "minMember")) for group in (*view.volcano_groups, *view.kai_groups)
    )
    gangs = (
        whole(at(group, "spec", "schedulingPolicy", "gang", "minCount"))
        for group in view.kubernetes_groups
    )
    return max((least or 0 for least in (*stated, *gangs)), default=0)


def _roles_of_pods(pods: list[Pod], facts: Facts) -> list[RoleFacts]:
    """One role for the pods that ask for and run the same; the first with the first pod's template."""
    sorts: dict[object, list[Pod]] = {}
    for pod in pods:
        sorts.setdefault((pod.resources, pod.images), []).append(pod)
    own = next((role.template for role in facts.roles), None)
    return [
        RoleFacts(
            name=alike[0].name,
            replicas=len(alike),
            template=own
            if own is not None
            and (own.resources, own.images) == (alike[0].resources, alike[0].images)
            else _template_of(alike[0]),
        )
        for alike in sorts.values()
    ]


def _template_of(pod: Pod) -> Template:
    """What a pod tells of its template; its claims are counted with the pods themselves."""
    return Template(
        resources=pod.resources,
        annotations=pod.annotations,
        labels=pod.labels,
        node_selector=dict(pod.node_selector),
        required_node_labels=(),
        claims=(),
        claim_templates=(),
        priority_class_name=pod.priority_class_name,
        scheduler_name=pod.scheduler_name,
        images=pod.images,
        command=(),
        arguments=(),
        variables=(),
    )


def _age_key(obj: Mapping[str, Any]) -> tuple[float, str]:
    created_at = instant(metadata(obj).get("creationTimestamp"))
    return (created_at.timestamp() if created_at else 0.0, text(metadata(obj).get("uid")))


HOOKS: dict[str, Hook] = {
    "newest_run": newest_run,
    "ordered_pods": ordered_pods,
    "plain_pods": plain_pods,
}

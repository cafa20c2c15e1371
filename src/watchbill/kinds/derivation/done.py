"""How much of what a workload needs is done: pods that ended well, and those of owned objects that completed.

A pod that ended may be gone before the workload has: with its node, or because the object above it has expired.
"""

from collections.abc import Container
from functools import cached_property

from msgspec.structs import replace

from watchbill.kinds.definition.facts import Facts, RoleFacts
from watchbill.kinds.definition.hooks import runs_of
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import INT32_MAX, has_labels, labels, metadata, text
from watchbill.kinds.objects.objects import Object, PodCounts
from watchbill.kinds.objects.pod import owners

Labels = tuple[tuple[str, str], ...]


def with_present_pods(view: WorkloadView) -> WorkloadView:
    """Of a schedule the pods of its runs that go on, else of its last one; of any other workload all."""
    runs = {_uid(run): view.definitions.facts(run) for run in _runs(view)}
    present = {uid for uid, facts in runs.items() if not facts.has_ended} or set(list(runs)[-1:])
    over = runs.keys() - present
    if not over:
        return view
    above = owners_by_uid(view)
    pods = [pod for pod in view.pods.all if not is_below(pod.uid, over, above)]
    return replace(view, pods=PodCounts(pods))


def _runs(view: WorkloadView) -> list[Object]:
    return runs_of(view) if view.definition.is_schedule else []


def done_pods(view: WorkloadView, required: int) -> int:
    """Pods that count as running though they have ended, of a kind whose pods end by themselves.

    `required`: how many the workload needs; where those that succeeded suffice, no owned object is read.
    """
    if not view.definition.runs_to_end:
        return 0
    succeeded = len(view.pods.succeeded)
    if view.definition.is_schedule or view.pods.ready + succeeded >= required:
        return succeeded
    return max(succeeded, _Ended(view).count())


def wanted_pods(view: WorkloadView) -> list[tuple[RoleFacts, int]]:
    """How many pods of each role are asked for now: one that ended well is not made again.

    Of what has ended itself all, as it was asked for; so of schedules, whose next run makes them anew.
    """
    ended = _Ended(view)
    left = [(role, _left(role, view, ended)) for role in view.facts.roles]
    return left if any(count for _, count in left) else [(role, role.replicas) for role, _ in left]


def _left(role: RoleFacts, view: WorkloadView, ended: "_Ended") -> int:
    facts = view.facts
    if facts.has_ended:
        return role.replicas
    if view.definition.is_schedule:
        return min(role.replicas, _left_of_runs(view))
    if role.left is not None:
        return min(role.replicas, role.left)
    if not view.definition.runs_to_end or not (role.pods or len(facts.roles) == 1):
        return role.replicas
    return max(role.replicas - ended.count(role.pods), 0)


def _left_of_runs(view: WorkloadView) -> int:
    """Pods of the runs under way that have yet to end; as many as there can be where a run does not say."""
    going = [facts for run in _runs(view) if not (facts := view.definitions.facts(run)).has_ended]
    roles = [role for facts in going for role in facts.roles]
    left = [min(role.replicas, role.left) for role in roles if role.left is not None]
    is_stated = len(view.facts.roles) == 1 and 0 < len(going) == len(roles) == len(left)
    return sum(left) if is_stated else INT32_MAX


class _Ended:
    """What of a workload's own objects completed, read once, however many roles ask."""

    def __init__(self, view: WorkloadView) -> None:
        self._view = view

    @cached_property
    def _above(self) -> dict[str, str]:
        return owners_by_uid(self._view)

    @cached_property
    def _completed(self) -> list[tuple[Object, Facts]]:
        return [
            (child, facts)
            for child in self._view.objects.children
            if (facts := self._view.definitions.facts(child)).holds("completed")
            and not facts.holds("failed")
        ]

    def count(self, labels_: Labels = ()) -> int:
        """All pods of owned objects that completed, and those beside them that succeeded: with these labels."""
        completed = {
            _uid(child): facts
            for child, facts in self._completed
            if has_labels(labels(child), labels_)
        }
        pods = [pod.uid for pod in self._view.pods.succeeded if has_labels(pod.labels, labels_)]
        if not completed:
            return len(pods)
        above = self._above
        outermost = (
            facts for uid, facts in completed.items() if not is_below(above[uid], completed, above)
        )
        beside = sum(not is_below(above[uid], completed, above) for uid in pods)
        return beside + sum(facts.number or 0 for facts in outermost)


def _uid(obj: Object) -> str:
    return text(metadata(obj).get("uid"))


def owners_by_uid(view: WorkloadView) -> dict[str, str]:
    """By UID of an owned object or a pod that of its owner: the controller, else the first named."""
    above = {}
    for child in view.objects.children:
        references = owners(child)
        controller = next((owner for owner in references if owner.is_controller), None)
        owner = controller or (references[0] if references else None)
        above[_uid(child)] = owner.uid if owner is not None else ""
    for pod in view.pods.all:
        above[pod.uid] = pod.controller.uid if pod.controller is not None else ""
    return above


def is_below(uid: str, ended: Container[str], above: dict[str, str]) -> bool:
    """Whether the object is one of `ended`, or stands below one."""
    seen: set[str] = set()
    while uid and uid not in seen:
        if uid in ended:
            return True
        seen.add(uid)
        uid = above.get(uid, "")
    return False

"""How much of what a workload needs is done: pods that ended well, and those of owned objects that completed.

A pod that ended may be gone before the workload has: with its node, or because the object above it has expired.
"""

from collections.abc import Container

from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import metadata, text
from watchbill.kinds.objects.pod import owners


def done_pods(view: WorkloadView, required: int) -> int:
    """Pods that count as running though they have ended, of a kind whose pods end by themselves.

    Of a schedule those of its runs that go on. `required`: how many the workload needs; where those that
    succeeded suffice, no owned object is read.
    """
    if not view.definition.runs_to_end:
        return 0
    if view.definition.is_schedule:
        return _outside(view, {uid for uid, facts in _children(view).items() if facts.has_ended})
    succeeded = len(view.pods.succeeded)
    if view.pods.ready + succeeded >= required:
        return succeeded
    return max(succeeded, _completed(view))


def _completed(view: WorkloadView) -> int:
    """All pods of owned objects that completed, and those beside them that succeeded."""
    completed = {
        uid: facts
        for uid, facts in _children(view).items()
        if facts.holds("completed") and not facts.holds("failed")
    }
    above = _owners(view)
    outermost = (
        facts for uid, facts in completed.items() if not _is_below(above[uid], completed, above)
    )
    return _outside(view, completed) + sum(facts.number or 0 for facts in outermost)


def _outside(view: WorkloadView, ended: Container[str]) -> int:
    """Pods that succeeded and belong to none of the objects that ended."""
    above = _owners(view)
    return sum(not _is_below(above[pod.uid], ended, above) for pod in view.pods.succeeded)


def _children(view: WorkloadView) -> dict[str, Facts]:
    return {
        text(metadata(child).get("uid")): view.definitions.facts(child)
        for child in view.objects.children
    }


def _owners(view: WorkloadView) -> dict[str, str]:
    """By UID of an owned object or a pod that of its owner: the controller, else the first named."""
    above = {}
    for child in view.objects.children:
        references = owners(child)
        controller = next((owner for owner in references if owner.is_controller), None)
        owner = controller or (references[0] if references else None)
        above[text(metadata(child).get("uid"))] = owner.uid if owner is not None else ""
    for pod in view.pods.all:
        above[pod.uid] = pod.controller.uid if pod.controller is not None else ""
    return above


def _is_below(uid: str, ended: Container[str], above: dict[str, str]) -> bool:
    seen: set[str] = set()
    while uid and uid not in seen:
        if uid in ended:
            return True
        seen.add(uid)
        uid = above.get(uid, "")
    return False

"""What the root's children and autoscalers add to its facts: roles, endpoints, framework, bounds."""

from collections.abc import Iterator
from typing import Any

import msgspec

from watchbill.kinds.definition.definition import ANY, Definitions
from watchbill.kinds.definition.facts import ENDS, Facts, RoleFacts
from watchbill.kinds.definition.program import count
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.done import is_below, owners_by_uid
from watchbill.kinds.derivation.queues import is_held
from watchbill.kinds.objects.json_access import (
    at,
    group_version,
    has_labels,
    metadata,
    name_key,
    text,
)
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.pod import Pod, owners


def with_inherited_endpoints(view: WorkloadView) -> Facts:
    """The root with what its children's kinds say of where they answer."""
    inherited = [
        endpoint
        for child in view.objects.children
        if view.definitions.for_object(child).program(group_version(child)[1]).source.endpoints
        for endpoint in view.definitions.facts(child).endpoints
    ]
    if not inherited:
        return view.facts
    return msgspec.structs.replace(view.facts, endpoints=(*view.facts.endpoints, *inherited))


def with_rollouts(view: WorkloadView) -> Facts:
    """The root with what the objects below it that roll out pods say of that, where it says nothing itself.

    A rollout that waits beside pods that serve is no state of a Deployment alone: whatever made it has it too.
    """
    if view.facts.has_ended or view.definition.is_schedule:
        return view.facts
    rolling = [
        view.definitions.facts(child) for child in view.objects.children if _rolls(child, view)
    ]
    if not rolling:
        return view.facts
    stated = {
        name: child.predicates[name]
        for name in ("updating", "degraded")
        for child in reversed(rolling)
        if child.holds(name)
    }
    if all(child.holds("ran") for child in rolling):
        stated["ran"] = ""
    return msgspec.structs.replace(view.facts, predicates={**stated, **view.facts.predicates})


def _rolls(child: Object, view: WorkloadView) -> bool:
    program = view.definitions.for_object(child).program(group_version(child)[1])
    return "updating" in program.source.predicates


def framework_of(view: WorkloadView) -> str | None:
    """The kind's own, or what it says of itself; else that of what it is made of, where these agree."""
    own = view.definition.distributed_framework or view.facts.framework
    if own:
        return own
    frameworks = {
        view.definitions.for_object(part).distributed_framework
        or view.definitions.facts_of_part(part).framework
        for part in view.objects.children
    } | {
        view.definitions.for_object(part).distributed_framework or ""
        for part in view.facts.embedded
    }
    frameworks.discard("")
    return frameworks.pop() if len(frameworks) == 1 else None


def with_children(view: WorkloadView) -> Facts:
    """The root with what its uppermost children that have templates state, where there are any.

    Children that have ended ask for nothing any more. Where all have, the root is between two of them; or, if
    it says nothing of itself, it has ended with the last.
    """
    children = _uppermost(view)
    if not children:
        return view.facts if _states_its_end(view) else _ended_with_pods(view)
    facts = {id(child): view.definitions.facts(child) for child in children}
    going = [child for child in children if not facts[id(child)].has_ended]
    if not going and not view.facts.has_ended and _states_its_end(view):
        requested = [role for child in children for role in _idle_roles(facts[id(child)])]
    else:
        requested = [role for child in going or children for role in facts[id(child)].roles]
    own = tuple(role for role in view.facts.roles if not role.is_embedded)
    queue = view.facts.queue or next(
        (child_facts.queue for child_facts in facts.values() if child_facts.queue), ""
    )
    combined = msgspec.structs.replace(view.facts, queue=queue).with_roles(
        _merged_roles(own, requested)
    )
    if going and combined.needs is None:
        needs = _needs(view, going)
        combined = msgspec.structs.replace(combined, needs=needs)
    if _states_its_end(view):
        return combined
    if going:
        return _suspended_with(combined, [facts[id(child)] for child in children])
    return _ended_with(combined, [facts[id(child)] for child in children])


def with_ended_parts(view: WorkloadView) -> Facts:
    """Objects that the root holds inside, and that were made and have ended, have no pods left to come.

    A role of the root itself stands for such an object where it bears its name.
    """
    ended = {
        _named(child) for child in view.objects.children if view.definitions.facts(child).has_ended
    }
    if not ended or view.facts.has_ended:
        return view.facts
    parts = iter(
        _named(part) in ended
        for part in view.facts.embedded
        for _ in view.definitions.facts_of_part(part).roles
    )
    names = {name for _, _, name in ended}
    return view.facts.with_roles(
        msgspec.structs.replace(role, left=0)
        if (next(parts, False) if role.is_embedded else role.name in names)
        else role
        for role in view.facts.roles
    )


def _named(obj: Object) -> tuple[str, str, str]:
    group, kind = group_version(obj)[0], text(obj.get("kind"))
    return group, kind, text(metadata(obj).get("name"))


def _uppermost(view: WorkloadView) -> list[Object]:
    """Children with templates that stand below no other such child, by name."""
    known = {text(metadata(child).get("uid")): child for child in view.objects.children}
    above = owners_by_uid(view)
    return [
        child
        for child in sorted(view.objects.children, key=name_key)
        if view.definitions.facts(child).roles
        and not _is_below_another(child, known, above, view.definitions)
    ]


def _states_its_end(view: WorkloadView) -> bool:
    """Whether the root's own status is read; of a kind without a definition often only metadata is."""
    return view.definition.key.kind != ANY or "status" in view.root


def _idle_roles(facts: Facts) -> Iterator[RoleFacts]:
    for role in facts.roles:
        yield msgspec.structs.replace(role, replicas=0, min=None, max=None)


def _suspended_with(combined: Facts, children: list[Facts]) -> Facts:
    """It is as long as all of them are."""
    if not all(child.holds("suspended") for child in children):
        return combined
    suspended = {"suspended": children[0].predicates["suspended"]}
    return msgspec.structs.replace(combined, predicates={**combined.predicates, **suspended})


def _ended_with(combined: Facts, children: list[Facts]) -> Facts:
    """The end of the child that ended last is the end of the whole."""
    last = max(
        children, key=lambda child: child.finished_at.timestamp() if child.finished_at else 0
    )
    ends = {name: last.predicates[name] for name in ENDS if last.holds(name)}
    return msgspec.structs.replace(
        combined,
        predicates={**combined.predicates, **ends},
        finished_at=combined.finished_at or last.finished_at,
    )


def _ended_with_pods(view: WorkloadView) -> Facts:
    """The end of the pod that ended last is the end of the whole; one that was removed may be replaced."""
    pods = view.pods.all
    if not pods or not all(pod.is_terminal for pod in pods):
        return view.facts
    last = max(pods, key=_end_key)
    if last.phase == "Failed" and last.was_removed:
        return view.facts
    end = "completed" if last.phase == "Succeeded" else "failed"
    return msgspec.structs.replace(view.facts, predicates={**view.facts.predicates, end: ""})


def _end_key(pod: Pod) -> tuple[float, bool]:
    return (pod.finished_at.timestamp() if pod.finished_at else 0, pod.phase == "Failed")


def _needs(view: WorkloadView, going: list[Object]) -> int | None:
    """How many pods must run before all of these do; None where each needs all of its pods.

    Beside others that go on, what a person has suspended needs none.
    """
    below = _made_by(view)
    facts = [_needing(child, view, below) for child in going]
    running = [each for each in facts if not each.holds("suspended")]
    is_waiting = is_held(view.objects, is_suspended=True, has_pods=False)
    if len(running) not in (0, len(facts)) and not is_waiting:
        return sum(each.needed or 0 for each in running)
    if all(each.needs is None for each in facts):
        return None
    return sum(each.needed or 0 for each in facts)


def _made_by(view: WorkloadView) -> dict[str, list[Facts]]:
    """By UID of their owner, objects with templates that have not ended."""
    made: dict[str, list[Facts]] = {}
    for child in view.objects.children:
        facts = view.definitions.facts(child)
        if facts.roles and not facts.has_ended:
            made.setdefault(_owner_uid(child), []).append(facts)
    return made


def _needing(child: Object, view: WorkloadView, made: dict[str, list[Facts]]) -> Facts:
    """The child's facts; where what it has made speaks for it, with what that needs now."""
    facts = view.definitions.facts(child)
    below = made.get(text(metadata(child).get("uid")), [])
    if not view.definitions.for_object(child).prefers_children or not below:
        return facts
    return msgspec.structs.replace(facts, needs=sum(each.needed or 0 for each in below))


def with_stages(view: WorkloadView) -> Facts:
    """Of what has stages, and so no number of pods, one must run: with all pods that an object of it needs."""
    if view.facts.needs is None or not _has_stages(view.facts) or view.definition.is_schedule:
        return view.facts
    going = [child for child in _uppermost(view) if not view.definitions.facts(child).has_ended]
    needs = max(view.facts.needs, _needs_of_stages(view, going))
    return msgspec.structs.replace(view.facts, needs=needs)


def _has_stages(facts: Facts) -> bool:
    """It says that it has no number of pods."""
    return facts.has_number and facts.number is None


def _needs_of_stages(view: WorkloadView, going: list[Object]) -> int:
    """The pods of what serves, of one object that ends by itself, and one that stands below none of them."""
    ending, serving, made = [], 0, _made_by(view)
    for child in going:
        facts = _needing(child, view, made)
        needs = facts.needed or 0
        if view.definitions.for_object(child).runs_to_end or _has_stages(facts):
            ending.append(needs)
        else:
            serving += needs
    return serving + min(ending, default=0) + (1 if _has_own_pods(view, going) else 0)


def _has_own_pods(view: WorkloadView, children: list[Object]) -> bool:
    """Whether it has pods that stand below none of these."""
    above = owners_by_uid(view)
    uids = {text(metadata(child).get("uid")) for child in children}
    return not all(is_below(pod.uid, uids, above) for pod in view.pods.active)


def _merged_roles(own: tuple[RoleFacts, ...], child_roles: list[RoleFacts]) -> Iterator[RoleFacts]:
    """A child's role takes the place of the root's role whose pods its template makes.

    Roles of the root that no child speaks for stay where they are known by labels; else, and where no child
    has any of these labels, the children as a whole have taken their place.
    """
    remaining = list(child_roles)
    keys = {key for role in own for key, _ in role.pods}
    if remaining and not any(_has_any(child, keys) for child in remaining):
        own = ()
    for role in own:
        replacements = [child for child in remaining if role.pods and _makes(child, role)]
        remaining = [child for child in remaining if child not in replacements]
        if role.pods and not replacements:
            yield role
        for position, child in enumerate(replacements):
            bounds = (role.min, role.max) if position == 0 else (None, None)
            yield msgspec.structs.replace(
                child,
                name=role.name,
                pods=role.pods,
                is_optional=role.is_optional,
                min=child.min if bounds[0] is None else bounds[0],
                max=child.max if bounds[1] is None else bounds[1],
            )
    yield from remaining


def _has_any(child: RoleFacts, keys: set[str]) -> bool:
    return child.template is not None and not keys.isdisjoint(child.template.labels)


def _makes(child: RoleFacts, role: RoleFacts) -> bool:
    return child.template is not None and has_labels(child.template.labels, role.pods)


def _is_below_another(
    child: Object, known: dict[str, Object], above: dict[str, str], definitions: Definitions
) -> bool:
    """Another child with templates of its own stands above it."""
    seen: set[str] = set()
    uid = _owner_uid(child)
    while uid in above and uid not in seen:
        seen.add(uid)
        if uid in known and definitions.facts(known[uid]).roles:
            return True
        uid = above[uid]
    return False


def _owner_uid(obj: Any) -> str:
    references = owners(obj)
    controller = next((owner for owner in references if owner.is_controller), None)
    return (controller or references[0]).uid if references else ""


def with_autoscaler(view: WorkloadView) -> Facts:
    """The bounds of the autoscaler that moves the root; down to zero, no pod is an ordinary state."""
    kind, name = text(view.root.get("kind")), text(metadata(view.root).get("name"))
    for autoscaler in sorted(view.objects.autoscalers, key=name_key):
        target = at(autoscaler, "spec", "scaleTargetRef")
        # KEDA's default kind is Deployment.
        if (text(at(target, "kind")) or "Deployment", text(at(target, "name"))) != (kind, name):
            continue
        is_keda = text(autoscaler.get("kind")) == "ScaledObject"
        spec = at(autoscaler, "spec")
        lowest = count(at(spec, "minReplicaCount" if is_keda else "minReplicas"))
        highest = count(at(spec, "maxReplicaCount" if is_keda else "maxReplicas"))
        lowest = (0 if is_keda else 1) if lowest is None else lowest
        scaled = msgspec.structs.replace(view.facts, min=lowest, max=highest)
        if lowest or view.facts.number:
            return scaled
        predicates = {
            key: value for key, value in view.facts.predicates.items() if key != "suspended"
        }
        return msgspec.structs.replace(scaled, predicates=predicates, scales_to_zero=True)
    return view.facts

"""How many pods are wanted, beyond what the root itself says: its children's word, and autoscalers'."""

from typing import TYPE_CHECKING, Any

import msgspec

from watchbill.kinds.facts import Facts, RoleFacts
from watchbill.kinds.lookup import INT32_MAX, at, metadata, name_key, text
from watchbill.kinds.objects import Object, WorkloadObjects
from watchbill.kinds.pod import owners
from watchbill.kinds.program import count

if TYPE_CHECKING:
    from watchbill.kinds.definition import Definitions


def with_children(facts: Facts, objects: WorkloadObjects, definitions: "Definitions") -> Facts:
    """A root without templates has those of the uppermost children that do."""
    known = {text(metadata(child).get("uid")): child for child in objects.children}
    roles: list[RoleFacts] = []
    for child in sorted(objects.children, key=name_key):
        found = definitions.facts(child)
        if found.roles and not _is_below_another(child, known, definitions):
            roles += found.roles
    if not roles:
        return facts
    number = facts.number
    if number is None:
        number = min(sum(role.replicas for role in roles if not role.is_optional), INT32_MAX)
    return msgspec.structs.replace(facts, roles=tuple(roles), number=number)


def _is_below_another(child: Object, known: dict[str, Object], definitions: "Definitions") -> bool:
    """Another child with templates of its own stands above it."""
    seen: set[str] = set()
    above = _owner_uid(child)
    while above in known and above not in seen:
        seen.add(above)
        if definitions.facts(known[above]).roles:
            return True
        above = _owner_uid(known[above])
    return False


def _owner_uid(obj: Any) -> str:
    references = owners(obj)
    controller = next((owner for owner in references if owner.is_controller), None)
    return (controller or references[0]).uid if references else ""


def with_autoscaler(facts: Facts, objects: WorkloadObjects) -> Facts:
    """The bounds of the autoscaler that moves the root; down to zero, no pod is an ordinary state."""
    kind, name = text(objects.root.get("kind")), text(metadata(objects.root).get("name"))
    for autoscaler in sorted(objects.autoscalers, key=name_key):
        target = at(autoscaler, "spec", "scaleTargetRef")
        # KEDA's default kind is Deployment.
        if (text(at(target, "kind")) or "Deployment", text(at(target, "name"))) != (kind, name):
            continue
        is_keda = text(autoscaler.get("kind")) == "ScaledObject"
        spec = at(autoscaler, "spec")
        lowest = count(at(spec, "minReplicaCount" if is_keda else "minReplicas"))
        highest = count(at(spec, "maxReplicaCount" if is_keda else "maxReplicas"))
        lowest = (0 if is_keda else 1) if lowest is None else lowest
        found = msgspec.structs.replace(facts, min=lowest, max=highest)
        if lowest or facts.number:
            return found
        said = {key: value for key, value in facts.said.items() if key != "suspended"}
        return msgspec.structs.replace(found, said=said, scales_to_zero=True)
    return facts

"""What the root's children and autoscalers add to its facts: roles, endpoints, framework, bounds."""

from collections.abc import Iterator
from typing import Any

import msgspec

from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.facts import Facts, RoleFacts
from watchbill.kinds.definition.program import count
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.objects.json_access import (
    at,
    group_version,
    has_labels,
    metadata,
    name_key,
    text,
)
from watchbill.kinds.objects.objects import Object
from watchbill.kinds.objects.pod import owners


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


def framework_of(view: WorkloadView) -> str | None:
    """The kind's own, or what it says of itself; else that of what it is made of, where these agree."""
    own = view.definition.distributed_framework or view.facts.framework
    if own:
        return own
    frameworks = {
        view.definitions.for_object(part).distributed_framework
        or view.definitions.facts(part).framework
        for part in view.objects.children
    } | {
        view.definitions.for_object(part).distributed_framework or ""
        for part in view.facts.embedded
    }
    frameworks.discard("")
    return frameworks.pop() if len(frameworks) == 1 else None


def with_children(view: WorkloadView) -> Facts:
    """The root with the roles of its uppermost children that have templates, where there are any."""
    known = {text(metadata(child).get("uid")): child for child in view.objects.children}
    child_roles: list[RoleFacts] = []
    for child in sorted(view.objects.children, key=name_key):
        roles = view.definitions.facts(child).roles
        if roles and not _is_below_another(child, known, view.definitions):
            child_roles += roles
    return (
        view.facts.with_roles(_merged_roles(view.facts.roles, child_roles))
        if child_roles
        else view.facts
    )


def _merged_roles(own: tuple[RoleFacts, ...], child_roles: list[RoleFacts]) -> Iterator[RoleFacts]:
    """A child's role takes the place of the root's role whose pods its template makes.

    Roles of the root that no child speaks for stay where they are known by labels; else the children as a
    whole have taken their place.
    """
    remaining = list(child_roles)
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


def _makes(child: RoleFacts, role: RoleFacts) -> bool:
    return child.template is not None and has_labels(child.template.labels, role.pods)


def _is_below_another(child: Object, known: dict[str, Object], definitions: Definitions) -> bool:
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

"""What a workload is made of: roles, owned objects and replica groups, in at most three levels.

Pods are not elements: there would be too many. An element that is an object has its reference; the id of any
other is derived from the workload's UID and its path, so it never changes.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from watchbill.kinds.definition.definition import ANY, ElementSource
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.presentation import printable
from watchbill.kinds.objects.json_access import (
    group_version,
    has_labels,
    instant,
    labels,
    metadata,
    text,
)
from watchbill.kinds.objects.objects import GroupKind, Object
from watchbill.kinds.objects.pod import Pod, owners
from watchbill.workload import Element, GroupVersionKind, KubernetesRef

MAX_ELEMENTS = 2_000
_NAME_LENGTH = 250

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    """Where in the tree: which labels and which owner all that lies below must have."""

    path: str
    labels: Labels = ()
    owner_uid: str = ""
    parent: UUID | None = None


@dataclass(slots=True)
class _Tree:
    """The workload's objects and pods, with their owners."""

    facts: Facts
    children: Sequence[Object]
    pods: Sequence[Pod]
    cluster_id: UUID
    owner_of: dict[str, str] = field(default_factory=dict)

    def is_below(self, uid: str, owner_uid: str) -> bool:
        for _ in range(16):
            uid = self.owner_of.get(uid, "")
            if not uid or uid == owner_uid:
                return bool(uid)
        return False


def elements_of(view: WorkloadView) -> tuple[tuple[Element, ...], int]:
    """The elements, upper levels first, at most 2,000 of them; and how many there are in all."""
    tree = _Tree(
        facts=view.facts,
        children=sorted(view.objects.children, key=_age),
        pods=view.pods.all,
        cluster_id=view.settings.cluster_id,
    )
    root_uid = text(metadata(view.root).get("uid"))
    for child in tree.children:
        tree.owner_of[text(metadata(child).get("uid"))] = _owner_uid(child)
    for pod in tree.pods:
        controller = pod.controller
        tree.owner_of[pod.uid] = controller.uid if controller else ""
    kept: list[Element] = []
    seen: set[UUID] = set()
    level = [(_Context(path=root_uid, owner_uid=root_uid), view.definition.elements)]
    for depth in (1, 2, 3):
        below: list[tuple[_Context, tuple[ElementSource, ...]]] = []
        for context, sources in level:
            for source in sources:
                for element, inner in _elements(tree, source, context, depth):
                    if element.id in seen:
                        continue
                    seen.add(element.id)
                    if len(kept) < MAX_ELEMENTS:
                        kept.append(element)
                    if source.children:
                        below.append((inner, source.children))
        level = below
    return tuple(kept), len(seen)


def _elements(
    tree: _Tree, source: ElementSource, context: _Context, depth: int
) -> Iterator[tuple[Element, _Context]]:
    if source.is_roles:
        yield from _roles(tree, context, depth)
    elif source.objects is not None:
        yield from _objects(tree, source, context, depth)
    else:
        yield from _groups(tree, source, context, depth)


def _roles(tree: _Tree, context: _Context, depth: int) -> Iterator[tuple[Element, _Context]]:
    for role in tree.facts.roles:
        yield _logical(tree, role.name, role.name, context, (*context.labels, *role.pods), depth)


def _groups(
    tree: _Tree, source: ElementSource, context: _Context, depth: int
) -> Iterator[tuple[Element, _Context]]:
    """One element for each value of a label among the pods; a root may be one of them."""
    values = {
        value
        for pod in tree.pods
        if (value := pod.labels.get(source.label))
        and source.without not in pod.labels
        and has_labels(pod.labels, context.labels)
        and (pod.uid == context.owner_uid or tree.is_below(pod.uid, context.owner_uid))
    }
    for value in sorted(values, key=_natural):
        name = source.name.replace("{value}", value)
        below = (*context.labels, (source.label, value))
        yield _logical(tree, name, f"{source.label}={value}", context, below, depth)


def _logical(
    tree: _Tree, name: str, step: str, context: _Context, below: Labels, depth: int
) -> tuple[Element, _Context]:
    path = f"{context.path}/{step}"
    element = Element(
        id=_hashed(path, tree.cluster_id),
        name=printable(name, _NAME_LENGTH),
        hierarchy_level=depth,
        parent_id=context.parent,
    )
    return element, _Context(
        path=path, labels=below, owner_uid=context.owner_uid, parent=element.id
    )


def _objects(
    tree: _Tree, source: ElementSource, context: _Context, depth: int
) -> Iterator[tuple[Element, _Context]]:
    for child in tree.children:
        uid = text(metadata(child).get("uid"))
        if not uid or not _matches(tree, child, uid, source, context):
            continue
        group, version = group_version(child)
        name = text(metadata(child).get("name"))
        element = Element(
            id=element_id(uid, tree.cluster_id),
            name=printable(name, _NAME_LENGTH),
            hierarchy_level=depth,
            parent_id=context.parent,
            created_at=instant(metadata(child).get("creationTimestamp")),
            kubernetes_ref=KubernetesRef(
                uid=printable(uid),
                name=printable(name),
                gvk=GroupVersionKind(
                    group=printable(group),
                    version=printable(version, 63),
                    kind=printable(text(child.get("kind")), 63),
                ),
            ),
        )
        yield element, _Context(path=f"{context.path}/{uid}", owner_uid=uid, parent=element.id)


def _matches(
    tree: _Tree, child: Object, uid: str, source: ElementSource, context: _Context
) -> bool:
    kind = source.objects or GroupKind("", "")
    if kind.kind == ANY:
        if tree.owner_of.get(uid) != context.owner_uid:
            return False
    elif (group_version(child)[0], text(child.get("kind"))) != (kind.group, kind.kind):
        return False
    if source.without in labels(child) or not has_labels(labels(child), context.labels):
        return False
    if not tree.is_below(uid, context.owner_uid):
        return False
    return not source.with_pods or any(tree.is_below(pod.uid, uid) for pod in tree.pods)


def element_id(uid: str, cluster_id: UUID) -> UUID:
    """A Kubernetes UID as it is; any other text is hashed into a UUID."""
    try:
        return UUID(uid)
    except ValueError:
        return _hashed(uid[:253], cluster_id)


def _hashed(name: str, cluster_id: UUID) -> UUID:
    return uuid5(cluster_id, name.encode("utf-8", "backslashreplace").decode())


def _owner_uid(obj: Object) -> str:
    references = owners(obj)
    for owner in references:
        if owner.is_controller:
            return owner.uid
    return references[0].uid if references else ""


def _age(obj: Object) -> tuple[str, str, str]:
    meta = metadata(obj)
    created_at = instant(meta.get("creationTimestamp"))
    return (str(created_at or ""), text(meta.get("name")), text(meta.get("uid")))


def _natural(value: str) -> tuple[tuple[int, str], ...]:
    """`2` before `10`."""
    return tuple(
        (int(part), "") if part.isascii() and part.isdigit() and len(part) < 18 else (-1, part)
        for part in re.split(r"([0-9]+)", value)
    )

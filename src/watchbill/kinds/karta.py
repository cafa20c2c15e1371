"""A Karta (`run.ai`) or a ResourceInterface (`optimization.nvidia.com`) as a kind definition.

Both have one structure. What it has no words for is left to the rules for all kinds, and told.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from watchbill.errors import Invalid
from watchbill.kinds.karta_status import status_section
from watchbill.kinds.karta_template import (
    assembled,
    by_path,
    by_position,
    is_there,
    side_by_side,
    template_parts,
)
from watchbill.kinds.lookup import at, group_version, mapping, metadata, objects, text

JSON = dict[str, Any]

_KINDS = {"Karta": "run.ai", "ResourceInterface": "optimization.nvidia.com"}
_LABEL = re.compile(
    r"""\.metadata\.labels(?:\.([A-Za-z_]\w*)|\.?\[?["']([^"']{1,317})["']\]?)(?:\s*//\s*"[^"]*")?"""
)
# Kinds of these groups never stand between an object and its pods, and some must not be read.
_NO_OWNERS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "autoscaling",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "gateway.networking.k8s.io",
        "keda.sh",
        "monitoring.coreos.com",
        "networking.istio.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "route.openshift.io",
        "scheduling.run.ai",
        "scheduling.volcano.sh",
        "storage.k8s.io",
    }
)
MAX_LEVELS = 3


@dataclass(frozen=True, slots=True)
class Imported:
    """`text`: the definition in YAML. `covered`, `filled`, `left_out`: sentences for whoever imports it."""

    text: str
    covered: tuple[str, ...]
    filled: tuple[str, ...]
    left_out: tuple[str, ...]


def is_karta(document: Any) -> bool:
    kind = text(at(document, "kind"))
    return kind in _KINDS and group_version(document)[0] == _KINDS[kind]


def import_karta(document: Mapping[str, Any]) -> Imported:
    """The definition that says the same. Raises Invalid where it names no kind."""
    return _Import(document).done()


@dataclass(slots=True)
class _Import:
    document: Mapping[str, Any]
    left_out: list[str] = field(default_factory=list)

    def done(self) -> Imported:
        name = text(metadata(self.document).get("name")) or "without a name"
        structure = mapping(at(self.document, "spec", "structureDefinition"))
        root = mapping(structure.get("rootComponent"))
        kind = text(at(root, "kind", "kind"))
        if not kind:
            raise Invalid(f"{self.document.get('kind')} {name} names no kind of a root component")
        children = list(objects(structure.get("childComponents")))
        found: JSON = {"group": text(at(root, "kind", "group")), "kind": kind}
        status = status_section(root)
        if "completed" in status:
            found["runsToEnd"] = True
        found |= {
            "through": list(self._between(children, structure)),
            "roles": list(self._roles(root, children)),
            "status": status,
            "elements": self._elements(text(root.get("name")), children, level=1),
        }
        if "optimizationInstructions" in mapping(self.document.get("spec")):
            self.left_out.append("its instructions for gang scheduling, which are the scheduler's")
        found = {key: value for key, value in found.items() if value not in ([], {})}
        origin = f"{self.document.get('kind')} {name} ({self.document.get('apiVersion')})"
        written = yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100)
        return Imported(
            text=f"# Imported from {' '.join(origin.split())}.\n{written}",
            covered=tuple(_covered(found)),
            filled=tuple(_filled(found)),
            left_out=tuple(self.left_out),
        )

    def _between(
        self, children: list[Mapping[str, Any]], structure: Mapping[str, Any]
    ) -> Iterator[str]:
        kinds = [child.get("kind") for child in children]
        kinds += objects(structure.get("additionalChildKinds"))
        names = {
            f"{text(at(kind, 'kind'))}.{text(at(kind, 'group'))}": None
            for kind in kinds
            if text(at(kind, "kind")) and text(at(kind, "group")) not in _NO_OWNERS
        }
        yield from names

    def _roles(self, root: Mapping[str, Any], children: list[Mapping[str, Any]]) -> Iterator[JSON]:
        components = {text(one.get("name")): one for one in (root, *children)}
        for component in (root, *children):
            fields = template_parts(mapping(component.get("specDefinition")))
            if fields:
                yield self._role(component, fields, components)

    def _role(
        self,
        component: Mapping[str, Any],
        fields: dict[str, str],
        components: dict[str, Mapping[str, Any]],
    ) -> JSON:
        name = text(component.get("name"))
        scale = mapping(component.get("scaleDefinition"))
        paths = {
            "replicas": text(scale.get("replicasPath")),
            "min": text(scale.get("minReplicasPath")),
            "max": text(scale.get("maxReplicasPath")),
        } | fields
        paths |= {
            f"times{number}": path for number, path in enumerate(_above(component, components))
        }
        ids = text(component.get("instanceIdPath"))
        sides = {member: path for member, path in paths.items() if path}
        read = by_position if ids else by_path(sides)
        factors = "".join(
            f" * (({read(member)} | tonumber?) // 1)" for member in sides if member[:5] == "times"
        )
        role: JSON = {"nameFrom": ".id | tostring"} if ids else {"name": name}
        there = is_there(fields, read)
        each = f"{side_by_side(ids, sides)} | " if ids else ""
        if each or there:
            role["each"] = f"{each}{there}" if there else each.removesuffix(" | ")
        role["template"] = assembled(fields, read)
        known = [
            f"({read(member)} | tonumber?)" for member in ("replicas", "min") if member in sides
        ]
        role["replicas"] = f"({' // '.join((*known, '1'))}){factors}"
        role |= {
            bound: f"({read(bound)} | tonumber){factors}"
            for bound in ("min", "max")
            if bound in sides
        }
        pods = self._pods(component, name)
        return role | ({"pods": pods} if pods else {})

    def _pods(self, component: Mapping[str, Any], name: str) -> dict[str, str]:
        selector = mapping(component.get("podSelector"))
        by_type = mapping(selector.get("componentTypeSelector"))
        by_id = text(at(selector, "componentInstanceSelector", "idPath"))
        found: dict[str, str] = {}
        for path, value in (
            (text(by_type.get("keyPath")), text(by_type.get("value")) or "*"),
            (by_id, "{name}"),
        ):
            label = _label(path)
            if label:
                found[label] = value
            elif path:
                self.left_out.append(f"how pods of {name} are known: {path} is no plain label")
        return found

    def _elements(
        self, parent: str, children: list[Mapping[str, Any]], *, level: int
    ) -> list[JSON]:
        """Components with a kind are objects, those that repeat are groups by label, the rest are roles."""
        if level > MAX_LEVELS:
            return []
        found: list[JSON] = []
        for child in children:
            name = text(child.get("name"))
            if text(child.get("ownerRef")) != parent or name == parent:
                continue
            kind, group = text(at(child, "kind", "kind")), text(at(child, "kind", "group"))
            label = _label(text(at(child, "podSelector", "replicaSelector", "keyPath")))
            item: JSON = {"roles": True}
            if kind and (kind, group) != ("Pod", ""):
                item = {"objects": f"{kind}.{group}".rstrip(".")}
            elif label:
                item = {"label": label, "name": f"{name} {{value}}"}
            elif not template_parts(mapping(child.get("specDefinition"))):
                found += self._elements(name, children, level=level)
                continue
            below = self._elements(name, children, level=level + 1)
            if item not in found and {**item, "elements": below} not in found:
                found.append({**item, "elements": below} if below else item)
        return found


def _above(component: Mapping[str, Any], components: dict[str, Mapping[str, Any]]) -> Iterator[str]:
    """How often the objects above it repeat; parts that are no objects repeat nothing."""
    seen: set[str] = set()
    parent = text(component.get("ownerRef"))
    while parent in components and parent not in seen:
        seen.add(parent)
        above = components[parent]
        path = text(at(above, "scaleDefinition", "replicasPath"))
        if path and at(above, "kind") is not None and "specDefinition" not in above:
            yield path
        parent = text(above.get("ownerRef"))


def _label(path: str) -> str:
    match = _LABEL.fullmatch(path.strip())
    return (match[1] or match[2]) if match else ""


def _covered(found: JSON) -> Iterator[str]:
    roles = [role.get("name") or "one for each instance" for role in found.get("roles", [])]
    if roles:
        yield f"templates and numbers of pods: {', '.join(roles)}"
    said = [name for name in found.get("status", {}) if name not in ("conditions", "times")]
    if said:
        yield f"status: {', '.join(said)}"
    if "elements" in found:
        yield "the inner structure"


def _filled(found: JSON) -> Iterator[str]:
    if "roles" not in found:
        yield "templates, from those of its children that are known"
    status = found.get("status", {})
    missing = [name for name in ("completed", "failed", "suspended") if name not in status]
    if missing:
        yield f"nothing says {' or '.join(missing)}: it never will be, unless you add it"
    yield "pending, updating and what pods lack, from the pods"
    yield "endpoints, from services and routes that lead to the pods"
    yield "category and framework are not said: add `category: Train`, `Build` or `Deploy`"

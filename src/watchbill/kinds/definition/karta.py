"""A Karta (`run.ai`) or a ResourceInterface (`optimization.nvidia.com`) as a kind definition.

Both have one structure. What has no counterpart is left to the generic rules, and reported. Karta lists every
status that matches, a definition has one precedence; Karta's conditions must be present to match, here one that
is expected to be False may also be absent, as most controllers leave it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from watchbill.errors import Invalid
from watchbill.kinds.objects.json_access import at, group_version, mapping, metadata, objects, text

JSON = dict[str, Any]

MAPPED = ("completed", "failed", "suspended", "suspending", "running", "initializing", "degraded")
_FIELDS = {
    "type": ("typeFieldName", "type"),
    "status": ("statusFieldName", "status"),
    "message": ("messageFieldName", "message"),
    "reason": ("reasonFieldName", "reason"),
}


def status_section(root: Mapping[str, Any]) -> JSON:
    """The section `status`, {} where the root says nothing of its status."""
    defined = mapping(root.get("statusDefinition"))
    mappings = mapping(defined.get("statusMappings"))
    phase = text(at(defined, "phaseDefinition", "path"))
    section: JSON = {}
    for name in MAPPED:
        predicates = [_predicate(item, phase) for item in objects(mappings.get(name))]
        if name == "suspended":
            predicates += _pause_predicates(root)
        if predicates:
            section[name] = predicates
    _let_running_win(section)
    times = _times(mappings)
    if times:
        section["times"] = times
    conditions = _conditions(mapping(defined.get("conditionsDefinition")))
    return ({"conditions": conditions} if conditions else {}) | section


def _predicate(matcher: Mapping[str, Any], phase: str) -> JSON:
    """All that one matcher asks for, and the message of the condition that says it."""
    parts: list[str] = []
    if "byPhase" in matcher and phase:
        parts.append(f"({phase}) == {_quoted(matcher['byPhase'])}")
    conditions = list(objects(matcher.get("byConditions")))
    parts += [_condition(item) for item in conditions]
    negatives = [item for item in conditions if item.get("status") == "False"]
    if negatives and len(negatives) == len(parts):
        # Nothing but absent conditions would match every object that was just made.
        stated = " or ".join(
            f"condition({_quoted(item.get('type'))}) != null" for item in negatives
        )
        parts.append(f"({stated})")
    by_expression = mapping(matcher.get("byExpression"))
    if by_expression:
        expected = _quoted(by_expression.get("expectedResult"))
        parts.append(f"([({text(by_expression.get('expression'))})][0] | tostring) == {expected}")
    predicate = {"when": " and ".join(parts) or "false"}
    speaker = next((item for item in conditions if item.get("status") != "False"), None)
    speaker = speaker or next(iter(conditions), None)
    if speaker is not None:
        predicate["message"] = f"message({_quoted(speaker.get('type'))})"
    return predicate


def _condition(wanted: Mapping[str, Any]) -> str:
    name, status = _quoted(wanted.get("type")), text(wanted.get("status"))
    if status == "False":
        expression = f"(condition({name}) == null or is_false({name}))"
    else:
        expression = f"condition({name}).status == {_quoted(status)}"
    if text(wanted.get("reason")):
        expression += f" and reason({name}) == {_quoted(wanted.get('reason'))}"
    return expression


def _pause_predicates(root: Mapping[str, Any]) -> Iterator[JSON]:
    """A spec that stands as the actions of a suspension would leave it."""
    actions = list(objects(at(root, "suspendDefinition", "suspendActions")))
    parts = [
        f"([({text(action.get('path'))})][0] | tostring) == {_quoted(action.get('value'))}"
        for action in actions
        if text(action.get("path"))
    ]
    if parts:
        yield {"when": " and ".join(parts)}


def _let_running_win(status: JSON) -> None:
    """Conditions of the start often stay True; what runs is not starting any more."""
    running = " or ".join(f"({item['when']})" for item in status.get("running", []))
    if running:
        for item in status.get("initializing", []):
            item["when"] = f"({item['when']}) and (({running}) | not)"


def _times(mappings: Mapping[str, Any]) -> JSON:
    """The end is when a condition that tells of it became true."""
    names = [
        _quoted(item.get("type"))
        for ending in ("completed", "failed")
        for matcher in objects(mappings.get(ending))
        for item in objects(matcher.get("byConditions"))
        if item.get("status") == "True"
    ]
    ends = [f"(if is_true({name}) then since({name}) else null end)" for name in names]
    return {"finished": " // ".join(dict.fromkeys(ends))} if ends else {}


def _conditions(defined: Mapping[str, Any]) -> str:
    """Where the conditions are, and what their members are called, if not as usual."""
    path = text(defined.get("path"))
    renamed = {
        name: text(defined.get(member))
        for name, (member, usual) in _FIELDS.items()
        if text(defined.get(member)) not in ("", usual)
    }
    if renamed and path:
        members = ", ".join(f"{name}: .[{_quoted(member)}]" for name, member in renamed.items())
        return f"[({path})[]? | . + {{{members}}}]"
    return "" if path == ".status.conditions" else path


def _quoted(value: Any) -> str:
    """A literal of jq: text, or what a person wrote without quotes."""
    return json.dumps(value if isinstance(value, str) else json.dumps(value), ensure_ascii=False)


Read = Callable[[str], str]
"""An expression for the value of one part, by the part's name."""


def by_position(member: str) -> str:
    return f".{member}"


def by_path(paths: Mapping[str, str]) -> Read:
    return lambda member: f"([({paths[member]})?][0])"


def side_by_side(ids: str, sides: Mapping[str, str]) -> str:
    """All paths evaluated once, and their results put together by position, one item for each id."""
    arrays = "".join(f"[({path})?] as ${member} | " for member, path in sides.items())
    picked = ", ".join(f"{member}: {_pick(member)}" for member in sides)
    return f"[({ids})?] as $ids | {arrays}range($ids | length) as $i | {{id: $ids[$i], {picked}}}"


def _pick(member: str) -> str:
    """One value may stand for all; where there are too few, nobody knows which is missing."""
    return (
        f"(if (${member} | length) == ($ids | length) then ${member}[$i]"
        f" elif (${member} | length) == 1 then ${member}[0] else null end)"
    )


def is_there(fields: Mapping[str, str], read: Read) -> str:
    """A part that the object does not have is no role."""
    for member in ("template", "spec"):
        if member in fields:
            return f"select({read(member)} != null)"
    return ""


def assembled(fields: Mapping[str, str], read: Read) -> str:
    if "template" in fields:
        return read("template")
    if "spec" in fields:
        return _map(fields, read, ("metadata", "spec"))
    container = '{name: "main"}'
    if "container" in fields:
        container += f" + ({read('container')} // {{}})"
    container += "".join(
        f" + (if {read(member)} then {{{member}: {read(member)}}} else {{}} end)"
        for member in ("image", "resources")
        if member in fields
    )
    containers = f"[{container}]"
    if "containers" in fields:
        containers = f"({read('containers')} // {containers})"
    spec = _map(fields, read, ("schedulerName", "priorityClassName", "resourceClaims"))
    affinity = _map(fields, read, ("nodeAffinity", "podAffinity"))
    return (
        f"{{metadata: {_map(fields, read, ('labels', 'annotations'))},"
        f" spec: ({spec} + {{containers: {containers}, affinity: {affinity}}})}}"
    )


def _map(fields: Mapping[str, str], read: Read, members: tuple[str, ...]) -> str:
    members_text = ", ".join(
        f"{member}: {read(member)}" for member in members if fields.get(member)
    )
    return f"{{{members_text}}}"


def template_parts(defined: Mapping[str, Any]) -> dict[str, str]:
    """Where the parts of the pods' template are, by the names that `assembled` puts together."""
    whole = text(defined.get("podTemplateSpecPath"))
    if whole:
        return {"template": whole}
    spec = text(defined.get("podSpecPath"))
    if spec:
        return {"spec": spec, "metadata": text(defined.get("metadataPath"))}
    parts = mapping(defined.get("fragmentedPodSpecDefinition"))
    return {name.removesuffix("Path"): text(path) for name, path in parts.items() if text(path)}


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
            raise Invalid(f"{self.document.get('kind')} {name} has no kind for its root component")
        children = list(objects(structure.get("childComponents")))
        definition: JSON = {"group": text(at(root, "kind", "group")), "kind": kind}
        status = status_section(root)
        if "completed" in status:
            definition["runsToEnd"] = True
        definition |= {
            "through": list(self._between(children, structure)),
            "roles": list(self._roles(root, children)),
            "status": status,
            "elements": self._elements(text(root.get("name")), children, level=1),
        }
        if "optimizationInstructions" in mapping(self.document.get("spec")):
            self.left_out.append("its instructions for gang scheduling, which are the scheduler's")
        definition = {key: value for key, value in definition.items() if value not in ([], {})}
        origin = f"{self.document.get('kind')} {name} ({self.document.get('apiVersion')})"
        written = yaml.safe_dump(definition, sort_keys=False, allow_unicode=True, width=100)
        return Imported(
            text=f"# Imported from {' '.join(origin.split())}.\n{written}",
            covered=tuple(_covered(definition)),
            filled=tuple(_filled(definition)),
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
        components = {text(item.get("name")): item for item in (root, *children)}
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
        presence = is_there(fields, read)
        each = f"{side_by_side(ids, sides)} | " if ids else ""
        if each or presence:
            role["each"] = f"{each}{presence}" if presence else each.removesuffix(" | ")
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
        pod_labels: dict[str, str] = {}
        for path, value in (
            (text(by_type.get("keyPath")), text(by_type.get("value")) or "*"),
            (by_id, "{name}"),
        ):
            label = _label(path)
            if label:
                pod_labels[label] = value
            elif path:
                self.left_out.append(f"how pods of {name} are known: {path} is not a plain label")
        return pod_labels

    def _elements(
        self, parent: str, children: list[Mapping[str, Any]], *, level: int
    ) -> list[JSON]:
        """Components with a kind are objects, those that repeat are groups by label, the rest are roles."""
        if level > MAX_LEVELS:
            return []
        elements: list[JSON] = []
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
                elements += self._elements(name, children, level=level)
                continue
            below = self._elements(name, children, level=level + 1)
            if item not in elements and {**item, "elements": below} not in elements:
                elements.append({**item, "elements": below} if below else item)
        return elements


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


def _covered(definition: JSON) -> Iterator[str]:
    roles = [role.get("name") or "one for each instance" for role in definition.get("roles", [])]
    if roles:
        yield f"templates and numbers of pods: {', '.join(roles)}"
    predicates = [
        name for name in definition.get("status", {}) if name not in ("conditions", "times")
    ]
    if predicates:
        yield f"status: {', '.join(predicates)}"
    if "elements" in definition:
        yield "the inner structure"


def _filled(definition: JSON) -> Iterator[str]:
    if "roles" not in definition:
        yield "templates, from those of its children that are known"
    status = definition.get("status", {})
    missing = [name for name in ("completed", "failed", "suspended") if name not in status]
    if missing:
        yield f"nothing says {' or '.join(missing)}: add a predicate, or it never will be"
    yield "pending, updating and what pods lack, from the pods"
    yield "endpoints, from services and routes that lead to the pods"
    yield "category and framework are not stated: add `category: Train`, `Build` or `Deploy`"

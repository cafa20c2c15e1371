"""Where a Karta says the parts of pods are, as expressions that put a template together."""

from collections.abc import Callable, Mapping
from typing import Any

from watchbill.kinds.lookup import mapping, text

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
    found = ", ".join(f"{member}: {read(member)}" for member in members if fields.get(member))
    return f"{{{found}}}"


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

"""The status part of a Karta as predicates of a definition.

Karta lists every status that matches, a definition has one precedence; Karta's conditions must be present to
match, here one that is expected to be False may also be absent, as most controllers leave it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from watchbill.kinds.lookup import at, mapping, objects, text

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
    found: JSON = {}
    for name in MAPPED:
        predicates = [_predicate(one, phase) for one in objects(mappings.get(name))]
        if name == "suspended":
            predicates += _asked_to_pause(root)
        if predicates:
            found[name] = predicates
    _let_running_win(found)
    times = _times(mappings)
    if times:
        found["times"] = times
    conditions = _conditions(mapping(defined.get("conditionsDefinition")))
    return ({"conditions": conditions} if conditions else {}) | found


def _predicate(matcher: Mapping[str, Any], phase: str) -> JSON:
    """All that one matcher asks for, and the message of the condition that says it."""
    parts: list[str] = []
    if "byPhase" in matcher and phase:
        parts.append(f"({phase}) == {_quoted(matcher['byPhase'])}")
    conditions = list(objects(matcher.get("byConditions")))
    parts += [_condition(one) for one in conditions]
    negatives = [one for one in conditions if one.get("status") == "False"]
    if negatives and len(negatives) == len(parts):
        # Nothing but absent conditions would match every object that was just made.
        stated = " or ".join(f"condition({_quoted(one.get('type'))}) != null" for one in negatives)
        parts.append(f"({stated})")
    by_expression = mapping(matcher.get("byExpression"))
    if by_expression:
        expected = _quoted(by_expression.get("expectedResult"))
        parts.append(f"([({text(by_expression.get('expression'))})][0] | tostring) == {expected}")
    found = {"when": " and ".join(parts) or "false"}
    speaker = next((one for one in conditions if one.get("status") != "False"), None)
    speaker = speaker or next(iter(conditions), None)
    if speaker is not None:
        found["message"] = f"message({_quoted(speaker.get('type'))})"
    return found


def _condition(wanted: Mapping[str, Any]) -> str:
    name, status = _quoted(wanted.get("type")), text(wanted.get("status"))
    if status == "False":
        found = f"(condition({name}) == null or is_false({name}))"
    else:
        found = f"condition({name}).status == {_quoted(status)}"
    if text(wanted.get("reason")):
        found += f" and reason({name}) == {_quoted(wanted.get('reason'))}"
    return found


def _asked_to_pause(root: Mapping[str, Any]) -> Iterator[JSON]:
    """A spec that stands as the actions of a suspension would leave it."""
    actions = list(objects(at(root, "suspendDefinition", "suspendActions")))
    parts = [
        f"([({text(action.get('path'))})][0] | tostring) == {_quoted(action.get('value'))}"
        for action in actions
        if text(action.get("path"))
    ]
    if parts:
        yield {"when": " and ".join(parts)}


def _let_running_win(found: JSON) -> None:
    """Conditions of the start often stay True; what runs is not starting any more."""
    running = " or ".join(f"({one['when']})" for one in found.get("running", []))
    if running:
        for one in found.get("initializing", []):
            one["when"] = f"({one['when']}) and (({running}) | not)"


def _times(mappings: Mapping[str, Any]) -> JSON:
    """The end is when a condition that tells of it became true."""
    names = [
        _quoted(one.get("type"))
        for ending in ("completed", "failed")
        for matcher in objects(mappings.get(ending))
        for one in objects(matcher.get("byConditions"))
        if one.get("status") == "True"
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

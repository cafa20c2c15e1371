"""Which expressions of a definition fail on an object, and how: for authors of definitions.

The agent reads what fails as absent and goes on; a person at work wants to know.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jq

from watchbill.kinds.definition.program import PredicateSource, ProgramSource, prelude

_EACH = ("template", "replicas", "min", "max")


def failures(source: ProgramSource, obj: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The place of each expression that fails on the object, as `roles[1].template`, and the reason."""
    for place, expression, is_predicate in _expressions(source):
        program = f"{prelude(source.conditions)}[({expression}\n)]"
        try:
            results = jq.compile(program).input_value(obj).first()
        except ValueError as error:
            reason = str(error).partition("\n")[0]
            if "null" not in reason:  # what is not there yet may well fail
                yield place, f"fails: {reason}"
            continue
        if is_predicate and results and not isinstance(results[0], bool | None):
            yield (
                place,
                f"yields {_shown(results[0])}, which is not a boolean, so it never holds",
            )


def _expressions(source: ProgramSource) -> Iterator[tuple[str, str, bool]]:
    yield "status.conditions", f"{source.conditions} | if . then .[] else empty end", False
    for position, role in enumerate(source.roles):
        place = f"roles[{position}]"
        yield f"{place}.each", role.each, False
        if role.name_from:
            yield f"{place}.nameFrom", f"{role.each}\n | {role.name_from}", False
        for name in _EACH:
            yield f"{place}.{name}", f"{role.each}\n | {getattr(role, name)}", False
    yield "embeds", source.embeds, False
    yield "framework", source.framework, False
    yield "queue", source.queue, False
    for name, expression in source.scale.items():
        yield f"scale.{name}", expression, False
    for name, predicates in source.predicates.items():
        for predicate in predicates:
            yield from _predicate(f"status.{name}", predicate)
    for name, expression in source.times.items():
        yield f"status.times.{name}", expression, False
    for position, rule in enumerate(source.endpoints):
        each = rule.get("each", ".")
        for name, expression in rule.items():
            whole = expression if name == "each" else f"{each}\n | {expression}"
            yield f"endpoints[{position}].{name}", whole, False


def _predicate(place: str, predicate: PredicateSource) -> Iterator[tuple[str, str, bool]]:
    yield place, predicate.when, True
    # What it says counts only where it holds.
    yield (
        f"{place}.message",
        f"if ({predicate.when}\n) then {predicate.message}\n else null end",
        False,
    )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."

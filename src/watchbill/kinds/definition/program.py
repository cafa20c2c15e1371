"""A kind's expressions as one jq program, its result as `Facts`, and its compile errors.

All expressions of a kind are joined, so an object crosses into jq once. Each expression has its own `try`:
one that fails on an object reads as absent and does not affect the others. jq reports errors at lines of the
joined program, so they are located again at the line of the definition file. What fails on an object the
agent reads as absent; authors of definitions are shown it (`failures`).
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jq
import msgspec

from watchbill.errors import Invalid
from watchbill.kinds.definition.bulk import Bulk, unread_members
from watchbill.kinds.definition.facts import EndpointFacts, Facts, RoleFacts
from watchbill.kinds.definition.yaml_section import Scalar, Section
from watchbill.kinds.objects.json_access import (
    INT32_MAX,
    at,
    instant,
    mapping,
    objects,
    text,
    whole,
)
from watchbill.kinds.objects.template import read_template

_ENCODER = msgspec.json.Encoder()
_UNREADABLE = (
    ValueError,
    StopIteration,
    TypeError,
    OverflowError,
    RecursionError,
    msgspec.MsgspecError,
)
_EACH = ("template", "replicas", "left", "min", "max")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_IMPURE = re.compile(
    r"(?<![.\w$])(?:env|inputs?|input_\w+|now|localtime|debug|stderr|halt\w*|import|include)\b(?!\s*:)"
    r"|\$ENV"
)
_PLACE = re.compile(r" at <top-level>, line ([0-9]{1,9}), column ([0-9]{1,9}):?")
_WORD = re.compile(r"([A-Za-z_]\w*)/0 is not defined")
_QUOTED = re.compile(r"unexpected (?:IDENT|KEYWORD|QQSTRING_START|LITERAL)")
_CLOSING = re.compile(r"'[\])}]'")
_SHOWN = 30


def impure_word(expression: str) -> str:
    """The word in it that reaches beyond its object, "" where there is none."""
    match = _IMPURE.search(_STRING.sub('""', expression))
    return match[0] if match else ""


def compile_error(top: Section, conditions: str, reason: str) -> Invalid:
    """The error for a program that does not compile, at the line of the faulty expression."""
    head = f"{prelude(conditions)}(null | "
    for scalar in top.scalars():
        if scalar.is_text_only:
            continue
        try:
            jq.compile(f"{head}{scalar.value}\n)")
        except ValueError as error:
            return _located_error(top, scalar, _first_line(str(error)), head)
    return top.error(None, f"jq: {_first_line(reason)}")


def _located_error(top: Section, scalar: Scalar, message: str, head: str) -> Invalid:
    place = _PLACE.search(message)
    error_text = _PLACE.sub("", message).rstrip(": ").removeprefix("syntax error, ")
    offset = 0
    if place is not None:
        offset = _offset(f"{head}{scalar.value}\n)", int(place[1]), int(place[2])) - len(head)
    if offset >= len(scalar.value):
        expected = error_text.partition("expecting ")[2] or "more"
        closing = _CLOSING.findall(expected)
        expected = closing[-1] if closing else expected
        line = scalar.line_at(len(scalar.value))
        return top.error_at(
            line, f"{scalar.key}: jq: the expression ends too early: {expected} is missing"
        )
    offset = max(0, offset)
    near = " ".join(scalar.value[offset : offset + _SHOWN].split())
    return top.error_at(
        scalar.line_at(offset), f"{scalar.key}: jq: {error_text}, at `{near}`{_hint(error_text)}"
    )


def _offset(program: str, line: int, column: int) -> int:
    """Where in the program jq's line and column are, both from 1."""
    before = program.split("\n")[: line - 1]
    return sum(len(text_line) + 1 for text_line in before) + column - 1


def _hint(error_text: str) -> str:
    word = _WORD.search(error_text)
    if word:
        return f' – as plain text it needs quotes of its own: "{word[1]}"; as a member, a dot: .{word[1]}'
    if error_text.startswith("$"):
        return " – only $root is defined"
    if _QUOTED.search(error_text):
        return " – plain text needs quotes of its own, as in message: '\"Paused by its owner.\"'"
    return ""


def _first_line(message: str) -> str:
    return message.partition("\n")[0].removeprefix("jq: error: ")


_SLOW = {
    "ascii_downcase": "",
    "ascii_upcase": "",
    "scan": "$re",
    "splits": "$re",
    "sub": "$re; text",
    "gsub": "$re; text",
}
"""What takes jq seconds for a long text, or the square of its length, and what each takes."""
_LONGEST_TEXT = 1_000


def _bounded(name: str, parameters: str) -> str:
    """A definition that cuts the text and hides jq's own of this name."""
    taken = f"({parameters})" if parameters else ""
    return (
        f"def own_{name}{taken}: {name}{taken};"
        f' def {name}{taken}: if type == "string" then .[:{_LONGEST_TEXT}] else . end | own_{name}{taken};'
    )


PRELUDE = (
    f"""
{" ".join(_bounded(name, parameters) for name, parameters in _SLOW.items())}
"""
    + """
. as $root
| [(try CONDITIONS catch empty) | (.[]? // empty) | objects] as $conditions
| def condition($type): [$conditions[] | select(.type == $type)][0];
  def is_true($type): any($conditions[]; .type == $type and .status == "True");
  def is_false($type): any($conditions[]; .type == $type and .status == "False");
  def reason($type): condition($type) | .reason?;
  def message($type): condition($type) | .message?;
  def since($type): condition($type) | .lastTransitionTime?;
  def label_value($key): $root.metadata.labels?[$key]?;
  def annotation_value($key): $root.metadata.annotations?[$key]?;
"""
)
MAX_ROLES = 256
MAX_CONDITIONS = 50
MAX_ENDPOINTS = 50
MAX_EMBEDDED = 64
NOTHING_EMBEDDED = "empty"

SCALE = ("number", "min", "max", "parallelism", "completions", "needs")
TIMES = ("started", "finished", "suspended", "resumed", "changed")
PREDICATES = (
    "completed",
    "failed",
    "stopped",
    "suspended",
    "suspending",
    "updating",
    "pending",
    "initializing",
    "running",
    "reported",
    "degraded",
    "ran",
    "stale",
)
_DROPPED_WHEN_STALE = (
    "updating",
    "initializing",
    "running",
    "reported",
    "degraded",
    "ran",
    "pending",
)


class RoleSource(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `roles`: expressions over `each` item, or over the object itself."""

    name: str = ""
    each: str = "."
    name_from: str = ""
    template: str = "null"
    replicas: str = "1"
    left: str = "null"
    min: str = "null"
    max: str = "null"
    pods: tuple[tuple[str, str], ...] = ()
    optional: bool = False


class PredicateSource(msgspec.Struct, frozen=True):
    when: str
    message: str = "null"


class ProgramSource(msgspec.Struct, frozen=True, kw_only=True):
    """All expressions of one kind in one version."""

    conditions: str = ".status.conditions"
    roles: tuple[RoleSource, ...] = ()
    embeds: str = NOTHING_EMBEDDED
    scale: Mapping[str, str] = {}
    predicates: Mapping[str, tuple[PredicateSource, ...]] = {}
    times: Mapping[str, str] = {}
    scales_to_zero: str = "false"
    framework: str = "null"
    queue: str = "null"
    endpoints: tuple[Mapping[str, str], ...] = ()


class Program:
    """A kind's expressions, to be compiled."""

    def __init__(self, source: ProgramSource, *, sees_all: bool = False) -> None:
        """`sees_all`: nothing of an object is kept from it, whatever its expressions name."""
        self.source = source
        self._text = program_text(source)
        self._unread = frozenset() if sees_all else unread_members(self._text)
        self._template_paths = tuple(map(_template_path, source.roles))

    @functools.cached_property
    def compiled(self) -> Any:
        """For jq; made at its first use, since most clusters have objects of few kinds. Raises ValueError."""
        return jq.compile(self._text)

    def facts(self, obj: Mapping[str, Any]) -> Facts:
        """What the object says; nothing where jq cannot take it (a number beyond its range, say)."""
        bulk, compiled = Bulk(self._unread), self.compiled
        try:
            text_of_it = _ENCODER.encode(bulk.taken_from(obj)).decode()
            result = bulk.put_back(compiled.input_text(text_of_it).first())
        except _UNREADABLE:
            return Facts()
        return self._read(mapping(result), obj)

    def _read(self, result: Mapping[str, Any], obj: Mapping[str, Any]) -> Facts:
        predicates = {
            name: text(message)
            for name, message in mapping(result.get("predicates")).items()
            if message is not None
        }
        if "stale" in predicates:
            predicates = {
                name: value for name, value in predicates.items() if name not in _DROPPED_WHEN_STALE
            }
        scale = mapping(result.get("scale"))
        times = mapping(result.get("times"))
        roles = tuple(self._roles(result, obj))
        numbers: dict[str, Any] = {name: count(scale.get(name)) for name in SCALE}
        instants: dict[str, Any] = {f"{name}_at": instant(times.get(name)) for name in TIMES}
        return Facts(
            predicates=predicates,
            scales_to_zero=result.get("scales_to_zero") is True,
            framework=text(result.get("framework")),
            queue=text(result.get("queue")),
            conditions=tuple(objects(result.get("conditions")))[:MAX_CONDITIONS],
            endpoints=tuple(_endpoint(item) for item in objects(result.get("endpoints")))[
                :MAX_ENDPOINTS
            ],
            embedded=tuple(objects(result.get("embedded"))),
            has_number="number" in self.source.scale,
            **numbers,
            **instants,
        ).with_roles(roles)

    def _roles(self, result: Mapping[str, Any], obj: Mapping[str, Any]) -> Iterator[RoleFacts]:
        template, read = None, None
        for item in list(objects(result.get("roles")))[:MAX_ROLES]:
            source = self.source.roles[item["source"]]
            name = source.name or text(item.get("name"))
            path = self._template_paths[item["source"]]
            written = item.get("template") if path is None else at(obj, *path)
            if read is None or written != template:  # roles often differ in their numbers alone
                template, read = written, read_template(written)
            yield RoleFacts(
                name=name,
                replicas=count(item.get("replicas")) or 0,
                left=count(item.get("left")),
                min=count(item.get("min")),
                max=_highest(item.get("max")),
                template=read,
                pods=tuple((key, value.replace("{name}", name)) for key, value in source.pods),
                is_optional=source.optional,
            )


def count(value: Any) -> int | None:
    """A number of pods. The largest int32 stands for "no bound" in several kinds, so it is absent."""
    number = whole(value)
    return None if number is None or number < 0 or number == INT32_MAX else number


def _highest(value: Any) -> int | None:
    """As `count`, but "no bound" is kept apart from an unknown bound."""
    return INT32_MAX if whole(value) == INT32_MAX else count(value)


def program_text(source: ProgramSource) -> str:
    parts = {
        "roles": _list(_role(position, role) for position, role in enumerate(source.roles)),
        "embedded": _list(iter([f"limit({MAX_EMBEDDED}; ({source.embeds}\n)?)"])),
        "scale": _object({name: _first_result(text) for name, text in source.scale.items()}),
        "predicates": _object(
            {name: _any_of(sources) for name, sources in source.predicates.items()}
        ),
        "times": _object({name: _first_result(text) for name, text in source.times.items()}),
        "scales_to_zero": _first_result(source.scales_to_zero),
        "framework": _first_result(source.framework),
        "queue": _first_result(source.queue),
        "conditions": "$conditions",
        "endpoints": _list(_endpoint_rule(rule) for rule in source.endpoints),
    }
    return prelude(source.conditions) + _object(parts)


def prelude(conditions: str) -> str:
    return PRELUDE.replace("CONDITIONS", f"({conditions}\n)")


_CONSTANT = re.compile(r"null|true|false|\d{1,9}")


def _first_result(expression: str) -> str:
    """The first thing that an expression yields; null where it yields nothing or fails.

    Most expressions of most kinds are constants: evaluating each of them with care took half of jq's time.
    """
    if _CONSTANT.fullmatch(expression):
        return expression
    return f"[({expression}\n)?][0]"


def _any_of(predicates: tuple[PredicateSource, ...]) -> str:
    """The message of the first predicate that is true ("" where it has none), else null."""
    tries = " el".join(
        f"if {_first_result(predicate.when)} == true then {_message(predicate.message)}"
        for predicate in predicates
    )
    return f"({tries} else null end)" if tries else "null"


def _message(expression: str) -> str:
    if _CONSTANT.fullmatch(expression):
        return '""'
    return f'({_first_result(expression)} | if type == "string" then . else "" end)'


_PATH_OF_NAMES = re.compile(r"\.|(?:\.[A-Za-z_]\w*)+", re.ASCII)


def _template_path(role: RoleSource) -> tuple[str, ...] | None:
    """Where in the object itself the template stands: what jq need not hand back, as most of an object is in
    its template. None where an expression makes it."""
    if role.each != "." or not _PATH_OF_NAMES.fullmatch(role.template):
        return None
    return tuple(filter(None, role.template.split(".")))


def _role(position: int, role: RoleSource) -> str:
    fields = {
        "source": str(position),
        "name": _first_result(role.name_from) if role.name_from else "null",
        "template": "null" if _template_path(role) is not None else _first_result(role.template),
        "replicas": _first_result(role.replicas),
        "left": _first_result(role.left),
        "min": _first_result(role.min),
        "max": _first_result(role.max),
    }
    return f"(limit({MAX_ROLES}; ({role.each}\n)?) | {_object(fields)})"


def _endpoint_rule(rule: Mapping[str, str]) -> str:
    each = rule.get("each", ".")
    fields = {name: _first_result(text) for name, text in rule.items() if name != "each"}
    return f"(limit({MAX_ENDPOINTS}; ({each}\n)?) | {_object(fields)})"


def _object(fields: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in fields.items()) + "}"


def _list(items: Iterator[str]) -> str:
    return "[" + ", ".join(items) + "]"


def _endpoint(item: Mapping[str, Any]) -> EndpointFacts:
    tls = item.get("tls")
    return EndpointFacts(
        url=text(item.get("url")),
        host=text(item.get("host")),
        port=whole(item.get("port")),
        path=text(item.get("path")),
        is_tls=tls if isinstance(tls, bool) else None,
        protocol=text(item.get("protocol")),
    )


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

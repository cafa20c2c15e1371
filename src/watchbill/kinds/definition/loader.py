"""Definition files: reading and checking them, one by one and all together.

docs/adding-a-kind.md describes the format. An error in a file stops the start, with the file, the line and
the reason.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from watchbill.errors import Invalid
from watchbill.kinds.definition.definition import ANY, Definition, Definitions, ElementSource
from watchbill.kinds.definition.hooks import HOOKS
from watchbill.kinds.definition.karta import import_karta, is_karta
from watchbill.kinds.definition.program import (
    NOTHING_EMBEDDED,
    PREDICATES,
    SCALE,
    TIMES,
    PredicateSource,
    Program,
    ProgramSource,
    RoleSource,
    compile_error,
    impure_word,
)
from watchbill.kinds.definition.yaml_section import Section, read_section, section_of
from watchbill.kinds.objects.objects import GroupKind
from watchbill.workload import WorkloadClass

BUILT_IN = Path(__file__).parents[1] / "definitions"

MAX_LEVELS = 3
_ENDPOINT_KEYS = ("each", "url", "host", "port", "path", "tls", "protocol")
_VERSIONED = ("roles", "embeds", "scale", "status", "endpoints", "framework", "queue")
_STATUS_KEYS = (*PREDICATES, "conditions", "times", "scalesToZero")
_ROLE_KEYS = (
    "name",
    "each",
    "nameFrom",
    "template",
    "replicas",
    "left",
    "min",
    "max",
    "pods",
    "optional",
)
_KEYS = (
    "group",
    "kind",
    "category",
    "workloadClass",
    "distributedFramework",
    "runsToEnd",
    "through",
    "rolesFrom",
    "hook",
    "elements",
    "versions",
    *_VERSIONED,
)
_RENAMED_KEYS = {"adjust": "hook"}
_STALE = PredicateSource(
    ".status.observedGeneration != null and .status.observedGeneration < .metadata.generation"
)


def load_definition(path: Path, *, compiles: bool = True) -> Definition:
    """One file, checked; a Karta or ResourceInterface is read as the definition that it says.

    `compiles` false: its expressions are known to compile, and do so once an object is read with them.
    """
    top = read_section(path)
    if top.has("apiVersion"):
        top = _imported(top, path)
    for old, new in _RENAMED_KEYS.items():
        if top.has(old):
            raise top.error(old, f"this key is now called {new!r}")
    top.allow(_KEYS)
    programs = dict(_programs(top, is_ours=path.parent == BUILT_IN))
    if compiles:
        for program in programs.values():
            _compile(top, program)
    return Definition(
        key=_key(top),
        file=str(path),
        category=top.text("category"),
        workload_class=_workload_class(top),
        distributed_framework=top.text("distributedFramework") or None,
        runs_to_end=top.flag("runsToEnd"),
        through=tuple(_group_kind(name) for name in top.texts("through")),
        prefers_children=_prefers_children(top),
        hook=_hook(top),
        elements=tuple(_elements(top, level=1)),
        programs=programs,
    )


def _key(top: Section) -> GroupKind:
    kind, group = top.required("kind"), top.text("group")
    for name, written in (("group", group), ("kind", kind)):
        if "/" in written:
            raise top.error(name, "a definition covers every version; leave the version out")
    return GroupKind(group, kind)


def _workload_class(top: Section) -> WorkloadClass:
    written = top.text("workloadClass") or WorkloadClass.AI
    if written not in set(WorkloadClass):
        raise top.error("workloadClass", f"must be one of {', '.join(WorkloadClass)}")
    return WorkloadClass(written)


def _prefers_children(top: Section) -> bool:
    written = top.text("rolesFrom")
    if written not in {"", "children"}:
        raise top.error("rolesFrom", "must be 'children' or left out")
    return written == "children"


def _imported(top: Section, path: Path) -> Section:
    document = top.document()
    if not is_karta(document):
        raise top.error(
            "apiVersion",
            "this object is neither a Karta nor a ResourceInterface; a definition has no apiVersion",
        )
    return section_of(import_karta(document).text, f"{path} (as imported)")


def _hook(top: Section) -> str:
    name = top.text("hook")
    if name and name not in HOOKS:
        known = ", ".join(sorted(HOOKS))
        raise top.error("hook", f"unknown hook {name!r}; known are: {known}")
    return name


def _group_kind(name: str) -> GroupKind:
    kind, _, group = name.partition(".")
    return GroupKind(group, kind)


def _programs(top: Section, *, is_ours: bool) -> Iterator[tuple[str, Program]]:
    yield ANY, _program(top, top, is_ours=is_ours)
    versions = top.section("versions")
    if versions is not None:
        for version in versions.names():
            override = versions.section(version)
            if override is None:
                raise versions.error(version, "must be a map of the sections that it replaces")
            override.allow(_VERSIONED)
            yield version, _program(top, override, is_ours=is_ours)


def _program(top: Section, override: Section, *, is_ours: bool) -> Program:
    """The kind's program; sections that `override` has stand in place of the whole kind's."""

    def holder(name: str) -> Section:
        return override if override.has(name) else top

    source = ProgramSource(
        roles=tuple(_role(role) for role in holder("roles").sections("roles")),
        embeds=_expression(holder("embeds"), "embeds") or NOTHING_EMBEDDED,
        framework=_expression(holder("framework"), "framework") or "null",
        queue=_expression(holder("queue"), "queue") or "null",
        scale=_expressions(holder("scale").section("scale"), SCALE),
        endpoints=tuple(
            _expressions(rule, _ENDPOINT_KEYS) for rule in holder("endpoints").sections("endpoints")
        ),
        **_status(holder("status").section("status")),
    )
    return Program(source, sees_all=not is_ours)


def _compile(top: Section, program: Program) -> None:
    try:
        _ = program.compiled
    except ValueError as error:
        raise compile_error(top, program.source.conditions, str(error)) from error


def _status(section: Section | None) -> dict[str, Any]:
    source: dict[str, Any] = {"predicates": {"stale": (_STALE,)}}
    if section is None:
        return source
    section.allow(_STATUS_KEYS)
    if section.has("conditions"):
        source["conditions"] = _expression(section, "conditions")
    if section.has("scalesToZero"):
        source["scales_to_zero"] = _expression(section, "scalesToZero")
    source["times"] = _expressions(section.section("times"), TIMES)
    source["predicates"] |= {
        name: tuple(_predicates(section, name)) for name in PREDICATES if section.has(name)
    }
    return source


def _predicates(section: Section, name: str) -> Iterator[PredicateSource]:
    """One expression, or one or several maps of `when` and `message`."""
    if section.is_scalar(name):
        yield PredicateSource(_expression(section, name))
        return
    for item in section.sections(name):
        item.allow(("when", "message"))
        message = _expression(item, "message") if item.has("message") else "null"
        item.required("when")
        yield PredicateSource(_expression(item, "when"), message)


def _role(section: Section) -> RoleSource:
    section.allow(_ROLE_KEYS)
    if section.has("name") == section.has("nameFrom"):
        raise section.error(None, "a role needs either name or nameFrom")
    given = {
        name: _expression(section, name)
        for name in ("each", "template", "replicas", "left", "min", "max")
        if section.has(name)
    }
    pods = section.section("pods")
    return RoleSource(
        name=section.text("name"),
        name_from=_expression(section, "nameFrom") if section.has("nameFrom") else "",
        pods=tuple((key, pods.text(key)) for key in pods.names()) if pods else (),
        optional=section.flag("optional"),
        **given,
    )


def _elements(section: Section, *, level: int) -> Iterator[ElementSource]:
    for item in section.sections("elements"):
        item.allow(("roles", "objects", "label", "withPods", "without", "name", "elements"))
        if level > MAX_LEVELS:
            raise item.error(None, f"elements have {MAX_LEVELS} levels at most")
        if sum(item.has(name) for name in ("roles", "objects", "label")) != 1:
            raise item.error(None, "an element needs exactly one of roles, objects and label")
        yield ElementSource(
            is_roles=item.flag("roles"),
            objects=_group_kind(item.text("objects")) if item.has("objects") else None,
            label=item.text("label"),
            with_pods=item.flag("withPods"),
            without=item.text("without"),
            name=item.text("name") or "{value}",
            children=tuple(_elements(item, level=level + 1)),
        )


def _expressions(section: Section | None, names: tuple[str, ...]) -> dict[str, str]:
    if section is None:
        return {}
    section.allow(names)
    return {name: _expression(section, name) for name in section.names()}


def _expression(section: Section, name: str) -> str:
    expression = section.text(name)
    impure = impure_word(expression)
    if impure:
        raise section.error(
            name, f"`{impure}` is not allowed: an expression may only read its object"
        )
    return expression


def load_definitions(extra_dir: Path | None = None) -> Definitions:
    """The built-in definitions and those of `extra_dir`, which win. Raises Invalid."""
    definitions = {definition.key: definition for definition in _built_in()}
    if extra_dir is not None:
        if not extra_dir.is_dir():
            raise Invalid(f"{extra_dir} is not a directory of kind definitions")
        definitions |= {definition.key: definition for definition in _load_folder(extra_dir)}
    return Definitions(definitions.values())


@cache
def _built_in() -> tuple[Definition, ...]:
    """Read once, however many agents this process runs. That all compile is tested, and takes half a second."""
    return tuple(_load_folder(BUILT_IN, compiles=False))


class KindHeader(NamedTuple):
    """What a definition says of its kind as a whole. `category`: "" where it has none."""

    group: str
    kind: str
    category: str


@cache
def read_kind_headers() -> tuple[KindHeader, ...]:
    """The built-in kinds by name, without compiling the definition of each."""
    headers = []
    for path in BUILT_IN.glob("*.yaml"):
        top = read_section(path)
        key = _key(top)
        headers.append(KindHeader(key.group, key.kind, top.text("category")))
    return tuple(sorted(header for header in headers if header.kind != ANY))


def _load_folder(folder: Path, *, compiles: bool = True) -> Iterator[Definition]:
    seen: dict[GroupKind, str] = {}
    for path in sorted((*folder.rglob("*.yaml"), *folder.rglob("*.yml"))):
        definition = load_definition(path, compiles=compiles)
        first = seen.setdefault(definition.key, definition.file)
        if first != definition.file:
            name = f"{definition.key.kind}.{definition.key.group}".rstrip(".")
            raise Invalid(f"{path}:1: {name} is already defined in {first}")
        yield definition

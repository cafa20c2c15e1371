"""Every word of the phase rules matters: with one of them changed, a golden, a recorded life or a case fails.

A mutant lacks a predicate, or has it negated, or lacks one operand of an `and` or `or`, or one word of an `IN`.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec
import pytest

from tests.fixtures.kubernetes.lives import SETTINGS, moments, workloads
from tests.unit.kinds.cases import reading as short
from tests.unit.kinds.golden.reading import Case, agrees, cases, seen
from tests.unit.kinds.test_lives import LIVES
from watchbill.kinds.definition import loader
from watchbill.kinds.definition.definition import Definition, Definitions
from watchbill.kinds.definition.loader import BUILT_IN
from watchbill.kinds.definition.program import PredicateSource, Program, ProgramSource
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.objects import WorkloadObjects

BUILT_IN_FILES = sorted(path.name for path in BUILT_IN.rglob("*.yaml"))

EXPLAINED: dict[str, str] = {}
"""Mutants that no life can tell from the original, each with the reason."""


@dataclass(frozen=True)
class Mutant:
    name: str
    version: str
    source: ProgramSource


@cache
def original(file: str) -> Definition:
    return loader.load_definition(next(BUILT_IN.rglob(file)))


def changed(when: str) -> Iterator[tuple[str, str]]:
    """Each mutant of an expression, named by what was done to it."""
    yield "negated", f"({when}\n) | not"
    for start, end, joint in operands(when):
        name = " ".join(when[start:end].split())
        neutral = "true" if joint == "and" else "false"
        yield f"without `{name}`", f"{when[:start]} {neutral} {when[end:]}"
    for match in _IN.finditer(when):
        for word in _WORD.finditer(when, match.start(1), match.end(1)):
            yield f"without {word[0]}", f'{when[: word.start()]}"_"{when[word.end() :]}'


_IN = re.compile(r"\bIN\(([^()]+)\)")
_WORD = re.compile(r'"[^"]*"|null')
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[([{)\]}]|\b(?:and|or|if|then|elif|else|end|as)\b|//|[|,;]')


def operands(when: str) -> Iterator[tuple[int, int, str]]:
    """Where each operand of an `and` or `or` stands, and which of them joins it."""
    groups: list[list[tuple[int, int, str]]] = [[(0, 0, "")]]
    for token in _TOKEN.finditer(when):
        text = token[0]
        if text[0] in "([{":
            groups.append([(token.end(), token.end(), "")])
        elif text[0] in ")]}":
            groups[-1].append((token.start(), token.start(), ""))
            yield from _between(groups.pop(), when)
        elif text[0] != '"':
            groups[-1].append((token.start(), token.end(), text))
    groups[-1].append((len(when), len(when), ""))
    yield from _between(groups.pop(), when)


def _between(marks: list[tuple[int, int, str]], when: str) -> Iterator[tuple[int, int, str]]:
    for (_, start, before), (end, _, after) in itertools.pairwise(marks):
        joint = "and" if "and" in (before, after) else "or"
        if {before, after} & {"and", "or"} and when[start:end].strip():
            yield start, end, joint


def mutants(definition: Definition) -> Iterator[Mutant]:
    for version, program in definition.programs.items():
        source = program.source
        for name, predicates in source.predicates.items():
            for place, predicate in enumerate(predicates):
                if name == "stale":
                    continue  # the same for all kinds, and tested with them
                title = f"{name}[{place}]" if len(predicates) > 1 else name
                gone = (*predicates[:place], *predicates[place + 1 :])
                yield Mutant(f"{title} removed", version, _with(source, name, gone))
                for what, when in changed(predicate.when):
                    other = PredicateSource(when, predicate.message)
                    them = (*predicates[:place], other, *predicates[place + 1 :])
                    yield Mutant(f"{title} {what}", version, _with(source, name, them))
        if source.scales_to_zero != "false":
            for what, when in (("removed", "false"), *changed(source.scales_to_zero)):
                result = msgspec.structs.replace(source, scales_to_zero=when)
                yield Mutant(f"scalesToZero {what}", version, result)


def _with(source: ProgramSource, name: str, them: tuple[PredicateSource, ...]) -> ProgramSource:
    return msgspec.structs.replace(source, predicates={**source.predicates, name: them})


def survives(mutant: Mutant, definition: Definition) -> bool:
    """No golden, no recorded life and no case of the kind tells the mutant from the original."""
    programs = {**definition.programs, mutant.version: Program(mutant.source)}
    mutated = replace(definition, programs=programs)
    known = Definitions(
        mutated if file == Path(definition.file).name else original(file) for file in BUILT_IN_FILES
    )
    goldens, lives = of_kind(definition)
    return (
        all(agrees(seen(case, known), case) for case in goldens)
        and all(_type_and_phase(objects, known) == expected for objects, expected in lives)
        and not any(short.differences(case, known) for case in _short_cases(definition.key))
    )


@cache
def _short_cases(key: object) -> tuple[short.Case, ...]:
    known = Definitions(original(file) for file in BUILT_IN_FILES)
    return tuple(
        case
        for case in short.cases()
        if known.for_object(short.objects_of(case, known).root).key == key
    )


@cache
def _lives() -> tuple[tuple[WorkloadObjects, tuple[object, ...]], ...]:
    collected = []
    for life, versions, moment, name, expected in LIVES:
        for objects in workloads(moments(versions[-1], life)[moment]):
            if objects.root["metadata"]["name"] == name and objects.root["kind"] == expected[0]:
                collected.append((objects, expected[:2]))
    return tuple(collected)


def of_kind(
    definition: Definition,
) -> tuple[list[Case], list[tuple[WorkloadObjects, tuple[object, ...]]]]:
    known = Definitions(original(file) for file in BUILT_IN_FILES)

    def is_of_it(objects: WorkloadObjects) -> bool:
        return known.for_object(objects.root).key == definition.key

    return (
        [case for case in cases() if is_of_it(case.objects)],
        [(objects, expected) for objects, expected in _lives() if is_of_it(objects)],
    )


def _type_and_phase(objects: WorkloadObjects, known: Definitions) -> tuple[object, ...]:
    derived = derive(objects, known, SETTINGS).record.workload
    return (derived.type, derived.phase.value)


@pytest.mark.parametrize("file", BUILT_IN_FILES)
def test_every_word_of_the_phase_rules_matters(file: str) -> None:
    definition = original(file)
    survivors = {
        f"{file}: {mutant.version}: {mutant.name}"
        for mutant in mutants(definition)
        if survives(mutant, definition)
    }
    explained = {name for name in EXPLAINED if name.startswith(f"{file}:")}
    assert survivors == explained


def test_a_mutant_is_distinguished_from_the_original() -> None:
    """The test above can fail: rules that say the same are found to."""
    definition = original("job.yaml")
    source = definition.programs["*"].source
    same = _with(source, "suspended", (PredicateSource("true and (.spec.suspend == true)"),))
    assert survives(Mutant("same", "*", same), definition)
    assert [what for what, _ in changed('is_true("A") and (b or c | not)')] == [
        "negated",
        "without `b`",
        "without `c`",
        'without `is_true("A")`',
        "without `(b or c | not)`",
    ]

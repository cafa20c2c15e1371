"""Every member that a definition reads is one of the kind's published type.

`published_types.json` has the types by kind and version: `[]` a list's item, `{}` a map's value, `=a/b`
the same as at that place, `string:a|b` one of these words; `any`, `object` and `PodSpec` are not followed.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.unit.kinds.definition.expression_paths import Reading
from watchbill.kinds.definition.loader import BUILT_IN, load_definition
from watchbill.kinds.definition.program import ProgramSource

FILES = sorted(BUILT_IN.glob("*.yaml"))
CHECKED = re.compile(r"^# Checked against the types of (.+)\.$", re.MULTILINE)
UNCHECKED = re.compile(r"^# Not checked against published types: .+", re.MULTILINE)

OLDER = {
    "dynamographdeployment.yaml": {
        ".spec.components": "the list of v1beta1",
        ".spec.services": "the map of v1alpha1",
    },
    "nimcache.yaml": {".spec.gpuSelectors": "the name before nodeSelector"},
    "nimservice.yaml": {
        ".spec.draResources[].claimSpec": "the name before claimCreationSpec",
        ".spec.multiNode.size": "the number of nodes before parallelism",
    },
}
"""Members of other versions, by definition, each with the reason why it is still read."""


@cache
def published() -> dict[str, Any]:
    path = Path(__file__).parents[3] / "fixtures" / "published_types.json"
    types: dict[str, Any] = json.loads(path.read_text())
    return types


def expanded(node: Any, root: Any) -> Any:
    """The type with its references followed."""
    if isinstance(node, str) and node.startswith("="):
        target = root
        for step in node[1:].split("/"):
            target = target[step]
        return expanded(target, root)
    if isinstance(node, dict):
        return {name: expanded(inner, root) for name, inner in node.items()}
    return node


def missing_members(source: ProgramSource, type_: Any) -> set[str]:
    """What the expressions of one version read and the type does not have."""
    reading = Reading(type_)
    root = reading.start()
    if source.conditions != ProgramSource().conditions:
        reading.run(source.conditions, root)
    for role in source.roles:
        item = reading.run(role.each, root)
        for expression in (
            role.name_from,
            role.template,
            role.replicas,
            role.left,
            role.min,
            role.max,
        ):
            if expression:
                reading.run(expression, item)
    for expression in _of_the_root(source):
        reading.run(expression, root)
    for rule in source.endpoints:
        item = reading.run(rule.get("each", "."), root)
        for name, expression in rule.items():
            if name != "each":
                reading.run(expression, item)
    return reading.missing


def _of_the_root(source: ProgramSource) -> Iterator[str]:
    """The expressions over the object as a whole."""
    yield from (source.embeds, source.scales_to_zero, source.framework, source.queue)
    yield from (*source.scale.values(), *source.times.values())
    for name, predicates in source.predicates.items():
        if name != "stale":  # the same for all kinds, whether they have the member or not
            yield from (
                text for predicate in predicates for text in (predicate.when, predicate.message)
            )


def versions_of(file: Path) -> dict[str, Any]:
    key = load_definition(file).key
    versions: dict[str, Any] = published()[f"{key.kind}.{key.group}" if key.group else key.kind]
    return versions


CHECKED_FILES = [file for file in FILES if CHECKED.search(file.read_text())]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_definition_names_what_it_was_checked_against(file: Path) -> None:
    checked = CHECKED.search(file.read_text())
    if checked is None:
        assert UNCHECKED.search(file.read_text()) or "unverified:" in file.read_text()
    else:
        sources = {version["from"] for version in versions_of(file).values()}
        assert " and ".join(sorted(sources)) == checked[1]


@pytest.mark.parametrize("file", CHECKED_FILES, ids=lambda file: file.name)
def test_every_member_that_a_definition_reads_is_published(file: Path) -> None:
    definition = load_definition(file)
    versions = versions_of(file)
    unknown: set[str] = set()
    for name, program in definition.programs.items():
        covered = [name] if name in versions else versions.keys() - definition.programs.keys()
        covered = covered or versions.keys()
        missing = [
            missing_members(program.source, expanded(versions[v]["types"], versions[v]["types"]))
            for v in covered
        ]
        unknown |= set.intersection(*missing) if missing else set()
    assert unknown == OLDER.get(file.name, {}).keys()


def test_a_member_that_is_not_published_is_noticed() -> None:
    type_ = {"spec": {"a": {"[]": {"name": "string"}}}, "status": {"phase": "string:Up|Down"}}
    reading = Reading(type_)
    root = reading.start()
    for expression in (
        '.spec.a[] | select(.name == "x") | .nmae',
        ".spec.a | map({name, size}) | .[0].name",
        '.status.phase | IN("Up", "Gone")',
        '$root | .status.phase == "Off"',
        'if .spec.b then "\\(.spec.c)" else . + {d: .spec} | .d.e end',
        'is_true("Ready")',
    ):
        reading.run(expression, root)
    assert reading.missing == {
        ".spec.a[].nmae",
        ".spec.a[].size",
        ".status.phase = Gone",
        ".status.phase = Off",
        ".spec.b",
        ".spec.c",
        ".spec.e",
        ".status.conditions",
    }

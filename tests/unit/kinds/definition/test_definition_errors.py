"""What is wrong in a definition file is named, with its line."""

from pathlib import Path

import pytest

from tests.fixtures.makers import root
from tests.unit.kinds.definition.test_definition import MINIMAL, written
from watchbill.errors import Invalid
from watchbill.kinds.definition.loader import load_definition, load_definitions
from watchbill.kinds.definition.program import failures

WRONG = {
    "no map": ("- 1\n", 1, "one map"),
    "no YAML": ("group: [\n", 2, "expected the node content"),
    "unknown key": ("group: x\nkind: T\ncolour: red\n", 3, "unknown key"),
    "twice": ("group: x\ngroup: y\nkind: T\n", 2, "is given twice"),
    "no kind": ("group: x\n", 1, "'kind' is missing"),
    "unknown predicate": (
        "group: x\nkind: T\nstatus:\n  exploded: .status.bang\n",
        4,
        "unknown key",
    ),
    "unknown scale": ("group: x\nkind: T\nscale:\n  replicas: 1\n", 4, "unknown key"),
    "expression": (
        "group: x\nkind: T\nroles:\n  - name: a\n    template: .spec.[\n",
        5,
        "template: jq: the expression ends too early",
    ),
    "expression over several lines": (
        "group: x\nkind: T\nroles:\n  - name: a\n    replicas: >-\n      [.spec.teams[]\n"
        "       | .size // 1\n       | ) add\n    min: 1\n",
        8,
        "replicas: jq: unexpected",
    ),
    "expression that does not end": (
        "group: x\nkind: T\nroles:\n  - name: a\n    replicas: >-\n      [.spec.teams[]\n"
        "       | .size\n    min: 1\n",
        7,
        "replicas: jq: the expression ends too early",
    ),
    "word over several lines": (
        "group: x\nkind: T\nstatus:\n  failed: |\n    .status.phase\n    == Failed\n",
        6,
        'Failed/0 is not defined, at `Failed` – as plain text it needs quotes of its own: "Failed"',
    ),
    "quoted over several lines": (
        "group: x\nkind: T\nstatus:\n  failed: '.status.phase\n    == Failed'\n",
        5,
        "failed: jq: Failed/0 is not defined",
    ),
    "sentence": (
        "group: x\nkind: T\nstatus:\n  failed:\n    when: .a\n    message: Paused by Ada\n",
        6,
        "plain text needs quotes of its own",
    ),
    "variable": ("group: x\nkind: T\nembeds: $name\n", 3, "only $root is defined"),
    "map for an expression": (
        "group: x\nkind: T\nroles:\n  - name: a\n    template: {spec: .spec.pod}\n",
        5,
        "quote an expression that begins with { or [",
    ),
    "version in the group": ("group: x/v1\nkind: T\n", 1, "covers every version"),
    "nothing": ("", 1, "the file is empty"),
    "two": ("group: x\nkind: T\n---\ngroup: y\nkind: T\n", 3, "one file holds one definition"),
    "tab": ("group: x\nkind: T\nroles:\n\t- name: a\n", 4, "tab character"),
    "half quoted": (
        'group: x\nkind: T\nstatus:\n  failed:\n    message: "Failed: " + .m\n    when: .a\n',
        5,
        "needs `>-` before it",
    ),
    "object of Kubernetes": ("apiVersion: v1\nkind: Pod\n", 1, "a definition has no apiVersion"),
    "unknown function": (
        'group: x\nkind: T\nstatus:\n  failed: is_broken("Failed")\n',
        4,
        "jq: is_broken/1 is not defined",
    ),
    "impure": (
        "group: x\nkind: T\nstatus:\n  failed: $ENV.HOME == null\n",
        4,
        "`$ENV` is not allowed",
    ),
    "clock": ("group: x\nkind: T\nstatus:\n  failed: .a < now\n", 4, "`now` is not allowed"),
    "role without name": ("group: x\nkind: T\nroles:\n  - template: .spec\n", 4, "nameFrom"),
    "role with two names": (
        "group: x\nkind: T\nroles:\n  - name: a\n    nameFrom: .b\n",
        4,
        "nameFrom",
    ),
    "flag": ("group: x\nkind: T\nrunsToEnd: maybe\n", 3, "must be true or false"),
    "list for text": ("group: [a]\nkind: T\n", 1, "must be a single value"),
    "text for list": ("group: x\nkind: T\nthrough: Job\n", 3, "a list of names"),
    "predicate without when": (
        "group: x\nkind: T\nstatus:\n  failed:\n    message: .m\n",
        5,
        "'when' is missing",
    ),
    "function": ("group: x\nkind: T\nhook: magic\n", 3, "unknown hook 'magic'"),
    "renamed key": ("group: x\nkind: T\nadjust: newest_run\n", 3, "now called 'hook'"),
    "element": (
        "group: x\nkind: T\nelements:\n  - name: a\n",
        4,
        "exactly one of roles, objects and label",
    ),
    "too deep": (
        "group: x\nkind: T\nelements:\n  - label: a\n    elements:\n      - label: b\n"
        "        elements:\n          - label: c\n            elements:\n              - label: d\n",
        10,
        "3 levels at most",
    ),
    "roles from nowhere": (
        "group: x\nkind: T\nrolesFrom: parents\n",
        3,
        "must be 'children' or left out",
    ),
    "embedded": ("group: x\nkind: T\nembeds: .spec.[\n", 3, "embeds: jq: the expression ends"),
    "version": ("group: x\nkind: T\nversions:\n  v1: []\n", 4, "must be a map"),
    "override": ("group: x\nkind: T\nversions:\n  v1:\n    category: a\n", 5, "unknown key"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str, tmp_path: Path) -> None:
    content, line, reason = WRONG[case]
    path = written(tmp_path, content)
    with pytest.raises(Invalid) as caught:
        load_definition(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert reason in caught.value.message


def test_what_fails_on_an_object_is_reported(tmp_path: Path) -> None:
    """The agent reads it as absent; `kinds try` reports it to its author. What is not there yet may fail."""
    path = written(
        tmp_path,
        """
group: x.example
kind: Thing
roles:
  - each: .spec.teams[]
    nameFrom: .name
    template: .template
    replicas: .size | tonumber
status:
  completed: .status.phase
  failed:
    when: .status.phase == "Lost"
    message: .status.phase.reason
  ran: any(.status.steps[]; .done)
endpoints:
  - each: .status.phase
    url: .link
""",
    )
    obj = root("x.example/v1", "Thing", spec={"teams": [{"name": "a", "size": "two"}]})
    obj["status"] = {"phase": "Running"}
    source = load_definition(path).program("v1").source
    assert dict(failures(source, obj)) == {
        "roles[0].replicas": 'fails: string ("two") cannot be parsed as a number',
        "status.completed": "yields Running, which is not a boolean, so it never holds",
        "endpoints[0].url": 'fails: Cannot index string with string ("link")',
    }


def test_a_kind_is_defined_once_in_a_folder(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL)
    second = written(tmp_path, MINIMAL, "thing2.yaml")
    with pytest.raises(Invalid, match=r"thing2\.yaml:1: Thing\.x\.example is already defined in"):
        load_definitions(tmp_path)
    second.unlink()
    assert load_definitions(tmp_path)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is not a directory"):
        load_definitions(tmp_path / "absent")


def test_an_expression_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    written(
        tmp_path,
        MINIMAL
        + """
scale:
  min: .spec.count.deeper
  max: 9
status:
  completed: .spec.count | test("x")
  running: .spec.count == 2
""",
    )
    facts = load_definitions(tmp_path).facts(root("x.example/v1", "Thing", spec={"count": 2}))
    assert (facts.min, facts.max, facts.number) == (None, 9, 2)
    assert dict(facts.predicates) == {"running": ""}

"""What jq does not see of an object is not missed: every kind reads the same with and without it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.kubernetes.lives import definitions
from tests.unit.kinds.golden.reading import cases
from watchbill.kinds.definition.bulk import Bulk, unread_members
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.loader import load_definition
from watchbill.kinds.objects.json_access import group_version

JSON = dict[str, Any]
MEMBERS = frozenset({"env", "args"})
OF_CONTAINERS = {
    "env": [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "x"}}},
    ],
    "args": ["--steps=5", "{{workflow.name}}"],
    "command": ["python", "train.py"],
    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    "ports": [{"containerPort": 8000, "name": "http"}],
}
OF_PODS = {
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "volumes": [{"name": "data", "emptyDir": {}}],
    "imagePullSecrets": [],
}

values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["env", "args", "spec", "name"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def long_winded(value: Any) -> Any:
    """The same object, with everything that pod templates may hold."""
    if isinstance(value, list):
        return [long_winded(item) for item in value]
    if not isinstance(value, dict):
        return value
    longer = {name: long_winded(item) for name, item in value.items()}
    if isinstance(value.get("containers"), list):
        longer = OF_PODS | longer
        longer["containers"] = [
            OF_CONTAINERS | each if isinstance(each, dict) else each
            for each in longer["containers"]
        ]
    return longer


def facts_of(obj: JSON, *, sees_all: bool, monkeypatch: pytest.MonkeyPatch) -> Facts:
    program = definitions().for_object(obj).program(group_version(obj)[1])
    with monkeypatch.context() as patch:
        if sees_all:
            patch.setattr(program, "_unread", frozenset())
        return program.facts(obj)


def test_every_kind_reads_the_same_with_and_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, templates = set(), 0
    for case in cases():
        for obj in (case.objects.root, *case.objects.children):
            longer = long_winded(obj)
            whole = facts_of(longer, sees_all=True, monkeypatch=monkeypatch)
            assert facts_of(longer, sees_all=False, monkeypatch=monkeypatch) == whole, case.id
            seen.add((obj["apiVersion"], obj["kind"]))
            templates += sum(role.template is not None for role in whole.roles)
    assert len(seen) > 50
    assert templates > 100


@settings(max_examples=100)
@given(values)
def test_what_was_taken_is_put_back_where_it_was(value: Any) -> None:
    bulk = Bulk(MEMBERS)
    assert bulk.put_back(bulk.taken_from(value)) == value


@pytest.mark.parametrize(
    ("program", "unread"),
    [
        (".spec.replicas", True),
        (".spec.containers[0].env", False),
        ('.spec["env"]', False),
        ("[.. | .image?]", False),
        (".spec | tojson", False),
        (".spec.environment", True),
    ],
)
def test_a_member_is_kept_from_those_who_cannot_look_into_it(program: str, unread: bool) -> None:
    assert ("env" in unread_members(program)) is unread


def test_what_is_no_list_is_seen_under_such_a_name_too() -> None:
    """Labels and services have the names that their authors like."""
    services = {"env": {"replicas": 2, "resources": {"limits": {"gpu": "4"}}}, "ports": {}}
    graph: JSON = {
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": "g"},
        "spec": {"services": services},
    }
    roles = definitions().for_object(graph).program("v1alpha1").facts(graph).roles
    assert {role.name: role.replicas for role in roles} == {"env": 2, "ports": 1}


def test_definitions_of_others_see_all_that_they_iterate_over(tmp_path: Path) -> None:
    path = tmp_path / "thing.yaml"
    path.write_text(
        "kind: Thing\ngroup: example.com\ncategory: Training\n"
        'framework: >-\n  [.spec | to_entries[] | .value | arrays | .[].name] | join(" ")\n'
    )
    thing = {"spec": {"env": [{"name": "a"}], "volumes": [{"name": "b"}]}}
    assert load_definition(path).program("v1").facts(thing).framework == "a b"


def test_numbers_that_an_object_brings_itself_stand_for_nothing_else() -> None:
    container = {"name": "main", "image": "a", "env": [{"name": "TOKEN", "value": "x"}]}
    forged = {"name": "side", "image": "b", "env": 0}
    deployment: JSON = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {"template": {"spec": {"containers": [forged, container]}}},
    }
    (role,) = definitions().for_object(deployment).program("v1").facts(deployment).roles
    assert role.template is not None
    assert role.template.variables == ()

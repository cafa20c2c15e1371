"""Label and field selectors as the Kubernetes API defines them: text in, a test on stored objects out."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from simulator.apiserver.store import StoredObject
from simulator.resources import ResourceType

Test = Callable[[Mapping[str, Any]], bool]


class BadSelector(Exception):
    """A selector that the API would refuse; the text is the answer's message."""


_REQUIREMENT = re.compile(
    r"\s*(?P<absent>!\s*)?(?P<key>[A-Za-z0-9][A-Za-z0-9_./-]*)\s*"
    r"(?:(?P<operator>==|=|!=|>|<|\bnotin\b|\bin\b)\s*"
    r"(?:\((?P<values>[^()]*)\)|(?P<value>[^,()]*)))?\s*"
)
_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    ("", "events"): (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "reason",
        "reportingComponent",
        "type",
    ),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "secrets"): ("type",),
    ("apps", "replicasets"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
}
"""Fields that can be selected beside metadata.name and metadata.namespace."""


class Selector:
    """The conjunction of a label and a field selector."""

    __slots__ = ("_tests",)

    def __init__(self, tests: Iterable[Test]) -> None:
        self._tests = tuple(tests)

    def __bool__(self) -> bool:
        return bool(self._tests)

    def matches(self, stored: StoredObject) -> bool:
        if not self._tests:
            return True
        document = stored.decode()
        return all(test(document) for test in self._tests)


def parse(resource: ResourceType, *, labels: str, fields: str) -> Selector:
    """Raises BadSelector."""
    return Selector([*_label_tests(labels), *_field_tests(resource, fields)])


def _label_tests(text: str) -> list[Test]:
    tests: list[Test] = []
    position = 0
    while position < len(text):
        match = _REQUIREMENT.match(text, position)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            token = text[match.end() if match else position :].split(" ")[0]
            raise BadSelector(
                f"unable to parse requirement: found '{token}', "
                "expected: in, notin, =, ==, !=, gt, lt"
            )
        tests.append(_label_test(match))
        position = match.end() + 1
    return tests


def _label_test(match: re.Match[str]) -> Test:
    key = match["key"]
    operator = match["operator"]
    if match["absent"]:
        return lambda document: key not in _labels(document)
    if operator is None:
        return lambda document: key in _labels(document)
    if operator in ("in", "notin"):
        values = {value.strip() for value in (match["values"] or "").split(",")}
    else:
        values = {(match["value"] or "").strip()}
    if operator in ("!=", "notin"):
        return lambda document: _labels(document).get(key) not in values
    return lambda document: _labels(document).get(key) in values


def _field_tests(resource: ResourceType, text: str) -> list[Test]:
    allowed = {"metadata.name", *_FIELDS.get((resource.group, resource.plural), ())}
    if resource.is_namespaced:
        allowed.add("metadata.namespace")
    tests: list[Test] = []
    for requirement in filter(None, text.split(",")):
        match = re.fullmatch(r"(.*?)(==|!=|=)(.*)", requirement)
        if match is None:
            raise BadSelector(f"invalid selector: '{text}'; can't understand '{requirement}'")
        field, operator, value = match.groups()
        if field not in allowed:
            raise BadSelector(f"field label not supported: {field}")
        tests.append(_field_test(field, value, is_wanted=operator != "!="))
    return tests


def _field_test(field: str, value: str, *, is_wanted: bool) -> Test:
    steps = field.split(".")

    def test(document: Mapping[str, Any]) -> bool:
        member: Any = document
        for step in steps:
            member = member.get(step) if isinstance(member, Mapping) else None
        text = str(member).lower() if isinstance(member, bool) else str(member or "")
        return (text == value) == is_wanted

    return test


def _labels(document: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = document["metadata"].get("labels") or {}
    return labels

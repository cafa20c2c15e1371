"""Every question to a Prometheus is PromQL whatever is put into it, and nothing put into it becomes syntax."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import promql_parser
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchbill.metric_types import devices_reported
from watchbill.metrics.queries import (
    TYPE_QUERIES,
    Labels,
    Matcher,
    QueryTarget,
    existence,
    literal,
    utilization_by_workload,
)

PLAIN = {"workload_id": "W", "namespace": "N", "cluster": "C"}
HOSTILE = [
    '"} or vector(1) or x{a="',
    'a"b',
    "a\\",
    "a\\\\",
    '\\"',
    "line\nbreak",
    "tab\tand\rreturn",
    "`back`",
    "{}[]()#//",
    "\x00\x01\x7f",
    "\u2028\u202e\ufeff",
    "Ünï 名前 🙂",
    "$1",
    ".*",
]
ODD = Labels(
    namespace="exported_namespace",
    pod="exported_pod",
    container="container_label",
    uuid="gpu_uuid",
    instance="gi",
)


def asked(labels: Labels | None = None, **values: str) -> QueryTarget:
    filled = PLAIN | values
    return QueryTarget(
        workload_id=filled["workload_id"],
        namespace=filled["namespace"],
        window=timedelta(minutes=2),
        labels=labels or Labels(),
        extra=(Matcher("cluster", filled["cluster"]),),
    )


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for name in ("lhs", "rhs", "expr", "args", "vector_selector", "param"):
        result = getattr(node, name, None)
        for child in result if isinstance(result, list) else [result]:
            if child is not None and type(child).__module__ == type(node).__module__:
                yield from nodes(child)


def shape(query: str, values: dict[str, str]) -> list[object]:
    """The tree with every value that was put in replaced by its name; raises where it is no PromQL."""
    collected: list[object] = []
    for node in nodes(promql_parser.parse(query)):
        selector = node if type(node).__name__ == "VectorSelector" else None
        matchers = [
            (matcher.name, str(matcher.op), name_of(matcher.name, matcher.value, values))
            for matcher in (selector.matchers.matchers if selector else [])
        ]
        collected.append((type(node).__name__, selector.name if selector else "", matchers))
    return collected


def name_of(label: str, value: str, values: dict[str, str]) -> str:
    own = {"workload_id": "workload_id", "cluster": "cluster"}.get(
        label, "namespace" if label.endswith("namespace") else ""
    )
    return f"<{own}>" if own and value == values[own] else value


@pytest.mark.parametrize("labels", [Labels(), ODD], ids=["usual labels", "other labels"])
@pytest.mark.parametrize("name", TYPE_QUERIES)
@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_values_stay_values(name: str, labels: Labels, hostile: str) -> None:
    values = dict.fromkeys(PLAIN, hostile)
    plain = shape(TYPE_QUERIES[name].query(asked(labels)), PLAIN)
    assert shape(TYPE_QUERIES[name].query(asked(labels, **values)), values) == plain
    assert any("<workload_id>" in str(part) for part in plain), "the workload is not asked for"


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
@example('\\"')
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    (matcher,) = promql_parser.parse(f"x{{a={literal(text)}}}").matchers.matchers
    assert matcher.value == text


@pytest.mark.parametrize("name", TYPE_QUERIES)
def test_every_selector_carries_the_extra_matchers(name: str) -> None:
    for kind, metric, matchers in shape(TYPE_QUERIES[name].query(asked()), PLAIN):  # type: ignore[misc]
        if kind == "VectorSelector":
            assert ("cluster", "MatchOp.Equal", "<cluster>") in matchers, metric
    tree = promql_parser.parse(existence(TYPE_QUERIES[name], (Matcher("cluster", 'a"b'),)))
    for node in nodes(tree):
        if type(node).__name__ == "VectorSelector":
            assert ("cluster", 'a"b') in [
                (matcher.name, matcher.value) for matcher in node.matchers.matchers
            ]


def test_utilization_by_workload_asks_for_exactly_the_ids() -> None:
    ids = ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"]
    query = utilization_by_workload(ids, ODD, (Matcher("cluster", "C"),))
    selectors = [
        node
        for node in nodes(promql_parser.parse(query))
        if type(node).__name__ == "VectorSelector"
    ]
    asked_for = [
        (matcher.name, matcher.value) for each in selectors for matcher in each.matchers.matchers
    ]
    assert ("workload_id", "|".join(ids)) in asked_for
    assert asked_for.count(("cluster", "C")) == len(selectors) == 3
    assert "on (gpu_uuid, gi) group_left ()" in query


@pytest.mark.parametrize(("samples", "devices"), [(20, 512), (240, 416), (1000, 100)])
def test_devices_are_asked_for_as_far_as_an_answer_holds_them(samples: int, devices: int) -> None:
    question = replace(asked(), devices=devices_reported(samples))
    for name in ("GPU_UTILIZATION", "GPU_MEMORY_USAGE_BYTES", "NVLINK_BANDWIDTH_TOTAL"):
        assert f"<= {devices}) > 1" in TYPE_QUERIES[name].query(question)


def test_other_names_of_labels_are_used_throughout() -> None:
    for question in TYPE_QUERIES.values():
        query = question.query(asked(ODD))
        inside = query.replace("pod_namespace", "").replace('"UUID"', "").replace('"GPU_I_ID"', "")
        assert "by (namespace" not in inside
        assert 'container!=""' not in inside

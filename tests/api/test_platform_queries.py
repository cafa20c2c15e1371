"""Every parameter of the second contract's operations: what it takes is answered, what it does not is refused.

Which values these are follows from the contract alone: enums, formats, bounds and patterns of filters.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest

from tests.fixtures.samples import CLUSTER_ID, SAMPLES
from tests.fixtures.serving import Served
from tests.unit.api.test_contract_identity import _resolved
from tests.unit.api.test_platform_document import PLATFORM, expanded, operations
from watchbill.query import OPERATORS, ORDER_OPERATORS

OPERATIONS = operations(PLATFORM)
OK = {200, 207}
UNMEASURED = OK | {503}
"""Of metrics, where none that is asked for has a source."""
NUMBERS = re.compile(r"totalGpuQuota|gpuAllocated|avg.*|value")
INSTANT = "2026-11-20T08:00:00Z"
LISTED = {"list_pods": "count_pods", "get_nodes": "count_nodes", "get_nodepools": "count_nodepools",
          "get_tenant_nodes": "count_tenant_nodes", "get_projects": "count_projects",
          "get_departments": "count_departments"}  # fmt: skip
"""Lists, each with the count that has its conditions."""


def parameters(operation_id: str) -> list[dict[str, Any]]:
    _, operation = OPERATIONS[operation_id]
    return [
        expanded(PLATFORM, _resolved(PLATFORM, each)) for each in operation.get("parameters", [])
    ]


def address(operation_id: str, *without: str, **values: str) -> str:
    """The good request, without some parameters and with others."""
    path, _, query = SAMPLES[operation_id].path.partition("?")
    pairs = [pair for pair in parse_qsl(query) if pair[0] not in {*without, *values}]
    return f"{path}?{urlencode([*pairs, *values.items()], quote_via=quote)}"


def schema_of(parameter: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = parameter["schema"]
    return schema["items"] if schema.get("type") == "array" else schema


def junk(parameter: dict[str, Any]) -> Iterator[str]:
    """Values that the contract does not permit."""
    schema = schema_of(parameter)
    match schema:
        case {"enum": _}:
            yield from ("no-such-word", "\x00")
        case {"pattern": _} if parameter["name"] == "filterBy":
            yield from ("name", "noSuchField==x", "==x", "name~x", "\x00")
        case {"type": "integer"}:
            yield from ("x", "1.5", "1e3", "99999999999999999999", "-1", "0x10", "١")
            yield from (str(schema["maximum"] + 1),) if "maximum" in schema else ()
            yield from (str(schema["minimum"] - 1),) if "minimum" in schema else ()
        case {"type": "boolean"}:
            yield from ("maybe", "TRUE", "1", "yes")
        case {"format": "date-time"}:
            yield from ("yesterday", "2026-13-01T00:00:00Z", "1700000000")


def accepted(parameter: dict[str, Any]) -> Iterator[str]:
    schema = schema_of(parameter)
    match schema:
        case {"enum": words}:
            yield from words
        case {"type": "integer"}:
            yield from ("0", "1", str(schema.get("maximum", 10_000)))
        case {"type": "boolean"}:
            yield from ("true", "false")
        case {"type": "string", "pattern": _} if parameter["name"] == "filterBy":
            pass
        case {"type": "string", "format": "date-time"}:
            pass
        case {"type": "string", "format": "uuid"}:
            yield str(CLUSTER_ID)
        case {"type": "string"}:
            yield from ("", "x", "é%_\\'\"", "x" * 500)


def named(operation_id: str, name: str) -> dict[str, Any]:
    return next(each for each in parameters(operation_id) if each["name"] == name)


@pytest.mark.parametrize("operation_id", OPERATIONS)
async def test_parameters_take_what_the_contract_permits_and_nothing_else(
    shared: Served, operation_id: str
) -> None:
    wrong = []
    for parameter in parameters(operation_id):
        if parameter["in"] != "query":
            continue
        name = parameter["name"]
        for value in junk(parameter):
            answer = await shared.get(address(operation_id, **{name: value}))
            is_error = answer.status == 400 and {"code", "message"} <= answer.json.keys()
            if not is_error:
                wrong.append((name, value, answer.status))
        for value in accepted(parameter):
            if name == "limit" and value == "0":
                continue
            answer = await shared.get(address(operation_id, **{name: value}))
            if answer.status not in (UNMEASURED if "metrics" in operation_id else OK):
                wrong.append((name, value, answer.status, answer.body[:200]))
        if parameter.get("required"):
            answer = await shared.get(address(operation_id, name))
            if answer.status != 400:
                wrong.append((name, None, answer.status))
    assert not wrong


def conditions(operation_id: str) -> list[str]:
    """The fields that a list or count is filtered by, from the pattern of its conditions."""
    pattern = schema_of(named(operation_id, "filterBy"))["pattern"]
    match = re.fullmatch(r"\^\(([^)]+)\)\(.*", pattern)
    assert match is not None, pattern
    return match[1].split("|")


def fitting(field: str) -> tuple[str, frozenset[str]]:
    """A value that such a field takes, and the operators: text is looked into, an order compares the rest."""
    if field.endswith("At"):
        return INSTANT, ORDER_OPERATORS
    return ("1.5", ORDER_OPERATORS) if NUMBERS.fullmatch(field) else ("a", frozenset(OPERATORS))


FILTERED = [
    name
    for name in OPERATIONS
    if name not in LISTED.values() and any(p["name"] == "filterBy" for p in parameters(name))
]


@pytest.mark.parametrize("operation_id", FILTERED)
async def test_every_condition_is_answered_and_divides_what_there_is(
    shared: Served, operation_id: str
) -> None:
    """An operator and its opposite find everything between them, whatever the field."""

    async def total(*filters: str) -> int:
        given = {"filterBy": ",".join(filters)} if filters else {}
        answer = await shared.get(address(operation_id, "filterBy", "limit", **given))
        assert answer.status == 200, (filters, answer.body)
        if "count" in answer.json:
            return int(answer.json["count"])
        (items,) = (each for each in answer.json.values() if isinstance(each, list))
        if operation_id in LISTED:
            counted = await shared.get(address(LISTED[operation_id], "filterBy", **given))
            assert counted.json == {"count": len(items)}, filters
        return len(items)

    every = await total()
    for field in conditions(operation_id):
        value, operators = fitting(field)
        matching = {operator: await total(f"{field}{operator}{value}") for operator in operators}
        for operator in OPERATORS.keys() - operators:
            answer = await shared.get(address(operation_id, filterBy=f"{field}{operator}{value}"))
            assert answer.status == 400, (field, operator)
        assert matching["=="] + matching["!="] == every, field
        if "!@" in matching:
            assert matching["=@"] + matching["!@"] == every, field
            assert max(matching["=^"], matching["=$"], matching["=="]) <= matching["=@"], field
        either = (
            await total(f"{field}=={value}", f"{field}==other-{value}") if "!@" in matching else 0
        )
        assert either == matching.get("==", 0) or "!@" not in matching, field
    assert (
        await shared.get(
            address(operation_id, filterBy=",".join([f"{conditions(operation_id)[0]}!=x"] * 11))
        )
    ).status == 400


SORTED = [name for name in OPERATIONS if any(p["name"] == "sortBy" for p in parameters(name))]


@pytest.mark.parametrize("operation_id", SORTED)
async def test_every_order_has_everything_once_and_nothing_last(
    shared: Served, operation_id: str
) -> None:
    async def listed(**query: str) -> list[dict[str, Any]]:
        answer = await shared.get(address(operation_id, "filterBy", "limit", **query))
        assert answer.status == 200, (query, answer.body)
        (items,) = (each for each in answer.json.values() if isinstance(each, list))
        return items

    def key(item: dict[str, Any]) -> str:
        return str(item.get("id") or item["name"])

    every = {key(item) for item in await listed()}
    assert every
    for field in schema_of(named(operation_id, "sortBy"))["enum"]:
        for order in ("asc", "desc"):
            items = await listed(sortBy=field, sortOrder=order)
            assert {key(item) for item in items} == every, field
            assert len(items) == len(every)
            values = [item.get(field) for item in items]
            known = [each for each in values if each not in (None, "")]
            assert values[: len(known)] == known, (field, order)
            if all(isinstance(each, str | int | float) for each in known):
                assert known == sorted(known, reverse=order == "desc"), (field, order)

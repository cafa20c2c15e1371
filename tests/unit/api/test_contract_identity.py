"""The contract's wire shape may never change, and nothing in it may stay unexplained.

The fingerprint was taken once of the API that we promise to speak, without its prose. A change
of wording leaves it as it is; a change of any path, name, type, enum, bound or status does not.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

CONTRACT = Path(__file__).parents[3] / "contract" / "openapi.json"
WIRE_SHA256 = "941b187103263fc2b9773dd97f7a0a7ef6f11bac3c7ec6ad84e38253ef373fa2"

PROSE = frozenset({"description", "summary", "title", "example", "examples", "externalDocs"})
UNKNOWN_AT_TOP = ("info", "servers")
NAMED_BY_US = frozenset(
    {"properties", "schemas", "parameters", "responses", "securitySchemes", "paths"}
)
"""Objects whose keys are names that the API chose: a property called `title` is no prose."""
METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
FEWEST_WORDS = 3
FEWEST_WORDS_OF_AN_OPERATION = 12

Node = dict[str, Any]


def without_prose(node: Any, *, is_names: bool = False) -> Any:
    if isinstance(node, list):
        return [without_prose(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: without_prose(value, is_names=not is_names and key in NAMED_BY_US)
        for key, value in node.items()
        if is_names or key not in PROSE
    }


def wire_sha256(contract: Node) -> str:
    wire = without_prose({k: v for k, v in contract.items() if k not in UNKNOWN_AT_TOP})
    wire["tags"] = [tag["name"] for tag in contract["tags"]]
    text = json.dumps(wire, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@pytest.fixture(scope="module")
def contract() -> Node:
    loaded: Node = json.loads(CONTRACT.read_text(encoding="utf-8"))
    return loaded


def test_the_wire_is_the_one_promised(contract: Node) -> None:
    assert wire_sha256(contract) == WIRE_SHA256


def test_the_title_is_ours_and_the_version_theirs(contract: Node) -> None:
    assert contract["info"]["title"] == "Watchbill"
    assert contract["info"]["version"] == "2.25"
    assert contract["servers"] == [{"url": "/"}]


def test_the_name_of_a_property_is_no_prose() -> None:
    schema = {"type": "object", "properties": {"title": {"type": "string", "title": "Heading"}}}
    assert without_prose(schema) == {"type": "object", "properties": {"title": {"type": "string"}}}


def _drop_an_enum_value(contract: Node) -> None:
    contract["components"]["schemas"]["Phase"]["enum"].remove("Unknown")


def _make_a_member_optional(contract: Node) -> None:
    contract["components"]["schemas"]["Workload"]["required"].remove("category")


def _rename_a_property(contract: Node) -> None:
    properties = contract["components"]["schemas"]["Error"]["properties"]
    properties["detail"] = properties.pop("details")


def _raise_a_bound(contract: Node) -> None:
    contract["components"]["parameters"]["Limit"]["schema"]["maximum"] = 1000


def _drop_a_status(contract: Node) -> None:
    del contract["paths"]["/api/v1/workloads/{workloadId}/metrics"]["get"]["responses"]["207"]


def _rename_a_tag(contract: Node) -> None:
    contract["tags"][0]["name"] = "Workloads"


@pytest.mark.parametrize(
    "change",
    [
        _drop_an_enum_value,
        _make_a_member_optional,
        _rename_a_property,
        _raise_a_bound,
        _drop_a_status,
        _rename_a_tag,
    ],
)
def test_a_change_on_the_wire_is_noticed(contract: Node, change: Callable[[Node], None]) -> None:
    changed = deepcopy(contract)
    change(changed)
    assert wire_sha256(changed) != WIRE_SHA256


def test_a_change_of_words_is_not(contract: Node) -> None:
    changed = deepcopy(contract)
    changed["info"]["description"] = "Other words."
    changed["tags"][0] |= {"description": "Other words.", "x-displayName": "Workloads"}
    changed["components"]["schemas"]["Phase"]["description"] = "Other words."
    changed["components"]["parameters"]["Limit"]["example"] = 20
    assert wire_sha256(changed) == WIRE_SHA256


def test_every_reference_leads_somewhere(contract: Node) -> None:
    for place, node in _nodes(contract, "#"):
        if "$ref" in node:
            assert set(node) == {"$ref"}, f"{place}: words beside a reference are not read"
            assert _resolved(contract, node), place


def test_everything_is_explained(contract: Node) -> None:
    explained = list(_to_be_explained(contract))
    assert len(explained) > 250
    unexplained = [
        f"{place}: {text!r}" for place, text, words in explained if len(text.split()) < words
    ]
    assert not unexplained, "\n".join(unexplained)


def test_no_text_stands_twice_for_different_things(contract: Node) -> None:
    """Copying a neighbour's description is how a wrong one comes about."""
    seen: dict[str, str] = {}
    for place, node in _nodes(contract, "#"):
        text = node.get("description")
        if isinstance(text, str):
            assert text not in seen, f"{place} and {seen[text]}: {text}"
            seen[text] = place


def _to_be_explained(contract: Node) -> Iterator[tuple[str, str, int]]:
    """Place, text and fewest words of all that must carry a text of its own."""
    yield "info", contract["info"].get("description", ""), FEWEST_WORDS_OF_AN_OPERATION
    for tag in contract["tags"]:
        yield f"tag {tag['name']}", tag.get("description", ""), FEWEST_WORDS
    for path, methods in contract["paths"].items():
        for method in METHODS & set(methods):
            yield from _in_operation(contract, f"{method.upper()} {path}", methods[method])
    for group in ("schemas", "parameters", "responses", "securitySchemes"):
        for name, node in contract["components"][group].items():
            yield f"{group} {name}", node.get("description", ""), FEWEST_WORDS
    for place, node in _nodes(contract, "#"):
        yield from _in_schema(contract, place, node)


def _in_operation(contract: Node, place: str, operation: Node) -> Iterator[tuple[str, str, int]]:
    yield place, operation.get("description", ""), FEWEST_WORDS_OF_AN_OPERATION
    yield f"{place} summary", operation.get("summary", ""), FEWEST_WORDS
    for parameter in operation["parameters"]:
        text = _resolved(contract, parameter).get("description", "")
        yield f"{place} parameter {parameter}", text, FEWEST_WORDS
    for status, response in operation["responses"].items():
        text = _resolved(contract, response).get("description", "")
        yield f"{place} {status}", text, FEWEST_WORDS


def _in_schema(contract: Node, place: str, node: Node) -> Iterator[tuple[str, str, int]]:
    if place.endswith("/properties"):
        for name, schema in node.items():
            text = _resolved(contract, schema).get("description", "")
            yield f"{place}/{name}", text, FEWEST_WORDS
    elif "properties" in node.get("items", {}):
        yield f"{place} items", node["items"].get("description", ""), FEWEST_WORDS


def _nodes(node: Any, place: str) -> Iterator[tuple[str, Node]]:
    if isinstance(node, dict):
        yield place, node
        for key, value in node.items():
            yield from _nodes(value, f"{place}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _nodes(value, f"{place}/{index}")


def _resolved(contract: Node, node: Node) -> Node:
    """What a reference stands for; anything else is itself."""
    while "$ref" in node:
        target: Node = contract
        for key in node["$ref"].removeprefix("#/").split("/"):
            target = target[key]
        node = target
    return node

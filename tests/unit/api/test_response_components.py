"""The schemas that are made from the structs of our answers, in the words of OpenAPI 3.0."""

from collections.abc import Iterator
from typing import Any

from watchbill.api.http.contract import (
    contract_document,
    extensions_document,
    merged_document,
    response_components,
)

CONTRACT = contract_document()
COMPONENTS = response_components(CONTRACT)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from nodes(child)


def test_null_and_absence_are_told_as_openapi_3_0_tells_them() -> None:
    gpus = COMPONENTS["FleetGpus"]
    assert gpus["required"] == ["allocated", "measured", "idle", "total"]
    assert gpus["properties"]["idle"]["nullable"] is True
    assert "nullable" not in gpus["properties"]["allocated"]
    contact = COMPONENTS["Cluster"]["properties"]["lastContactAt"]
    assert {**contact, "description": ""} == {
        "type": "string",
        "format": "date-time",
        "description": "",
    }
    assert "lastContactAt" not in COMPONENTS["Cluster"]["required"]
    assert not [node for node in nodes(COMPONENTS) if "anyOf" in node or "default" in node]


def test_an_idle_workload_is_the_contracts_workload_and_its_hours() -> None:
    reference, own = COMPONENTS["IdleWorkload"]["allOf"]
    assert reference == {"$ref": "#/components/schemas/Workload"}
    assert own["required"] == list(own["properties"]) == ["idleGpuHours"]


def test_the_contract_keeps_its_own_schemas_and_every_reference_leads_somewhere() -> None:
    assert not COMPONENTS.keys() & CONTRACT["components"]["schemas"].keys()
    merged = merged_document(CONTRACT, extensions_document())
    schemas = merged["components"]["schemas"]
    for node in nodes(merged):
        name = str(node.get("$ref", "")).removeprefix("#/components/schemas/")
        assert not name or name.startswith("#") or name in schemas, name

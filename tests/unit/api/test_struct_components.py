"""The schemas that are made from the structs of our requests and answers, in the words of OpenAPI 3.0."""

from collections.abc import Iterator
from typing import Any

from watchbill.api.http.contract import (
    contract_document,
    extensions_document,
    merged_document,
    struct_components,
)

CONTRACT = contract_document()
COMPONENTS = struct_components(CONTRACT)


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from nodes(child)


def test_null_and_absence_are_written_as_in_openapi_3_0() -> None:
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
    unknown_to_it = ("anyOf", "default", "prefixItems", "const")
    assert not [node for node in nodes(COMPONENTS) if any(word in node for word in unknown_to_it)]


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


def test_bodies_are_described_as_they_are_decoded() -> None:
    """A member that a body may have stands in the document, and one that it must have as required."""
    rule = COMPONENTS["RuleCreation"]
    assert (rule["required"], rule["additionalProperties"]) == (["subject", "role", "scope"], False)
    assert COMPONENTS["RuleScope"]["properties"]["tenant"] == {"type": "boolean", "enum": [True]}
    name = COMPONENTS["ClusterCreation"]["properties"]["name"]
    assert name["pattern"] == "^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
    items = COMPONENTS["AgentBatch"]["properties"]["items"]["items"]
    assert items["oneOf"] == [
        {"$ref": f"#/components/schemas/Agent{kind}"} for kind in ("Upsert", "Delete")
    ]
    assert items["discriminator"]["mapping"]["delete"] == "#/components/schemas/AgentDelete"
    assert COMPONENTS["AgentInventoryEntry"]["minItems"] == 2
    assert COMPONENTS["AgentInventoryEntry"]["maxItems"] == 3


def test_no_json_body_is_described_a_second_time() -> None:
    described = {
        media["schema"].get("$ref", "").removeprefix("#/components/schemas/")
        for item in extensions_document()["paths"].values()
        for operation in item.values()
        if (media := operation.get("requestBody", {}).get("content", {}).get("application/json"))
    }
    assert described - COMPONENTS.keys() == {"TokenRequest"}, "whose members come in any case"

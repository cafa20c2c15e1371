"""The second contract: what belongs to workloads. Its wire shape may not change, operation by operation.

The fingerprints were taken of the API that we promise to speak, without its prose and with every reference
resolved. An operation is complete or absent.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.test_contract_identity import FEWEST_WORDS, _nodes, _resolved, without_prose
from watchbill.api.http.contract import contract_document, merged_document, platform_document
from watchbill.api.http.contract import extensions_document as extensions

PLATFORM = platform_document()
CONTRACT = contract_document()
WIRE_SHA256 = {
    "list_pods": "bc3035c28f735e26c05b3d113684196e",
    "count_pods": "3b90818d5e8c1ccf25737c7c5d84c0f1",
    "get_workload_pods": "ea6ba0889467703485f9d2f38b755296",
    "get_workload_pod_metrics": "4eb1cf9ac11df82ada5da253dd543304",
    "get_workload_events": "4567077e6a7abafad42032d903c9c43b",
    "get_workload_history": "5bf54cb037977d9f325e40c9793d96a5",
    "get_clusters": "fd7853e43f75a107ccf47a7d7c3cb022",
    "get_cluster_by_uuid": "146c63a97eaf5106dff21374d142a570",
    "get_nodes": "e5850a962325b56d0c5af40912f0edcf",
    "count_nodes": "d246f28ef102e7676f2fde8c7c643dde",
    "get_tenant_nodes": "d4daee52a4f869f2d1f0029abd395df7",
    "count_tenant_nodes": "dd56829da922e2c6e991fa916f44c039",
    "get_node_telemetry": "441348d8fca15317aede5676ee715989",
    "get_node_metrics": "9018d1844372e9dd5b5c10dd7ca40385",
    "get_cluster_metrics": "e94d2b798aad6e37d65122a12b3a5dd6",
    "get_nodepool_metrics": "c03c99da592417e8797b21b3cbca0143",
    "get_nodepools": "f3b0c3ac5b51ec67c21657f09208fdab",
    "count_nodepools": "3157ce0271fe1ef1cbdeecfe399b60a5",
    "get_nodepool": "538b8907ef6d1fc1c14af4011eccabb9",
    "list_workload_types": "ec812eb9a749bf699a84bbca2c8c9dd0",
    "get_workload_type": "3839843d2836977895f3a3866755fb6b",
    "list_categories": "543c851889efdd0c36f220b76067bbb5",
    "get_category_by_id": "93f95b312eaa3cd580bf1344be5ea01f",
    "get_workload_priorities": "6c411181e0152a1c0cd94b84b5932e12",
    "get_departments": "826120872d525a922a12183e9a01b82c",
    "count_departments": "faf5bb480cd19de45824db35f4a9ada3",
    "get_department": "b71b5dadd0487ebd4ee4ed5ce05b94d7",
    "get_projects": "7d2c555e61717ec491a4ec36c35e15d4",
    "count_projects": "e3bf13f082b29ed5b64ce57eff65dbfd",
    "get_project": "2a63ea32a154f9d2c0d47397382c1490",
    "get_projects_telemetry": "5ce380311f44d22d8c24ae4809779313",
    "get_departments_telemetry": "b002668c1fad570ea7a010d6202011e7",
    "get_project_metrics": "d749bdbdc08d79b9a41d6b20e1d89b31",
    "get_department_metrics": "706f31f3cfdf45987bc58cdbc1fe515f",
}


def operations(document: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        operation["operationId"]: (path, operation)
        for path, item in document["paths"].items()
        for operation in item.values()
    }


def expanded(document: dict[str, Any], node: Any, within: tuple[str, ...] = ()) -> Any:
    """Every reference in place of what it stands for; one to what it is part of stays a name."""
    if isinstance(node, list):
        return [expanded(document, item, within) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        if reference in within:
            return reference
        return expanded(document, _resolved(document, node), (*within, reference))
    return {key: expanded(document, value, within) for key, value in node.items()}


def fingerprint(document: dict[str, Any], operation_id: str) -> str:
    path, operation = operations(document)[operation_id]
    wire = {"path": path, "operation": without_prose(expanded(document, operation))}
    return hashlib.sha256(json.dumps(wire, sort_keys=True).encode()).hexdigest()[:32]


@pytest.mark.parametrize("operation_id", operations(PLATFORM))
def test_the_wire_is_the_one_promised(operation_id: str) -> None:
    assert fingerprint(PLATFORM, operation_id) == WIRE_SHA256[operation_id]


def test_what_both_contracts_have_is_the_same() -> None:
    for section in ("schemas", "parameters", "responses"):
        theirs, ours = CONTRACT["components"][section], PLATFORM["components"][section]
        for name in theirs.keys() & ours.keys():
            assert without_prose(ours[name]) == without_prose(theirs[name]), name


def test_every_component_is_used_and_every_reference_leads_somewhere() -> None:
    used = {node["$ref"] for _, node in _nodes(PLATFORM, "#") if isinstance(node.get("$ref"), str)}
    for reference in used:
        assert _resolved(PLATFORM, {"$ref": reference}), reference
    for section in ("schemas", "parameters", "responses"):
        for name in PLATFORM["components"][section]:
            assert f"#/components/{section}/{name}" in used, name


def test_everything_is_explained() -> None:
    for _, operation in operations(PLATFORM).values():
        assert len(operation["summary"].split()) >= FEWEST_WORDS
        assert len(operation["description"].split()) >= 2 * FEWEST_WORDS
    for section in ("schemas", "parameters"):
        for name, component in PLATFORM["components"][section].items():
            assert component["description"], name


def test_both_are_served_as_one_and_read_from_the_folder_of_contracts() -> None:
    merged = merged_document(CONTRACT, extensions())
    for path, item in PLATFORM["paths"].items():
        assert item.keys() <= merged["paths"][path].keys()
    file = Path(__file__).parents[3] / "contract" / "platform.json"
    assert json.loads(file.read_text(encoding="utf-8")) == PLATFORM

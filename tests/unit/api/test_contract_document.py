"""The merged document: what is served follows from it, and it says what is served."""

import pytest

from watchbill.access.roles import Permission
from watchbill.api.app import check_complete
from watchbill.api.http.contract import (
    LoginRequirement,
    contract_document,
    extensions_document,
    merged_document,
    operations,
)

CONTRACT = contract_document()
EXTENSIONS = extensions_document()
MERGED = merged_document(CONTRACT, EXTENSIONS)
OPERATIONS = operations(MERGED)

CONTRACT_OPERATIONS = {
    "get_workloads",
    "get_workload",
    "count_workloads",
    "get_workloads_telemetry",
    "get_workload_metrics",
    "get_workload_endpoints",
    "get_workload_elements",
    "count_workload_elements",
}


def test_every_operation_of_the_contract_is_read() -> None:
    result = {
        operation.operation_id for operation in operations({**CONTRACT, "paths": CONTRACT["paths"]})
    }
    assert result == CONTRACT_OPERATIONS


def test_operation_ids_and_routes_are_unique() -> None:
    ids = [operation.operation_id for operation in OPERATIONS]
    routes = [(operation.method, operation.path) for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)
    assert len(set(routes)) == len(routes)


def test_fixed_paths_are_matched_before_templated_ones() -> None:
    paths = [operation.path for operation in OPERATIONS]
    templated = paths.index("/api/v1/workloads/{workloadId}")
    for fixed in ("count", "telemetry", "facets", "export"):
        assert paths.index(f"/api/v1/workloads/{fixed}") < templated


def test_only_these_operations_are_open_to_everyone() -> None:
    open_ones = {
        operation.operation_id
        for operation in OPERATIONS
        if operation.login is LoginRequirement.NONE
    }
    assert open_ones == {
        "create_token",
        "create_token_v2",
        "revoke_token",
        "create_device_login",
        "create_session",
        "list_issuers",
        "start_oidc_login",
        "finish_oidc_login",
        "get_health",
        "get_liveness",
        "get_version",
        "get_readiness",
        "get_openapi",
        "get_contract",
    }


def test_the_page_session_opens_reading_and_its_own_end_only() -> None:
    for operation in OPERATIONS:
        is_reading = operation.method == "GET" and operation.login is LoginRequirement.CALLER
        is_own = operation.operation_id in ("delete_session", "decide_device_login")
        expected = (is_reading and operation.path != "/metrics") or is_own
        assert operation.takes_session == expected, operation.operation_id


def test_rights() -> None:
    rights = {
        operation.operation_id: operation.permission
        for operation in OPERATIONS
        if operation.login is LoginRequirement.CALLER
    }
    assert {name for name, right in rights.items() if right is Permission.CLUSTERS_WRITE} == {
        "create_cluster",
        "delete_cluster",
        "repin_cluster",
        "release_deletions",
        "refuse_deletions",
    }
    assert {name for name, right in rights.items() if right is None} == {
        "get_me",
        "delete_session",
        "decide_device_login",
        "list_access_keys",
        "create_access_key",
        "delete_access_key",
    }
    administered = {o.operation_id for o in OPERATIONS if o.path.startswith("/api/v1/admin/")}
    for name in administered:
        assert rights[name] in (
            Permission.ACCESS_READ,
            Permission.ACCESS_WRITE,
            Permission.AUDIT_READ,
        )
    assert rights["get_server_metrics"] is Permission.SERVER_READ


@pytest.mark.parametrize("status", ["400", "406", "413", "414", "429", "431", "500", "503"])
def test_statuses_that_anything_may_answer_are_documented(status: str) -> None:
    for path, item in MERGED["paths"].items():
        for operation in item.values():
            assert status in operation["responses"], (path, status)


def test_the_contract_itself_stays_bare() -> None:
    assert "400" not in CONTRACT["paths"]["/api/v1/workloads"]["get"]["responses"]
    assert "minimum" not in CONTRACT["components"]["parameters"]["Offset"]["schema"]


def test_every_reference_resolves_and_every_operation_is_described() -> None:
    for reference in _references(MERGED):
        node = MERGED
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    for item in EXTENSIONS["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert operation["description"]


def test_an_extension_may_not_take_what_is_the_contracts() -> None:
    extensions = {**EXTENSIONS, "paths": {"/api/v1/workloads": {"get": {}}}}
    with pytest.raises(RuntimeError, match="claim the contract's path /api/v1/workloads"):
        merged_document(CONTRACT, extensions)


def test_an_operation_without_a_handler_refuses_to_start() -> None:
    handlers = {operation.operation_id: _handler for operation in OPERATIONS}
    check_complete(OPERATIONS, handlers)
    del handlers["get_workload"]
    with pytest.raises(RuntimeError, match="without a handler: \\['get_workload'\\]"):
        check_complete(OPERATIONS, handlers)


def test_a_handler_without_an_operation_refuses_to_start() -> None:
    handlers = {operation.operation_id: _handler for operation in OPERATIONS} | {
        "get_secrets": _handler
    }
    with pytest.raises(RuntimeError, match="without an operation: \\['get_secrets'\\]"):
        check_complete(OPERATIONS, handlers)


async def _handler(call: object) -> object:
    return call


def _references(node: object) -> list[str]:
    if isinstance(node, list):
        return [reference for item in node for reference in _references(item)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [reference for value in node.values() for reference in _references(value)]

"""One good request for every operation that we serve. A new operation without one fails the inventory."""

from dataclasses import dataclass, field
from typing import Any

from tests.api.serving import DETAILED_ID
from watchbill.api.contract import (
    Login,
    Operation,
    contract_document,
    extensions_document,
    merged_document,
    operations,
    page_routes,
)

MERGED = merged_document(contract_document(), extensions_document())
OPERATIONS: dict[str, Operation] = {one.operation_id: one for one in operations(MERGED)}
PAGES = page_routes(extensions_document())
ONE = f"/api/v1/workloads/{DETAILED_ID}"
NOBODY = "00000000-dead-4bad-8bad-000000000000"
RANGE = "start=2026-11-22T00:00:00Z&end=2026-11-23T00:00:00Z"


@dataclass(frozen=True)
class Sample:
    path: str
    options: dict[str, Any] = field(default_factory=dict)


def _json(body: object) -> dict[str, Any]:
    return {"json": body}


_STREAM = {"streamId": "x", "inventoryId": "00000000-0000-0000-0000-000000000001"}

CLIENT_ID = "wbc-0123456789abcdef"
"""Of an account that there could be: what is not of its shape is refused before the database is asked."""

SAMPLES: dict[str, Sample] = {
    "get_workloads": Sample("/api/v1/workloads?limit=3"),
    "get_workload": Sample(ONE),
    "count_workloads": Sample("/api/v1/workloads/count"),
    "get_workloads_telemetry": Sample(
        "/api/v1/workloads/telemetry?telemetryType=WORKLOADS_COUNT&groupBy=Phase"
    ),
    "get_workload_metrics": Sample(f"{ONE}/metrics?metricType=POD_COUNT&{RANGE}"),
    "get_workload_endpoints": Sample(f"{ONE}/endpoints"),
    "get_workload_elements": Sample(f"{ONE}/elements"),
    "count_workload_elements": Sample(f"{ONE}/elements/count"),
    "get_workload_facets": Sample("/api/v1/workloads/facets?fields=phase,type"),
    "get_idle_workloads": Sample("/api/v1/workloads/idle?limit=3"),
    "get_workload_history": Sample(f"{ONE}/history"),
    "export_workloads": Sample("/api/v1/workloads/export?format=ndjson"),
    "stream_workloads": Sample("/api/v1/workloads/stream?timeoutSeconds=1"),
    "get_fleet": Sample("/api/v1/fleet"),
    "get_clusters": Sample("/api/v1/clusters"),
    "create_cluster": Sample("/api/v1/clusters", _json({"name": "north"})),
    "delete_cluster": Sample("/api/v1/clusters/00000000-dead-4bad-8bad-000000000000"),
    "get_me": Sample("/api/v1/me"),
    "create_session": Sample(
        "/api/v1/session", _json({"clientId": CLIENT_ID, "clientSecret": "y"})
    ),
    "delete_session": Sample("/api/v1/session"),
    "create_token": Sample(
        "/api/v1/token",
        _json({"grantType": "client_credentials", "clientId": CLIENT_ID, "clientSecret": "y"}),
    ),
    "create_token_v2": Sample(
        "/api/v2/token",
        {
            "data": {
                "grant_type": "client_credentials",
                "client_id": CLIENT_ID,
                "client_secret": "y",
            }
        },
    ),
    "revoke_token": Sample("/api/v2/revoke", {"data": {"token": "wbr_" + "x" * 43}}),
    "list_issuers": Sample("/api/v1/session/oidc"),
    "start_sign_on": Sample("/api/v1/session/oidc/nobody/start"),
    "finish_sign_on": Sample("/api/v1/session/oidc/nobody/callback"),
    "decide_device_login": Sample(
        "/api/v1/session/device", {"data": {"user_code": "x", "decision": "deny"}}
    ),
    "create_device_login": Sample("/api/v2/device_authorization", {"data": {"client_id": "x"}}),
    "list_access_keys": Sample("/api/v1/me/keys"),
    "create_access_key": Sample("/api/v1/me/keys", _json({"name": "notebook"})),
    "delete_access_key": Sample(f"/api/v1/me/keys/{CLIENT_ID}"),
    "list_accounts": Sample("/api/v1/admin/accounts"),
    "create_account": Sample("/api/v1/admin/accounts", _json({"name": "ci"})),
    "delete_account": Sample(f"/api/v1/admin/accounts/{CLIENT_ID}"),
    "rotate_account": Sample(f"/api/v1/admin/accounts/{CLIENT_ID}/rotate"),
    "list_users": Sample("/api/v1/admin/users"),
    "disable_user": Sample(f"/api/v1/admin/users/{NOBODY}/disable"),
    "enable_user": Sample(f"/api/v1/admin/users/{NOBODY}/enable"),
    "list_rules": Sample("/api/v1/admin/rules"),
    "create_rule": Sample(
        "/api/v1/admin/rules",
        _json(
            {
                "subject": {"user": "ada@example.com"},
                "role": "viewer",
                "scope": {"cluster": "cluster-1"},
            }
        ),
    ),
    "delete_rule": Sample(f"/api/v1/admin/rules/{NOBODY}"),
    "list_roles": Sample("/api/v1/admin/roles"),
    "apply_access": Sample("/api/v1/admin/apply", _json({"dryRun": True, "document": {}})),
    "rotate_keys": Sample("/api/v1/admin/keys/rotate", _json({})),
    "create_tenant": Sample("/api/v1/admin/tenants", _json({"name": "second"})),
    "list_audit": Sample("/api/v1/admin/audit?limit=3"),
    "agent_hello": Sample("/agent/v1/hello", _json({"protocol": 1, "agentVersion": "test"})),
    "agent_batch": Sample("/agent/v1/batch", _json({"streamId": "x", "seq": 1, "items": []})),
    "agent_inventory": Sample("/agent/v1/inventory", _json({"streamId": "x", "coverage": []})),
    "agent_inventory_entries": Sample(
        "/agent/v1/inventory/entries", _json({**_STREAM, "entries": []})
    ),
    "agent_inventory_commit": Sample("/agent/v1/inventory/commit", _json({**_STREAM, "count": 0})),
    "agent_heartbeat": Sample("/agent/v1/heartbeat", _json({"streamId": "x", "seq": 0})),
    "get_health": Sample("/healthz"),
    "get_readiness": Sample("/readyz"),
    "get_server_metrics": Sample("/metrics"),
    "get_openapi": Sample("/openapi.json"),
    "get_contract": Sample("/contract/openapi.json"),
}


def of_login(*logins: Login) -> list[str]:
    return [name for name, one in OPERATIONS.items() if one.login in logins]


def with_body() -> list[str]:
    """Operations that read a body from whoever holds a token."""
    return [
        name for name, sample in SAMPLES.items() if sample.options and name != "decide_device_login"
    ]

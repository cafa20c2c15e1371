"""What is served has the shape of the struct that the client reads it with, no member more and none less."""

import inspect
import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.fixtures.samples import SAMPLES
from tests.fixtures.serving import Served
from watchbill.cli.commands import usage as usage_command
from watchbill.query import USAGE_GROUPS
from watchbill.responses import (
    access,
    contract,
    fleet,
    nodes,
    organisation,
    usage,
    workloads,
)
from watchbill.store.usage.report import GROUPS

PROJECT = Path(__file__).parents[2]

ANSWERS: dict[str, type[msgspec.Struct]] = {
    "get_workload_facets": workloads.Facets,
    "get_workload_utilization": workloads.UtilizationList,
    "get_idle_workloads": workloads.IdleWorkloadList,
    "get_workload_phases": workloads.History,
    "list_workload_types": workloads.WorkloadTypeList,
    "get_workload_type": workloads.WorkloadType,
    "list_categories": workloads.WorkloadCategoryList,
    "get_category_by_id": workloads.WorkloadCategory,
    "get_workload_priorities": workloads.WorkloadPriorityList,
    "list_pods": contract.PodsResponse,
    "get_workload_events": workloads.EventsResponse,
    "get_workload_history": workloads.HistoryResponse,
    "get_workload_pods": contract.PodsResponse,
    "get_workload_pod_metrics": contract.MetricsResponse,
    "count_pods": contract.WorkloadCount,
    "get_tenant_nodes": nodes.NodesResponse,
    "get_nodes": nodes.NodesResponse,
    "count_tenant_nodes": contract.WorkloadCount,
    "count_nodes": contract.WorkloadCount,
    "get_node_telemetry": contract.TelemetryResponse,
    "get_node_metrics": contract.MetricsResponse,
    "get_cluster_metrics": contract.MetricsResponse,
    "get_nodepool_metrics": contract.MetricsResponse,
    "get_nodepools": nodes.NodePoolsResponse,
    "get_nodepool": nodes.NodePoolResponse,
    "count_nodepools": contract.WorkloadCount,
    "get_projects": organisation.ProjectList,
    "count_projects": contract.WorkloadCount,
    "get_project": organisation.ProjectResponse,
    "get_departments": organisation.DepartmentList,
    "count_departments": contract.WorkloadCount,
    "get_department": organisation.DepartmentResponse,
    "get_projects_telemetry": contract.TelemetryResponse,
    "get_departments_telemetry": contract.TelemetryResponse,
    "get_project_metrics": contract.MetricsResponse,
    "get_department_metrics": contract.MetricsResponse,
    "count_workloads": contract.WorkloadCount,
    "get_workload_elements": contract.ElementsResponse,
    "count_workload_elements": contract.ElementCounts,
    "get_workload_endpoints": contract.EndpointsResponse,
    "get_workloads_telemetry": contract.TelemetryResponse,
    "get_workload_metrics": contract.MetricsResponse,
    "get_fleet": fleet.Fleet,
    "get_usage": usage.UsageReport,
    "get_cluster_by_uuid": fleet.Cluster,
    "get_me": access.Me,
    "list_issuers": access.IssuerList,
    "list_access_keys": access.AccessKeyList,
    "list_accounts": access.AccountList,
    "list_users": access.UserList,
    "list_rules": access.RuleList,
    "list_roles": access.RoleList,
    "list_audit": access.AuditEvents,
    "get_health": access.Health,
    "get_liveness": access.Health,
    "get_version": access.Version,
}


@pytest.mark.parametrize("operation", ANSWERS)
async def test_an_answer_is_its_struct(filled: Served, operation: str) -> None:
    answer = await filled.get(SAMPLES[operation].path)
    assert answer.status == 200
    read = msgspec.json.decode(json.dumps(answer.json), type=ANSWERS[operation])
    assert json.loads(msgspec.json.encode(read)) == answer.json


async def test_every_workload_is_its_struct(filled: Served) -> None:
    """The list as a whole: pending, running, failed, with and without GPUs."""
    answer = await filled.get("/api/v1/workloads?limit=500")
    assert answer.json["workloads"]
    for document in answer.json["workloads"]:
        read = msgspec.json.decode(json.dumps(document), type=contract.WorkloadResponse)
        assert json.loads(msgspec.json.encode(read)) == document


def test_usage_has_the_same_groups_everywhere() -> None:
    """In the document, in what filters understand and in the SQL; the command line's help names each."""
    document = yaml.safe_load((PROJECT / "src/watchbill/api/extensions.yaml").read_text("utf-8"))
    listed = document["components"]["parameters"]["UsageGroups"]["schema"]["items"]["enum"]
    assert tuple(listed) == USAGE_GROUPS == tuple(GROUPS)
    help_text = inspect.getsource(usage_command)
    assert not [name for name in USAGE_GROUPS if not re.search(rf"\b{name}\b", help_text)]

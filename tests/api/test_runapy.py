"""The client that existing scripts use, unchanged, against this server: log in and all five of its calls."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from runai.api.clusters_api import ClustersApi
from runai.api.departments_api import DepartmentsApi
from runai.api.events_api import EventsApi
from runai.api.node_pools_api import NodePoolsApi
from runai.api.nodes_api import NodesApi
from runai.api.pods_api import PodsApi
from runai.api.projects_api import ProjectsApi
from runai.api.workload_properties_api import WorkloadPropertiesApi
from runai.api.workloads_api import WorkloadsApi
from runai.api_client import ApiClient
from runai.configuration import Configuration
from runai.exceptions import ApiException
from runai.models.aggregated_resources import AggregatedResources
from runai.models.department_for_list import DepartmentForList
from runai.models.department_project_parent import DepartmentProjectParent
from runai.models.displayed_cluster import DisplayedCluster
from runai.models.event2 import Event2
from runai.models.grouped_metrics_response import GroupedMetricsResponse
from runai.models.history_record1 import HistoryRecord1
from runai.models.measurement_response import MeasurementResponse
from runai.models.metrics_composite_response import MetricsCompositeResponse
from runai.models.metrics_response import MetricsResponse
from runai.models.node import Node
from runai.models.node_telemetry_type import NodeTelemetryType
from runai.models.nodepool import Nodepool
from runai.models.phase import Phase
from runai.models.pod1 import Pod1
from runai.models.project_status import ProjectStatus
from runai.models.resources import Resources
from runai.models.telemetry_response import TelemetryResponse
from runai.models.total_resources import TotalResources
from runai.models.workload_category import WorkloadCategory
from runai.models.workload_metric_type import WorkloadMetricType
from runai.models.workload_priority import WorkloadPriority
from runai.models.workload_telemetry_type import WorkloadTelemetryType
from runai.models.workload_type_config import WorkloadTypeConfig

from tests.api.test_workloads import TOTAL
from tests.fixtures.samples import CLUSTER_ID, NODE_ID
from tests.fixtures.serving import ABSENT_ID, DETAILED_ID, POD_ID, Served


@pytest.fixture
def client(filled: Served) -> Iterator[ApiClient]:
    configuration = Configuration(
        client_id=filled.client_id,
        client_secret=filled.secret,
        runai_base_url=filled.url,
        retry_enabled=False,
    )
    clients: list[ApiClient] = []

    class Lazy:
        """Made in the thread that uses it: its constructor already asks for a token."""

        def __getattr__(self, name: str) -> Any:
            if not clients:
                clients.append(ApiClient(configuration))
            return getattr(clients[0], name)

    yield Lazy()  # type: ignore[misc]
    for client in clients:
        client.close()


async def call(client: ApiClient, name: str, **arguments: Any) -> Any:
    answer = await asyncio.to_thread(getattr(WorkloadsApi(client), name), **arguments)
    assert answer.status_code in (200, 207)
    return answer.data


async def ask(api: Any, name: str, **arguments: Any) -> Any:
    """An operation of the second contract."""
    answer = await asyncio.to_thread(getattr(api, name), **arguments)
    assert answer.status_code == 200
    return answer.data


async def test_types_categories_and_priorities(client: ApiClient) -> None:
    api = WorkloadPropertiesApi(client)
    types = (await ask(api, "list_workload_types", filter_by=["name==PyTorchJob"]))["types"]
    (result,) = [WorkloadTypeConfig.from_dict(type_) for type_ in types]
    assert (result.group, result.category_name) == ("kubeflow.org", "Train")
    alone = await ask(api, "get_workload_type", workload_type_id=result.id)
    assert WorkloadTypeConfig.from_dict(alone) == result
    listed = (await ask(api, "list_categories"))["categories"]
    categories = {item.name: item for item in map(WorkloadCategory.from_dict, listed)}
    assert categories.keys() == {"Build", "Deploy", "Train"}
    assert categories["Train"].id == result.category_id
    alone = await ask(api, "get_category_by_id", category_id=result.category_id)
    assert WorkloadCategory.from_dict(alone).name == "Train"
    answer = await ask(api, "get_workload_priorities", sort_by="value", sort_order="desc")
    priorities = [WorkloadPriority.from_dict(priority) for priority in answer["priorities"]]
    assert [priority.value for priority in priorities] == sorted(
        (priority.value for priority in priorities), reverse=True
    )
    assert {priority.name for priority in priorities} == {"train", "build"}


async def test_pods(client: ApiClient) -> None:
    api = PodsApi(client)
    arguments = {"sort_by": "nodeName", "sort_order": "desc", "verbosity": "full"}
    answer = await ask(api, "list_pods", filter_by=["nodeName=^node-", "nodeName!=x"], **arguments)
    pods = [Pod1.from_dict(pod) for pod in answer["pods"]]
    assert [answer.node_name for answer in pods] == ["node-2", "node-1", "node-0"]
    assert {answer.workload_id for answer in pods} == {str(DETAILED_ID)}
    assert {answer.project_name for answer in pods} == {"vision"}
    assert pods[0].containers[0].image == "registry.example.com/train:1"
    assert await ask(api, "count_pods") == {"count": 3}
    pod = await ask(api, "get_workload_pods", workload_id=str(DETAILED_ID), limit=2)
    assert (len([Pod1.from_dict(each) for each in pod["pods"]]), pod["next"]) == (2, 2)
    with pytest.raises(ApiException) as refused:
        await ask(api, "get_workload_pods", workload_id=str(ABSENT_ID))
    assert refused.value.status == 404


async def test_metrics_of_a_pod(client: ApiClient) -> None:
    api = PodsApi(client)
    end = datetime.now(UTC) + timedelta(seconds=100)
    arguments = {
        "workload_id": str(DETAILED_ID),
        "pod_id": str(POD_ID),
        "start": end - timedelta(seconds=6000),
        "end": end,
        "number_of_samples": 1000,
    }
    measured = {
        "GPU_UTILIZATION": ["30"],
        "GPU_UTILIZATION_PER_GPU": ["60", "0"],
        "GPU_SM_ACTIVITY_PER_GPU": ["42.5", "0"],
        "CPU_MEMORY_USAGE_BYTES": [str(2**29)],
    }
    for kind, values in measured.items():
        answer = await ask(api, "get_workload_pod_metrics", metric_type=[kind], **arguments)
        series = MetricsCompositeResponse.from_dict(answer).measurements
        assert [item.type for item in series] == [kind] * len(values)
        assert [item.values[-1].value for item in series] == values
    both = ["GPU_UTILIZATION", "GPU_SWAP_MEMORY_BYTES_PER_GPU"]
    answer = await asyncio.to_thread(api.get_workload_pod_metrics, metric_type=both, **arguments)
    assert answer.status_code == 207
    assert answer.data["measurements"][1]["labels"] == {"reason": "unsupported"}
    with pytest.raises(ApiException) as refused:
        absent = arguments | {"pod_id": str(ABSENT_ID)}
        await ask(api, "get_workload_pod_metrics", metric_type=both, **absent)
    assert refused.value.status == 404


async def test_events_and_history(client: ApiClient) -> None:
    api = EventsApi(client)
    answer = await ask(api, "get_workload_events", workload_id=str(DETAILED_ID), sort_order="asc")
    (event,) = [Event2.from_dict(event) for event in answer["events"]]
    assert (event.reason, event.involved_object.kind) == ("FailedScheduling", "Pod")
    answer = await ask(api, "get_workload_history", workload_id=str(DETAILED_ID), limit=2)
    records = [HistoryRecord1.from_dict(record) for record in answer["records"]]
    assert [record.meta.type.value for record in records] == ["Event", "PhaseUpdate"]
    assert records[1].spec.phase_update.phase.value == "Pending"
    assert answer["next"] == 2


async def test_clusters(client: ApiClient) -> None:
    api = ClustersApi(client)
    listed = [DisplayedCluster.from_dict(item) for item in await ask(api, "get_clusters")]
    assert [item.name for item in listed] == ["cluster-1", "cluster-2"]
    assert {item.status.state.value for item in listed} <= {"Connected", "ServiceIssues"}
    bare = await ask(api, "get_clusters", verbosity="metadata")
    assert [DisplayedCluster.from_dict(item).status for item in bare] == [None, None]
    alone = await ask(api, "get_cluster_by_uuid", cluster_uuid=listed[1].uuid)
    assert DisplayedCluster.from_dict(alone).name == "cluster-2"
    with pytest.raises(ApiException) as refused:
        await ask(api, "get_cluster_by_uuid", cluster_uuid=str(ABSENT_ID))
    assert refused.value.status == 404


async def test_nodes(client: ApiClient) -> None:
    api = NodesApi(client)
    arguments = {"sort_by": "name", "sort_order": "desc", "filter_by": ["status==Ready"]}
    answer = await ask(api, "get_tenant_nodes", **arguments)
    nodes = [Node.from_dict(node) for node in answer["nodes"]]
    assert [node.name for node in nodes] == ["node-2", "node-1", "node-0"]
    assert (nodes[0].node_pool, nodes[0].gpu_info.gpu_count) == ("a100", 8)
    assert nodes[0].conditions[0].reason == "KubeletReady"
    assert await ask(api, "count_tenant_nodes", search="node-1") == {"count": 1}
    of_one = await ask(api, "get_nodes", cluster_uuid=nodes[0].cluster_uuid, node_name="node-1")
    assert [Node.from_dict(node).name for node in of_one["nodes"]] == ["node-1"]
    counted = await ask(api, "count_nodes", cluster_uuid=nodes[0].cluster_uuid)
    assert counted == {"count": 3}
    with pytest.raises(ApiException) as refused:
        await ask(api, "get_nodes", cluster_uuid=str(ABSENT_ID))
    assert refused.value.status == 404
    with pytest.raises(ApiException) as refused:
        both = {"node_name": "node-1", "search": "node"}
        await ask(api, "get_nodes", cluster_uuid=nodes[0].cluster_uuid, **both)
    assert refused.value.status == 400


async def test_node_telemetry(client: ApiClient) -> None:
    """Three Ready nodes of eight GPUs and 80 GiB each, of which nothing is allocated."""
    api = NodesApi(client)
    expected = dict.fromkeys(("READY_GPU_NODES", "TOTAL_GPU_NODES", "FULLY_FREE_GPU_NODES"), "3")
    expected |= dict.fromkeys(("READY_GPUS", "TOTAL_GPUS", "FREE_GPUS"), "24")
    expected |= {"TOTAL_CPU_CORES": "288", "TOTAL_CPU_MEMORY_BYTES": str(3 * 1024**4)}
    expected |= {"TOTAL_GPU_MEMORY_BYTES": str(24 * 80 * 1024**3), "ALLOCATED_GPUS": "0"}
    for kind in NodeTelemetryType:
        answer = await ask(
            api, "get_node_telemetry", telemetry_type=kind.value, nodepool_name="a100"
        )
        body = TelemetryResponse.from_dict(answer)
        assert body.type == kind.value
        if kind.value.startswith("USED_"):
            assert body.values == [], "of one node in three only"
        else:
            assert [value.value for value in body.values] == [expected.get(kind.value, "0")], kind
    grouped = await ask(
        api, "get_node_telemetry", telemetry_type="TOTAL_GPUS", group_by=["Nodepool", "Node"]
    )
    values = TelemetryResponse.from_dict(grouped).values
    assert [(value.groups[0].value, value.value) for value in values] == [("a100", "8")] * 3
    assert sorted(value.groups[1].name for value in values) == ["node-0", "node-1", "node-2"]


async def test_node_metrics(client: ApiClient) -> None:
    """By hand: 80 of 8 × 80 GiB are 12.5 %, 20 and 60 of 80 GiB are 25 and 75 %."""
    api = NodesApi(client)
    end = datetime.now(UTC) + timedelta(seconds=100)
    arguments = {
        "node_id": str(NODE_ID),
        "start": end - timedelta(seconds=6000),
        "end": end,
        "number_of_samples": 60,
    }
    measured = {
        "GPU_UTILIZATION": ["25"],
        "GPU_UTILIZATION_PER_GPU": ["50", "0"],
        "GPU_MEMORY_UTILIZATION": ["12.5"],
        "GPU_MEMORY_UTILIZATION_PER_GPU": ["25", "75"],
        "CPU_MEMORY_UTILIZATION": ["25"],
    }
    for kind, values in measured.items():
        answer = await ask(api, "get_node_metrics", metric_type=[kind], **arguments)
        series = MetricsResponse.from_dict(answer).measurements
        assert [measurement.type for measurement in series] == [kind] * len(values)
        assert [measurement.values[-1].value for measurement in series] == values
    both = ["CPU_MEMORY_USAGE_BYTES", "GPU_OOMKILL_IDLE_COUNT_PER_GPU"]
    answer = await asyncio.to_thread(api.get_node_metrics, metric_type=both, **arguments)
    assert answer.status_code == 207
    assert answer.data["measurements"][1]["labels"] == {"reason": "unsupported"}
    with pytest.raises(ApiException) as refused:
        await ask(api, "get_node_metrics", metric_type=both[1:], **arguments)
    assert refused.value.status == 503
    with pytest.raises(ApiException) as refused:
        await ask(
            api, "get_node_metrics", metric_type=both, **(arguments | {"node_id": str(ABSENT_ID)})
        )
    assert refused.value.status == 404


async def test_node_pools(client: ApiClient) -> None:
    api = NodePoolsApi(client)
    answer = await ask(api, "get_nodepools", filter_by=["name=@100", "phase==Ready"])
    (pool,) = [Nodepool.from_dict(nodepool) for nodepool in answer["nodepools"]]
    assert (pool.name, pool.label_key, pool.cluster_name) == (
        "a100",
        "kai.scheduler/node-pool",
        "cluster-1",
    )
    assert pool.status.nodes == ["node-0", "node-1", "node-2"]
    assert await ask(api, "count_nodepools") == {"count": 1}
    alone = await ask(api, "get_nodepool", nodepool_id=pool.id)
    assert Nodepool.from_dict(alone).name == "a100"
    with pytest.raises(ApiException) as refused:
        await ask(api, "get_nodepool", nodepool_id="7")
    assert refused.value.status == 404


async def test_metrics_of_a_node_pool(client: ApiClient) -> None:
    """Nothing is recorded yet: each type is there without values."""
    api, end = NodePoolsApi(client), datetime.now(UTC)
    kinds = ["TOTAL_GPU_NODES", "GPU_UTILIZATION", "UNALLOCATED_GPU"]
    arguments = {
        "cluster_uuid": str(CLUSTER_ID),
        "start": end - timedelta(hours=1),
        "end": end,
        "metric_type": kinds,
    }
    answer = await ask(api, "get_nodepool_metrics", nodepool_name="a100", **arguments)
    series = MetricsResponse.from_dict(answer).measurements
    assert [(item.type, item.values) for item in series] == [(kind, []) for kind in kinds]
    with pytest.raises(ApiException) as refused:
        await ask(api, "get_nodepool_metrics", nodepool_name="b200", **arguments)
    assert refused.value.status == 404


async def test_cluster_metrics(client: ApiClient) -> None:
    """Nothing is recorded yet, and quotas never are."""
    end = datetime.now(UTC)
    api, arguments = ClustersApi(client), {"start": end - timedelta(hours=1), "end": end}
    kinds = ["ALLOCATED_GPU", "GPU_QUOTA"]
    answer = await asyncio.to_thread(
        api.get_cluster_metrics, cluster_uuid=str(CLUSTER_ID), metric_type=kinds, **arguments
    )
    assert answer.status_code == 207
    series = GroupedMetricsResponse.from_dict(answer.data).measurements
    assert [(measurement.type, measurement.values) for measurement in series] == [
        (kinds[0], []),
        (kinds[1], None),
    ]


async def test_projects(client: ApiClient) -> None:
    """The client has no class for a whole project: its own of that name belongs to a report."""
    api = ProjectsApi(client)
    filters = ["name==vision", "totalGpuQuota>=8"]
    (vision,) = (await ask(api, "get_projects", filter_by=filters, sort_by="name"))["projects"]
    assert (vision["name"], vision["enforceRunaiScheduler"]) == ("vision", False)
    assert DepartmentProjectParent.from_dict(vision["parent"]).name == "research"
    (resources,) = [Resources.from_dict(resource) for resource in vision["resources"]]
    assert (resources.node_pool.name, resources.gpu.deserved) == ("a100", 8)
    assert TotalResources.from_dict(vision["totalResources"]).cpu_quota == 64_000
    status = ProjectStatus.from_dict(vision["status"])
    assert status.phase.value == "Ready"
    assert status.quota_status.allocated.gpu is not None
    assert (await ask(api, "get_project", project_id=vision["id"]))["name"] == "vision"
    assert await ask(api, "count_projects", filter_by=["phase==Ready"]) == {"count": 1}
    with pytest.raises(ApiException) as refused:
        await ask(api, "get_project", project_id="999999")
    assert refused.value.status == 404


async def test_figures_of_projects(client: ApiClient) -> None:
    api, end = ProjectsApi(client), datetime.now(UTC)
    figures = await ask(
        api, "get_projects_telemetry", telemetry_type="GPU_QUOTA", group_by=["NodepoolId"]
    )
    telemetry = TelemetryResponse.from_dict(figures)
    assert [(value.value, value.groups[0].name) for value in telemetry.values] == [("8", "a100")]
    (vision,) = (await ask(api, "get_projects", filter_by=["totalGpuQuota==8"]))["projects"]
    answer = await asyncio.to_thread(
        api.get_project_metrics,
        project_id=vision["id"],
        metric_type=["GPU_ALLOCATION", "GPU_MEMORY_UTILIZATION"],
        start=end - timedelta(hours=1),
        end=end,
    )
    assert answer.status_code == 207
    series = [MeasurementResponse.from_dict(value) for value in answer.data["measurements"]]
    assert [(value.type, value.labels) for value in series] == [
        ("GPU_ALLOCATION", None),
        ("GPU_MEMORY_UTILIZATION", {"reason": "unsupported"}),
    ]


async def test_departments(client: ApiClient) -> None:
    api = DepartmentsApi(client)
    answer = await ask(api, "get_departments", filter_by=["name==research"], verbosity="verbose")
    listed = [DepartmentForList.from_dict(department) for department in answer["departments"]]
    (research,) = [
        department for department in listed if department.total_resources.gpu_quota == 32
    ]
    assert "vision" in {child.name for child in research.children}
    assert research.status.quota_status.allocated.gpu is not None
    alone = await ask(api, "get_department", department_id=research.id)
    (sums,) = [
        AggregatedResources.from_dict(department)
        for department in alone["projectsAggregatedResources"]
    ]
    assert (sums.node_pool.name, sums.gpu.deserved) == ("a100", 8)
    counted = await ask(api, "count_departments", filter_by=["name==research"])
    assert counted == {"count": len(listed)}


async def test_list(client: ApiClient) -> None:
    result = await call(client, "get_workloads", limit=500)
    assert len(result["workloads"]) == TOTAL


async def test_list_with_filters_sorted_and_searched(client: ApiClient) -> None:
    result = await call(
        client,
        "get_workloads",
        deleted=False,
        offset=0,
        limit=10,
        sort_order="desc",
        sort_by="name",
        filter_by=["phase!=Running", "allocatedGPU>=1", "createdAt>=2021-01-01T00:00:00Z"],
        search="e",
    )
    names = [workload["name"] for workload in result["workloads"]]
    assert names == sorted(names, reverse=True)
    assert names
    for workload in result["workloads"]:
        assert workload["phase"] != "Running"
        assert workload["allocatedResources"]["gpu"] >= 1


async def test_filters_with_commas_and_as_its_own_documentation_writes_them(
    client: ApiClient,
) -> None:
    comma = await call(client, "get_workloads", filter_by=["name=@sdxl, v2", "phase!=Unknown"])
    assert comma["workloads"]
    assert all("sdxl, v2" in workload["name"] for workload in comma["workloads"])
    literal = ['["name!=some-workload-name","allocatedGPU>=2","createdAt>=2021-01-01T00:00:00Z"]']
    plain = ["name!=some-workload-name", "allocatedGPU>=2", "createdAt>=2021-01-01T00:00:00Z"]
    first = await call(client, "count_workloads", filter_by=literal)
    second = await call(client, "count_workloads", filter_by=plain)
    assert first == second
    assert 0 < first["count"] < TOTAL


async def test_count(client: ApiClient) -> None:
    assert await call(client, "count_workloads") == {"count": TOTAL}
    assert await call(client, "count_workloads", deleted=True) == {"count": 0}


async def test_get(client: ApiClient) -> None:
    result = await call(client, "get_workload", workload_id=str(DETAILED_ID))
    assert result["id"] == str(DETAILED_ID)
    with pytest.raises(ApiException) as refused:
        await call(client, "get_workload", workload_id=str(ABSENT_ID))
    assert refused.value.status == 404
    assert refused.value.data["code"] == 404


async def test_telemetry(client: ApiClient) -> None:
    result = await call(
        client,
        "get_workloads_telemetry",
        # The client writes a lone enum member as Python's own text for it, so scripts pass its value.
        telemetry_type=WorkloadTelemetryType.WORKLOADS_COUNT.value,
        group_by=["ClusterId", "Phase"],
        filter_by_phases=[Phase.RUNNING, Phase.PENDING],
    )
    assert result["type"] == "WORKLOADS_COUNT"
    assert {group["key"] for item in result["values"] for group in item["groups"]} == {
        "ClusterId",
        "Phase",
    }


async def test_metrics(client: ApiClient) -> None:
    end = datetime.now(UTC)
    result = await call(
        client,
        "get_workload_metrics",
        workload_id=str(DETAILED_ID),
        metric_type=[WorkloadMetricType.POD_COUNT, WorkloadMetricType.GPU_UTILIZATION],
        start=end - timedelta(hours=1),
        end=end,
        number_of_samples=5,
    )
    assert [measurement["type"] for measurement in result["measurements"]] == [
        "POD_COUNT",
        "GPU_UTILIZATION",
    ]


async def test_a_wrong_secret(filled: Served) -> None:
    configuration = Configuration(
        client_id=filled.client_id,
        client_secret="wrong",
        runai_base_url=filled.url,
        retry_enabled=False,
    )
    with pytest.raises((ApiException, ValueError)):
        await asyncio.to_thread(ApiClient, configuration)

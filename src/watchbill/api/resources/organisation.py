"""Projects and departments: list, count and one; their figures now and over time."""

from collections.abc import Mapping, Sequence
from typing import Any

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.api.resources.metrics import metrics_query, metrics_reply
from watchbill.errors import NotFound
from watchbill.metrics.source import FailedType, Measurement, MetricPoint, Outcome, Reason
from watchbill.query import UnitQuery, parse_unit_filters
from watchbill.responses.contract import TelemetryResponse, WorkloadCount
from watchbill.responses.organisation import DepartmentList, ProjectList
from watchbill.scheduler_queue import OrganisationUnit
from watchbill.store.organisation.answer import BYTES_PER_MEGABYTE
from watchbill.store.organisation.series import UnitPoint, unit_series
from watchbill.store.organisation.source import unit_number
from watchbill.store.organisation.telemetry import UnitTelemetryQuery, decimal_text, unit_telemetry
from watchbill.store.organisation.units import department_list, project_list, unit_count
from watchbill.workload import GPU_MILLIONTHS


async def get_projects(call: Call) -> Answer:
    page = await project_list(call.db, call.access, _query("project", call.values), call.now)
    return json_reply(ProjectList(projects=tuple(page.projects), next_offset=page.next_offset))


async def count_projects(call: Call) -> Answer:
    query = UnitQuery(
        predicates=parse_unit_filters("project", call.values["filterBy"]),
        search=call.values["search"],
    )
    count = await unit_count(call.db, call.access, "project", query, call.now)
    return json_reply(WorkloadCount(count=count))


async def get_project(call: Call) -> Answer:
    number = unit_number(call.values["projectId"])
    if number is not None:
        query = UnitQuery(number=number, limit=1)
        for project in (await project_list(call.db, call.access, query, call.now)).projects:
            return json_reply(project)
    raise NotFound(f"There is no project {call.values['projectId'][:80]}.")


async def get_departments(call: Call) -> Answer:
    page = await department_list(
        call.db,
        call.access,
        _query("department", call.values),
        call.now,
        with_status=call.values["verbosity"] == "verbose",
    )
    return json_reply(
        DepartmentList(departments=tuple(page.departments), next_offset=page.next_offset)
    )


async def count_departments(call: Call) -> Answer:
    query = UnitQuery(predicates=parse_unit_filters("department", call.values["filterBy"]))
    count = await unit_count(call.db, call.access, "department", query, call.now)
    return json_reply(WorkloadCount(count=count))


async def get_department(call: Call) -> Answer:
    number = unit_number(call.values["departmentId"])
    if number is not None:
        query = UnitQuery(number=number, limit=1)
        page = await department_list(call.db, call.access, query, call.now, with_status=True)
        for department in page.departments:
            return json_reply(department)
    raise NotFound(f"There is no department {call.values['departmentId'][:80]}.")


async def get_projects_telemetry(call: Call) -> Answer:
    return await _telemetry(call, "project", node_pool=call.values["nodepoolId"])


async def get_departments_telemetry(call: Call) -> Answer:
    return await _telemetry(call, "department", node_pool=call.values["nodepoolName"])


async def _telemetry(call: Call, unit: OrganisationUnit, *, node_pool: str | None) -> Answer:
    query = UnitTelemetryQuery(
        unit=unit,
        telemetry_type=call.values["telemetryType"],
        groups=tuple(dict.fromkeys(call.values["groupBy"])),
        cluster_id=call.values["clusterId"],
        node_pool=node_pool,
        department_id=call.values["departmentId"],
    )
    values = await unit_telemetry(call.db, call.access, query, call.now)
    return json_reply(
        TelemetryResponse(type=query.telemetry_type, timestamp=call.now, values=tuple(values))
    )


_SERIES = {
    "GPU_QUOTA": ("gpu_quota", GPU_MILLIONTHS),
    "CPU_QUOTA_MILLICORES": ("cpu_quota", 1),
    "CPU_MEMORY_QUOTA_MB": ("memory_quota", 1),
    "GPU_ALLOCATION": ("allocated_gpu", GPU_MILLIONTHS),
    "CPU_ALLOCATION_MILLICORES": ("allocated_cpu", 1),
    "CPU_MEMORY_ALLOCATION_MB": ("allocated_memory", BYTES_PER_MEGABYTE),
}
"""The column of a type, and what its values are divided by. Others are not recorded."""


async def get_project_metrics(call: Call) -> Answer:
    return await _metrics(call, "project", call.values["projectId"])


async def get_department_metrics(call: Call) -> Answer:
    return await _metrics(call, "department", call.values["departmentId"])


async def _metrics(call: Call, unit: OrganisationUnit, text: str) -> Answer:
    """By node pool nothing is recorded."""
    query = metrics_query(call.values)
    number = unit_number(text)
    points = None
    if number is not None:
        points = await unit_series(
            call.db, call.access, unit, number, instants=query.instants(), now=call.now
        )
    if points is None:
        raise NotFound(f"There is no {unit} {text[:80]}.")
    is_recorded = call.values["nodepoolName"] is None
    outcomes = [
        _measurement(name, points)
        if name in _SERIES and is_recorded
        else FailedType(type=name, reason=Reason.UNSUPPORTED)
        for name in query.types
    ]
    return metrics_reply(call, outcomes)


def _measurement(name: str, points: Sequence[UnitPoint]) -> Outcome:
    column, scale = _SERIES[name]
    samples = tuple(
        MetricPoint(point.at, decimal_text(value / scale))
        for point in points
        if (value := point.values[column]) is not None
    )
    return Measurement(type=name, samples=samples)


def _query(unit: OrganisationUnit, values: Mapping[str, Any]) -> UnitQuery:
    return UnitQuery(
        predicates=parse_unit_filters(unit, values["filterBy"]),
        search=values.get("search"),
        sort_by=values["sortBy"] or "name",
        is_descending=values["sortOrder"] == "desc",
        offset=values["offset"],
        limit=values["limit"],
    )


HANDLERS = (
    get_projects,
    count_projects,
    get_project,
    get_departments,
    count_departments,
    get_department,
    get_projects_telemetry,
    get_departments_telemetry,
    get_project_metrics,
    get_department_metrics,
)

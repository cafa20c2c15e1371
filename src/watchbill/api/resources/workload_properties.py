"""Types, categories and priority classes of workloads."""

from uuid import UUID, uuid5

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.errors import NotFound
from watchbill.kinds.definition.loader import KindHeader, read_kind_headers
from watchbill.query import RowField, RowTable, WorkloadQuery
from watchbill.responses.workloads import (
    NO_ID,
    WorkloadCategory,
    WorkloadCategoryList,
    WorkloadPriority,
    WorkloadPriorityList,
    WorkloadType,
    WorkloadTypeList,
)
from watchbill.store.workloads.workloads import priority_class_list, workload_facets
from watchbill.workload_fields import FieldKind

CORE_GROUP = "core"
"""Kubernetes' own group has no name, and the contract wants one."""
PLATFORM_GROUP = "run.ai"
_NAMESPACE = UUID("6f0d9a36-94ab-4a35-8d1e-9c4a7a9f6c55")
"""Ids that are made from names, so that every server makes the same."""

_TYPES = RowTable[WorkloadType](
    {
        "name": RowField(lambda workload_type: workload_type.name),
        "group": RowField(lambda workload_type: workload_type.group),
    },
    key=lambda workload_type: f"{workload_type.name}.{workload_type.group}",
)
_PRIORITIES = RowTable[WorkloadPriority](
    {
        "name": RowField(lambda priority: priority.name),
        "source": RowField(lambda priority: None),
        "value": RowField(lambda priority: float(priority.value), FieldKind.NUMBER),
    },
    key=lambda priority: priority.name,
)


async def list_workload_types(call: Call) -> Answer:
    types = [_workload_type(header) for header in read_kind_headers()]
    if call.values["externalTypesOnly"]:
        types = [workload_type for workload_type in types if workload_type.group != PLATFORM_GROUP]
    matching = _TYPES.matching(types, call.values["filterBy"])
    by_name = _TYPES.ordered(matching, "name", is_descending=False)
    return json_reply(WorkloadTypeList(types=tuple(by_name)))


async def get_workload_type(call: Call) -> Answer:
    type_id = call.values["workloadTypeId"]
    for header in read_kind_headers():
        workload_type = _workload_type(header)
        if workload_type.id == type_id:
            return json_reply(workload_type)
    raise NotFound(f"There is no workload type {type_id}.")


def _workload_type(header: KindHeader) -> WorkloadType:
    return WorkloadType(
        id=uuid5(_NAMESPACE, f"type/{header.group}/{header.kind}"),
        name=header.kind,
        group=header.group or CORE_GROUP,
        category_id=_category_id(header.category) if header.category else NO_ID,
        priority_id=NO_ID,
        category_name=header.category or None,
    )


async def list_categories(call: Call) -> Answer:
    return json_reply(WorkloadCategoryList(categories=tuple(await _categories(call))))


async def get_category_by_id(call: Call) -> Answer:
    category_id = call.values["categoryId"]
    for category in await _categories(call):
        if str(category.id) == str(category_id).lower():
            return json_reply(category)
    raise NotFound(f"There is no category {category_id}.")


async def _categories(call: Call) -> list[WorkloadCategory]:
    """Those of the known types, and those that the caller's workloads have by their agents' settings."""
    facets = await workload_facets(call.db, call.access, WorkloadQuery(), ("category",), call.now)
    names = {header.category for header in read_kind_headers()}
    names |= {name for name, _ in facets["category"].values}
    return [WorkloadCategory(id=_category_id(name), name=name) for name in sorted(names - {""})]


def _category_id(name: str) -> UUID:
    return uuid5(_NAMESPACE, f"category/{name}")


async def get_workload_priorities(call: Call) -> Answer:
    classes = await priority_class_list(call.db, call.access, call.now)
    priorities = [
        WorkloadPriority(id=name, name=name, value=value) for name, value in classes if value >= 0
    ]
    matching = _PRIORITIES.matching(priorities, call.values["filterBy"])
    ordered = _PRIORITIES.ordered(
        matching,
        call.values["sortBy"] or "name",
        is_descending=call.values["sortOrder"] == "desc",
    )
    return json_reply(WorkloadPriorityList(priorities=tuple(ordered)))


HANDLERS = (
    list_workload_types,
    get_workload_type,
    list_categories,
    get_category_by_id,
    get_workload_priorities,
)

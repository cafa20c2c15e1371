"""Types, categories and priority classes of workloads. Their schemas are the second contract's."""

from uuid import UUID

from watchbill.workload import Wire

NO_ID = UUID(int=0)
"""Where the contract requires an id and there is none."""


class WorkloadType(Wire, frozen=True, kw_only=True):
    """A kind whose objects are workloads. `group`: `core` for the API group without a name."""

    id: UUID
    name: str
    group: str
    category_id: UUID
    priority_id: UUID
    category_name: str | None = None


class WorkloadTypeList(Wire, frozen=True, kw_only=True):
    types: tuple[WorkloadType, ...]


class WorkloadCategory(Wire, frozen=True, kw_only=True):
    id: UUID
    name: str


class WorkloadCategoryList(Wire, frozen=True, kw_only=True):
    categories: tuple[WorkloadCategory, ...]


class WorkloadPriority(Wire, frozen=True, kw_only=True):
    """A priority class and what it is worth to the scheduler."""

    id: str
    name: str
    value: int


class WorkloadPriorityList(Wire, frozen=True, kw_only=True):
    priorities: tuple[WorkloadPriority, ...]

"""What people's programs ask of the server about projects and departments."""

from watchbill.client.reader import Client
from watchbill.client.selection import PAGE
from watchbill.responses.organisation import (
    DepartmentList,
    DepartmentResponse,
    ProjectList,
    ProjectResponse,
)


async def project_list(
    client: Client,
    *,
    filters: tuple[str, ...] = (),
    search: str | None = None,
    most: int | None = None,
) -> ProjectList:
    """Projects by name, all of them or the first `most`; `next_offset` where there are more."""
    parameters = [("filterBy", item) for item in filters]
    parameters += [("search", search)] if search else []
    projects: list[ProjectResponse] = []
    offset: int | None = 0
    while offset is not None and (most is None or len(projects) < most):
        page = [*parameters, *_page(offset, most, len(projects))]
        answer = await client.get("/api/v1/org-unit/projects", ProjectList, page)
        projects += answer.projects
        offset = answer.next_offset
    return ProjectList(projects=tuple(projects), next_offset=offset)


async def department_list(
    client: Client, *, filters: tuple[str, ...] = (), most: int | None = None
) -> DepartmentList:
    """Departments by name with what is held of them, all or the first `most`."""
    parameters = [("verbosity", "verbose"), *(("filterBy", item) for item in filters)]
    departments: list[DepartmentResponse] = []
    offset: int | None = 0
    while offset is not None and (most is None or len(departments) < most):
        page = [*parameters, *_page(offset, most, len(departments))]
        answer = await client.get("/api/v1/org-unit/departments", DepartmentList, page)
        departments += answer.departments
        offset = answer.next_offset
    return DepartmentList(departments=tuple(departments), next_offset=offset)


def _page(offset: int, most: int | None, count: int) -> list[tuple[str, str]]:
    """The parameters of the page at `offset`, where `count` of `most` are there already."""
    limit = PAGE if most is None else min(PAGE, most - count)
    return [("offset", str(offset)), ("limit", str(limit))]

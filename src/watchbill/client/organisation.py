"""What people's programs ask of the server about projects and departments."""

from watchbill.client.reader import Client
from watchbill.client.selection import narrowed_by, read_pages
from watchbill.responses.organisation import DepartmentList, ProjectList


async def project_list(
    client: Client,
    *,
    filters: tuple[str, ...] = (),
    search: str | None = None,
    most: int | None = None,
) -> ProjectList:
    """Projects by name, all of them or the first `most`; `next_offset` where there are more."""
    wanted = narrowed_by(filters, search)
    projects, following = await read_pages(
        lambda page: client.get("/api/v1/org-unit/projects", ProjectList, [*wanted, *page]),
        lambda answer: answer.projects,
        most=most,
    )
    return ProjectList(projects=projects, next_offset=following)


async def department_list(
    client: Client, *, filters: tuple[str, ...] = (), most: int | None = None
) -> DepartmentList:
    """Departments by name with what is held of them, all or the first `most`."""
    wanted = [("verbosity", "verbose"), *narrowed_by(filters, None)]
    departments, following = await read_pages(
        lambda page: client.get("/api/v1/org-unit/departments", DepartmentList, [*wanted, *page]),
        lambda answer: answer.departments,
        most=most,
    )
    return DepartmentList(departments=departments, next_offset=following)

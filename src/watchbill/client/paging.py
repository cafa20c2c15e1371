"""Lists longer than the server answers at once, page by page."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from watchbill.client.selection import PAGE
from watchbill.client.transport import Parameters


class Paged(Protocol):
    """An answer that says where the next one begins."""

    @property
    def next_offset(self) -> int | None: ...


Answer = TypeVar("Answer", bound=Paged)
Row = TypeVar("Row")


async def read_pages(
    page: Callable[[Parameters], Awaitable[Answer]],
    rows_of: Callable[[Answer], Sequence[Row]],
    *,
    most: int | None,
) -> tuple[tuple[Row, ...], int | None]:
    """All rows, or the first `most` and where more begin. `page` asks for one page, with these parameters."""
    rows: list[Row] = []
    offset: int | None = 0
    while offset is not None and (most is None or len(rows) < most):
        limit = PAGE if most is None else min(PAGE, most - len(rows))
        answer = await page([("offset", str(offset)), ("limit", str(limit))])
        rows += rows_of(answer)
        offset = answer.next_offset
    return tuple(rows), offset


def narrowed_by(filters: Sequence[str], search: str | None) -> Parameters:
    return [("filterBy", item) for item in filters] + ([("search", search)] if search else [])

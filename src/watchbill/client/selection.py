"""Which workloads somebody asks for, the documents that come back, and lists longer than one answer."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import msgspec

from watchbill.client.transport import Parameters, decoded
from watchbill.responses.contract import PodResponse, PodsResponse, WorkloadResponse


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


PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which workloads; the words are the API's own."""

    filters: tuple[str, ...] = ()
    search: str | None = None
    is_deleted: bool = False
    sort_by: str | None = None
    is_descending: bool = False
    offset: int = 0
    """So many of the first are left out of a list."""
    page_size: int = PAGE

    def parameters(self) -> list[tuple[str, str]]:
        parameters = [("filterBy", item) for item in self.filters]
        if self.search:
            parameters.append(("search", self.search))
        if self.is_deleted:
            parameters.append(("deleted", "true"))
        return parameters

    def order(self) -> list[tuple[str, str]]:
        order = [("sortBy", self.sort_by)] if self.sort_by else []
        return [*order, ("sortOrder", "desc")] if self.is_descending else order


@dataclass(frozen=True, slots=True)
class WorkloadDocument:
    """A workload as the server sent it, unknown members included, and what it says."""

    raw: msgspec.Raw
    workload: WorkloadResponse

    @classmethod
    def of(cls, raw: msgspec.Raw) -> Self:
        """Raises Unavailable where it is no workload."""
        return cls(raw, decoded(bytes(raw), WorkloadResponse))

    def members(self) -> dict[str, Any]:
        """The JSON object itself."""
        return msgspec.json.decode(self.raw, type=dict[str, Any])


@dataclass(frozen=True, slots=True)
class ListedWorkloads:
    """`next_offset` is None on the last page."""

    documents: list[WorkloadDocument]
    next_offset: int | None


def failing_first(listed: PodsResponse, most: int | None) -> PodsResponse:
    """What has not gone well before the rest, each by creation: in a workload of thousands it may come last."""
    ordered = sorted(listed.pods, key=lambda pod: not _is_failing(pod))
    is_cut = most is not None and len(ordered) > most
    return msgspec.structs.replace(
        listed, pods=tuple(ordered[:most]), next_offset=most if is_cut else None
    )


def _is_failing(pod: PodResponse) -> bool:
    """It failed, or something keeps it from running."""
    return pod.k8s_phase != "Succeeded" and (pod.k8s_phase == "Failed" or pod.reason is not None)

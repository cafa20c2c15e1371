"""Workloads: list, get, count, elements, endpoints; beyond the contract idle GPUs, facets, history, events,
export.

An export is streamed from the store piece by piece: memory stays flat whatever the number of workloads.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, Reply, StreamingReply, json_reply, list_reply
from watchbill.errors import NotFound
from watchbill.query import DEFAULT_LIMIT, WorkloadQuery, parse_filters
from watchbill.responses.contract import ElementCounts, WorkloadCount
from watchbill.responses.workloads import (
    EventsResponse,
    Facet,
    Facets,
    FacetValue,
    History,
    HistoryResponse,
    IdleWorkloadList,
)
from watchbill.store.workloads.events import event_list, history_list
from watchbill.store.workloads.idle import idle_list
from watchbill.store.workloads.workloads import (
    element_count,
    element_list,
    endpoint_list,
    phase_interval_list,
    workload_count,
    workload_export,
    workload_facets,
    workload_get,
    workload_list,
)
from watchbill.tabular import CsvCell, cell_at, rows_as_csv
from watchbill.workload_fields import EXPORT_COLUMNS

CSV_HEADERS = ((b"content-disposition", b'attachment; filename="workloads.csv"'),)
NDJSON_HEADERS = ((b"content-disposition", b'attachment; filename="workloads.ndjson"'),)

SEND_SECONDS = 60.0
"""Whoever takes a piece more slowly would keep a connection of the database for as long as it likes."""

Batches = AsyncGenerator[list[bytes], None]
Page = TypeVar("Page")

_DECODER = msgspec.json.Decoder(dict[str, Any])


def csv_export(call: Call, query: WorkloadQuery) -> StreamingReply:
    return StreamingReply(
        pieces=_csv(_documents(call, query)),
        media_type="text/csv; charset=utf-8; header=present",
        headers=CSV_HEADERS,
        send_seconds=SEND_SECONDS,
    )


def ndjson_export(call: Call, query: WorkloadQuery) -> StreamingReply:
    return StreamingReply(
        pieces=_ndjson(_documents(call, query)),
        media_type="application/x-ndjson",
        headers=NDJSON_HEADERS,
        send_seconds=SEND_SECONDS,
    )


FORMATS: dict[str, Callable[[Call, WorkloadQuery], StreamingReply]] = {
    "csv": csv_export,
    "ndjson": ndjson_export,
}


async def _documents(call: Call, query: WorkloadQuery) -> Batches:
    """A tenant's exports hold a database connection each, so there may only be a few."""
    with call.services.export_limiter.hold(call.access.tenant_id):
        async with aclosing(workload_export(call.db, call.access, query, call.now)) as batches:
            async for batch in batches:
                yield batch


async def _csv(batches: Batches) -> AsyncGenerator[bytes, None]:
    header = rows_as_csv([tuple(EXPORT_COLUMNS)])
    async with aclosing(batches):
        async for batch in batches:
            yield header + rows_as_csv(_row(_DECODER.decode(document)) for document in batch)
            header = b""
    if header:
        yield header


async def _ndjson(batches: Batches) -> AsyncGenerator[bytes, None]:
    async with aclosing(batches):
        async for batch in batches:
            yield b"\n".join(batch) + b"\n"


def _row(workload: dict[str, Any]) -> list[CsvCell]:
    return [cell_at(workload, path) for path in EXPORT_COLUMNS.values()]


DEFAULT_FACETS = ("phase",)
GPU_DECIMALS = 6
HOUR_DECIMALS = 4


async def get_workloads(call: Call) -> Answer:
    query = workload_query(call.values)
    page = await workload_list(call.db, call.services.documents, call.access, query, call.now)
    return list_reply("workloads", page.documents, page.next_offset)


async def get_workload(call: Call) -> Answer:
    reply = await workload_get(call.db, call.access, call.values["workloadId"], call.now)
    if reply is None:
        raise workload_not_found(call.values["workloadId"])
    if reply.etag is None:
        return Reply(body=reply.body)
    etag = reply.etag.encode()
    headers = ((b"etag", etag), (b"cache-control", b"private, no-cache"))
    if etag_matches(call.headers.get(b"if-none-match"), etag):
        return Reply(status=304, headers=headers)
    return Reply(body=reply.body, headers=headers)


async def count_workloads(call: Call) -> Answer:
    query = workload_query(call.values)
    return json_reply(WorkloadCount(count=await _counted(call, query)))


async def _counted(call: Call, query: WorkloadQuery) -> int:
    counts = call.services.gone_counts
    return await workload_count(call.db, call.access, query, call.now, counts)


async def get_workload_facets(call: Call) -> Answer:
    query, fields = workload_query(call.values), call.values["fields"] or DEFAULT_FACETS
    total = await _counted(call, query)
    facets = await workload_facets(call.db, call.access, query, fields, call.now)
    return json_reply(
        Facets(
            total=total,
            facets=tuple(
                Facet(
                    field=field,
                    values=tuple(
                        FacetValue(value=value, count=count)
                        for value, count in facets[field].values
                    ),
                    is_partial=facets[field].is_partial,
                )
                for field in fields
            ),
        )
    )


async def _page_of_workload(
    call: Call, read: Callable[..., Awaitable[Page | None]], **options: bool
) -> Page:
    """The page that the call asks for of one workload's parts, as `read` of the store returns it.
    Raises NotFound where no such workload is in scope."""
    values = call.values
    page = await read(
        call.db,
        call.access,
        values["workloadId"],
        offset=values["offset"],
        limit=values["limit"],
        now=call.now,
        **options,
    )
    if page is None:
        raise workload_not_found(values["workloadId"])
    return page


async def get_workload_phases(call: Call) -> Answer:
    page = await _page_of_workload(call, phase_interval_list)
    return json_reply(History(history=tuple(page.intervals), next_offset=page.next_offset))


async def export_workloads(call: Call) -> Answer:
    return FORMATS[call.values["format"]](call, workload_query(call.values))


def workload_query(values: Mapping[str, Any]) -> WorkloadQuery:
    """The query that an operation's parameters ask for; those that it does not have keep their defaults.
    Raises Invalid."""
    return WorkloadQuery(
        predicates=parse_filters(list(values["filterBy"])),
        search=values["search"],
        is_deleted=bool(values["deleted"]),
        sort_by=values.get("sortBy") or "createdAt",
        is_descending=values.get("sortOrder") == "desc",
        offset=values.get("offset", 0),
        limit=values.get("limit", DEFAULT_LIMIT),
    )


def workload_not_found(workload_id: UUID) -> NotFound:
    """The same words whether it never was, is gone for good, or lies out of scope."""
    return NotFound(f"There is no workload {workload_id}.")


def etag_matches(if_none_match: bytes | None, etag: bytes) -> bool:
    """Whether the client holds this very state already (weak comparison, as RFC 9110 has it)."""
    if if_none_match is None:
        return False
    held = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return b"*" in held or etag in held


async def get_workload_elements(call: Call) -> Answer:
    page = await _page_of_workload(call, element_list)
    return list_reply("elements", zip(page.documents, strict=True), page.next_offset)


async def count_workload_elements(call: Call) -> Answer:
    counts = await element_count(call.db, call.access, call.values["workloadId"], call.now)
    if counts is None:
        raise workload_not_found(call.values["workloadId"])
    total, stored = counts
    return json_reply(ElementCounts(total_elements_count=total, stored_elements_count=stored))


async def get_workload_endpoints(call: Call) -> Answer:
    endpoints = await endpoint_list(call.db, call.access, call.values["workloadId"], call.now)
    if endpoints is None:
        raise workload_not_found(call.values["workloadId"])
    return Reply(body=b'{"endpoints":' + endpoints + b"}")


ELEMENT_HANDLERS = (get_workload_elements, count_workload_elements, get_workload_endpoints)


async def get_idle_workloads(call: Call) -> Answer:
    page = await idle_list(
        call.db, call.services.documents, call.access, workload_query(call.values), call.now
    )
    workloads: Any = tuple(msgspec.Raw(document) for document in page.documents)
    return json_reply(
        IdleWorkloadList(
            total=page.total,
            idle_gpus=round(page.idle_gpus, GPU_DECIMALS),
            idle_gpu_hours=round(page.idle_gpu_hours, HOUR_DECIMALS),
            owners=tuple(page.owners),
            workloads=workloads,
            next_offset=page.next_offset,
        )
    )


async def get_workload_events(call: Call) -> Answer:
    is_ascending = call.values["sortOrder"] == "asc"
    page = await _page_of_workload(call, event_list, is_ascending=is_ascending)
    return json_reply(EventsResponse(events=tuple(page.events), next_offset=page.next_offset))


async def get_workload_history(call: Call) -> Answer:
    page = await _page_of_workload(call, history_list)
    return json_reply(HistoryResponse(records=tuple(page.records), next_offset=page.next_offset))


HANDLERS = (
    get_workloads,
    get_workload,
    count_workloads,
    get_workload_facets,
    get_workload_phases,
    export_workloads,
    get_idle_workloads,
    get_workload_events,
    get_workload_history,
)

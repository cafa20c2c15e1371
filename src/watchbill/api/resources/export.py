"""Exports of workloads, streamed from the store piece by piece: memory stays flat whatever their number."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from watchbill.api.http.call import Call
from watchbill.api.http.reply import StreamingReply
from watchbill.query import WorkloadQuery
from watchbill.store.workloads.workloads import workload_export
from watchbill.tabular import Cell, cell_at, rows_as_csv
from watchbill.workload_fields import EXPORT_COLUMNS

CSV_HEADERS = ((b"content-disposition", b'attachment; filename="workloads.csv"'),)
NDJSON_HEADERS = ((b"content-disposition", b'attachment; filename="workloads.ndjson"'),)

SEND_SECONDS = 60.0
"""Whoever takes a piece more slowly would keep a connection of the database for as long as it likes."""

Batches = AsyncGenerator[list[bytes], None]

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


def _row(workload: dict[str, Any]) -> list[Cell]:
    return [cell_at(workload, path) for path in EXPORT_COLUMNS.values()]

"""Telemetry: present counts and sums, as JSON or CSV."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from watchbill.api.http.call import Call
from watchbill.api.http.reply import CSV, Answer, Reply, encode
from watchbill.query import TelemetryQuery
from watchbill.responses.contract import TelemetryResponse, TelemetryValue
from watchbill.store.workloads.telemetry import (
    PENDING_TIME,
    PENDING_TIME_KEY,
    telemetry_query,
)
from watchbill.tabular import Cell, rows_as_csv

CSV_TYPE = "text/csv; charset=utf-8; header=present"
ATTACHMENT = ((b"content-disposition", b'attachment; filename="telemetry.csv"'),)


async def get_workloads_telemetry(call: Call) -> Answer:
    query = TelemetryQuery(
        telemetry_type=call.values["telemetryType"],
        group_by=call.values["groupBy"],
        cluster_id=call.values["clusterId"],
        node_pool=call.values["nodepoolName"],
        department_id=call.values["departmentId"],
        phases=call.values["filterByPhases"],
    )
    result = await telemetry_query(call.db, call.access, query, call.now)
    partial = ((b"watchbill-partial", b"groups"),) if result.is_partial else ()
    if call.media_type == CSV:
        body = rows_as_csv(_table(query, result.values, call.now))
        return Reply(body=body, media_type=CSV_TYPE, headers=(*ATTACHMENT, *partial))
    response = TelemetryResponse(
        type=query.telemetry_type, timestamp=call.now, values=tuple(result.values)
    )
    return Reply(body=encode(response), headers=partial)


def _table(
    query: TelemetryQuery, values: Sequence[TelemetryValue], now: datetime
) -> Iterator[Sequence[Cell]]:
    """The columns follow from the question alone, so an empty answer has the same header."""
    keys = [*query.group_by]
    if query.telemetry_type == PENDING_TIME:
        keys.append(PENDING_TIME_KEY)
    yield ["type", "timestamp", *(f"{key}{end}" for key in keys for end in ("", "Name")), "value"]
    for value in values:
        groups = {group.key: group for group in value.groups}
        cells = [cell for key in keys for cell in (groups[key].value, groups[key].name)]
        yield [query.telemetry_type, now, *cells, Decimal(value.value)]


HANDLERS = (get_workloads_telemetry,)

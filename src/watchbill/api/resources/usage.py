"""Usage by day: GPU-hours requested, allocated, idle and pending, and what they cost."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from typing import Any

import msgspec

from watchbill.api.http.call import Call
from watchbill.api.http.parameters import check_years
from watchbill.api.http.reply import Answer, Reply, json_reply
from watchbill.errors import Invalid
from watchbill.query import UsageQuery, parse_usage_filters
from watchbill.responses.usage import UsageReport, usage_header
from watchbill.store.usage.report import UsagePage, usage_report
from watchbill.tabular import rows_as_csv

DEFAULT_DAYS = 30
MAX_DAYS = 3660
MAX_CSV_ROWS = 100_000
_CSV_HEADERS = ((b"content-disposition", b'attachment; filename="usage.csv"'),)


async def get_usage(call: Call) -> Answer:
    values, is_csv = call.values, call.values["format"] == "csv"
    query = UsageQuery(
        **_days(values["start"], values["end"], call.now),
        groups=tuple(values["groupBy"] or ()),
        predicates=parse_usage_filters(list(values["filterBy"] or ())),
        sort_by=values["sortBy"],
        offset=0 if is_csv else values["offset"],
        limit=MAX_CSV_ROWS if is_csv else values["limit"],
    )
    page = await usage_report(call.db, call.access, query, call.services.prices, call.now)
    if is_csv:
        return await _csv(page)
    prices = call.services.prices
    return json_reply(
        UsageReport(
            start=_midnight(query.start),
            end=_midnight(query.end),
            accounted_until=page.accounted_until,
            recorded_since=None if page.recorded_since is None else _midnight(page.recorded_since),
            currency=None if prices is None else prices.currency,
            price_note=None if prices is None else prices.note,
            totals=page.totals,
            rows=page.rows,
            next_offset=page.next_offset,
        )
    )


async def _csv(page: UsagePage) -> Reply:
    """All rows: whoever adds up a table does not see that some are missing. Raises Invalid."""
    if page.next_offset is not None:
        raise Invalid(
            f"The report has more than {MAX_CSV_ROWS:,} rows.",
            details="Ask for fewer days or groups, or narrow it with filterBy.",
        )
    return Reply(
        body=await asyncio.to_thread(_written, page),
        media_type="text/csv; charset=utf-8; header=present",
        headers=_CSV_HEADERS,
    )


def _written(page: UsagePage) -> bytes:
    lines: Sequence[Any] = page.lines if page.groups else [msgspec.structs.astuple(page.totals)]
    return rows_as_csv(chain([usage_header(page.groups)], lines))


def _days(start: datetime | None, end: datetime | None, now: datetime) -> dict[str, date]:
    """Whole days: the first, and the one after the last. Raises Invalid."""
    check_years(start=start, end=end)
    last = (end or now + timedelta(days=1)).astimezone(UTC)
    end_day = last.date() + timedelta(days=0 if last.time() == time() or end is None else 1)
    start_day = (
        end_day - timedelta(days=DEFAULT_DAYS) if start is None else start.astimezone(UTC).date()
    )
    if start_day >= end_day:
        raise Invalid("start must lie before end.")
    if (end_day - start_day).days > MAX_DAYS:
        raise Invalid(f"A report covers at most {MAX_DAYS} days.")
    return {"start": start_day, "end": end_day}


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


HANDLERS = (get_usage,)

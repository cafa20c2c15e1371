"""The fleet's headline figures, now and over time."""

from datetime import timedelta

from watchbill.api.http.call import Call
from watchbill.api.http.parameters import check_years
from watchbill.api.http.reply import Answer, json_reply
from watchbill.errors import Invalid
from watchbill.responses.fleet import Fleet
from watchbill.store.fleet.fleet import fleet_now, fleet_series

DEFAULT_RANGE = timedelta(hours=24)


async def get_fleet(call: Call) -> Answer:
    check_years(start=call.values["start"], end=call.values["end"])
    end = call.values["end"] or call.now
    start = call.values["start"] or end - DEFAULT_RANGE
    if start >= end:
        raise Invalid("start must lie before end.")
    present = await fleet_now(call.db, call.access, call.now)
    series = await fleet_series(call.db, call.access, start=start, end=end, now=call.now)
    return json_reply(
        Fleet(now=present, step_seconds=series.step_seconds, series=tuple(series.moments))
    )


HANDLERS = (get_fleet,)

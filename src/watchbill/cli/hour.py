"""The last hour of what a workload used, as series that can be drawn."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeGuard
from uuid import UUID

from watchbill.cli.columns import JSON
from watchbill.cli.spark import sparkline
from watchbill.errors import NotFound, TooMany, Unavailable

if TYPE_CHECKING:
    from watchbill.client import Client

SAMPLES = 24
HOUR = timedelta(hours=1)
LAG = timedelta(seconds=40)
"""Nothing is known past a cluster's last contact; by then every connected one has been heard of again."""

Series = list[float | None]
Hour = dict[tuple[str, str], Series]
"""By metric type and GPU; the empty GPU is the whole workload."""


async def last_hour(
    client: "Client", workload_id: UUID, types: Sequence[str], *, end: datetime
) -> Hour:
    """The series that there are; a type that is not measured, or a source that is down, has none."""
    try:
        answer = await client.metrics(
            workload_id, types, start=end - HOUR, end=end, samples=SAMPLES
        )
    except (NotFound, Unavailable, TooMany):
        return {}
    return {
        (one["type"], (one.get("labels") or {}).get("gpu", "")): _spread(one["values"] or (), end)
        for one in answer["measurements"]
    }


def _spread(values: Sequence[JSON], end: datetime) -> Series:
    """By position in the hour, with a gap where there is no sample."""
    step = HOUR / SAMPLES
    found: Series = [None] * SAMPLES
    for one in values:
        age = end - datetime.fromisoformat(one["timestamp"])
        position = SAMPLES - 1 - round(age / step)
        if 0 <= position < SAMPLES:
            found[position] = float(one["value"])
    return found


def is_known(values: Series | None) -> TypeGuard[Series]:
    return values is not None and any(value is not None for value in values)


def newest(values: Sequence[float | None]) -> float:
    """Of a series of which something is known."""
    return next(value for value in reversed(values) if value is not None)


def drawn(values: Sequence[float | None], *, top: float | None) -> str:
    return sparkline(values, width=SAMPLES, top=top)

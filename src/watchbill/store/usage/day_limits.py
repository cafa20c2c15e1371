"""How much one workload's day tells apart: a hostile agent invents models and owners without end."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from uuid import UUID

from watchbill.accounting import SUMS, UsageKey, UsageSums
from watchbill.background import TimeSlice
from watchbill.store.postgres.database import Connection

MAX_DAY_MODELS = 16
"""GPU types that one workload's day tells apart; what comes after them is summed as `OTHER_MODELS`."""
OTHER_MODELS = "other"
MAX_DAY_ATTRIBUTES = 16
"""Owners, node pools and the like that one workload's day tells apart; what comes after them counts for the
last ones known."""


@dataclass(slots=True)
class _DayGroups:
    """What one workload's day tells apart."""

    models: set[str] = field(default_factory=set)
    attributes: set[UUID | None] = field(default_factory=set)

    def within_limits(self, key: UsageKey) -> UsageKey:
        """The key under which it is counted, which is added to those that there are."""
        named = sum(1 for name in self.models if name not in ("", OTHER_MODELS))
        if key.gpu_model and key.gpu_model not in self.models and named >= MAX_DAY_MODELS:
            key = key._replace(gpu_model=OTHER_MODELS)
        known = len(self.attributes - {None})
        if key.attributes_id not in self.attributes and known >= MAX_DAY_ATTRIBUTES:
            key = key._replace(attributes_id=None)
        self.models.add(key.gpu_model)
        self.attributes.add(key.attributes_id)
        return key


async def _known_groups(
    connection: Connection, tenant_id: int, days: set[tuple[UUID, date]]
) -> defaultdict[tuple[UUID, date], _DayGroups]:
    """What these days of workloads tell apart already."""
    rows = await connection.fetch(
        "SELECT DISTINCT d.workload_id, d.day, d.gpu_model, d.attributes_id "
        "FROM unnest($2::uuid[], $3::date[]) AS n(id, day) JOIN usage_day d "
        "ON d.tenant_id = $1 AND d.workload_id = n.id AND d.day = n.day",
        tenant_id,
        [id_ for id_, _ in days],
        [day for _, day in days],
    )
    known: defaultdict[tuple[UUID, date], _DayGroups] = defaultdict(_DayGroups)
    for row in rows:
        groups = known[row["workload_id"], row["day"]]
        groups.models.add(row["gpu_model"])
        groups.attributes.add(row["attributes_id"])
    return known


async def within_limits(
    connection: Connection,
    tenant_id: int,
    entries: Iterable[tuple[UUID, UsageKey, UsageSums]],
) -> list[tuple[UUID, UsageKey, UsageSums]]:
    """With no more models and attributes of a workload's day than are distinguished: an agent invents them
    without end."""
    ordered = sorted(entries, key=lambda entry: (entry[0], entry[1].day, entry[1].gpu_model))
    known = await _known_groups(connection, tenant_id, {(id_, key.day) for id_, key, _ in ordered})
    merged: dict[tuple[UUID, UsageKey], UsageSums] = {}
    work = TimeSlice(is_in_no_hurry=True)
    for id_, key, sums in ordered:
        await work.rest()
        counted = known[id_, key.day].within_limits(key)
        total = merged.setdefault((id_, counted), sums)
        if total is not sums:
            for name in SUMS:
                setattr(total, name, getattr(total, name) + getattr(sums, name))
    return [(id_, key, sums) for (id_, key), sums in merged.items()]

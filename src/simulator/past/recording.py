"""Writes a simulated cluster's past into the product's database, before its agent tells of the present.

It takes the way that an agent's batches take, but for their bounds in time: who accounts usage, counts idle
hours or draws phases later finds what it would have found, had the agent been there all along.
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from simulator.model.model import Seconds
from simulator.past.ended import MOST_ENDED, draw_ended
from simulator.past.history import Historian, PastItems, in_rounds
from simulator.past.samples import past_samples
from simulator.simulation.world import World
from watchbill.identity import FIRST_TENANT_ID
from watchbill.store.metrics.measured import measured_backfill
from watchbill.store.postgres.database import Database
from watchbill.store.workloads.deletion import workload_delete
from watchbill.store.workloads.write import record_write

_BATCH: Final = 200
_PER_TURN: Final = 5
"""Histories that are made before others may run."""
_Item = TypeVar("_Item")


async def record_histories(
    db: Database,
    world: World,
    cluster_id: UUID,
    *,
    seed: int,
    idle_window: timedelta,
    now: Seconds,
) -> int:
    """Write what workloads asked for, held and left idle: those that live, and others that are gone.

    Returns how many they are.
    """
    historian = Historian(world, cluster_id, seed=seed, window=idle_window)
    histories: list[PastItems] = []
    ended = draw_ended(world, seed=seed, number=min(len(world.workloads), MOST_ENDED), now=now)
    for number, history in enumerate(
        [
            *map(historian.of_living, list(world.workloads.values())),
            *map(historian.of_ended, ended),
        ]
    ):
        if number % _PER_TURN == 0:
            await asyncio.sleep(0)
        if history is not None:
            histories.append(history)
    await _write(db, cluster_id, histories, datetime.fromtimestamp(now, UTC))
    return len(histories)


async def _write(
    db: Database, cluster_id: UUID, histories: Sequence[PastItems], now: datetime
) -> None:
    for upserts in in_rounds(histories):
        for batch in _batches(upserts):
            async with db.transaction(FIRST_TENANT_ID) as connection:
                await record_write(connection, FIRST_TENANT_ID, cluster_id, batch, now)
    deletes = [history.delete for history in histories if history.delete is not None]
    for removed in _batches(deletes):
        async with db.transaction(FIRST_TENANT_ID) as connection:
            await workload_delete(connection, FIRST_TENANT_ID, cluster_id, removed, now)


async def record_samples(db: Database, world: World, *, now: Seconds, stop: asyncio.Event) -> None:
    """Write a day of what exporters told, until `stop` is set."""
    for past in past_samples(world, now=now):
        if stop.is_set():
            return
        async with db.transaction(FIRST_TENANT_ID) as connection:
            await measured_backfill(connection, FIRST_TENANT_ID, past)


def _batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for first in range(0, len(items), _BATCH):
        yield items[first : first + _BATCH]

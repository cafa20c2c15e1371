"""Live changes behind a pooler, which keeps notifications away: by a direct connection, or by polling."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.api.test_stream import agent_of, ear, send
from tests.conftest import Engine, fresh_database
from tests.fixtures.pgbouncer import pgbouncer
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import Served, serving
from watchbill.api import changes
from watchbill.protocol import Covered, Delete, InventoryBegin, InventoryCommit
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit

RESYNC = ("resync", "interrupted")


@asynccontextmanager
async def behind_a_pooler(
    engine: Engine, folder: Path, *, is_direct: bool
) -> AsyncIterator[Served]:
    database_url = await fresh_database(engine)
    async with (
        pgbouncer(folder, database_url, "transaction") as url,
        serving(url, direct_url=database_url if is_direct else None) as served,
    ):
        yield served


async def next_reason(live: Any) -> tuple[str, str]:
    name, data = await live.next()
    return name, data["reason"]


async def test_a_direct_address_brings_changes(debian_engine: Engine, private_dir: Path) -> None:
    async with behind_a_pooler(debian_engine, private_dir, is_direct=True) as served:
        agent = await agent_of(served)
        async with ear(served) as live:
            await send(agent, upsert(workload(1)))
            assert await live.ids() == ([1], [])


async def test_without_one_clients_ask_anew_after_each_change(
    debian_engine: Engine, private_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "POLL_SECONDS", 0.05)
    async with behind_a_pooler(debian_engine, private_dir, is_direct=False) as served:
        agent = await agent_of(served)
        async with ear(served) as live:
            assert (
                await next_reason(live) == RESYNC
            )  # changes before the first look would be missed
            await live.silence(0.5)
            await send(agent, upsert(workload(1)), upsert(workload(2)))
            assert await next_reason(live) == RESYNC
            await send(agent, Delete(id=UUID(int=1), deleted_at=datetime.now(UTC)))
            assert await next_reason(live) == RESYNC
            await live.silence(0.5)
            await _delete_by_inventory(served, agent)
            assert await next_reason(live) == RESYNC


async def _delete_by_inventory(served: Served, agent: Any) -> None:
    now = datetime.now(UTC)
    begin = InventoryBegin(
        stream_id=agent.stream_id, coverage=(Covered(group="kubeflow.org", kind="PyTorchJob"),)
    )
    begun = await inventory_begin(served.db, agent.identity, begin, now)
    commit = InventoryCommit(stream_id=agent.stream_id, inventory_id=begun.inventory_id, count=0)
    await inventory_commit(served.db, agent.identity, commit, now)

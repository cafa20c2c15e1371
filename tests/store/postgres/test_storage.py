"""What the database takes, and a disk that is full: reported by a server that keeps running."""

import shutil
from collections import namedtuple
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import SETTINGS, serving
from watchbill.errors import Unavailable
from watchbill.store.postgres.database import Database
from watchbill.store.postgres.storage import (
    FULL_BYTES,
    KEPT_DAYS,
    check_disk,
    disk_space,
    table_size_record,
    table_sizes,
    transaction_id_age,
)

Usage = namedtuple("Usage", "total used free")


def test_a_folder_that_is_not_there_has_no_disk(tmp_path: Path) -> None:
    assert disk_space(tmp_path / "absent") is None
    check_disk(tmp_path / "absent")
    space = disk_space(tmp_path)
    assert space is not None
    assert 0 < space.free_bytes <= space.size_bytes


@pytest.mark.parametrize(("free", "is_full"), [(FULL_BYTES - 1, True), (FULL_BYTES, False)])
async def test_readiness_names_a_full_disk(
    embedded_engine: Engine, tmp_path: Path, free: int, is_full: bool
) -> None:
    settings = replace(SETTINGS, data_dir=tmp_path)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        with mock.patch.object(shutil, "disk_usage", return_value=Usage(10 * free, 9 * free, free)):
            answer = await served.get("/readyz", token=None)
            page = (await served.get("/metrics")).body.decode()
        assert answer.status == (503 if is_full else 200)
        if is_full:
            assert answer.json["message"] == "The database's disk is full."
        (sample,) = [
            line for line in page.splitlines() if line.startswith("watchbill_disk_free_bytes")
        ]
        assert float(sample.split()[1]) == free


def test_a_full_disk_says_where() -> None:
    with (
        mock.patch.object(shutil, "disk_usage", return_value=Usage(2**30, 2**30, 3 * 2**20)),
        pytest.raises(Unavailable) as raised,
    ):
        check_disk(Path("/srv/watchbill"))
    assert raised.value.details is not None
    assert raised.value.details.startswith("3 MiB are left for /srv/watchbill.")


async def test_tables_count_their_partitions_and_indexes(embedded_engine: Engine) -> None:
    async with serving(await fresh_database(embedded_engine)) as served:
        before = {table.name: table for table in await table_sizes(served.db, datetime.now(UTC))}
        agent = await connected_agent(served.db, datetime.now(UTC))
        made = [upsert(workload(number)) for number in range(1, 101)]
        await agent.send(*made, now=datetime.now(UTC))
        tables = await table_sizes(served.db, datetime.now(UTC))
    assert [table.size_bytes for table in tables] == sorted(
        (table.size_bytes for table in tables), reverse=True
    )
    after = {table.name: table for table in tables}
    assert after.keys() == before.keys() >= {"workload", "workload_tally"}
    assert after["workload"].size_bytes > before["workload"].size_bytes


async def test_growth_is_reported_by_the_day(db: Database) -> None:
    now = datetime.now(UTC)
    await table_size_record(db, now - timedelta(days=KEPT_DAYS + 1))
    await table_size_record(db, now - timedelta(days=4))
    await table_size_record(db, now - timedelta(hours=2))
    before = {table.name: table for table in await table_sizes(db, now - timedelta(days=4))}
    assert before["workload"].growth_bytes_per_day is None, "nothing of a day before is known"
    agent = await connected_agent(db, now)
    await agent.send(*(upsert(workload(number)) for number in range(1, 301)), now=now)
    after = {table.name: table for table in await table_sizes(db, now)}
    grown = after["workload"].size_bytes - before["workload"].size_bytes
    assert grown > 0
    assert after["workload"].growth_bytes_per_day == pytest.approx(grown / 4)
    assert after["usage_month"].growth_bytes_per_day == 0
    await table_size_record(db, now)
    async with db.acquire(0) as connection:
        days = await connection.fetch("SELECT DISTINCT day FROM table_size ORDER BY day")
    assert [row["day"] for row in days] == sorted(
        {(now - timedelta(days=4)).date(), (now - timedelta(hours=2)).date(), now.date()}
    ), "one size a day, and none for longer than is kept"


async def test_upkeep_that_is_due_is_seen(db: Database) -> None:
    now = datetime.now(UTC)
    assert 0 < await transaction_id_age(db) < 1_000_000
    agent = await connected_agent(db, now)
    await agent.send(upsert(workload(1)), now=now)
    (table,) = [table for table in await table_sizes(db, now) if table.name == "workload"]
    assert table.dead_rows >= 0

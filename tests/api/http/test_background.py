"""Background work on a real database that fails in the ways databases do: it goes on, and says how it is."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import structlog

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import Served, serving
from watchbill.background import STALE_GRACE, STALE_INTERVALS, LoopState
from watchbill.errors import Conflict
from watchbill.maintenance import for_each_tenant, purge_old, record_fleets, trusted
from watchbill.store.fleet.fleet import last_instant
from watchbill.store.identity.administration import tenant_create

NOW = datetime.now(UTC)


async def owner(database_url: str) -> asyncpg.Connection:
    return await asyncpg.connect(database_url)


async def test_one_tenants_failure_stops_no_other(embedded_engine: Engine) -> None:
    async with serving(await fresh_database(embedded_engine)) as served:
        await tenant_create(served.db, "second", now=NOW)
        done: list[tuple[str, int]] = []

        async def failing(tenant_id: int) -> None:
            done.append(("failing", tenant_id))
            raise ValueError("a bug")

        async def working(tenant_id: int) -> None:
            done.append(("working", tenant_id))

        with pytest.raises(ExceptionGroup) as failed:
            await for_each_tenant(served.db, failing, working)
        assert done == [("failing", 1), ("working", 1), ("failing", 2), ("working", 2)]
        assert [error.__notes__ for error in failed.value.exceptions] == [
            ["tenant 1: failing"],
            ["tenant 2: failing"],
        ]


async def test_maintenance_does_its_work(embedded_engine: Engine) -> None:
    async with serving(await fresh_database(embedded_engine)) as served:
        await purge_old(served.db, served.services.retention, now=NOW)
        await record_fleets(served.db, last_instant(NOW))


async def test_a_clock_that_cannot_be_trusted_stops_the_work_and_is_reported(
    embedded_engine: Engine,
) -> None:
    async with serving(await fresh_database(embedded_engine)) as served:
        state = LoopState("clock", timedelta(minutes=5), NOW, is_required=False)
        served.services.background.include(state)

        async def check(_: datetime) -> datetime:
            raise Conflict("This server's clock is 100 days ahead of the database's.")

        assert await trusted(check, state) is None
        assert (await served.get("/readyz")).status == 200
        metrics = (await served.get("/metrics")).body.decode()
        assert 'watchbill_background_failures_total{task="clock"} 1.0' in metrics


async def test_readiness_and_metrics_tell_of_a_loop_that_stands_still(
    embedded_engine: Engine,
) -> None:
    async with serving(await fresh_database(embedded_engine)) as served:
        background = served.services.background

        async def work(_: datetime) -> None:
            raise ValueError("a bug")

        background.start("audit log", 5.0, work)
        while not background.states["audit log"].failures:
            await served.get("/healthz", token=None)
        assert (await served.get("/readyz")).status == 200
        background.states["audit log"].started_at -= (
            STALE_INTERVALS * timedelta(seconds=5) + STALE_GRACE
        )
        with structlog.testing.capture_logs() as captured:
            answer = await served.get("/readyz")
            assert (await served.get("/readyz")).status == 503
        assert_is_error(answer, 503)
        assert "audit log" in answer.json["message"]
        (logged,) = [line for line in captured if line["event"] == "not ready"]
        assert logged["reason"] == answer.json["message"], "the log has the cause, once"
        metrics = (await served.get("/metrics")).body.decode()
        assert 'watchbill_background_failures_total{task="audit log"}' in metrics
        assert "watchbill_background_last_success_timestamp_seconds{" not in metrics
        background.states["audit log"].succeed(datetime.now(UTC))
        assert (await served.get("/readyz")).status == 200
        metrics = (await served.get("/metrics")).body.decode()
        assert 'watchbill_background_last_success_timestamp_seconds{task="audit log"}' in metrics
        await background.close()


async def write(served: Served) -> None:
    """One event that the audit log keeps."""
    await served.get("/api/v1/me", token="junk")


@pytest.mark.parametrize("fault", ["read-only", "table gone", "rights gone"])
async def test_the_audit_log_outlives_any_fault(embedded_engine: Engine, fault: str) -> None:
    break_it, mend_it = {
        "read-only": (
            "ALTER DATABASE {database} SET default_transaction_read_only = on",
            "ALTER DATABASE {database} SET default_transaction_read_only = off",
        ),
        "table gone": (
            "ALTER TABLE audit_event RENAME TO away",
            "ALTER TABLE away RENAME TO audit_event",
        ),
        "rights gone": (
            "REVOKE INSERT ON audit_event FROM watchbill_app",
            "GRANT INSERT ON audit_event TO watchbill_app",
        ),
    }[fault]
    url = await fresh_database(embedded_engine)
    database = url.split("@/")[1].split("?")[0]
    admin = await owner(url)
    async with serving(url) as served:
        audit = served.services.audit
        await audit.flush()
        before = await admin.fetchval("SELECT count(*) FROM audit_event")
        if fault == "read-only":
            await admin.execute("SET default_transaction_read_only = off")
        await admin.execute(break_it.format(database=database))
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        served.services.background.start("audit log", 0.01, lambda _: audit.flush())
        state = served.services.background.states["audit log"]
        await write(served)
        while not state.failures:
            await served.get("/healthz", token=None)
        await admin.execute(mend_it.format(database=database))
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        while await admin.fetchval("SELECT count(*) FROM audit_event") <= before:
            await served.get("/healthz", token=None)
        await served.services.background.close()
    await admin.close()


async def test_a_server_over_an_older_schema_is_not_ready(embedded_engine: Engine) -> None:
    """An old backup was restored under a running server; a newer server's migration is in order."""
    url = await fresh_database(embedded_engine)
    admin = await owner(url)
    async with serving(url) as served:
        for revision, status in (("0001", 503), ("9999", 200)):
            await admin.execute("UPDATE alembic_version SET version_num = $1", revision)
            served.services.readiness.forget()
            answer = await served.get("/readyz", token=None)
            assert answer.status == status, answer.body
            assert status == 200 or "older schema 0001" in answer.json["message"]
    await admin.close()

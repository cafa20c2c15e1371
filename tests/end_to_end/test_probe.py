"""`watchbill probe` against a real server: what it shows of a sound one, and what it finds of another."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from prometheus_client import CollectorRegistry, generate_latest

from simulator.probe import ProbeMetrics, ProbeOptions, ProbeResult, ServerProbe
from tests.conftest import Engine, RunningServer, fresh_database, running_server
from tests.fixtures.command_line import watchbill
from tests.fixtures.fleet import new_credential
from watchbill.client import Client, Selection


@pytest_asyncio.fixture
async def server(embedded_engine: Engine) -> AsyncIterator[RunningServer]:
    async with running_server(await fresh_database(embedded_engine)) as running:
        yield running


@pytest_asyncio.fixture
async def client(server: RunningServer) -> AsyncIterator[Client]:
    async with Client(server.url, server.client_id, server.client_secret) as opened:
        yield opened


async def test_a_life_is_shown_by_api_and_stream(server: RunningServer, tmp_path: Path) -> None:
    environ = {
        "WATCHBILL_URL": server.url,
        "WATCHBILL_CLIENT_ID": server.client_id,
        "WATCHBILL_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
    }
    (tmp_path / "secret").write_text(f"{server.client_secret}\n")
    file = ("--credential", str(tmp_path / "probe.credential"))
    command = ("probe", "--once", *file, "--within", "120")
    outcome = await watchbill(*command, environ=environ)
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, f"error: There is no file {file[1]}.")
    outcome = await watchbill(*command, "--name", "probe", environ=environ)
    assert outcome.code == 0, outcome.err
    header, *rows = [line.split() for line in outcome.out.splitlines()]
    assert header == ["PHASE", "API", "STREAM"]
    assert [row[0] for row in rows] == ["Pending", "Running", "Completed", "Deleted"]


async def test_what_is_late_or_wrong_is_counted(server: RunningServer, client: Client) -> None:
    registry = CollectorRegistry()
    metrics = ProbeMetrics(registry)
    options = ProbeOptions(
        server_url=server.url, credential=await new_credential(server), within_seconds=120
    )

    def count(result: ProbeResult) -> float | None:
        return registry.get_sample_value("watchbill_probe_lives_total", {"result": result})

    async with ServerProbe(options, client, metrics) as probe:
        counted = client.workload_count

        async def one_too_many(selection: Selection) -> int:
            return await counted(selection) + 1

        client.workload_count = one_too_many  # type: ignore[method-assign]
        assert await probe.check() == ()
        assert (count(ProbeResult.WRONG), count(ProbeResult.OK)) == (1, 0)
        client.workload_count = counted  # type: ignore[method-assign]
        while await client.workload_count(Selection()):
            await asyncio.sleep(0.1)
        assert len(await probe.check()) == 4
        page = generate_latest(registry).decode()
        assert 'watchbill_probe_freshness_seconds_count{view="stream"} 7.0' in page
        assert 'watchbill_probe_lives_total{result="ok"} 1.0' in page
    late = ProbeOptions(
        server_url=server.url, credential=options.credential, within_seconds=0.000001
    )
    async with ServerProbe(late, client, metrics) as probe:
        assert await probe.check() == ()
        assert count(ProbeResult.LATE) == 1

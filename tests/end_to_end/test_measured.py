"""What is true, what the agent's samples say and what real stores of metrics say, of the same moments."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tests.conftest import Engine, fresh_database, running_server
from tests.fixtures.measured import MIB, Exporters, cluster, device, uid
from tests.fixtures.metric_stores import STORES, free_port, store
from watchbill.agent.run import run_agent
from watchbill.client import Client, WorkloadDocument
from watchbill.metrics import pushed
from watchbill.metrics import source as sources
from watchbill.metrics.source import FailedType, Histogram, Measurement, MetricsQuery, Outcome
from watchbill.metrics.workload import workload_metrics
from watchbill.query import Scope
from watchbill.settings.agent import AgentSettings
from watchbill.settings.prometheus import PrometheusSettings
from watchbill.store.postgres.database import Database

SCOPE = Scope(1, is_whole_tenant=True)
SCRAPE_SECONDS = 0.5
WINDOW = timedelta(seconds=6)
"""In place of two minutes, so that the run may be short."""
RUN_SECONDS = 16.0
EMBEDDED = "embedded"
PODS = ("two-gpus", "half", "quarter", "idle", "slices", "idle-slice", "nim")


@dataclass
class Run:
    """One run of everything, over: its end, and what may be asked about it."""

    db: Database
    stores: dict[str, PrometheusSettings]
    workloads: dict[str, WorkloadDocument]
    idle: dict[str, Any]
    ended_at: datetime

    async def ask(self, name: str, types: str, source: str, *, samples: int = 4) -> list[Outcome]:
        settings = {"": self.stores[source]} if source != EMBEDDED else {}
        metrics = workload_metrics(self.db, settings)
        workload_id = UUID(uid(1 + PODS.index(name)))
        query = MetricsQuery(
            types=tuple(types.split(",")),
            start=self.ended_at - timedelta(seconds=4),
            end=self.ended_at,
            number_of_samples=samples,
        )
        try:
            result = await metrics.measure(SCOPE, workload_id, query, datetime.now(UTC))
        finally:
            await metrics.close()
        assert result is not None
        return result


@asynccontextmanager
async def pages(exporters: Exporters) -> AsyncIterator[int]:
    """The exporters' pages where a Prometheus finds them."""
    result = {
        "/n1": lambda: exporters.pod_page("gpu-operator", "dcgm-n1", 9400, "metrics"),
        "/n2": lambda: exporters.pod_page("gpu-operator", "dcgm-n2", 9400, "metrics"),
        "/kubelet": lambda: exporters.node_page("n1", "metrics/resource"),
        "/nim": lambda: exporters.pod_page("team", "nim", 8000, "v1/metrics"),
    }

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=result[request.path](), content_type="text/plain")

    app = web.Application()
    app.router.add_get("/{page}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


def scrapes(*, exporters: int, agent: int) -> list[dict[str, Any]]:
    """What a store is configured to scrape: the kubelet twice, as careless people do."""
    east = {"cluster": "east"}
    jobs = [("n1", "dcgm", {}), ("n2", "dcgm", {}), ("kubelet", "a", {}), ("kubelet", "b", {})]
    result: list[dict[str, Any]] = [
        {
            "job_name": f"{page}-{job}",
            "honor_labels": True,
            "metrics_path": f"/{page}",
            "static_configs": [{"targets": [f"127.0.0.1:{exporters}"], "labels": east | more}],
        }
        for page, job, more in [*jobs, ("nim", "nim", {"namespace": "team", "pod": "nim"})]
    ]
    own = {"namespace": "watchbill", "pod": "agent"}
    target = {"targets": [f"127.0.0.1:{agent}"], "labels": east | own}
    return [*result, {"job_name": "agent", "static_configs": [target]}]


@pytest_asyncio.fixture(scope="module")
async def run(
    embedded_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Run]:
    folder = tmp_path_factory.mktemp("measured")
    exporters = Exporters()
    simulated = cluster(exporters)
    await simulated.start()
    agent_port = free_port()
    url = await fresh_database(embedded_engine)
    patch = pytest.MonkeyPatch()
    patch.setattr(sources, "LEAST_WINDOW", WINDOW)
    patch.setattr(pushed, "LEAST_WINDOW", WINDOW)
    stop = asyncio.Event()
    async with (
        running_server(url) as server,
        pages(exporters) as exporter_port,
        Client(server.url, server.client_id, server.client_secret) as client,
    ):
        made = await client.cluster_create("east")
        settings = AgentSettings(
            server_url=server.url,
            credential=made.credential,
            kubeconfig=simulated.kubeconfig(folder / "kubeconfig"),
            debounce_seconds=0.05,
            scrape_seconds=SCRAPE_SECONDS,
            idle_window_seconds=3.0,
            metrics_port=agent_port,
            metrics_host="127.0.0.1",
        )
        agent = asyncio.create_task(run_agent(settings, stop=stop))
        try:
            samples = scrapes(exporters=exporter_port, agent=agent_port)
            async with AsyncExitStack() as running:
                stores = [
                    await running.enter_async_context(store(name, folder / name, samples))
                    for name in STORES
                ]
                await asyncio.sleep(RUN_SECONDS)
                ended_at = datetime.now(UTC)
                db = await Database.open(url, pool_size=4)
                await _until_measured(db, ended_at)
                workloads = {
                    name: await client.workload_get(UUID(uid(1 + number)))
                    for number, name in enumerate(PODS)
                }
                idle = json.loads(await _get(client, "/api/v1/workloads/idle"))
                yield Run(
                    db,
                    {
                        name: PrometheusSettings(url=store.url, matchers=(("cluster", "east"),))
                        for name, store in zip(STORES, stores, strict=True)
                    },
                    workloads,
                    idle,
                    ended_at,
                )
                await db.close()
        finally:
            stop.set()
            await asyncio.wait_for(agent, 120)
            patch.undo()
    await simulated.stop()


async def _until_measured(db: Database, at: datetime) -> None:
    """The agent may be busy with an inventory; what it measured meanwhile comes right after."""
    for _ in range(100):
        async with db.acquire(1) as connection:
            newest = await connection.fetchval("SELECT max(at) FROM measured_sample")
        if newest is not None and newest > at:
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("the agent fell silent")


async def _get(client: Client, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {await client.token()}"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(client.url + path, headers=headers) as answer,
    ):
        return await answer.read()


TRUE = [
    # workload, type, label, value, relative tolerance
    ("two-gpus", "GPU_UTILIZATION", "", 90.0, 0.0),
    ("two-gpus", "GPU_UTILIZATION", device(1), 80.0, 0.0),
    ("two-gpus", "GPU_UTILIZATION", device(2), 100.0, 0.0),
    ("two-gpus", "GPU_MEMORY_USAGE_BYTES", "", 3000 * MIB, 0.0),
    ("two-gpus", "GPU_MEMORY_USAGE_BYTES", device(2), 2000 * MIB, 0.0),
    ("two-gpus", "NVLINK_BANDWIDTH_TOTAL", "", 4.5e9, 0.0),
    ("two-gpus", "CPU_USAGE_CORES", "", 1.5, 0.05),
    ("two-gpus", "CPU_MEMORY_USAGE_BYTES", "", 512 * MIB, 0.0),
    ("two-gpus", "GPU_ALLOCATION", "", 2.0, 0.0),
    ("half", "GPU_UTILIZATION", "", 30.0, 0.0),
    ("half", "CPU_USAGE_CORES", "", 0.25, 0.05),
    ("half", "GPU_ALLOCATION", "", 0.5, 0.0),
    ("quarter", "GPU_UTILIZATION", "", 30.0, 0.0),
    ("idle", "GPU_UTILIZATION", "", 0.0, 0.0),
    ("idle", "GPU_MEMORY_USAGE_BYTES", "", 4000 * MIB, 0.0),
    ("idle", "CPU_USAGE_CORES", "", 0.0, 0.0),
    ("slices", "GPU_UTILIZATION", "", 37.5, 0.0),
    ("slices", "GPU_UTILIZATION", f"{device(5)}/1", 50.0, 0.0),
    ("slices", "GPU_UTILIZATION", f"{device(5)}/2", 25.0, 0.0),
    ("slices", "GPU_MEMORY_USAGE_BYTES", "", 300 * MIB, 0.0),
    ("slices", "GPU_ALLOCATION", "", 0.857143, 0.0),
    ("idle-slice", "GPU_UTILIZATION", "", 0.0, 0.0),
    ("nim", "NIM_NUM_REQUESTS_RUNNING", "", 7.0, 0.0),
    ("nim", "NIM_NUM_REQUESTS_WAITING", "", 3.0, 0.0),
    ("nim", "NIM_NUM_REQUEST_MAX", "", 64.0, 0.0),
    ("nim", "NIM_REQUEST_SUCCESS_TOTAL", "", 4000.0, 0.0),
    ("nim", "NIM_REQUEST_FAILURE_TOTAL", "", 25.0, 0.0),
    ("nim", "NIM_GPU_CACHE_USAGE_PERC", "", 0.375, 0.0),
    ("nim", "NIM_TIME_TO_FIRST_TOKEN_SECONDS_PERCENTILES", "0.5", 0.5, 0.08),
    ("nim", "NIM_E2E_REQUEST_LATENCY_SECONDS_PERCENTILES", "0.9", 1.0, 0.0),
    ("nim", "POD_COUNT", "", 1.0, 0.0),
]


on_every_source = pytest.mark.parametrize("source", [EMBEDDED, *STORES])


@on_every_source
@pytest.mark.parametrize(
    ("name", "kind", "label", "value", "tolerance"), TRUE, ids=lambda part: str(part)[:24]
)
async def test_figures_are_the_true_ones(
    run: Run, name: str, kind: str, label: str, value: float, tolerance: float, source: str
) -> None:
    result = await run.ask(name, kind, source)
    series = {
        point.labels.get("gpu", point.labels.get("quantile", "")): point.samples
        for point in result
        if isinstance(point, Measurement)
    }
    assert label in series, result
    assert len(series[label]) == 4, "there is a figure for every instant"
    for sample in series[label]:
        assert float(sample.value) == pytest.approx(value, rel=tolerance, abs=1e-6)


@on_every_source
async def test_histograms_hold_the_requests_of_a_window(run: Run, source: str) -> None:
    (result,) = await run.ask("nim", "NIM_TIME_TO_FIRST_TOKEN_SECONDS", source)
    assert isinstance(result, Histogram)
    assert len(result.spreads) == 4
    for spread in result.spreads:
        assert list(spread.counts) == ["0.5", "1", "+Inf"]
        assert float(spread.counts["+Inf"]) == pytest.approx(60, rel=0.2)
        half = float(spread.counts["0.5"]) / float(spread.counts["+Inf"])
        assert half == pytest.approx(0.5, abs=0.05)


@on_every_source
async def test_memory_of_a_shared_device_is_nobodys(run: Run, source: str) -> None:
    (result,) = await run.ask("half", "GPU_MEMORY_USAGE_BYTES", source)
    assert isinstance(result, Measurement)
    assert result.samples == ()


async def test_idle_gpus(run: Run) -> None:
    idle = {name: workload.workload.idle_allocated_gpus for name, workload in run.workloads.items()}
    assert idle == {
        "two-gpus": 0,
        "half": 0,
        "quarter": 0,
        "idle": 1,
        "slices": 0,
        "idle-slice": 0.428571,
        "nim": 0,
    }
    assert run.workloads["idle"].workload.idle_gpus == 1
    assert run.workloads["idle-slice"].workload.idle_gpus == 0
    assert [workload["name"] for workload in run.idle["workloads"]] == ["idle", "idle-slice"]
    assert run.idle["total"] == 2
    assert run.idle["idleGpus"] == pytest.approx(1.428571)
    hours = [workload["idleGpuHours"] for workload in run.idle["workloads"]]
    assert 3 / 3600 < hours[0] < (RUN_SECONDS + 5) / 3600
    assert hours[1] == pytest.approx(hours[0] * 3 / 7, rel=0.2)


@pytest.mark.parametrize("source", STORES)
async def test_a_store_without_the_metric_says_so(run: Run, source: str) -> None:
    west = replace(run.stores[source], matchers=(("cluster", 'we"st\\'),))
    elsewhere = replace(run, stores={source: west})
    (result,) = await elsewhere.ask("two-gpus", "GPU_UTILIZATION", source)
    assert result == FailedType(type="GPU_UTILIZATION", reason=sources.Reason.UNSUPPORTED)

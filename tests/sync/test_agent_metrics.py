"""The agent's rounds over exporters, over real HTTP: who is scraped, who stays silent, what is reported."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from simulator.apiserver.protocol import SimulatedCluster
from tests.fixtures.agents import until
from tests.fixtures.measured import PODS, Exporters, cluster, device, pod, uid
from tests.fixtures.metric_stores import free_port
from tests.fixtures.receiver import CREDENTIAL, Receiver, receiver
from watchbill.agent.metrics import scrape
from watchbill.agent.run import run_agent
from watchbill.protocol import IdleHours, KindState, Scrape
from watchbill.settings.agent import AgentSettings

ROUND_SECONDS = 0.2


@dataclass
class MeasuringAgent:
    server: Receiver
    exporters: Exporters
    simulated: SimulatedCluster

    @property
    def scrapes(self) -> list[Scrape]:
        return [scrape for batch in self.server.batches for scrape in batch.scrapes]

    def states(self) -> dict[str, KindState]:
        kinds = self.server.beats[-1].kinds if self.server.beats else ()
        return {kind.kind: kind for kind in kinds if kind.group == "metrics"}

    def last_of(self, number: int) -> dict[tuple[str, str], float]:
        """By type and label. What only single pods have of it travels apart, at the same instant."""
        measured: dict[datetime, dict[tuple[str, str], float]] = {}
        for sent in self.scrapes:
            for workload in sent.workloads:
                if str(workload.id) == uid(number):
                    readings = {(r.type, r.label): r.value for r in workload.readings}
                    measured.setdefault(sent.at, {}).update(readings)
        return measured[max(measured)] if measured else {}


@asynccontextmanager
async def measuring(
    folder: Path, *, idle: tuple[IdleHours, ...] = (), **settings: object
) -> AsyncIterator[MeasuringAgent]:
    """`idle`: what the server tells of earlier agents."""
    exporters = Exporters()
    simulated = cluster(exporters)
    await simulated.start()
    stop = asyncio.Event()
    async with receiver() as server:
        server.idle = idle
        options: dict[str, object] = {
            "server_url": server.url,
            "credential": CREDENTIAL,
            "kubeconfig": simulated.kubeconfig(folder / "kubeconfig"),
            "debounce_seconds": 0.02,
            "scrape_seconds": ROUND_SECONDS,
        }
        task = asyncio.create_task(
            run_agent(AgentSettings(**(options | settings)), stop=stop)  # type: ignore[arg-type]
        )
        try:
            yield MeasuringAgent(server, exporters, simulated)
        finally:
            stop.set()
            await asyncio.wait_for(task, 120)
    await simulated.stop()


async def test_a_silent_exporter_leaves_a_gap_for_its_machine_alone(tmp_path: Path) -> None:
    async with measuring(tmp_path) as reported:
        await until(lambda: ("GPU_UTILIZATION", "") in reported.last_of(1))
        await until(lambda: ("GPU_UTILIZATION", "") in reported.last_of(5))
        reported.exporters.silent.add("dcgm-n1")
        await until(lambda: ("GPU_UTILIZATION", "") not in reported.last_of(1))
        assert ("CPU_USAGE_CORES", "") in reported.last_of(1)
        assert ("GPU_UTILIZATION", "") in reported.last_of(5)
        reported.exporters.silent.clear()
        await until(lambda: ("GPU_UTILIZATION", "") in reported.last_of(1))


async def test_the_second_round_comes_soon_however_rare_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "SECOND_ROUND_SECONDS", ROUND_SECONDS)
    async with measuring(tmp_path, scrape_seconds=60.0) as reported:
        await until(lambda: len({sent.at for sent in reported.scrapes}) == 2)


async def test_how_well_exporters_can_be_read_is_reported(tmp_path: Path) -> None:
    async with measuring(tmp_path) as reported:
        await until(lambda: reported.states().get("DCGM exporter") is not None)
        assert reported.states()["DCGM exporter"].state == "complete"
        assert reported.states()["DCGM exporter"].idle_after_seconds == 300
        reported.exporters.silent.add("dcgm-n2")
        await until(lambda: reported.states()["DCGM exporter"].state == "failing")
        result = reported.states()["DCGM exporter"]
        assert "1 of 2" in (result.message or "")
        assert reported.states()["kubelet"].state == "complete"


async def test_hours_that_an_agent_before_this_one_observed_are_passed_on(tmp_path: Path) -> None:
    before = datetime(2026, 11, 20, tzinfo=UTC)
    past = IdleHours(id=UUID(uid(4)), measured_since=before, gpu_hours=7.5)
    async with measuring(tmp_path, idle=(past,), idle_window_seconds=0.6) as reported:

        def fields() -> dict[str, Any]:
            row = reported.server.rows.get(UUID(uid(4)))
            return row.record.workload.additional_fields if row else {}

        await until(lambda: "idleGpuHours" in fields())
        assert fields()["idleGpuHours"] == 7.5
        assert fields()["idleMeasuredSince"] == "2026-11-20T00:00:00Z"
        await until(
            lambda: reported.server.rows[UUID(uid(4))].record.workload.idle_allocated_gpus == 1
        )
        reported.exporters.utilization[4] = 50.0
        await until(lambda: fields()["idleGpuHours"] > 7.5)


async def test_more_workloads_than_the_database_is_for_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "MEASURED_WORKLOADS", 2)
    async with measuring(tmp_path) as reported:
        await until(lambda: (kind := reported.states().get("DCGM exporter")) and kind.message)
        result = reported.states()["DCGM exporter"]
        assert (result.state, result.message) == ("complete", scrape.TOO_MANY)
    (tmp_path / "kubeconfig").unlink()
    async with measuring(tmp_path, pushes_samples=False) as reported:
        await until(lambda: reported.states().get("DCGM exporter") is not None)
        assert reported.states()["DCGM exporter"].message is None


async def test_exporters_elsewhere_are_not_believed(tmp_path: Path) -> None:
    async with measuring(tmp_path, exporter_namespaces=frozenset({"monitoring"})) as reported:
        await until(lambda: ("CPU_USAGE_CORES", "") in reported.last_of(1))
        assert ("GPU_UTILIZATION", "") not in reported.last_of(1)
        assert not any("dcgm" in request for request in reported.simulated.requests)
        await until(lambda: reported.states().get("DCGM exporter") is not None, seconds=180)
        result = reported.states()["DCGM exporter"]
        assert result.state == "absent"
        assert "gpu-operator" in (result.message or "")


async def test_nothing_is_asked_and_nothing_pushed_where_that_is_not_wanted(tmp_path: Path) -> None:
    async with measuring(tmp_path, scrape_seconds=0.0) as reported:
        await until(lambda: reported.server.rows)
        await asyncio.sleep(0.5)
        assert not any("/proxy/" in request for request in reported.simulated.requests)
    (tmp_path / "kubeconfig").unlink()
    async with measuring(tmp_path, pushes_samples=False, idle_window_seconds=0.3) as reported:
        await until(
            lambda: any(
                str(id_) == uid(4) and row.record.workload.idle_allocated_gpus == 1
                for id_, row in reported.server.rows.items()
            )
        )
        assert reported.scrapes == []


async def test_samples_survive_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async with measuring(tmp_path) as reported:
        await until(lambda: len(reported.scrapes) > 2)
        reported.server.loses_replies = 3
        before = {scrape.at for scrape in reported.scrapes}
        await until(lambda: len({scrape.at for scrape in reported.scrapes} - before) > 8)
        moments = sorted({scrape.at for scrape in reported.scrapes})
        gaps = [(b - a).total_seconds() for a, b in pairwise(moments)]
        assert max(gaps) < 5 * ROUND_SECONDS + 1


async def own_metrics(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What the agent exports, without empty labels: they mean the same as missing ones."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/metrics") as response,
    ):
        text = await response.text()
    return {
        (sample.name, frozenset((k, v) for k, v in sample.labels.items() if v)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_agent_exports_whose_pods_and_devices_are_whose(tmp_path: Path) -> None:
    port = free_port()
    async with measuring(tmp_path, metrics_port=port, metrics_host="127.0.0.1") as reported:
        await until(lambda: ("GPU_UTILIZATION", "") in reported.last_of(5))
        samples = await own_metrics(port)
    half, slices = ("workload_id", uid(2)), ("workload_id", uid(5))
    share = {("UUID", device(3)), ("shared", "true"), half}
    assert samples["watchbill_workload_gpu_share", frozenset(share)] == 0.5
    mig = {("UUID", device(5)), ("GPU_I_ID", "2"), ("shared", "false"), slices}
    assert samples["watchbill_workload_gpu_share", frozenset(mig)] == pytest.approx(3 / 7)
    named = {("pod_namespace", "team"), ("pod_name", "half"), ("pod_uid", uid(2)), half}
    assert samples["watchbill_pod_gpu_allocated", frozenset(named)] == 0.5
    assert samples["watchbill_workload_pod_info", frozenset(named | {("pod_node", "n1")})] == 1


async def test_a_kubelet_is_answered_also_where_nothing_is_scraped(tmp_path: Path) -> None:
    port = free_port()
    settings = {"metrics_port": port, "metrics_host": "127.0.0.1", "scrape_seconds": 0}
    async with measuring(tmp_path, **settings) as reported, aiohttp.ClientSession() as session:
        await until(lambda: bool(reported.server.beats))
        async with session.get(f"http://127.0.0.1:{port}/livez") as response:
            assert (response.status, await response.json()) == (200, {"status": "ok"})


FLOOD = b"".join(
    b'vllm:num_requests_running{model_name="m",engine="%d"} 1.0\n' % n for n in range(906_000)
)
"""What took an agent 602 MiB."""


def hostile(number: int, namespace: str = "elsewhere") -> dict[str, Any]:
    return pod(number, f"hostile-{number}", image="vllm:1", port=8000, namespace=namespace)


async def test_a_target_beyond_its_limits_is_shown_and_the_others_are_measured(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with measuring(tmp_path, metrics_port=port, metrics_host="127.0.0.1") as reported:
        reported.exporters.floods["hostile-40"] = FLOOD
        reported.exporters.floods["hostile-41"] = FLOOD[: 2**20]
        for number in (40, 41):
            reported.simulated.store.put(PODS, hostile(number))

        def message() -> str:
            state = reported.states().get("inference server")
            return (state.message or "") if state else ""

        await until(lambda: "body_size_limit 1" in message())
        before = len(reported.scrapes)
        await until(lambda: len(reported.scrapes) > before + 2)
        assert reported.last_of(7)["NIM_NUM_REQUESTS_RUNNING", ""] == 7
        assert reported.last_of(40) == {}
        assert reported.last_of(41) == {}
        assert "sample_limit 1" in message()
        samples = await own_metrics(port)
    limited = {("source", "inference server"), ("result", "limited")}
    assert samples["watchbill_agent_scrape_targets", frozenset(limited)] == 2
    exceeded = {("source", "inference server"), ("limit", "sample_limit")}
    name = "watchbill_agent_scrape_limit_exceeded_total"
    assert samples[name, frozenset(exceeded)] >= 1


_SCRAPE = """
import asyncio, resource, sys
from functools import partial
from pathlib import Path
from watchbill.agent.cache.targets import ScrapeTarget
from watchbill.agent.kubernetes.client import KubeClient
from watchbill.agent.kubernetes.credentials import Credentials
from watchbill.agent.metrics.figures import INFERENCE_METRICS, read_server
from watchbill.agent.metrics.exposition import WORKLOADS
from watchbill.agent.metrics.scrape_pool import Fetcher, ScrapeJob, ScrapePool

def target(namespace, name):
    return ScrapeTarget(name, namespace, name, "n1", "127.0.0.1", 8000)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

async def main():
    credentials = Credentials(Path(sys.argv[1]), None)
    await credentials.load()
    async with KubeClient(credentials) as kube, Fetcher(kube, is_direct=False) as fetcher:
        pool = ScrapePool("x", INFERENCE_METRICS, read_server, limits=WORKLOADS, concurrency=16)
        jobs = {
            name: ScrapeJob(partial(fetcher.pod, target(ns, name), path, WORKLOADS), ns)
            for ns, name, path in [
                *(("elsewhere", f"hostile-{n}", "/metrics") for n in range(40, 44)),
                ("team", "nim", "/v1/metrics"),
            ]
        }
        before = peak()
        results = await pool.scrape(jobs, seconds=600)
        print(len(results.failures), *results.pages, peak() - before)

asyncio.run(main())
"""


async def test_a_flood_of_samples_takes_little_memory(tmp_path: Path) -> None:
    exporters = Exporters()
    exporters.floods = {f"hostile-{number}": FLOOD for number in range(40, 44)}
    simulated = cluster(exporters)
    await simulated.start()
    kubeconfig = simulated.kubeconfig(tmp_path / "kubeconfig")
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SCRAPE, str(kubeconfig), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    await simulated.stop()
    failed, page, grown = output.decode().split()
    assert (failed, page) == ("4", "nim")
    assert int(grown) < 100 * 2**20

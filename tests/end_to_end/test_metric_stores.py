"""Real stores that lose a target, hang or die under load and come back: what is answered meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psutil
import pytest
import pytest_asyncio
from aiohttp import web

from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.metric_stores import STORES, Store, store
from tests.fixtures.records import record, upsert, workload
from tests.fixtures.serving import Served, listening, serving
from watchbill.api.app import build_app
from watchbill.metrics import prometheus
from watchbill.metrics.prometheus import (
    MAX_CONCURRENT_QUERIES,
    RANGE_PATH,
    PrometheusStore,
    StoreConnection,
)
from watchbill.metrics.workload import workload_metrics
from watchbill.protocol import Delete
from watchbill.settings.prometheus import PrometheusSettings
from watchbill.workload import Usage

ID = UUID(int=1)
RUNNING = "NIM_NUM_REQUESTS_RUNNING"
SCRAPE = timedelta(seconds=0.5)


@dataclass
class Pages:
    """What an inference server and an agent tell; `is_there` = whether the server answers, `is_held` = whether
    the agent knows of its pod."""

    namespace: str = ""
    is_there: bool = True
    is_held: bool = True
    began: float = field(default_factory=time.time)

    def nim(self) -> str | None:
        seconds = int(time.time() - self.began)
        return f"num_requests_running 7\nseconds {seconds}\n" if self.is_there else None

    def agent(self) -> str:
        if not self.is_held:
            return ""
        labels = f'workload_id="{ID}",pod_namespace="{self.namespace}",pod_name="nim"'
        return f"watchbill_workload_pod_info{{{labels}}} 1\n"


@asynccontextmanager
async def paged(pages: Pages) -> AsyncIterator[int]:
    async def answer(request: web.Request) -> web.Response:
        text = pages.nim() if request.path == "/nim" else pages.agent()
        return web.Response(text=text or "", status=503 if text is None else 200)

    app = web.Application()
    app.router.add_get("/{page}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@dataclass
class Scene:
    """A server whose cluster's samples lie in a real store."""

    served: Served
    agent: Agent
    store: Store
    pages: Pages

    async def path(self, types: str, start: datetime, end: datetime, samples: int) -> str:
        await self.agent.send(now=datetime.now(UTC))  # the cluster is in contact until now
        return (
            f"/api/v1/workloads/{ID}/metrics?metricType={types}&numberOfSamples={samples}"
            f"&start={_stamp(start)}&end={_stamp(end)}"
        )


def _stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest_asyncio.fixture(params=STORES)
async def scene(
    request: pytest.FixtureRequest,
    embedded_engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(prometheus, "_ABSENT_SECONDS", 0.1)
    made = workload(1)
    pages = Pages(namespace=made.namespace)
    async with paged(pages) as port, serving(await fresh_database(embedded_engine)) as served:
        pod = {"namespace": made.namespace, "pod": "nim"}
        scrapes = [
            {
                "job_name": page,
                "metrics_path": f"/{page}",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": labels}],
            }
            for page, labels in (("nim", pod), ("agent", {"namespace": "watchbill"}))
        ]
        now = datetime.now(UTC) - timedelta(minutes=1)
        agent = await connected_agent(served.db, now)
        usage = Usage(
            pod_count=1, running_pod_count=1, gpu_millionths=0, gpu_memory_request_bytes=0
        )
        await agent.send(upsert(record(made, usage=usage), observed_at=now), now=now)
        async with store(request.param, tmp_path / "store", scrapes) as running:
            metrics = workload_metrics(served.db, {"": PrometheusSettings(url=running.url)})
            async with listening(build_app(replace(served.services, metrics=metrics))) as url:
                yield Scene(replace(served, url=url), agent, running, pages)
            await metrics.close()


async def _running(scene: Scene) -> None:
    """Until the store has scraped both pages."""
    for _ in range(100):
        end = datetime.now(UTC) - timedelta(seconds=2)  # VictoriaMetrics shows nothing newer
        answer = await scene.served.get(
            await scene.path(RUNNING, end - timedelta(seconds=1), end, 2)
        )
        if answer.status == 200 and answer.json["measurements"][0]["values"]:
            return
        await asyncio.sleep(0.2)
    raise TimeoutError("the store scrapes nothing")


async def test_a_target_that_vanishes_leaves_a_gap_and_no_zero(scene: Scene) -> None:
    await _running(scene)
    began = datetime.now(UTC)
    await asyncio.sleep(3)
    scene.pages.is_there, vanished = False, datetime.now(UTC)
    await asyncio.sleep(4)
    scene.pages.is_there, returned = True, datetime.now(UTC)
    await asyncio.sleep(3)
    ended = datetime.now(UTC)
    await asyncio.sleep(2)
    answer = await scene.served.get(await scene.path(RUNNING, began, ended, 100))
    (result,) = answer.json["measurements"]
    assert {value["value"] for value in result["values"]} == {"7"}
    reported = [datetime.fromisoformat(value["timestamp"]) for value in result["values"]]
    assert not [at for at in reported if vanished + 3 * SCRAPE < at < returned]
    step = (ended - began) / 100
    assert len([at for at in reported if at < vanished]) >= (vanished - began) / step / 2
    late = returned + 3 * SCRAPE
    assert len([at for at in reported if at > late]) >= (ended - late) / step / 2


async def test_what_is_gone_has_its_figures_still_and_none_after_its_end(scene: Scene) -> None:
    """The agent's own metrics tell a store who held what, also when nothing of it is there any more."""
    await _running(scene)
    began = datetime.now(UTC)
    await asyncio.sleep(2)
    scene.pages.is_there = scene.pages.is_held = False
    ended = datetime.now(UTC)
    await scene.agent.send(Delete(id=ID, deleted_at=ended), now=ended)
    await asyncio.sleep(3)
    answer = await scene.served.get(await scene.path(RUNNING, began, datetime.now(UTC), 50))
    assert answer.status == 200, answer.body
    (result,) = answer.json["measurements"]
    reported = [datetime.fromisoformat(value["timestamp"]) for value in result["values"]]
    assert {value["value"] for value in result["values"]} == {"7"}
    assert reported[0] < began + 4 * SCRAPE
    assert ended - 4 * SCRAPE < reported[-1] <= ended


async def test_instants_are_the_ones_asked_for(scene: Scene) -> None:
    await _running(scene)
    await asyncio.sleep(2)
    session, start = StoreConnection(), round(time.time() - 3, 3) + 0.0123
    try:
        answer = await PrometheusStore(PrometheusSettings(url=scene.store.url), session).ask(
            RANGE_PATH,
            {
                "query": "num_requests_running",
                "start": f"{start:.3f}",
                "end": f"{start + 1.85:.3f}",
                "step": "0.037",
            },
        )
    finally:
        await session.close()
    (series,) = answer.series
    assert len(series.values) >= 50
    for at, _ in series.values:
        steps = (at - start) / 0.037
        assert abs(steps - round(steps)) < 0.05


@dataclass(frozen=True)
class Answered:
    reader: int
    began_at: float
    ended_at: float
    status: int


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["dies", "hangs"])
async def test_a_store_that_fails_under_load(scene: Scene, fault: str) -> None:
    await _running(scene)
    tasks = len(asyncio.all_tasks())
    answers: list[Answered] = []
    over = asyncio.Event()

    async def read(reader: int) -> None:
        types = (RUNNING, f"{RUNNING},POD_COUNT")[reader % 2]
        while not over.is_set():
            now, began = datetime.now(UTC) - timedelta(seconds=0.5), time.monotonic()
            path = f"/api/v1/workloads/{ID}/metrics?metricType={types}&numberOfSamples=20"
            window = f"&start={_stamp(now - timedelta(seconds=2))}&end={_stamp(now)}"
            answer = await scene.served.get(path + window)
            answers.append(Answered(reader, began, time.monotonic(), answer.status))
            await asyncio.sleep(0.02)

    async def beat() -> None:
        while not over.is_set():
            await scene.agent.send(now=datetime.now(UTC))
            await asyncio.sleep(0.2)

    def since(start: float) -> list[Answered]:
        return [answer for answer in answers if answer.began_at > start]

    beating = asyncio.create_task(beat())
    readers = [asyncio.create_task(read(reader)) for reader in range(16)]
    await _until(lambda: {answer.reader for answer in answers} == set(range(16)))
    fail: Callable[[], None] = {"dies": scene.store.kill, "hangs": scene.store.freeze}[fault]
    before = {answer.status for answer in answers}
    fail()
    failed_at = time.monotonic()
    await _until(lambda: {answer.status for answer in since(failed_at)} >= {207, 503})
    restored_at = time.monotonic()
    if fault == "dies":
        await scene.store.start()
    else:
        scene.store.thaw()
    ready_at = time.monotonic()
    await _until(lambda: _right_again(since(ready_at)))
    connections = _connections(scene.store.url)
    over.set()
    await asyncio.gather(beating, *readers)
    # Who waits long for a turn may be turned away (429), also before it is known that a store hangs.
    assert before - {429} == {200}
    during = {answer.status for answer in since(failed_at) if answer.ended_at < restored_at}
    assert during - {429} == {207, 503}
    assert len(connections) <= 2 * MAX_CONCURRENT_QUERIES, "both ends lie in one machine"
    await _until(lambda: len(asyncio.all_tasks()) <= tasks)


def _right_again(answers: list[Answered]) -> bool:
    """Whether the newest answers, one of every reader, are whole."""
    newest = {answer.reader: answer.status for answer in answers}
    return len(newest) == 16 and set(newest.values()) == {200}


def _connections(url: str) -> list[object]:
    port = int(url.rsplit(":", 1)[1])
    return [
        connection
        for connection in psutil.Process().net_connections()
        if connection.raddr and connection.raddr.port == port and connection.status == "ESTABLISHED"
    ]

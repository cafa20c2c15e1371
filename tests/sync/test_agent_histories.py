"""Random histories of a cluster, a connection and an agent that all misbehave; what must hold of every one.

*No false delete*: never is a workload told as deleted, or inferred to be, while its root exists.
*Every life has its end*: once all is quiet, exactly what exists is live, and what does not exist has one end.
"""

import asyncio
import itertools
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from tests.fixtures.agents import Running, agent
from tests.fixtures.kubernetes.agent_objects import deployment, job, made, pod, uid
from tests.fixtures.kubernetes.kube_api import KubeApi, kube_api
from tests.fixtures.receiver import Receiver, receiver
from watchbill.agent import run
from watchbill.agent.cache import owner_lookup
from watchbill.agent.kubernetes import reflector
from watchbill.agent.stream import stream

STEPS = 120


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "FORBIDDEN_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(reflector, "SHORT_WATCH_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "MISSED_EVENT_GRACE_SECONDS", 0.2)
    monkeypatch.setattr(run, "DISCOVERY_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(run, "DRAIN_SECONDS", 0.1)
    monkeypatch.setattr(stream, "INVENTORY_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(owner_lookup, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(owner_lookup, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(owner_lookup, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(owner_lookup, "UNRESOLVED_RECHECK_SECONDS", 0.3)
    monkeypatch.setattr(owner_lookup, "GONE_RECHECK_SECONDS", 0.3)
    monkeypatch.setattr("watchbill.agent.kubernetes.client.PAGE_OBJECTS", 3)


@dataclass
class Workload:
    root: dict[str, Any]
    links: list[dict[str, Any]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    is_root_there: bool = True

    @property
    def owner(self) -> dict[str, Any]:
        return self.links[-1] if self.links else self.root


class History:
    """One cluster's random life; `seed` alone decides it."""

    def __init__(self, seed: int, api: KubeApi, server: Receiver, folder: Path) -> None:
        self.random = random.Random(seed)
        self.api = api
        self.server = server
        self.folder = folder
        self.workloads: dict[UUID, Workload] = {}
        self.agents = AsyncExitStack()
        self.running: Running | None = None
        self.numbers = itertools.count()

    def check_no_false_delete(self) -> None:
        for row_id, row in self.server.rows.items():
            result = self.workloads.get(row_id)
            if result is not None and result.is_root_there:
                assert row.deleted_at is None, f"{result.root['kind']} exists"
                assert row.deletions == 0

    async def start_agent(self) -> None:
        self.running = await self.agents.enter_async_context(
            agent(self.folder, self.api, self.server, resync_seconds=0.6)
        )

    async def stop_agent(self) -> None:
        await self.agents.aclose()
        self.running = None

    def is_lost(self) -> bool:
        return self.random.random() < 0.1

    async def step(self) -> None:
        await self.random.choice(
            (
                *(self.create, self.create, self.create, self.add_pod, self.change, self.change),
                *(self.delete_root, self.delete_pods, self.delete_pods, self.cut, self.forget),
                *(self.refuse, self.heal, self.heal, self.disturb_server, self.restart_agent),
            )
        )()

    async def create(self) -> None:
        kind = self.random.choice(("Deployment", "Job", "Pod"))
        name = f"{kind.lower()}-{self.random.randrange(4)}"
        if any(
            w.is_root_there and w.root["metadata"]["name"] == name for w in self.workloads.values()
        ):
            return
        if kind == "Pod":
            result = Workload(pod(name))
        else:
            result = Workload(deployment(name) if kind == "Deployment" else job(name))
        if kind == "Deployment":
            result.links.append(made("ReplicaSet", f"{name}-1", result.root, group="apps", spec={}))
        self.workloads[uid(result.root)] = result
        for obj in (result.root, *result.links):
            self.api.put(obj, is_lost=self.is_lost())

    async def add_pod(self) -> None:
        owners = [w for w in self.workloads.values() if w.is_root_there and w.root["kind"] != "Pod"]
        if owners:
            result = self.random.choice(owners)
            member = pod(f"p{next(self.numbers)}", result.owner)
            result.pods.append(member)
            self.api.put(member, is_lost=self.is_lost())

    async def change(self) -> None:
        there = [w for w in self.workloads.values() if w.is_root_there]
        if there:
            root = self.random.choice(there).root
            root["metadata"]["annotations"] = {"n": str(self.random.random())}
            self.api.put(root, is_lost=self.is_lost())

    async def delete_root(self) -> None:
        there = [w for w in self.workloads.values() if w.is_root_there]
        if there:
            result = self.random.choice(there)
            result.is_root_there = False
            self.api.delete(result.root, is_lost=self.is_lost())
            for link in result.links:
                self.api.delete(link, is_lost=self.is_lost())

    async def delete_pods(self) -> None:
        for workload in self.workloads.values():
            if not workload.is_root_there or self.random.random() < 0.2:
                self.remove_pods(workload)

    def remove_pods(self, workload: Workload) -> None:
        for member in workload.pods:
            self.api.delete(member, is_lost=self.is_lost())
        workload.pods.clear()

    async def cut(self) -> None:
        self.api.end_watches(is_cut=self.random.random() < 0.5)

    async def forget(self) -> None:
        self.api.forget_past()

    async def refuse(self) -> None:
        status = self.random.choice((403, 404, 410, 429, 500))
        parts = self.random.sample(("pods", "deployments", "replicasets", "jobs"), 2)
        where = self.random.choice(("continue", "limit", "watch"))

        def fault(request: web.Request) -> web.StreamResponse | None:
            is_meant = where in request.query and any(part in request.path for part in parts)
            return web.Response(status=status, text="no\n") if is_meant else None

        self.api.fault = fault

    async def heal(self) -> None:
        self.api.fault = lambda _: None
        self.server.fault = lambda *_: None

    async def disturb_server(self) -> None:
        self.server.loses_replies = self.random.randrange(2)
        status = self.random.choice((200, 409, 410, 503))
        if status != 200:
            self.server.fault = lambda *_: web.json_response(
                {"code": status, "message": "no"}, status=status
            )

    async def restart_agent(self) -> None:
        if self.random.random() < 0.5:
            await self.stop_agent()
            await self.start_agent()

    async def settle(self) -> None:
        """All faults end, what is left of the dead goes; then the server must come to hold the truth."""
        await self.heal()
        self.server.loses_replies = 0
        for workload in self.workloads.values():
            if not workload.is_root_there:
                self.remove_pods(workload)
        self.api.forget_past()
        exists = {
            key for key, each_workload in self.workloads.items() if each_workload.is_root_there
        }
        deadline = asyncio.get_running_loop().time() + 20
        while self.server.live().keys() != exists:
            assert asyncio.get_running_loop().time() < deadline, self._difference(exists)
            await asyncio.sleep(0.05)
            self.check_no_false_delete()

    def _difference(self, exists: set[UUID]) -> str:
        live = self.server.live().keys()
        rows = self.server.rows
        missing = [self.workloads[key].root["metadata"]["name"] for key in exists - live]
        beyond = [rows[key].record.workload.name for key in live - exists]
        return f"missing {missing}, beyond {beyond}; reported {self.server.summary()}"


@pytest.mark.parametrize("seed", range(6))
async def test_a_random_history(tmp_path: Path, seed: int) -> None:
    async with kube_api() as api, receiver() as server:
        history = History(seed, api, server, tmp_path)
        await history.start_agent()
        try:
            for _ in range(STEPS):
                await history.step()
                await asyncio.sleep(history.random.choice((0, 0, 0.01, 0.05)))
                history.check_no_false_delete()
            await history.settle()
        finally:
            await history.stop_agent()
        for key, row in server.rows.items():
            if key in history.workloads:
                assert row.deletions == (row.deleted_at is not None), "one end, no more"

"""The whole agent and the whole server, with PostgreSQL behind it: what people read is what happened."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import RunningServer
from tests.fixtures.agents import agent
from tests.fixtures.kubernetes.agent_objects import chain, job, pod, uid
from tests.fixtures.kubernetes.kube_api import kube_api
from watchbill.agent.stream import stream
from watchbill.client import Client, Selection
from watchbill.errors import Forbidden


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "INVENTORY_PAUSE_SECONDS", 0.1)


class Reader:
    """Asks the server until it says what is expected."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def phases(self, *, deleted: bool = False) -> dict[str, str]:
        result = await self._client.workloads(Selection(is_deleted=deleted))
        return {f"{item.type}/{item.name}": item.phase for item in result}

    async def until(self, expected: dict[str, str], *, deleted: bool = False) -> None:
        phases: dict[str, str] = {}

        async def ask() -> bool:
            nonlocal phases
            phases = await self.phases(deleted=deleted)
            return phases == expected

        for _ in range(200):
            if await ask():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{phases} instead of {expected}")


async def test_a_life_from_birth_to_history(server: RunningServer, tmp_path: Path) -> None:
    async with (
        kube_api() as api,
        Client(server.url, server.client_id, server.client_secret) as client,
    ):
        made = await client.cluster_create("one")
        options = {"server_url": server.url, "credential": made.credential}
        reader = Reader(client)
        root, middle, member = chain()
        for obj in (root, middle, member):
            api.put(obj)
        async with agent(tmp_path, api, None, **options):
            await reader.until({"Deployment/web": "Running"})
            short = job("short")
            api.put(short)
            api.delete(short)
            for obj in (root, middle):
                api.delete(obj)
            await reader.until({"Deployment/web": "Terminating"})
            api.delete(member)
            await reader.until({})
            gone = await reader.phases(deleted=True)
            assert gone == {"Deployment/web": "Running", "Job/short": "Creating"}
            history = (await client.history(uid(root))).history
            assert [stay.phase for stay in history][-2:] == ["Running", "Terminating"]
            assert all(stay.ended_at for stay in history)
        (cluster,) = await client.clusters()
        assert cluster.kubernetes_version == "v1.36.2"
        assert {"Pod", "Deployment"} <= {kind.kind for kind in cluster.kinds}


async def test_what_vanished_while_no_agent_ran(server: RunningServer, tmp_path: Path) -> None:
    async with (
        kube_api() as api,
        Client(server.url, server.client_id, server.client_secret) as client,
    ):
        made = await client.cluster_create("one")
        options = {"server_url": server.url, "credential": made.credential}
        reader = Reader(client)
        stays, goes = pod("stays"), pod("goes")
        for obj in (stays, goes):
            api.put(obj)
        async with agent(tmp_path, api, None, **options):
            await reader.until({"Pod/stays": "Running", "Pod/goes": "Running"})
        api.delete(goes)
        async with agent(tmp_path, api, None, **options):
            await reader.until({"Pod/stays": "Running"})
            assert await reader.phases(deleted=True) == {"Pod/goes": "Running"}
            history = (await client.history(uid(stays))).history
            assert [stay.phase for stay in history].count("Running") == 1


def kube_system(uid: str) -> dict[str, object]:
    metadata = {"name": "kube-system", "uid": uid}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


async def test_an_agent_of_another_cluster_is_refused_and_deletes_nothing(
    server: RunningServer, tmp_path: Path
) -> None:
    async with (
        kube_api() as right,
        kube_api() as wrong,
        Client(server.url, server.client_id, server.client_secret) as client,
    ):
        right.put(kube_system("uid-of-the-right-one"))
        wrong.put(kube_system("uid-of-the-wrong-one"))
        made = await client.cluster_create("one")
        options = {"server_url": server.url, "credential": made.credential}
        reader = Reader(client)
        right.put(pod("stays"))
        wrong.put(pod("foreign"))
        async with agent(tmp_path, right, None, **options):
            await reader.until({"Pod/stays": "Running"})
        with pytest.raises(Forbidden) as caught:
            async with agent(tmp_path, wrong, None, **options) as running:
                await asyncio.wait_for(running.task, 120)
        assert "uid-of-the-wrong-one, not uid-of-the-right-one" in caught.value.message
        assert "watchbill admin cluster repin one" in (caught.value.details or "")
        assert await reader.phases() == {"Pod/stays": "Running"}
        async with agent(tmp_path, right, None, **options):
            await reader.until({"Pod/stays": "Running"})
            assert await reader.phases(deleted=True) == {}
        await client.cluster_repin(made.id)
        async with agent(tmp_path, wrong, None, **options):
            await reader.until({"Pod/foreign": "Running"})

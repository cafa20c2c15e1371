"""The live stream: what is committed is sent to whom it concerns, and nothing else to anybody."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import SETTINGS, Served, serving
from watchbill.api import changes
from watchbill.api.resources import stream
from watchbill.protocol import Covered, Delete, InventoryBegin, InventoryCommit
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit
from watchbill.workload import Phase

PATH = "/api/v1/workloads/stream"


class Ear:
    """Reads events; comments are counted."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.comments = 0

    async def next(self, seconds: float = 10.0) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(seconds):
            while True:
                block = (await self.response.content.readuntil(b"\n\n")).decode()
                fields = dict(line.split(": ", 1) for line in block.strip().splitlines())
                if "event" in fields:
                    return fields["event"], json.loads(fields["data"])
                self.comments += 1

    async def ids(self) -> tuple[list[int], list[int]]:
        """The numbers of the workloads that the next event names."""
        name, data = await self.next()
        assert name == "change", (name, data)
        assert data["counts"] == {"changed": len(data["changed"]), "gone": len(data["gone"])}
        changed, gone = ([UUID(row).int for row in data[key]] for key in ("changed", "gone"))
        return changed, gone

    async def silence(self, seconds: float = 1.0) -> None:
        with pytest.raises(TimeoutError):
            await self.next(seconds)


@asynccontextmanager
async def ear(
    served: Served, query: str = "", *, token: str | None = None, **headers: str
) -> AsyncIterator[Ear]:
    if "Cookie" not in headers:
        headers["Authorization"] = f"Bearer {token or await served.token()}"
    async with served.session.get(f"{served.url}{PATH}{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Cache-Control"] == "no-store"
        listening = Ear(response)
        assert (await listening.next())[0] == "ready"
        yield listening


async def agent_of(served: Served, number: int = 1) -> Agent:
    return await connected_agent(served.db, datetime.now(UTC), number=number)


async def send(agent: Agent, *items: Any) -> None:
    await agent.send(*items, now=datetime.now(UTC))


async def test_writes_and_deletions_are_reported(server: Served) -> None:
    agent = await agent_of(server)
    async with ear(server) as live, ear(server, "?deleted=true") as gone:
        await send(agent, upsert(workload(1)), upsert(workload(2)))
        assert await live.ids() == ([1, 2], [])
        assert await gone.ids() == ([], [1, 2])
        await send(agent, upsert(workload(1)))
        await live.silence()
        await send(agent, Delete(id=UUID(int=1), deleted_at=datetime.now(UTC)))
        assert await live.ids() == ([], [1])
        assert await gone.ids() == ([1], [])


async def test_a_deletion_that_an_inventory_infers(server: Served) -> None:
    agent = await agent_of(server)
    await send(agent, upsert(workload(1)))
    async with ear(server) as live:
        covered = (Covered(group="kubeflow.org", kind="PyTorchJob"),)
        begin = InventoryBegin(stream_id=agent.stream_id, coverage=covered)
        now = datetime.now(UTC)
        begun = await inventory_begin(server.db, agent.identity, begin, now)
        commit = InventoryCommit(
            stream_id=agent.stream_id, inventory_id=begun.inventory_id, count=0
        )
        await inventory_commit(server.db, agent.identity, commit, now)
        assert await live.ids() == ([], [1])


async def test_filters_and_search(server: Served) -> None:
    agent = await agent_of(server)
    async with (
        ear(server, "?filterBy=phase==Running&filterBy=projectName==vision") as running,
        ear(server, "?search=mistral") as named,
    ):
        await send(
            agent,
            upsert(workload(1)),
            upsert(workload(2, phase=Phase.PENDING, name="mistral-7b")),
            upsert(workload(3, project_name="nlp")),
        )
        assert await running.ids() == ([1], [2, 3])
        assert await named.ids() == ([2], [1, 3])
        await send(agent, upsert(workload(1, phase=Phase.FAILED)))
        assert await running.ids() == ([], [1])
    assert_is_error(await server.get(f"{PATH}?filterBy=phase=Running"), 400)
    assert_is_error(await server.get(f"{PATH}?timeoutSeconds=0"), 400)


async def test_what_lies_out_of_scope_is_never_shown(server: Served) -> None:
    agent, other = await agent_of(server), await agent_of(server, 2)
    await send(agent, upsert(workload(1)), upsert(workload(2, project_name="nlp")))
    listed = (await server.get("/api/v1/workloads")).json["workloads"]
    project = next(row["projectId"] for row in listed if row["projectName"] == "nlp")
    by_project = await server.account(("viewer", "project", project))
    by_cluster = await server.account(("viewer", "cluster", str(other.identity.cluster_id)))
    async with ear(server, token=by_project) as nlp, ear(server, token=by_cluster) as second:
        await send(agent, upsert(workload(1, name="x")), upsert(workload(3)))
        await nlp.silence()
        await send(agent, upsert(workload(2, name="y", project_name="nlp")))
        assert await nlp.ids() == ([2], [])
        await second.silence()
        await send(other, upsert(workload(9)))
        assert await second.ids() == ([9], [])
        await nlp.silence()


async def test_nobody_without_a_right_and_no_other_site(server: Served) -> None:
    assert_is_error(await server.get(PATH, token=None), 401)
    assert_is_error(await server.get(PATH, token=await server.account()), 403)
    body = {"clientId": server.client_id, "clientSecret": server.secret}
    logged_in = await server.ask("POST", "/api/v1/session", json=body, token=None)
    cookie = logged_in.headers["Set-Cookie"].partition(";")[0]
    foreign = {"Cookie": cookie, "Origin": "http://evil.example.com"}
    assert_is_error(await server.get(PATH, token=None, headers=foreign), 401)
    async with ear(server, Cookie=cookie, Origin=server.url):
        pass


async def test_more_than_is_sent_one_by_one(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await agent_of(server)
    monkeypatch.setattr(changes, "MAX_PENDING", 5)
    async with ear(server) as live:
        await send(agent, *(upsert(workload(number)) for number in range(1, 8)))
        name, data = await live.next()
        assert (name, data["reason"]) == ("resync", "too-many")
        await send(agent, upsert(workload(1, name="x")))
        assert await live.ids() == ([1], [])
        monkeypatch.setattr(changes, "MAX_CHANGES_PER_TENANT", 3)
        await send(agent, *(upsert(workload(number)) for number in range(11, 16)))
        # Too much in the tenant, of whomever: not told apart from an interruption.
        assert (await live.next())[1]["reason"] == "interrupted"


async def test_a_batch_larger_than_one_notification(server: Served) -> None:
    agent = await agent_of(server)
    async with ear(server) as live:
        await send(agent, *(upsert(workload(number)) for number in range(1, 451)))
        assert (await live.ids())[0] == list(range(1, 451))


async def test_the_listener_comes_back_and_says_so(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "RETRY_SECONDS", 0.1)
    agent = await agent_of(server)
    async with ear(server) as live:
        owner = await asyncpg.connect(server.db._listening_url)
        ended = await owner.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE "
            "application_name = 'watchbill listener' AND datname = current_database()"
        )
        await owner.close()
        assert len(ended) == 1, "one listener, whatever the clients"
        name, data = await live.next()
        assert (name, data["reason"]) == ("resync", "interrupted")
        await send(agent, upsert(workload(1)))
        assert await live.ids() == ([1], [])


async def test_as_many_as_allowed_and_their_end(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_streams = [ear(server) for _ in range(changes.CONCURRENT_STREAMS)]
    for listener in open_streams:
        await listener.__aenter__()
    assert_is_error(await server.get(PATH), 429)
    other = await server.account(("viewer", "tenant", "1"))
    async with ear(server, token=other):
        pass
    for listener in open_streams:
        await listener.__aexit__(None, None, None)
    await asyncio.sleep(0.2)
    async with ear(server):
        pass
    await asyncio.sleep(0.2)
    async with server.db.acquire(1) as connection:
        listeners = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'watchbill listener' "
            "AND datname = current_database()"
        )
    assert listeners == 0, "nobody listens where nobody wants to hear"


async def test_heartbeats_and_a_time_of_ones_own(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.2)
    async with ear(server, "?timeoutSeconds=1") as live:
        name, data = await live.next()
        assert (name, data["reason"]) == ("end", "timeout")
        assert live.comments >= 3
        assert await live.response.content.read() == b""


async def test_a_login_that_ends(embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.2)
    shift = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + shift

    async with (
        serving(await fresh_database(embedded_engine), clock=clock) as served,
        ear(served) as live,
    ):
        await live.silence(0.5)
        shift = timedelta(seconds=SETTINGS.token_lifetime_seconds + 60)
        name, data = await live.next()
        assert (name, data["reason"]) == ("end", "access")


async def test_rules_that_change(embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a minute: what is granted now, and the end where nothing is."""
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.2)
    shift = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + shift

    url = await fresh_database(embedded_engine)
    async with serving(url, clock=clock) as served:
        agent = await agent_of(served)
        token = await served.account(("viewer", "tenant", "1"))
        owner = await asyncpg.connect(url)
        where = "WHERE role = 'viewer'"
        async with ear(served, token=token) as live:
            await owner.execute(
                f"UPDATE access_rule SET scope_kind = 'project', scope_id = '4711' {where}"
            )
            shift = timedelta(seconds=60)
            name, data = await live.next()
            assert (name, data["reason"]) == ("resync", "access")
            await send(agent, upsert(workload(1)))
            await live.silence()
            await owner.execute(f"DELETE FROM access_rule {where}")
            shift = timedelta(seconds=120)
            name, data = await live.next()
            assert (name, data["reason"]) == ("end", "access")
        await owner.close()


async def test_a_server_that_stops_says_so(server: Served) -> None:
    async with ear(server) as live:
        server.services.streams.close()
        name, data = await live.next()
        assert (name, data["reason"]) == ("end", "stopping")
    assert_is_error(await server.get(PATH), 503)

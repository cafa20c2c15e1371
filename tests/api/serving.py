"""A whole server on a port of its own, over a test's database, with data that the tests know."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import uvicorn

from tests.clusters import Agent, connected_agent
from tests.records import random_transitions, random_workload, record, upsert, workload
from watchbill.api.app import build_app, services_of
from watchbill.api.call import Services
from watchbill.api.listen import listening_on
from watchbill.config import ServerSettings
from watchbill.store.access import account_create, first_account
from watchbill.store.database import Database
from watchbill.store.rules import Rule
from watchbill.workload import Element, Phase

ABSENT_ID = UUID("00000000-dead-4bad-8bad-000000000000")
SETTINGS = ServerSettings(data_dir=Path("/nonexistent"), requests_burst=1_000_000)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    json: Any


@dataclass
class Served:
    """A running server and a client that is signed in as its administrator."""

    url: str
    services: Services
    client_id: str
    secret: str
    session: aiohttp.ClientSession
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def db(self) -> Database:
        return self.services.db

    async def token(self) -> str:
        if self.client_id not in self.tokens:
            self.tokens[self.client_id] = await self.token_of(self.client_id, self.secret)
        return self.tokens[self.client_id]

    async def token_of(self, client_id: str, secret: str) -> str:
        body = {"grantType": "client_credentials", "clientId": client_id, "clientSecret": secret}
        answer = await self.ask("POST", "/api/v1/token", json=body, token=None)
        assert answer.status == 200, answer.body
        return str(answer.json["accessToken"])

    async def account(self, *rules: tuple[str, str, str]) -> str:
        """A token of a new service account with these (role, scope kind, scope id)."""
        made = tuple(Rule(role=role, scope_kind=kind, scope_id=id_) for role, kind, id_ in rules)
        client_id, secret = await account_create(self.db, 1, "test", made, now=datetime.now(UTC))
        return await self.token_of(client_id, secret)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = "administrator",
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """`path` goes out exactly as it is written."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = (
                f"Bearer {await self.token() if token == 'administrator' else token}"
            )
        url = aiohttp.client_reqrep.URL(self.url + path, encoded=True)
        async with self.session.request(
            method, url, headers=sent, allow_redirects=False, **options
        ) as response:
            body = await response.read()
            is_json = response.content_type == "application/json" and body
            return Answer(
                response.status, response.headers, body, await response.json() if is_json else None
            )


@asynccontextmanager
async def serving(
    database_url: str, settings: ServerSettings = SETTINGS, **options: Any
) -> AsyncIterator[Served]:
    db = await Database.open(database_url, pool_size=6)
    services = services_of(db, settings, **options)
    made = await first_account(db, now=datetime.now(UTC))
    client_id, secret = made or ("", "")
    async with listening(build_app(services)) as url:
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            yield Served(url, services, client_id, secret, session)
    await db.close()


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    server = uvicorn.Server(listening_on(app, host="127.0.0.1", port=0))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
        if task.done():
            task.result()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


async def fill(db: Database, *, clusters: int = 2, workloads: int = 60) -> list[Agent]:
    """Some clusters with varied workloads, a few of them with elements and pending reasons."""
    rng, now = random.Random(7), datetime.now(UTC)
    agents = []
    for number in range(1, clusters + 1):
        agent = await connected_agent(db, now, number=number)
        agents.append(agent)
        made = [random_workload(rng, number * 1000 + n) for n in range(workloads)]
        items = [upsert(one, *random_transitions(rng, one)) for one in made]
        await agent.send(*items, now=now)
    await agents[0].send(detailed(), now=now)
    return agents


DETAILED_ID = UUID(int=0xABCDEF)


def detailed() -> Any:
    """One that is pending and has a structure of its own."""
    created_at = datetime.now(UTC) - timedelta(hours=2)
    elements = tuple(
        Element(id=UUID(int=0xE000 + n), name=f"worker-{n}", hierarchy_level=1) for n in range(7)
    )
    made = workload(0xABCDEF, phase=Phase.PENDING, k8s_phase="Pending", created_at=created_at)
    return upsert(
        record(made, elements=elements, elements_total=9),
        (Phase.CREATING, created_at),
        (Phase.PENDING, created_at + timedelta(minutes=1)),
    )

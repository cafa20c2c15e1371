"""Two tenants with the same names in them, and everybody who might ask: the ground of the matrix."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.api.serving import Served
from tests.clusters import Agent, connected_agent
from tests.records import record, upsert, workload
from watchbill.access.tokens import Tokens
from watchbill.store.access import (
    GROUP,
    PERSON,
    Holder,
    account_create,
    account_disable,
)
from watchbill.store.administration import Change, rules_change, tenant_create
from watchbill.store.people import Login, person_seen
from watchbill.store.rules import Rule
from watchbill.sync import Delete, Record
from watchbill.workload import Element

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
EACH = 3


@dataclass(frozen=True)
class Placed:
    """A workload and where it lies. Its name is found nowhere else."""

    number: int
    tenant: int
    cluster: str
    department: str | None
    project: str
    is_deleted: bool

    @property
    def id(self) -> UUID:
        return UUID(int=(self.tenant << 32) + self.number)

    @property
    def name(self) -> str:
        return f"marker-{self.tenant}-{self.number:03}-x"


PLACES = [
    ("north", "research", "vision"),
    ("north", "research", "speech"),
    ("north", "products", "shop"),
    ("south", "research", "vision"),
    ("north", None, "orphan"),
]


@dataclass
class Principal:
    token: str | None
    sees: Callable[[Placed], bool]
    status: int = 200
    """Of every read of workloads: 200, or what keeps all of them away."""
    clusters: int = 200


@dataclass
class Estate:
    served: Served
    agents: dict[tuple[int, str], Agent]
    placed: list[Placed]
    principals: dict[str, Principal] = field(default_factory=dict)
    exporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A tenant may have two exports at once, and no test wants to meet that limit here."""


async def estate(served: Served) -> Estate:
    made = await tenant_create(served.db, "second", now=NOW)
    agents = {}
    for number, (tenant, cluster) in enumerate(
        [(1, "north"), (1, "south"), (2, "north"), (2, "south")], 1
    ):
        agents[tenant, cluster] = await connected_agent(
            served.db, NOW, number=number, tenant_id=tenant
        )
    found = Estate(served, agents, [])
    for tenant in (1, 2):
        for index, (cluster, department, project) in enumerate(PLACES):
            await add(found, tenant, (cluster, department, project), first=index * 10 + 1)
    await _principals(found, made[1], made[2])
    return found


async def add(
    estate: Estate,
    tenant: int,
    place: tuple[str, str | None, str],
    *,
    first: int,
    now: datetime = NOW,
) -> None:
    """Three live workloads and a deleted one."""
    cluster, department, project = place
    agent = estate.agents[tenant, cluster]
    new = [
        Placed(first + n, tenant, cluster, department, project, n == EACH) for n in range(EACH + 1)
    ]
    for one in new:
        await agent.send(upsert(_record(one)), now=now)
        if one.is_deleted:
            await agent.send(Delete(id=one.id, deleted_at=now), now=now)
    estate.placed += new


async def touch(estate: Estate, one: Placed) -> None:
    """Change something of a live workload that no answer of a list, count or sum shows."""
    changed = _record(one, images=(f"example.com/touched:{one.number}",))
    await estate.agents[one.tenant, one.cluster].send(upsert(changed), now=NOW)


def _record(one: Placed, **members: Any) -> Record:
    element = Element(id=UUID(int=0xE << 64 | one.id.int), name=one.name, hierarchy_level=1)
    made = workload(
        name=one.name,
        id=one.id,
        project_name=one.project,
        department_name=one.department or "",
        gpus=float(one.number % 3),
        created_at=NOW - timedelta(hours=1),
        **members,
    )
    return record(made, elements=(element,), elements_total=1)


async def _numbers(estate: Estate, tenant: int) -> dict[tuple[str, str, str], int]:
    """The numbers of projects and departments by kind, cluster and name."""
    names = {agent.identity.cluster_id: key[1] for key, agent in estate.agents.items()}
    async with estate.served.db.acquire(tenant) as connection:
        rows = await connection.fetch(
            "SELECT 'project' AS kind, cluster_id, name, id FROM project "
            "UNION ALL SELECT 'department', cluster_id, name, id FROM department"
        )
    return {(row["kind"], names[row["cluster_id"]], row["name"]): row["id"] for row in rows}


async def _principals(estate: Estate, second_id: str, second_secret: str) -> None:
    served, numbers = estate.served, await _numbers(estate, 1)
    north = str(estate.agents[1, "north"].identity.cluster_id)
    foreign = str(estate.agents[2, "north"].identity.cluster_id)
    vision = ("project", str(numbers["project", "north", "vision"]))
    speech = ("project", str(numbers["project", "north", "speech"]))
    orphan = ("project", str(numbers["project", "north", "orphan"]))
    research = ("department", str(numbers["department", "north", "research"]))

    async def account(*rules: tuple[str, str, str]) -> str:
        return await served.account(*rules)

    def at(tenant: int = 1, **parts: str) -> Callable[[Placed], bool]:
        return lambda one: (
            one.tenant == tenant
            and all(getattr(one, name) == value for name, value in parts.items())
        )

    def nothing(_: Placed) -> bool:
        return False

    in_vision = at(cluster="north", project="vision")
    in_research = at(cluster="north", department="research")
    estate.principals = {
        "anonymous": Principal(None, nothing, 401, 401),
        "forged": Principal("a.b.c", nothing, 401, 401),
        "expired": Principal(await _expired(served), nothing, 401, 401),
        "disabled": Principal(await _disabled(served), nothing, 401, 401),
        "agent": Principal(await _agent(served), nothing, 401, 401),
        "no role": Principal(await account(), nothing, 403, 403),
        "role unknown": Principal(await account(("galactic", "tenant", "1")), nothing, 403, 403),
        "auditor": Principal(await account(("auditor", "tenant", "1")), nothing, 403, 403),
        "another tenant's cluster": Principal(
            await account(("viewer", "cluster", foreign)), nothing
        ),
        "another tenant": Principal(await account(("viewer", "tenant", "2")), nothing, 403, 403),
        "viewer of a project": Principal(await account(("viewer", *vision)), in_vision),
        "researcher of a project": Principal(
            await account(("l1-researcher", *speech)), at(cluster="north", project="speech")
        ),
        "viewer of a department": Principal(await account(("viewer", *research)), in_research),
        "administrator of a department": Principal(
            await account(("department-administrator", *research)), in_research, 200, 403
        ),
        "viewer of the orphan": Principal(await account(("viewer", *orphan)), at(project="orphan")),
        "viewer of a cluster": Principal(
            await account(("viewer", "cluster", north)), at(cluster="north")
        ),
        "viewer of the tenant": Principal(await account(("viewer", "tenant", "1")), at()),
        "two overlapping": Principal(
            await account(("viewer", *vision), ("editor", *research)), in_research
        ),
        "two apart": Principal(
            await account(("viewer", *vision), ("viewer", *orphan)),
            lambda one: in_vision(one) or at(project="orphan")(one),
        ),
        "by group": Principal(await _by_group(served, research), in_research),
        "administrator": Principal(await served.token(), at()),
        "administrator of the second": Principal(
            await served.token_of(second_id, second_secret), at(2)
        ),
    }


async def _expired(served: Served) -> str:
    tokens = Tokens(served.services.keyring, lambda: NOW - timedelta(hours=3), lifetime_seconds=60)
    holder = Holder(tenant_id=1, kind="account", id=UUID(int=1))
    return await tokens.issue(holder, client_id="wbc-0")


async def _disabled(served: Served) -> str:
    rule = Rule(role="viewer", scope_kind="tenant", scope_id="1")
    client_id, secret = await account_create(served.db, 1, "gone", (rule,), now=NOW)
    token = await served.token_of(client_id, secret)
    await account_disable(served.db, 1, client_id, now=NOW)
    return token


async def _agent(served: Served) -> str:
    made = await served.ask("POST", "/api/v1/clusters", json={"name": "spare"})
    await served.ask("DELETE", f"/api/v1/clusters/{made.json['id']}")
    return str(made.json["credential"])


async def _by_group(served: Served, scope: tuple[str, str]) -> str:
    login: dict[str, Any] = {
        "tenant_id": 1, "issuer": "https://id.example.com", "external_id": "u-1",
        "name": "grace@example.com", "email": None, "groups": ("researchers", "all"), "told_at": NOW,
    }  # fmt: skip
    person_id = await person_seen(served.db, Login(**login), now=NOW)
    rule = Rule(role="viewer", scope_kind=scope[0], scope_id=scope[1])
    change = Change(added=((GROUP, "researchers", rule),), removed=())
    await rules_change(served.db, 1, change, changed_by="test", now=NOW)
    holder = Holder(tenant_id=1, kind=PERSON, id=person_id)
    return await served.services.tokens.issue(holder, client_id="grace@example.com")

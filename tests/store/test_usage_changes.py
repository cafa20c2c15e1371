"""Usage of workloads that change hands, return, or change while their agent is cut off or its clock wrong."""

import os
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import record, upsert, workload
from tests.fixtures.usage_sums import assert_sums_are_those_of_the_days
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.kinds.derive import Derived
from watchbill.prices import Prices
from watchbill.protocol import Delete, Heartbeat, Record
from watchbill.query import Scope, UsageQuery
from watchbill.store.ingest.stream import heartbeat_apply
from watchbill.store.postgres.database import Database
from watchbill.store.usage import day_limits
from watchbill.store.usage.accounting import usage_account, usage_purge
from watchbill.store.usage.report import UsagePage, usage_report
from watchbill.store.usage.rounds import usage_rebuild
from watchbill.store.workloads.usage_steps import UsageAttributes
from watchbill.workload import Phase, Transition

FIRST = datetime(2026, 11, 20, tzinfo=UTC)
ALL = Scope(1, is_whole_tenant=True)


def at(hours: float) -> datetime:
    return FIRST + timedelta(hours=hours)


def held(number: int, gpus: float, **members: object) -> Record:
    made = workload(
        number, gpus=gpus, created_at=FIRST, idle_allocated_gpus=0.0, idle_gpus=0, **members
    )
    return record(made)


async def seen(agent: Agent, hours: float, gpus: float, **members: object) -> None:
    await agent.send(upsert(held(1, gpus, **members), observed_at=at(hours)), now=at(hours))


async def observed(db: Database, hours: float) -> None:
    """Every cluster was observed without a gap until then."""
    async with db.transaction(1) as connection:
        await connection.execute("DELETE FROM cluster_gap")
        await connection.execute("UPDATE cluster SET last_contact_at = $1", at(hours))


async def report(
    db: Database, *groups: str, days: int = 3, scope: Scope = ALL, prices: Prices | None = None
) -> UsagePage:
    start = date(2026, 11, 20)
    query = UsageQuery(start=start, end=start + timedelta(days=days), groups=groups)
    return await usage_report(db, scope, query, prices, at(96))


async def hours_by(db: Database, *groups: str) -> dict[tuple[str | None, ...], float]:
    page = await report(db, *groups)
    return {
        tuple(row.group[name] for name in groups): row.allocated_gpu_hours
        for row in page.rows
        if row.allocated_gpu_hours
    }


async def test_a_day_is_split_where_owner_node_pool_or_priority_class_changes(
    db: Database,
) -> None:
    """Ada's for six hours, then Grace's; from noon in another pool, from 18:00 of another class."""
    agent = await connected_agent(db, FIRST)
    grace = {"submitted_by": "grace@example.com"}
    await seen(agent, 0, 8)
    await seen(agent, 6, 8, **grace)
    await seen(agent, 12, 8, current_node_pools=("h100",), **grace)
    await seen(agent, 18, 8, current_node_pools=("h100",), priority_class_name="build", **grace)
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(30)), now=at(30))
    await observed(db, 40)
    await usage_account(db, 1, at(40))
    assert await hours_by(db, "owner", "day") == {
        ("ada@example.com", "2026-11-20"): 48,
        ("grace@example.com", "2026-11-20"): 144,
        ("grace@example.com", "2026-11-21"): 48,
    }
    assert await hours_by(db, "nodePool", "month") == {
        ("a100", "2026-11"): 96,
        ("h100", "2026-11"): 144,
    }
    assert await hours_by(db, "priorityClass") == {("train",): 144, ("build",): 96}
    prices = Prices(currency="EUR", node_pools={"a100": 2, "h100": 3})
    assert (await report(db, prices=prices)).totals.cost == 2 * 96 + 3 * 144


async def test_days_of_a_version_that_kept_no_attributes_count_for_the_last_ones_known(
    db: Database,
) -> None:
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    await seen(agent, 6, 8, submitted_by="grace@example.com")
    async with db.transaction(1) as connection:
        await connection.execute("UPDATE usage_step SET attributes_id = NULL")
    await observed(db, 12)
    await usage_account(db, 1, at(12))
    assert await hours_by(db, "owner", "type") == {
        ("grace@example.com", "PyTorchJob"): pytest.approx(8 * (12 - 1 / 6))
    }


async def test_so_many_owners_of_a_day_are_distinguished(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(day_limits, "MAX_DAY_ATTRIBUTES", 3)
    agent = await connected_agent(db, FIRST)
    for hour in range(10):
        await seen(agent, hour, 2, submitted_by=f"owner-{hour}")
        await observed(db, hour + 0.9)
        await usage_account(db, 1, at(hour + 0.9))
    await observed(db, 10 + 1 / 6)
    await usage_account(db, 1, at(10 + 1 / 6))
    hours = await hours_by(db, "owner")
    assert hours == {("owner-0",): 2, ("owner-1",): 2, ("owner-2",): 2, ("owner-9",): 14}


async def test_no_workload_changes_whose_another_clusters_usage_was(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent knows how the id of a set of attributes is made, and gives it to a workload of its own, before
    anybody has the set and afterwards."""
    monkeypatch.setattr(day_limits, "MAX_DAY_ATTRIBUTES", 1)
    victim, hostile = [await connected_agent(db, FIRST, number=number) for number in (1, 2)]
    step = held(1, 8).step(FIRST)
    shared = UsageAttributes(
        step.type,
        step.category,
        step.submitted_by,
        step.priority_class_name,
        step.node_pool or None,
    )

    async def attack(hours: float) -> None:
        for hour, owner in ((hours, "first@example.com"), (hours + 1, "mallory@example.com")):
            stolen = replace(held(1, 8).workload, id=shared.id, submitted_by=owner)
            await hostile.send(upsert(record(stolen), observed_at=at(hour)), now=at(hour))
        await observed(db, hours + 2)
        await usage_account(db, 1, at(hours + 2))

    await attack(0)
    await seen(victim, 3, 8)
    await attack(4)
    await observed(db, 12 + 1 / 6)
    await usage_account(db, 1, at(12 + 1 / 6))
    hours = await hours_by(db, "cluster", "owner")
    assert hours["cluster-1", shared.submitted_by] == pytest.approx(8 * 9)


async def test_attributes_that_nothing_has_are_forgotten(db: Database) -> None:
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    await seen(agent, 1, 8, submitted_by="grace@example.com")
    await observed(db, 12)
    await usage_account(db, 1, at(12))

    async def owners(now: datetime) -> int:
        await usage_purge(db, 1, keep=timedelta(days=10), now=now)
        async with db.acquire(1) as connection:
            return int(await connection.fetchval("SELECT count(*) FROM usage_attributes"))

    assert await owners(at(24 * 12)) == 2, "their steps are there"
    async with db.transaction(1) as connection:
        await connection.execute("DELETE FROM usage_step")
    assert await owners(at(24 * 9)) == 2
    assert await owners(at(24 * 12)) == 0


async def test_a_workload_that_returns_used_nothing_while_it_was_gone(db: Database) -> None:
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(2)), now=at(2))
    await observed(db, 5)
    await usage_account(db, 1, at(5))
    await seen(agent, 10, 8)
    await observed(db, 12 + 1 / 6)
    await usage_account(db, 1, at(12 + 1 / 6))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * (2 + 2)
    await usage_rebuild(db, 1)
    await usage_account(db, 1, at(12 + 1 / 6))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * (2 + 2)


async def test_a_servers_clock_that_goes_back_counts_nothing_anew(db: Database) -> None:
    """Neither takes hours back, nor goes round in circles."""
    agent = await connected_agent(db, FIRST)
    await seen(agent, 6, 8)
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(8)), now=at(8))
    await observed(db, 12)
    await usage_account(db, 1, at(12))
    assert await usage_account(db, 1, at(2)) == 0
    assert (await report(db)).totals.allocated_gpu_hours == 16


async def test_a_round_in_the_future_hides_no_deletion(db: Database) -> None:
    """The machine's clock was 100 days ahead for a round, and set back."""
    agent = await connected_agent(db, FIRST)
    await seen(agent, 0, 8)
    await observed(db, 12)
    await usage_account(db, 1, at(24 * 100))
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(13)), now=at(13))
    await observed(db, 14)
    await usage_account(db, 1, at(14))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * 13


async def test_a_deletion_before_all_that_is_known_ends_the_account(db: Database) -> None:
    agent = await connected_agent(db, FIRST)
    await seen(agent, 6, 8)
    await observed(db, 12)
    await usage_account(db, 1, at(12))
    async with db.transaction(1) as connection:
        await connection.execute("UPDATE workload SET deleted_at = $1", at(5))
    assert await usage_account(db, 1, at(12)) == 1
    assert await usage_account(db, 1, at(12)) == 0
    assert (await report(db)).totals.allocated_gpu_hours == 0


@pytest.mark.parametrize("ahead", [-2.0, -0.01, 0.0, 0.01, 2.0])
async def test_an_agents_wrong_clock_changes_no_sum(db: Database, ahead: float) -> None:
    """Eight GPUs for two hours, four for one, by an agent whose clock is so many hours ahead."""
    agent = await connected_agent(db, FIRST)
    for hours, gpus in ((4, 8), (6, 4)):
        reported = upsert(held(1, gpus), observed_at=at(hours + ahead))
        await agent.send(reported, now=at(hours))
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(7 + ahead)), now=at(7))
    await observed(db, 12)
    await usage_account(db, 1, at(12))
    assert (await report(db)).totals.allocated_gpu_hours == pytest.approx(20, abs=1e-5)


async def test_a_clock_that_is_set_right_ends_no_record(db: Database) -> None:
    """It was two hours ahead; what is seen with the right time is newer all the same."""
    agent = await connected_agent(db, FIRST)
    await agent.send(upsert(held(1, 8), observed_at=at(6)), now=at(4))
    await agent.send(upsert(held(1, 2), observed_at=at(5)), now=at(5))
    await observed(db, 8 + 1 / 6)
    await usage_account(db, 1, at(8 + 1 / 6))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * 1 + 2 * 3


async def test_a_tenants_usage_is_its_own(db: Database) -> None:
    async with db.acquire(0) as connection:
        await connection.execute("INSERT INTO tenant (id, name) VALUES (2, 'second')")
    mine = await connected_agent(db, FIRST)
    theirs = await connected_agent(db, FIRST, number=2, tenant_id=2)
    for agent, gpus in ((mine, 8), (theirs, 2)):
        await seen(agent, 0, gpus)
        await agent.send(Delete(id=UUID(int=1), deleted_at=at(5)), now=at(5))
        async with db.transaction(agent.identity.tenant_id) as connection:
            await connection.execute("DELETE FROM cluster_gap")
            await connection.execute("UPDATE cluster SET last_contact_at = $1", at(10))
        await usage_account(db, agent.identity.tenant_id, at(10))
    for tenant_id, hours in ((1, 40), (2, 10)):
        page = await report(db, "owner", scope=Scope(tenant_id, is_whole_tenant=True))
        assert [row.allocated_gpu_hours for row in page.rows] == [hours]


async def test_an_agent_takes_back_the_gaps_of_its_own_cluster_alone(db: Database) -> None:
    """And of these what lies after the moment from which it says that it observed."""
    agents = [await connected_agent(db, FIRST, number=number) for number in (1, 2)]
    for number, agent in enumerate(agents, 1):
        await agent.send(upsert(held(number, 8), observed_at=FIRST), now=FIRST)
        await agent.hello(at(10))
    beat = Heartbeat(stream_id=agents[0].stream_id, seq=0, unbroken_seconds=4 * 3600)
    await heartbeat_apply(db, agents[0].identity, beat, at(10))
    async with db.transaction(1) as connection:
        await connection.execute("UPDATE cluster SET last_contact_at = $1", at(10 + 1 / 6))
    await usage_account(db, 1, at(10 + 1 / 6))
    page = await report(db, "cluster")
    assert [
        (row.group["cluster"], row.allocated_gpu_hours, row.gap_gpu_hours) for row in page.rows
    ] == [("cluster-1", 32, 48), ("cluster-2", 0, 80)]


async def test_who_has_the_id_of_another_clusters_workload_changes_nothing_of_its_past(
    db: Database,
) -> None:
    """The workload is deleted, so another cluster may have its id; what it used stays what it was."""
    owner, hostile = [await connected_agent(db, FIRST, number=number) for number in (1, 2)]
    await seen(owner, 0, 8)
    await owner.send(Delete(id=UUID(int=1), deleted_at=at(10)), now=at(10))
    await observed(db, 24)
    await usage_account(db, 1, at(24))
    stolen = upsert(held(1, 0), observed_at=at(1))
    stolen = replace(stolen, steps=(held(1, 1).step(at(2)), held(1, 0).step(at(3))))
    await hostile.send(stolen, now=at(30))
    await observed(db, 40)
    await usage_account(db, 1, at(40))
    assert await hours_by(db, "cluster") == {("cluster-1",): 80}
    await seen(hostile, 41, 4)
    await observed(db, 50)
    await usage_account(db, 1, at(50))
    await assert_sums_are_those_of_the_days(db)


class Life:
    """A workload, its agent and what both lived through; the truth is added up minute by minute."""

    def __init__(
        self, db: Database, agent: Agent, begin: datetime, number: int, rng: random.Random
    ) -> None:
        self.db = db
        self.agent = agent
        self.begin = begin
        self.id = UUID(int=number)
        self.rng = rng
        self.pending = PendingChanges()
        self.minute = self.started = self.contact = 0
        self.is_connected = True
        self.held: tuple[int, str, str] | None = None
        self.last_reported: tuple[int, str, str] | None = None
        self.used: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.unreported: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.gap = 0

    @property
    def now(self) -> datetime:
        return self.begin + timedelta(minutes=self.minute)

    def passes(self, minutes: int) -> None:
        for minute in range(self.minute, self.minute + minutes):
            if self.held is not None:
                gpus, owner, project = self.held
                day = (self.begin + timedelta(minutes=minute)).date().isoformat()
                into = self.used if self.is_connected else self.unreported
                into[owner, project, day] += gpus
        self.minute += minutes

    def changes(self) -> None:
        owner = self.rng.choice(("ada@example.com", "grace@example.com"))
        self.held = (self.rng.choice((0, 1, 2, 8)), owner, self.rng.choice(("vision", "speech")))
        self.observe()

    def observe(self) -> None:
        assert self.held is not None
        gpus, owner, project = self.held
        made = held(self.id.int, gpus, submitted_by=owner, project_name=project)
        history = (Transition(phase=Phase.RUNNING, at=FIRST),)
        self.pending.update(str(self.id), Derived(made, history), self.now)

    def goes(self) -> None:
        self.held = None
        self.pending.delete(str(self.id), self.now)

    async def tell(self) -> None:
        """The agent is in contact, and tells all that waits."""
        async with self.db.transaction(1) as connection:
            await connection.execute(
                "UPDATE cluster SET last_contact_at = $2 WHERE id = $1",
                self.agent.identity.cluster_id,
                self.now,
            )
        while len(self.pending):
            prepared = self.pending.next_batch(
                max_workloads=10, max_bytes=10**8, derive=lambda _: None
            )
            reply = await self.agent.send(*prepared.items, now=self.now)
            assert reply.refused == ()
            self.pending.acknowledge(prepared, reply.refused)
        self.contact, self.last_reported = self.minute, self.held

    async def returns(self) -> None:
        """The agent that was cut off reaches the server."""
        self.is_connected = True
        for key, minutes in self.unreported.items():
            self.used[key] += minutes
        self.unreported.clear()
        await self.greet()

    async def restarts(self) -> None:
        """Another agent takes its place, which knows nothing of the time between."""
        self.is_connected, self.started = True, self.minute
        self.unreported.clear()
        self.gap += (self.last_reported[0] if self.last_reported else 0) * (
            self.minute - self.contact
        )
        self.pending = PendingChanges()
        contact, was_there = (
            self.begin + timedelta(minutes=self.contact),
            self.last_reported is not None,
        )
        if self.held is not None:
            self.observe()
        await self.greet()
        if self.held is None and was_there:
            gone = Delete(id=self.id, deleted_at=self.now, not_before=contact)
            await self.agent.send(gone, now=self.now)

    async def greet(self) -> None:
        await self.agent.hello(self.now)
        self.pending.reset_acknowledged()
        await self.tell()
        beat = Heartbeat(
            stream_id=self.agent.stream_id,
            seq=self.agent.seq,
            unbroken_seconds=60.0 * (self.minute - self.started),
        )
        await heartbeat_apply(self.db, self.agent.identity, beat, self.now)

    async def happens(self) -> None:
        """Anything that can happen now."""
        events = ["changes", "changes", "goes"] if self.held else ["changes"]
        events += ["cut off", "accounted"] if self.is_connected else ["returns", "restarts"]
        match self.rng.choice(events):
            case "changes":
                self.changes()
            case "goes":
                self.goes()
            case "cut off":
                self.is_connected = False
            case "accounted":
                await usage_account(self.db, 1, self.now)
                await assert_sums_are_those_of_the_days(self.db)
            case "returns":
                await self.returns()
            case _:
                await self.restarts()


HISTORIES = int(os.environ.get("WATCHBILL_HISTORIES", "4"))
EVENTS = 18


async def lived(db: Database, seed: int) -> Life:
    """Changes, deletions, returns, cut-offs, restarts and rounds of accounting in any order."""
    rng = random.Random(seed)
    begin = FIRST + timedelta(days=5 * seed)
    agent = await connected_agent(db, begin, number=seed + 1)
    life = Life(db, agent, begin, seed + 1, rng)
    for project in ("vision", "speech"):  # the server knows them
        life.held = (0, "ada@example.com", project)
        life.observe()
        life.passes(1)
        await life.tell()
    for _ in range(EVENTS):
        life.passes(rng.randrange(1, 400))
        if life.is_connected:
            await life.tell()
        await life.happens()
        if life.is_connected:
            await life.tell()
    life.passes(1)
    if not life.is_connected:
        await life.returns()
    if life.held is not None:
        life.goes()
    await life.tell()
    life.passes(11)
    await life.tell()
    return life


async def test_whatever_happens_the_days_add_up_to_what_was_held(db: Database) -> None:
    """Computed beside the server, minute by minute; and by one account of all as by rounds."""
    lives = [await lived(db, seed) for seed in range(HISTORIES)]
    end = max(life.now for life in lives)
    for when in ("by rounds", "anew"):
        await usage_account(db, 1, end)
        for seed, life in enumerate(lives):
            scope = Scope(1, cluster_ids=frozenset({life.agent.identity.cluster_id}))
            page = await report(db, "owner", "project", "day", days=5 * HISTORIES, scope=scope)
            minutes = {
                (row.group["owner"], row.group["project"], row.group["day"]): round(
                    row.allocated_gpu_hours * 60, 1
                )
                for row in page.rows
                if row.allocated_gpu_hours > 0.001
            }
            expected = {key: value for key, value in life.used.items() if value}
            assert minutes == expected, (seed, when)
            assert round(page.totals.gap_gpu_hours * 60, 1) == life.gap, (seed, when)
        await assert_sums_are_those_of_the_days(db)
        await usage_rebuild(db, 1)
    await usage_purge(db, 1, keep=timedelta(days=7), now=end)
    await assert_sums_are_those_of_the_days(db)

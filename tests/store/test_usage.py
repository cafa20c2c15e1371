"""Usage reports over three days with known arithmetic, whatever came when."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import record, upsert, workload
from watchbill import maintenance
from watchbill.prices import Prices
from watchbill.protocol import Delete
from watchbill.query import USAGE_SORTS, Scope, UsageQuery, parse_usage_filters
from watchbill.responses.usage import usage_table
from watchbill.store.postgres.database import Database
from watchbill.store.usage import accounting, day_limits, rounds
from watchbill.store.usage import report as reports
from watchbill.store.usage.accounting import usage_account, usage_begin, usage_purge
from watchbill.store.usage.report import UsagePage, usage_report
from watchbill.store.usage.rounds import usage_finish, usage_last_round, usage_rebuild
from watchbill.store.workloads.deletion import workload_purge
from watchbill.tabular import rows_as_csv
from watchbill.workload import Phase, gpu_millionths

FIRST = datetime(2026, 11, 20, tzinfo=UTC)
END = FIRST + timedelta(days=3)
ALL = Scope(1, is_whole_tenant=True)
THREE_DAYS = UsageQuery(start=FIRST.date(), end=END.date())


def at(hours: float) -> datetime:
    return FIRST + timedelta(hours=hours)


async def send_gpus(
    agent: Agent, hours: float, number: int, gpus: float, **members: object
) -> None:
    """A record that was seen and sent at `hours`."""
    phase = members.pop("phase", Phase.RUNNING)
    made = workload(
        number,
        gpus=gpus,
        phase=phase,
        k8s_phase=phase,
        created_at=FIRST,
        idle_allocated_gpus=members.pop("idle", 0.0),
        idle_gpus=0,
        **members,
    )
    await agent.send(upsert(made, (phase, at(hours)), observed_at=at(hours)), now=at(hours))  # type: ignore[arg-type]


async def watched(db: Database, *gaps: tuple[float, float]) -> None:
    """The cluster was observed all the time up to a little after the end, but for these gaps."""
    async with db.transaction(1) as connection:
        await connection.execute("DELETE FROM cluster_gap")
        for start, end in gaps:
            await connection.execute(
                "INSERT INTO cluster_gap SELECT 1, id, $1, $2 FROM cluster", at(start), at(end)
            )
        await connection.execute(
            "UPDATE cluster SET last_contact_at = $1", END + timedelta(minutes=10)
        )


async def report(
    db: Database, *groups: str, scope: Scope = ALL, prices: Prices | None = None
) -> UsagePage:
    query = UsageQuery(start=FIRST.date(), end=END.date(), groups=groups)
    return await usage_report(db, scope, query, prices, END)


async def story(db: Database) -> Agent:
    """Four workloads over three days; the cluster is unobserved from 30:00 to 31:00.

    1: 8 GPUs from 0:00, moved from vision to speech at 12:00, deleted at 36:00.
    2: half a GPU from 6:00 on, suspended from 24:00 to 48:00.
    3: asks for 16 from 20:00, gets them at 26:00, is preempted at 40:00 and waits on.
    4: one GPU from 0:00 on that nobody measures.
    """
    agent = await connected_agent(db, FIRST)
    await send_gpus(agent, 0, 1, 8)
    await send_gpus(agent, 0, 4, 1, idle=None)
    await send_gpus(agent, 6, 2, 0.5, project_name="nlp")
    await send_gpus(agent, 12, 1, 8, project_name="speech")
    await send_gpus(agent, 20, 3, 0, phase=Phase.PENDING, **asking(16))
    await send_gpus(agent, 24, 2, 0, project_name="nlp", phase=Phase.STOPPED)
    await send_gpus(agent, 26, 3, 16)
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(36)), now=at(36))
    await send_gpus(agent, 40, 3, 0, phase=Phase.PENDING, **asking(16))
    await send_gpus(agent, 48, 2, 0.5, project_name="nlp")
    await watched(db, (30, 31))
    return agent


def asking(gpus: float) -> dict[str, object]:
    return {"workload_requested_resources": workload(gpus=gpus).workload_requested_resources}


ALLOCATED = {
    ("vision", "2026-11-20"): 8 * 12 + 24,
    ("speech", "2026-11-20"): 8 * 12,
    ("nlp", "2026-11-20"): 0.5 * 18,
    ("vision", "2026-11-21"): 16 * 13 + 23,
    ("speech", "2026-11-21"): 8 * 11,
    ("vision", "2026-11-22"): 24,
    ("nlp", "2026-11-22"): 12,
}
"""GPU-hours by hand, without the hour that nobody saw."""


async def test_three_days_by_hand(db: Database) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    page = await report(db, "project", "day")
    result = {
        (row.group["project"], row.group["day"]): row.allocated_gpu_hours
        for row in page.rows
        if row.allocated_gpu_hours
    }
    assert result == ALLOCATED
    assert page.totals.allocated_gpu_hours == sum(ALLOCATED.values())
    assert page.totals.gap_gpu_hours == 8 + 16 + 1
    assert page.totals.pending_gpu_hours == 16 * (6 + 32)
    assert page.totals.unmeasured_gpu_hours == 71
    assert page.accounted_until == END
    assert page.recorded_since == date(2026, 11, 20)


async def test_rounds_add_up_to_one_account(db: Database) -> None:
    """Accounted hour by hour as it happened, the report is the same as accounted at once."""
    await story(db)
    for hour in range(1, 73):
        await usage_account(db, 1, at(hour) + timedelta(minutes=10, seconds=hour))
    by_rounds = await report(db, "workload", "day")
    assert await usage_rebuild(db, 1) > 0
    marked = await report(db, "workload", "day")
    assert (marked.rows, marked.accounted_until) == (by_rounds.rows, None), "until their turn comes"
    await usage_account(db, 1, END + timedelta(minutes=10))
    assert (await report(db, "workload", "day")).rows == by_rounds.rows
    await usage_account(db, 1, END + timedelta(minutes=10))
    assert (await report(db, "workload", "day")).rows == by_rounds.rows, "nothing counts twice"


async def test_a_round_that_began_before_all_is_forgotten_does_not_pass_for_all(
    db: Database,
) -> None:
    """Of two servers one is started with `--rebuild-usage` while the other accounts; what has ended long before
    is looked for once."""
    await story(db)
    end = END + timedelta(days=3)
    await usage_account(db, 1, end)
    before = await report(db, "workload", "day")
    last = await usage_last_round(db, 1)
    clusters = await usage_begin(db, 1, end, last)
    await usage_rebuild(db, 1)
    for cluster in clusters:
        while await cluster.step(db):
            pass
    await usage_finish(db, 1, end, last)
    assert (await report(db)).accounted_until is None
    last = await usage_last_round(db, 1)
    await usage_rebuild(db, 1)
    await usage_finish(db, 1, end, last)
    assert (await report(db)).accounted_until is None, "nor one that found nothing counted"
    await usage_account(db, 1, end)
    again = await report(db, "workload", "day")
    assert (again.rows, again.accounted_until) == (before.rows, before.accounted_until)


async def test_what_comes_late_is_counted_where_it_belongs(db: Database) -> None:
    agent = await connected_agent(db, FIRST)
    await send_gpus(agent, 0, 1, 8)
    await watched(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * 72
    late = workload(1, gpus=2, created_at=FIRST)
    await agent.send(upsert(late, observed_at=at(30)), now=END)
    await watched(db)
    await usage_account(db, 1, END + timedelta(minutes=15))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * 30 + 2 * 42
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(60)), now=END)
    await watched(db)
    await usage_account(db, 1, END + timedelta(minutes=20))
    assert (await report(db)).totals.allocated_gpu_hours == 8 * 30 + 2 * 30


async def test_sums_outlive_the_workload(db: Database) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    before = await report(db, "workload", "owner")
    assert await workload_purge(db, 1, keep=timedelta(0), now=END + timedelta(days=1)) == 1
    await usage_account(db, 1, END + timedelta(minutes=10))
    await usage_rebuild(db, 1)
    await usage_account(db, 1, END + timedelta(minutes=10))
    assert (await report(db, "workload", "owner")).rows == before.rows
    assert await usage_purge(db, 1, keep=timedelta(days=400), now=END) == 0
    assert await usage_purge(db, 1, keep=timedelta(days=1), now=END) > 0
    days = {row.group["day"] for row in (await report(db, "day")).rows}
    assert days == {"2026-11-22"}


async def test_money_only_where_there_is_a_price(db: Database) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    hours = sum(ALLOCATED.values())
    assert (await report(db)).totals.cost is None
    priced = await report(db, prices=Prices(currency="EUR", node_pools={"a100": 2.5}))
    assert priced.totals.cost == pytest.approx(2.5 * hours)
    assert priced.totals.unpriced_gpu_hours == 0
    other = await report(db, prices=Prices(currency="EUR", node_pools={"h100": 9}))
    assert (other.totals.cost, other.totals.unpriced_gpu_hours) == (None, hours)


async def send_models(agent: Agent, hours: float, models: dict[str, float]) -> None:
    made = workload(
        1, gpus=sum(models.values()), created_at=FIRST, idle_allocated_gpus=0.0, idle_gpus=0
    )
    shares = {name: gpu_millionths(gpus) for name, gpus in models.items()}
    item = upsert(record(made, gpu_millionths_by_model=shares), observed_at=at(hours))
    await agent.send(item, now=at(hours))


async def test_hours_and_money_by_model(db: Database) -> None:
    """Six A100 and two H100 for ten hours, then eight H100 for ten; two hours of them unobserved."""
    agent = await connected_agent(db, FIRST)
    await send_models(agent, 0, {"A100": 6, "H100": 2})
    await send_models(agent, 10, {"H100": 8})
    await agent.send(Delete(id=UUID(int=1), deleted_at=at(20)), now=at(20))
    await watched(db, (18, 20))
    await usage_account(db, 1, END + timedelta(minutes=10))
    prices = Prices(currency="EUR", gpu_hour=1, gpu_models={"H100": 3})
    page = await report(db, "gpuModel", "month", prices=prices)
    assert [
        (row.group["gpuModel"], row.allocated_gpu_hours, row.gap_gpu_hours, row.cost)
        for row in page.rows
    ] == [("H100", 2 * 10 + 8 * 8, 16, 3 * 84), ("A100", 60, 0, 60)]
    assert (await report(db, "day", prices=prices)).totals.cost == 3 * 84 + 60
    pools = Prices(currency="EUR", gpu_models={"H100": 3}, node_pools={"a100": 2})
    assert (await report(db, prices=pools)).totals.cost == 2 * 144, "the pool's price wins"


@pytest.mark.parametrize(
    "models",
    [
        {"H100": 7_000_000},
        {"H100": 9_000_000, "A100": -1_000_000},
        {f"model-{number}": 8_000_000 // 250 for number in range(250)},
        {"x" * 64: 8_000_000},
    ],
)
async def test_models_that_cannot_be_are_left_out(db: Database, models: dict[str, int]) -> None:
    agent = await connected_agent(db, FIRST)
    made = workload(1, gpus=8, created_at=FIRST)
    item = upsert(record(made, gpu_millionths_by_model=models), observed_at=at(0))
    await agent.send(item, now=at(0))
    await watched(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    page = await report(db, "gpuModel")
    assert [(row.group["gpuModel"], row.allocated_gpu_hours) for row in page.rows] == [
        (None, 8 * 72)
    ]


async def test_who_gives_a_pod_another_owner_later_takes_nothing_out_of_the_accounts(
    db: Database,
) -> None:
    """The agent tells that it never was a workload of its own: what it used for hours stays."""
    agent = await connected_agent(db, FIRST)
    await send_gpus(agent, 0, 1, 8)
    await send_gpus(agent, 0, 2, 1)
    await watched(db)
    await usage_account(db, 1, at(40))
    before = (await report(db, "workload")).rows
    never = Delete(id=UUID(int=1), deleted_at=at(41), never_existed=True)
    await agent.send(never, now=at(41))
    await watched(db)
    assert (await report(db, "workload")).rows == before
    assert {row.group["workload"] for row in before} == {workload(1).name, workload(2).name}


async def test_so_many_models_of_a_day_are_distinguished(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent invents one with every step; no GPU-hour is lost by that, whatever the rounds."""
    monkeypatch.setattr(day_limits, "MAX_DAY_MODELS", 3)
    agent = await connected_agent(db, FIRST)
    made = workload(1, gpus=2, created_at=FIRST)
    for hour in range(12):
        entry = record(made, gpu_millionths_by_model={f"model-{hour % 8}": 2_000_000})
        await agent.send(upsert(entry, observed_at=at(hour)), now=at(hour))
        await watched(db)
        await usage_account(db, 1, at(hour) + timedelta(minutes=30))
    await usage_account(db, 1, END + timedelta(minutes=10))
    page = await report(db, "gpuModel", "day")
    first = min(str(row.group["day"]) for row in page.rows)
    hours = {
        row.group["gpuModel"]: row.allocated_gpu_hours
        for row in page.rows
        if row.group["day"] == first
    }
    assert set(hours) == {"model-0", "model-1", "model-2", "other"}
    assert page.totals.allocated_gpu_hours == 2 * 72


async def test_the_lines_of_the_csv_add_up(db: Database) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    page = await report(db, "owner", "project", "week")
    text = rows_as_csv(usage_table(("owner", "project", "week"), page.rows)).decode()
    lines = list(csv.DictReader(io.StringIO(text)))
    assert {line["week"] for line in lines} == {"2026-11-16"}
    total = sum(float(line["allocatedGpuHours"]) for line in lines)
    assert total == page.totals.allocated_gpu_hours


async def test_filters_and_pages(db: Database) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))

    async def asked(*filters: str, **members: object) -> UsagePage:
        query = UsageQuery(
            start=date(2026, 11, 20),
            end=date(2026, 11, 23),
            groups=("project",),
            predicates=parse_usage_filters(list(filters)),
            **members,  # type: ignore[arg-type]
        )
        return await usage_report(db, ALL, query, None, END)

    two = await asked("project==vision", "project==nlp")
    assert {row.group["project"] for row in two.rows} == {"vision", "nlp"}
    others = await asked("project!=vision")
    assert {row.group["project"] for row in others.rows} == {"nlp", "speech"}
    assert (await asked("owner=@EXAMPLE")).totals == (await asked()).totals
    first = await asked(limit=2)
    rest = await asked(limit=2, offset=first.next_offset)
    named = [row.group["project"] for row in (*first.rows, *rest.rows)]
    assert named == ["vision", "speech", "nlp"]
    assert rest.next_offset is None
    pending = await asked(sort_by="pendingGpuHours")
    assert [row.group["project"] for row in pending.rows] == ["vision", "nlp", "speech"]
    for figure in USAGE_SORTS:
        name = figure.replace("GpuHours", "_gpu_hours")
        values = [getattr(row, name) or 0 for row in (await asked(sort_by=figure)).rows]
        assert values == sorted(values, reverse=True), figure


async def test_a_scope_sees_its_own_alone(db: Database) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    async with db.acquire(1) as connection:
        speech = await connection.fetchval("SELECT id FROM project WHERE name = 'speech'")
    page = await report(db, "project", scope=Scope(1, project_ids=frozenset({speech})))
    assert {row.group["project"] for row in page.rows} == {"speech"}
    assert page.totals.allocated_gpu_hours == 8 * 23


@given(st.dates(date(2026, 9, 25), date(2026, 12, 5)), st.integers(1, 70))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
async def test_months_are_the_sums_of_their_days(db: Database, start: date, days: int) -> None:
    """Whatever the bounds: read from whole months where there are any, or day by day, it is the same."""
    async with db.acquire(1) as connection:
        is_there = await connection.fetchval("SELECT count(*) FROM usage_day")
    if not is_there:
        agent = await connected_agent(db, FIRST)
        await send_gpus(agent, -24 * 50, 1, 8)
        await send_gpus(agent, -24 * 20 + 5, 1, 3, project_name="speech")
        await watched(db)
        await usage_account(db, 1, END + timedelta(minutes=10))
    bounds = {"start": start, "end": start + timedelta(days=days)}
    by_month = await usage_report(db, ALL, UsageQuery(**bounds, groups=("project",)), None, END)
    by_day = await usage_report(db, ALL, UsageQuery(**bounds, groups=("project", "day")), None, END)
    assert by_month.totals == by_day.totals
    total = sum(row.allocated_gpu_hours for row in by_day.rows)
    assert by_month.totals.allocated_gpu_hours == pytest.approx(total, abs=1e-4)
    assert sum(row.allocated_gpu_hours for row in by_month.rows) == pytest.approx(total, abs=1e-4)


async def test_whole_clusters_are_the_sums_of_their_workloads(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports that name no project come from sums of whole clusters, also where days were forgotten."""
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    of_clusters = reports._OF_CLUSTERS
    prices = Prices(currency="EUR", gpu_hour=2.0)
    for keep in (timedelta(days=3), timedelta(days=2)):
        await usage_purge(db, 1, keep=keep, now=END)
        for groups in ((), ("day",), ("cluster", "month"), ("department", "gpuModel", "week")):
            monkeypatch.setattr(reports, "_OF_CLUSTERS", of_clusters)
            short = await report(db, *groups, prices=prices)
            monkeypatch.setattr(reports, "_OF_CLUSTERS", frozenset())
            assert short == await report(db, *groups, prices=prices)
            assert short.totals.allocated_gpu_hours > 0


async def test_a_report_by_day_reads_no_workloads(db: Database) -> None:
    """Whose size would be that of all projects on all days."""
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    async with db.transaction(1) as connection:
        await connection.execute("UPDATE usage_cluster_day SET allocated_gpu = 0")
    assert (await report(db, "day")).totals.allocated_gpu_hours == 0
    assert (await report(db, "project")).totals.allocated_gpu_hours == 0, "nor does a total"
    by_project = (await report(db, "project")).rows
    assert sum(row.allocated_gpu_hours for row in by_project) == sum(ALLOCATED.values())


async def test_what_an_agent_claims_beyond_measure_can_be_summed(db: Database) -> None:
    """A million GPUs, day after day, and idle for longer than there was time."""
    agent = await connected_agent(db, FIRST)
    fields = {"idleGpuHours": 9e11, "idleMeasuredSince": FIRST.isoformat()}
    for hours in (0.0, 7.0, 14.0):
        await send_gpus(agent, hours, 1, 1_000_000.0, additional_fields=fields | {"n": hours})
        await watched(db)
        await usage_account(db, 1, at(hours + 8))
    await usage_account(db, 1, END + timedelta(minutes=10))
    assert (await report(db)).totals.allocated_gpu_hours > 0


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
async def test_however_few_rows_are_read_at_once_the_sums_are_the_same(
    db: Database, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    at_once = (await report(db, "workload", "project", "day")).rows
    await usage_rebuild(db, 1)
    monkeypatch.setattr(accounting, "STEP_ROWS", rows)
    monkeypatch.setattr(accounting, "BATCH_ROWS", 3)
    await usage_account(db, 1, END + timedelta(minutes=10))
    assert (await report(db, "workload", "project", "day")).rows == at_once


async def test_a_cluster_with_more_than_there_is_time_for_delays_no_other(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cluster's steps take turns; what there was no time for goes on in the next round."""
    monkeypatch.setattr(accounting, "BATCH_ROWS", 2)
    hostile, other = [await connected_agent(db, FIRST, number=number) for number in (1, 2)]
    for number in range(1, 41):
        await send_gpus(hostile, 0, number, 1)
    await send_gpus(other, 0, 100, 1)
    await watched(db)
    turns: list[UUID] = []
    step = accounting.ClusterAccount.step

    async def counted(cluster: accounting.ClusterAccount, db: Database) -> bool:
        turns.append(cluster.cluster_id)
        return await step(cluster, db)

    monkeypatch.setattr(accounting.ClusterAccount, "step", counted)
    rounds = maintenance.UsageRounds(seconds=20, share=1, elapsed=lambda: float(len(turns)))

    async def hours(cluster_id: UUID) -> float:
        scope = Scope(1, cluster_ids=frozenset({cluster_id}))
        return float((await report(db, scope=scope)).totals.allocated_gpu_hours)

    await rounds.run(db, END + timedelta(minutes=10))
    ours, theirs = other.identity.cluster_id, hostile.identity.cluster_id
    assert turns.index(ours) <= 1
    assert await hours(ours) == 72
    done = await hours(theirs)
    assert 0 < done < 40 * 72
    for _ in range(10):
        await rounds.run(db, END + timedelta(minutes=10))
    assert await hours(theirs) == 40 * 72


async def test_who_was_locked_out_does_not_say_that_all_is_accounted(db: Database) -> None:
    """Else deletions that the other server has not come to are looked for no more, and their hours are lost."""
    await story(db)
    much_later = END + timedelta(days=3)
    async with db.transaction(1) as other:
        await other.execute("SELECT pg_advisory_xact_lock($1, $2)", rounds.ACCOUNTING_LOCK, 1)
        await maintenance.UsageRounds(share=1).run(db, much_later)
        await usage_account(db, 1, much_later)
    assert (await report(db)).accounted_until is None
    await maintenance.UsageRounds(share=1).run(db, much_later)
    page = await report(db)
    assert page.accounted_until == much_later - accounting.SETTLED_AFTER
    assert page.totals.allocated_gpu_hours == sum(ALLOCATED.values())


async def test_a_month_whose_days_are_gone_has_no_row(db: Database) -> None:
    await story(db)
    await usage_account(db, 1, END + timedelta(minutes=10))
    month = UsageQuery(start=date(2026, 11, 1), end=date(2026, 12, 1), groups=("workload", "month"))
    assert len((await usage_report(db, ALL, month, None, END)).rows) == 4
    await usage_purge(db, 1, keep=timedelta(0), now=END)
    assert (await usage_report(db, ALL, month, None, END)).rows == ()
    async with db.acquire(1) as connection:
        for table in accounting._SUMS_OF_DAYS:
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table

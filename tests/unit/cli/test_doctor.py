"""What `doctor` makes of what it finds; against a whole server it is tried end to end."""

from datetime import UTC, datetime, timedelta
from unittest import mock
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.command_line import cluster, watchbill
from watchbill.cli.commands.doctor import (
    Finding,
    Outcome,
    _clock,
    _cluster,
    _rights,
    _storage,
    _version,
)
from watchbill.client import Client
from watchbill.errors import Forbidden
from watchbill.responses.access import Me, ReadScope
from watchbill.responses.fleet import Cluster

NOW = datetime.now(UTC)


def kind(name: str, state: str, group: str = "", message: str | None = None) -> dict[str, object]:
    since = NOW.isoformat()
    return {"group": group, "kind": name, "state": state, "since": since, "message": message}


def findings(**members: object) -> dict[str, Finding]:
    answer = msgspec.convert(cluster(**members), Cluster)
    return {finding.subject: finding for finding in _cluster(answer, NOW)}


@pytest.mark.parametrize(
    ("seconds", "outcome"),
    [(0, Outcome.OK), (4, Outcome.OK), (12, Outcome.WARN), (90, Outcome.FAIL)],
)
def test_clocks(seconds: int, outcome: Outcome) -> None:
    for sign in (1, -1):
        result = _clock(datetime.now(UTC) + sign * timedelta(seconds=seconds))
        assert result.outcome is outcome
        assert (result.advice is None) == (outcome is Outcome.OK)
    assert _clock(None).outcome is Outcome.WARN


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("connected", Outcome.OK),
        ("degraded", Outcome.WARN),
        ("disconnected", Outcome.FAIL),
        ("waiting", Outcome.WARN),
    ],
)
def test_clusters(state: str, outcome: Outcome) -> None:
    result = findings(state=state)["cluster"]
    assert result.outcome is outcome
    assert (result.advice is None) == (outcome is Outcome.OK)


def test_kinds_and_metrics() -> None:
    result = findings(
        kinds=[
            kind("Pod", "complete"),
            kind("RayJob", "forbidden", "ray.io", "rayjobs is forbidden"),
            kind("MPIJob", "absent", "kubeflow.org"),
            kind("gpu", "complete", "metrics"),
        ]
    )
    assert result["kinds"].outcome is Outcome.WARN
    assert "RayJob" in result["kinds"].what
    assert "MPIJob" not in result["kinds"].what
    assert result["metrics"] == Finding(Outcome.OK, "metrics", "west: measured by gpu")
    windowed = kind("gpu", "complete", "metrics") | {"idleAfterSeconds": 60.0}
    assert findings(kinds=[windowed])["metrics"].what.endswith("a GPU is idle after 1m without use")
    assert findings(kinds=[kind("Pod", "complete")])["kinds"].outcome is Outcome.OK
    polled = kind("RayJob", "complete", "ray.io", "cannot be watched, listed every 60 s: no right")
    late = findings(kinds=[kind("Pod", "complete"), polled])["kinds"]
    assert late.outcome is Outcome.WARN
    assert "RayJob. cannot be watched, listed every 60 s" in late.what
    still = findings(kinds=[kind("Pod", "listing"), kind("Job", "complete")])["kinds"]
    assert (still.outcome, "1 kind still" in still.what) == (Outcome.WARN, True)
    assert findings(kinds=[])["metrics"].outcome is Outcome.WARN
    failing = findings(kinds=[kind("gpu", "failing", "metrics", "2 of 3 do not answer")])["metrics"]
    assert (failing.outcome, "2 of 3" in failing.what) == (Outcome.WARN, True)
    many = findings(kinds=[kind("gpu", "complete", "metrics", "point the server at a Prometheus")])
    assert many["metrics"].outcome is Outcome.WARN
    assert many["metrics"].advice == "point the server at a Prometheus"


def test_versions_records_gaps_and_rights() -> None:
    assert _version("version", "the server", "9.9.9").outcome is Outcome.WARN
    gap = {
        "from": (NOW - timedelta(hours=2)).isoformat(),
        "to": (NOW - timedelta(hours=1)).isoformat(),
    }
    result = findings(
        agentVersion="9.9.9", refused=[{"id": str(UUID(int=1)), "reason": "no"}], gaps=[gap]
    )
    assert {"agent", "records", "gaps"} <= result.keys()
    assert _rights(me("1", "2")).what == "ada (wbc-1) reads 2 projects"
    assert _rights(me()).outcome is Outcome.WARN


def me(*project_ids: str) -> Me:
    return Me(
        subject="wbc-1",
        name="ada",
        kind="service-account",
        tenant_id=1,
        is_administrator=False,
        permissions=(),
        scope=ReadScope(tenant=False, cluster_ids=(), department_ids=(), project_ids=project_ids),
        version="0.1.0",
    )


async def test_no_server_at_all() -> None:
    environ = {
        "WATCHBILL_URL": "http://127.0.0.1:9",
        "WATCHBILL_CLIENT_ID": "x",
        "WATCHBILL_CLIENT_SECRET": "y",
    }
    outcome = await watchbill("doctor", environ=environ)
    assert outcome.code == 3
    assert outcome.out.startswith("fail  server      http://127.0.0.1:9: Cannot reach")


def test_how_much_is_stored_is_reported_before_records_are_rejected() -> None:
    limit = 10 * 2**30
    assert "storage" not in findings(storedBytes=7 * 2**30, storedBytesLimit=limit)
    assert "storage" not in findings(), "whoever sees a part of the cluster is told nothing"
    full = findings(storedBytes=9 * 2**30, storedBytesLimit=limit)["storage"]
    assert full.outcome is Outcome.WARN
    assert full.what.startswith("west: 9 GiB of 10 GiB are stored")
    assert "WATCHBILL_CLUSTER_STORED_BYTES" in (full.advice or "")


def test_clocks_of_agent_and_cluster() -> None:
    assert "clock" not in findings(agentClockAheadSeconds=2.0, clusterClockAheadSeconds=-4.0)
    result = findings(agentClockAheadSeconds=0.2, clusterClockAheadSeconds=-3_600.0)["clock"]
    assert result.outcome is Outcome.WARN
    assert result.what == "west: its API server's clock is 1h behind the server's"


def test_takeovers_are_named_for_a_day() -> None:
    for hours, is_named in ((1, True), (25, False)):
        at = (NOW - timedelta(hours=hours)).isoformat()
        assert ("agents" in findings(takeovers=9, lastTakeoverAt=at)) == is_named
    assert "agents" not in findings(takeovers=9), "from before there was a time"


def test_records_that_differed_are_reported() -> None:
    result = findings(digestMismatches=2)["records"]
    assert (result.outcome, "2 times" in result.what) == (Outcome.WARN, True)


GIB = 2**30


@pytest.mark.parametrize(
    ("free", "size", "table", "outcomes"),
    [
        (50 * GIB, 100 * GIB, GIB, [Outcome.OK, Outcome.OK]),
        (9 * GIB, 100 * GIB, GIB, [Outcome.WARN, Outcome.OK]),
        (GIB, 4 * GIB, GIB, [Outcome.WARN, Outcome.OK]),
        (50 * GIB, 100 * GIB, 101 * GIB, [Outcome.OK, Outcome.WARN]),
    ],
)
async def test_storage(free: int, size: int, table: int, outcomes: list[Outcome]) -> None:
    page = (
        f'# TYPE watchbill_table_bytes gauge\nwatchbill_table_bytes{{table="transition"}} 5\n'
        f'watchbill_table_bytes{{table="workload"}} {table}\n'
        f"# TYPE watchbill_disk_free_bytes gauge\nwatchbill_disk_free_bytes {free}\n"
        f"# TYPE watchbill_disk_size_bytes gauge\nwatchbill_disk_size_bytes {size}\n"
    )
    client = Client("http://127.0.0.1:9")
    with mock.patch.object(Client, "server_metrics", return_value=page):
        result = [finding async for finding in _storage(client)]
    assert [finding.outcome for finding in result] == outcomes
    assert "most of it in workload" in result[1].what
    with mock.patch.object(Client, "server_metrics", side_effect=Forbidden("no")):
        assert [finding async for finding in _storage(client)] == []


async def stored(**gauges: float | dict[str, float]) -> dict[str, Finding]:
    """What is reported of storage where `/metrics` has these, by subject."""
    lines = []
    for name, values in gauges.items():
        lines.append(f"# TYPE watchbill_{name} gauge")
        tables = values if isinstance(values, dict) else {"": values}
        for table, value in tables.items():
            label = f'{{table="{table}"}}' if table else ""
            lines.append(f"watchbill_{name}{label} {value}")
    page = "\n".join(lines) + "\n"
    with mock.patch.object(Client, "server_metrics", return_value=page):
        return {
            finding.subject: finding async for finding in _storage(Client("http://127.0.0.1:9"))
        }


@pytest.mark.parametrize(
    ("growth", "outcome", "words"),
    [
        (2 * GIB, Outcome.WARN, ", enough for 25 days at 2 GiB a day"),
        (GIB, Outcome.OK, ", enough for 50 days at 1 GiB a day"),
        (GIB // 100, Outcome.OK, ", enough for years at 10.2 MiB a day"),
        (0, Outcome.OK, " are free on the database's disk"),
        (-GIB, Outcome.OK, " are free on the database's disk"),
    ],
)
async def test_a_disk_lasts_for_so_many_days(growth: int, outcome: Outcome, words: str) -> None:
    result = await stored(
        disk_free_bytes=50 * GIB,
        disk_size_bytes=100 * GIB,
        table_growth_bytes_per_day={"workload": growth / 2, "workload_pod": growth / 2},
    )
    assert result["disk"].outcome is outcome
    assert result["disk"].what.endswith(words)
    assert (result["disk"].advice is None) == (outcome is Outcome.OK)


@pytest.mark.parametrize(("growth", "outcome"), [(GIB / 4, Outcome.OK), (GIB, Outcome.WARN)])
async def test_a_table_that_will_be_large_is_reported_a_month_before(
    growth: float, outcome: Outcome
) -> None:
    result = await stored(
        table_bytes={"workload": 90 * GIB, "audit_event": GIB},
        table_growth_bytes_per_day={"workload": growth, "audit_event": 2.0},
    )
    assert result["database"].outcome is outcome
    assert "; workload grows fastest, by " in result["database"].what


@pytest.mark.parametrize(
    ("age", "dead", "outcome", "words"),
    [
        (200_000_000, 99_999, Outcome.OK, "keeps up"),
        (200_000_000, 150_000, Outcome.WARN, "dead rows than live ones in workload"),
        (1_100_000_000, 0, Outcome.FAIL, "stops in 1047 million transactions"),
    ],
)
async def test_postgresqls_own_upkeep(age: int, dead: int, outcome: Outcome, words: str) -> None:
    result = await stored(
        database_transaction_id_age=age,
        table_dead_rows={"workload": dead, "audit_event": 200_000},
        table_rows={"workload": 120_000, "audit_event": 1_000_000},
    )
    assert result["vacuum"].outcome is outcome
    assert words in result["vacuum"].what

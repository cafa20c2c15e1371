"""`doctor`: looks at everything that a true answer depends on, and says of each what to do about it."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from watchbill import __version__
from watchbill.cli.connection.errors import FAILED, OK, UNREACHABLE
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.humanize import format_age, format_duration, plural
from watchbill.cli.output.terminal import safe
from watchbill.errors import Unauthenticated, Unavailable, WatchbillError

if TYPE_CHECKING:
    from watchbill.client import Client
    from watchbill.protocol import KindState
    from watchbill.responses.access import Me
    from watchbill.responses.fleet import Cluster

LOW_DISK_SHARE, LOW_DISK_BYTES = 0.1, 2 * 2**30
LARGE_TABLE_BYTES = 100 * 2**30
DAYS_AHEAD = 30
"""What will be too little, or too large, in so many days is shown now."""
MANY_DAYS = 1000
LATE_DEAD_ROWS, LATE_DEAD_SHARE = 100_000, 1.0
TRANSACTION_IDS = 2**31
LATE_TRANSACTIONS = 1_000_000_000
"""Autovacuum begins to freeze at 200 million."""
SKEW_WARN_SECONDS = 5
SKEW_FAIL_SECONDS = 30
"""Tokens are honoured for so long past their end, and no longer."""
SLOW_SECONDS = 1.0
BACKLOG_WARN = 1_000
GAP_WARN = timedelta(minutes=1)
"""Shorter ones are of agents that were started anew."""
_METRICS_ADVICE = (
    "use and idle GPUs are not known meanwhile; the agent needs nodes/proxy and pods/proxy for it "
    "(deploy/kubernetes/agent has them as a role of their own), and exporters that answer"
)


class Outcome(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


_COLOURS = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "red"}
_STATES = {
    "connected": Outcome.OK,
    "waiting": Outcome.WARN,
    "degraded": Outcome.WARN,
    "disconnected": Outcome.FAIL,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` is what to do; what is well needs none."""

    outcome: Outcome
    subject: str
    what: str
    advice: str | None = None


class _Unreachable(Exception):
    """Nothing more can be looked at."""


@server_command
async def doctor(session: CommandContext) -> None:
    """Check server, login, clocks, versions, clusters and metrics; each line is ok, warn or fail.

    Exit code: 0 if nothing fails (warnings do not count), 3 if the server or the login fails, else 1.
    """
    import typer

    terminal, outcomes, code = session.terminal, [], OK
    try:
        async for finding in _findings(session.client):
            outcomes.append(finding.outcome)
            word = terminal.coloured(f"{finding.outcome:<6}", _COLOURS[finding.outcome])
            terminal.print(f"{word}{finding.subject:<12}{safe(finding.what)}")
            if finding.advice:
                terminal.print(f"{'':<18}→ {safe(finding.advice)}")
        code = FAILED if Outcome.FAIL in outcomes else OK
    except _Unreachable:
        code = UNREACHABLE
    if code != OK:
        raise typer.Exit(code)


async def _findings(client: "Client") -> AsyncIterator[Finding]:
    for check in (_server, _login):
        async for finding in check(client):
            yield finding
            if finding.outcome is Outcome.FAIL and finding.subject in ("server", "login"):
                raise _Unreachable
    async for finding in _storage(client):
        yield finding
    try:
        clusters = await client.clusters()
    except WatchbillError as error:
        yield Finding(Outcome.FAIL, "clusters", error.message, error.details)
        return
    now = datetime.now(UTC)
    if not clusters:
        yield Finding(
            Outcome.WARN,
            "clusters",
            "no clusters visible to you",
            "register one: watchbill admin cluster create NAME",
        )
    for cluster in clusters:
        for finding in _cluster(cluster, now):
            yield finding


async def _server(client: "Client") -> AsyncIterator[Finding]:
    try:
        probe = await client.probe()
        await client.ready()
    except WatchbillError as error:
        advice = error.details or "is the address right, and `watchbill server` running there?"
        yield Finding(Outcome.FAIL, "server", f"{client.url}: {error.message}", advice)
        return
    is_slow = probe.seconds > SLOW_SECONDS
    yield Finding(
        Outcome.WARN if is_slow else Outcome.OK,
        "server",
        f"{client.url} answers in {probe.seconds * 1000:.0f} ms and reaches its database",
        "check the network path: proxies, distance, load" if is_slow else None,
    )
    yield _clock(probe.clock)


def _clock(server: datetime | None) -> Finding:
    if server is None:
        return Finding(Outcome.WARN, "clock", "the server sends no Date header")
    skew = abs((datetime.now(UTC) - server).total_seconds())
    apart = "in sync" if skew < 2 else f"{format_duration(skew)} apart"
    if skew <= SKEW_WARN_SECONDS:
        return Finding(Outcome.OK, "clock", f"this machine's clock and the server's are {apart}")
    outcome = Outcome.FAIL if skew > SKEW_FAIL_SECONDS else Outcome.WARN
    what = f"this machine's clock and the server's are {apart}"
    return Finding(outcome, "clock", what, "set the clock by NTP on both machines")


async def _login(client: "Client") -> AsyncIterator[Finding]:
    try:
        me = await client.me()
    except (Unauthenticated, Unavailable) as error:
        advice = error.details or "`watchbill --help` says where the login comes from"
        yield Finding(Outcome.FAIL, "login", error.message, advice)
        return
    except WatchbillError as error:
        yield Finding(Outcome.FAIL, "login", error.message, error.details)
        return
    yield _rights(me)
    yield _version("version", "the server", me.version)


async def _storage(client: "Client") -> AsyncIterator[Finding]:
    """What fills up, for whoever may read the server's metrics; nothing for others."""
    gauges: dict[str, dict[str, float]] = {}
    with contextlib.suppress(WatchbillError):
        for name, table, value in _gauges(await client.server_metrics()):
            gauges.setdefault(name, {})[table] = value
    growth = gauges.get("watchbill_table_growth_bytes_per_day", {})
    if free := gauges.get("watchbill_disk_free_bytes"):
        yield _disk(free[""], gauges["watchbill_disk_size_bytes"][""], sum(growth.values()))
    if sizes := gauges.get("watchbill_table_bytes"):
        yield _tables(sizes, growth)
    if age := gauges.get("watchbill_database_transaction_id_age"):
        dead, rows = (gauges[f"watchbill_table_{name}"] for name in ("dead_rows", "rows"))
        yield _vacuum(int(age[""]), dead, rows)


def _disk(free: float, size: float, growth_per_day: float) -> Finding:
    """Of the embedded database; others have disks that the server does not see."""
    from watchbill.cli.output.humanize import format_bytes

    what = f"{format_bytes(free)} of {format_bytes(size)} are free on the database's disk"
    is_short = free < max(LOW_DISK_SHARE * size, LOW_DISK_BYTES)
    if growth_per_day > 0:
        days = free / growth_per_day
        lasts = plural(int(days), "day") if days < MANY_DAYS else "years"
        what += f", enough for {lasts} at {format_bytes(growth_per_day)} a day"
        is_short |= days < DAYS_AHEAD
    advice = "enlarge it, free space there, or shorten what is kept (WATCHBILL_…_RETENTION_DAYS)"
    return Finding(
        Outcome.WARN if is_short else Outcome.OK, "disk", what, advice if is_short else None
    )


def _tables(sizes: dict[str, float], growth: dict[str, float]) -> Finding:
    from watchbill.cli.output.humanize import format_bytes

    largest = max(sizes, key=lambda table: sizes[table])
    total, most = format_bytes(sum(sizes.values())), format_bytes(sizes[largest])
    what = f"its tables have {total}, most of it in {largest} ({most})"
    fastest = max(growth, key=lambda table: growth[table], default="")
    if fastest and growth[fastest] > 0:
        fast = format_bytes(growth[fastest])
        what += f"; {fastest} grows fastest, by {fast} a day"
    is_large = any(
        size + DAYS_AHEAD * max(0.0, growth.get(table, 0.0)) > LARGE_TABLE_BYTES
        for table, size in sizes.items()
    )
    return Finding(
        Outcome.WARN if is_large else Outcome.OK,
        "database",
        what,
        "docs/operations.md says what grows and how long it is kept" if is_large else None,
    )


def _vacuum(age: int, dead_rows: dict[str, float], rows: dict[str, float]) -> Finding:
    """PostgreSQL's own upkeep: the room of rows that were changed, and transaction ids."""
    late = [
        table
        for table, dead in dead_rows.items()
        if dead > max(LATE_DEAD_ROWS, LATE_DEAD_SHARE * rows.get(table, 0.0))
    ]
    if age > LATE_TRANSACTIONS:
        left = TRANSACTION_IDS // 1_000_000 - age // 1_000_000
        what = f"PostgreSQL stops in {left} million transactions, since old rows are not frozen"
        advice = (
            "end transactions that have been open for days (pg_stat_activity), then VACUUM (FREEZE)"
        )
        return Finding(Outcome.FAIL, "vacuum", what, advice)
    if late:
        what = f"more dead rows than live ones in {', '.join(sorted(late))}"
        advice = "look for transactions that have been open for hours (pg_stat_activity), and at autovacuum"
        return Finding(Outcome.WARN, "vacuum", what, advice)
    return Finding(Outcome.OK, "vacuum", "autovacuum keeps up")


def _gauges(page: str) -> Iterator[tuple[str, str, float]]:
    """Name, table and value of each sample about storage."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(page):
        if family.name.startswith(("watchbill_table_", "watchbill_disk_", "watchbill_database_")):
            for sample in family.samples:
                yield sample.name, sample.labels.get("table", ""), sample.value


def _rights(me: "Me") -> Finding:
    scope, who = me.scope, f"{me.name} ({me.subject})"
    if scope.tenant:
        return Finding(Outcome.OK, "login", f"{who} reads everything")
    parts = [
        plural(len(ids), kind)
        for ids, kind in (
            (scope.cluster_ids, "cluster"),
            (scope.department_ids, "department"),
            (scope.project_ids, "project"),
        )
        if ids
    ]
    if parts:
        return Finding(Outcome.OK, "login", f"{who} reads {', '.join(parts)}")
    return Finding(
        Outcome.WARN,
        "login",
        f"{who} has no permission to read workloads",
        "ask an administrator for an access rule",
    )


def _version(subject: str, role: str, version: str) -> Finding:
    if version == __version__:
        return Finding(Outcome.OK, subject, f"{role} and this command are {version}")
    what = f"{role} is {version}, this command {__version__}"
    return Finding(Outcome.WARN, subject, what, "install the same version on both sides")


def _cluster(cluster: "Cluster", now: datetime) -> Iterator[Finding]:
    contact = cluster.last_contact_at
    contact_text = f"last contact {format_age(contact, now)} ago" if contact else "no contact yet"
    outcome = _STATES[cluster.state]
    yield Finding(
        outcome,
        "cluster",
        f"{cluster.name} is {cluster.state}, {contact_text}, {plural(cluster.workloads, 'workload')}",
        None if outcome is Outcome.OK else cluster.reason or _advice(cluster.state),
    )
    if cluster.state == "waiting":
        return
    yield from _kinds(cluster)
    yield from _problems(cluster, now)
    yield _metrics(cluster)


def _advice(state: str) -> str:
    if state == "waiting":
        return "start its agent: watchbill agent --server URL --credential FILE"
    return "look at the agent's log there, and whether it reaches this server"


def _kinds(cluster: "Cluster") -> Iterator[Finding]:
    from watchbill.metric_types import EXPORTER_GROUP

    kinds = [kind for kind in cluster.kinds if kind.group != EXPORTER_GROUP]
    for state, advice in (
        ("forbidden", "allow the agent to get, list and watch them (deploy/kubernetes/agent)"),
        ("failing", "the cluster's answer follows the kinds; the agent keeps retrying"),
    ):
        unreadable = [kind for kind in kinds if kind.state == state]
        if unreadable:
            names = ", ".join(kind.kind for kind in unreadable)
            what = f"{cluster.name}: {state}: {names}. {_message(unreadable)}".strip()
            yield Finding(Outcome.WARN, "kinds", what, advice)
    polled = [kind for kind in kinds if kind.state == "complete" and kind.message]
    if polled:
        names = ", ".join(kind.kind for kind in polled)
        what = f"{cluster.name}: changes arrive late: {names}. {_message(polled)}"
        yield Finding(Outcome.WARN, "kinds", what, "allow the agent to watch them")
    if listing := sum(1 for kind in kinds if kind.state == "listing"):
        what = f"{cluster.name}: {plural(listing, 'kind')} still being listed"
        yield Finding(Outcome.WARN, "kinds", what, "wait a moment and look again")
    elif not polled and not any(kind.state in ("forbidden", "failing") for kind in kinds):
        listed = sum(1 for kind in kinds if kind.state == "complete")
        yield Finding(Outcome.OK, "kinds", f"{cluster.name}: all {listed} kinds can be read")


def _message(kinds: "Iterable[KindState]") -> str:
    return next((kind.message for kind in kinds if kind.message), "")


def _problems(cluster: "Cluster", now: datetime) -> Iterator[Finding]:
    from watchbill.cli.commands.clusters import held_text, stored_text, takeover_text

    name = cluster.name
    if cluster.agent_version and cluster.agent_version != __version__:
        yield _version("agent", f"the agent of {name}", cluster.agent_version)
    if cluster.refused:
        count = plural(len(cluster.refused), "rejected record")
        what = f"{name}: {count}: {cluster.refused[0].reason}"
        yield Finding(Outcome.WARN, "records", what, "`watchbill clusters` lists them")
    if cluster.held_deletions:
        what = f"{name}: {held_text(cluster.held_deletions, name)}"
        yield Finding(Outcome.WARN, "deletions", what, "check whether they are really gone")
    if stored := stored_text(cluster):
        advice = "raise WATCHBILL_CLUSTER_STORED_BYTES, or keep deleted workloads for fewer days"
        yield Finding(Outcome.WARN, "storage", f"{name}: {stored}", advice)
    if taken_over := takeover_text(cluster, now):
        advice = "let one agent alone run with this cluster's credential"
        yield Finding(Outcome.WARN, "agents", f"{name}: {taken_over}", advice)
    if cluster.backlog > BACKLOG_WARN:
        what = f"{name}: {plural(cluster.backlog, 'workload')} with changes that wait to be sent"
        yield Finding(Outcome.WARN, "backlog", what, "look at the agent's log there")
    yield from _clocks(cluster)
    if cluster.digest_mismatches:
        times = plural(cluster.digest_mismatches, "time")
        what = f"{name}: agent and server held different records {times}; inventories repaired it"
        yield Finding(Outcome.WARN, "records", what, "if the number grows, look at both logs")
    recent = [
        gap
        for gap in cluster.gaps
        if now - gap.to_at < timedelta(days=1) and gap.to_at - gap.from_at >= GAP_WARN
    ]
    if recent:
        count = plural(len(recent), "gap")
        what = f"{name}: {count} of a minute or more in the last day: short workloads may have been missed"
        advice = "keep the agent running, one replica of it; restoring a backup leaves one, too"
        yield Finding(Outcome.WARN, "gaps", what, advice)


def _clocks(cluster: "Cluster") -> Iterator[Finding]:
    for clock, ahead in (
        ("the agent's", cluster.agent_clock_ahead_seconds),
        ("its API server's", cluster.cluster_clock_ahead_seconds),
    ):
        if ahead is not None and abs(ahead) > SKEW_WARN_SECONDS:
            side = "ahead of" if ahead > 0 else "behind"
            what = f"{cluster.name}: {clock} clock is {format_duration(abs(ahead))} {side} the server's"
            yield Finding(Outcome.WARN, "clock", what, "set the clock by NTP on both machines")


def _metrics(cluster: "Cluster") -> Finding:
    from watchbill.metric_types import EXPORTER_GROUP

    name = cluster.name
    sources = [kind for kind in cluster.kinds if kind.group == EXPORTER_GROUP]
    read = [kind.kind for kind in sources if kind.state == "complete"]
    unreadable = [kind for kind in sources if kind.state in ("forbidden", "failing")]
    if unreadable:
        names = ", ".join(kind.kind for kind in unreadable)
        what = f"{name}: {names} cannot be read. {_message(unreadable)}".strip()
        return Finding(Outcome.WARN, "metrics", what, _METRICS_ADVICE)
    if read and (message := _message(sources)):
        return Finding(Outcome.WARN, "metrics", f"{name}: measured by {', '.join(read)}", message)
    if read:
        window = next((kind.idle_after_seconds for kind in sources if kind.idle_after_seconds), 0)
        idle = f"; a GPU is idle after {format_duration(window)} without use" if window else ""
        return Finding(Outcome.OK, "metrics", f"{name}: measured by {', '.join(read)}{idle}")
    return Finding(
        Outcome.WARN,
        "metrics",
        f"{name}: nothing is measured",
        "install a GPU exporter (dcgm-exporter) for use and idle GPUs",
    )

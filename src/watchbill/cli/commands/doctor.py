"""`doctor`: looks at everything that a true answer depends on, and says of each what to do about it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from watchbill import __version__
from watchbill.cli.connection.errors import FAILED, OK, UNREACHABLE
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import JSON
from watchbill.cli.output.humanize import format_age, format_duration, plural
from watchbill.cli.output.terminal import safe
from watchbill.errors import Unauthenticated, Unavailable, WatchbillError
from watchbill.metric_types import EXPORTER_GROUP

if TYPE_CHECKING:
    from watchbill.client import Client

SKEW_WARN_SECONDS = 5
SKEW_FAIL_SECONDS = 30
"""Tokens are honoured for so long past their end, and no longer."""
SLOW_SECONDS = 1.0
_METRICS_ADVICE = (
    "use and idle GPUs are not known meanwhile; the agent needs nodes/proxy and pods/proxy for it "
    "(deploy/kubernetes/agent has them as a role of their own), and exporters that answer"
)
"""The group of what an agent scrapes, beside the groups of Kubernetes."""


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

    verdict: Outcome
    what: str
    said: str
    advice: str | None = None


class _Unreachable(Exception):
    """Nothing more can be looked at."""


@server_command
async def doctor(session: CommandContext) -> None:
    """Check server, login, clocks, versions, clusters and metrics; each line is ok, warn or fail.

    Ends with 0 where nothing fails (warnings do not), 3 where the server or the login does, else with 1.
    """
    import typer

    terminal, verdicts, code = session.terminal, [], OK
    try:
        async for finding in _findings(session.client):
            verdicts.append(finding.verdict)
            word = terminal.coloured(f"{finding.verdict:<6}", _COLOURS[finding.verdict])
            terminal.print(f"{word}{finding.what:<12}{safe(finding.said)}")
            if finding.advice:
                terminal.print(f"{'':<18}→ {safe(finding.advice)}")
        code = FAILED if Outcome.FAIL in verdicts else OK
    except _Unreachable:
        code = UNREACHABLE
    if code != OK:
        raise typer.Exit(code)


async def _findings(client: "Client") -> AsyncIterator[Finding]:
    for check in (_server, _login):
        async for finding in check(client):
            yield finding
            if finding.verdict is Outcome.FAIL and finding.what in ("server", "login"):
                raise _Unreachable
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
    told = "in sync" if skew < 2 else f"{format_duration(skew)} apart"
    if skew <= SKEW_WARN_SECONDS:
        return Finding(Outcome.OK, "clock", f"this machine's clock and the server's are {told}")
    verdict = Outcome.FAIL if skew > SKEW_FAIL_SECONDS else Outcome.WARN
    said = f"this machine's clock and the server's are {told}"
    return Finding(verdict, "clock", said, "set the clock by NTP on both machines")


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
    yield _version("version", "the server", me["version"])


def _rights(me: JSON) -> Finding:
    scope = me["scope"]
    who = f"{me['name']} ({me['subject']})"
    if scope["tenant"]:
        return Finding(Outcome.OK, "login", f"{who} reads everything")
    parts = [
        plural(len(scope[member]), word)
        for member, word in (
            ("clusterIds", "cluster"),
            ("departmentIds", "department"),
            ("projectIds", "project"),
        )
        if scope[member]
    ]
    if parts:
        return Finding(Outcome.OK, "login", f"{who} reads {', '.join(parts)}")
    return Finding(
        Outcome.WARN,
        "login",
        f"{who} has no permission to read workloads",
        "ask an administrator for an access rule",
    )


def _version(what: str, whose: str, version: str) -> Finding:
    if version == __version__:
        return Finding(Outcome.OK, what, f"{whose} and this command are {version}")
    said = f"{whose} is {version}, this command {__version__}"
    return Finding(Outcome.WARN, what, said, "install the same version on both sides")


def _cluster(cluster: JSON, now: datetime) -> Iterator[Finding]:
    name, state = cluster["name"], cluster["state"]
    contact = cluster.get("lastContactAt")
    heard = f"last contact {format_age(contact, now)} ago" if contact else "no contact yet"
    verdict = _STATES.get(state, Outcome.WARN)
    yield Finding(
        verdict,
        "cluster",
        f"{name} is {state}, {heard}, {plural(cluster['workloads'], 'workload')}",
        None if verdict is Outcome.OK else _advice(state),
    )
    if state == "waiting":
        return
    yield from _kinds(cluster)
    yield from _problems(cluster, now)
    yield _metrics(cluster)


def _advice(state: str) -> str:
    if state == "waiting":
        return "start its agent: watchbill agent --server URL --credential FILE"
    return "look at the agent's log there, and whether it reaches this server"


def _kinds(cluster: JSON) -> Iterator[Finding]:
    kinds = [one for one in cluster.get("kinds") or [] if one["group"] != EXPORTER_GROUP]
    for state, advice in (
        ("forbidden", "allow the agent to get, list and watch them (deploy/kubernetes/agent)"),
        ("failing", "the cluster's answer follows the kinds; the agent keeps retrying"),
    ):
        found = [one for one in kinds if one["state"] == state]
        if found:
            names = ", ".join(one["kind"] for one in found)
            message = next((one["message"] for one in found if one.get("message")), "")
            said = f"{cluster['name']}: {state}: {names}. {message}".strip()
            yield Finding(Outcome.WARN, "kinds", said, advice)
    if listing := sum(1 for one in kinds if one["state"] == "listing"):
        said = f"{cluster['name']}: {plural(listing, 'kind')} still being listed"
        yield Finding(Outcome.WARN, "kinds", said, "wait a moment and look again")
    elif not any(one["state"] in ("forbidden", "failing") for one in kinds):
        listed = sum(1 for one in kinds if one["state"] == "complete")
        yield Finding(Outcome.OK, "kinds", f"{cluster['name']}: all {listed} kinds can be read")


def _problems(cluster: JSON, now: datetime) -> Iterator[Finding]:
    name = cluster["name"]
    version = cluster.get("agentVersion")
    if version and version != __version__:
        yield _version("agent", f"the agent of {name}", version)
    if refused := cluster.get("refused"):
        said = f"{name}: {plural(len(refused), 'rejected record')}: {refused[0]['reason']}"
        yield Finding(Outcome.WARN, "records", said, "`watchbill clusters` lists them")
    recent = [one for one in cluster.get("gaps") or [] if _is_recent(one["to"], now)]
    if recent:
        said = f"{name}: {plural(len(recent), 'gap')} in the last day: short workloads may have been missed"
        yield Finding(Outcome.WARN, "gaps", said, "keep the agent running, one replica of it")


def _is_recent(instant: str, now: datetime) -> bool:
    return now - datetime.fromisoformat(instant) < timedelta(days=1)


def _metrics(cluster: JSON) -> Finding:
    name = cluster["name"]
    sources = [one for one in cluster.get("kinds") or [] if one["group"] == EXPORTER_GROUP]
    read = [one["kind"] for one in sources if one["state"] == "complete"]
    bad = [one for one in sources if one["state"] in ("forbidden", "failing")]
    if bad:
        message = next((one["message"] for one in bad if one.get("message")), "")
        said = f"{name}: {', '.join(one['kind'] for one in bad)} cannot be read. {message}".strip()
        return Finding(Outcome.WARN, "metrics", said, _METRICS_ADVICE)
    noted = next((one["message"] for one in sources if read and one.get("message")), None)
    if noted:
        return Finding(Outcome.WARN, "metrics", f"{name}: measured by {', '.join(read)}", noted)
    if read:
        window = next(
            (one["idleAfterSeconds"] for one in sources if one.get("idleAfterSeconds")), 0
        )
        idle = f"; a GPU is idle after {format_duration(window)} without use" if window else ""
        return Finding(Outcome.OK, "metrics", f"{name}: measured by {', '.join(read)}{idle}")
    return Finding(
        Outcome.WARN,
        "metrics",
        f"{name}: nothing is measured",
        "install a GPU exporter (dcgm-exporter) for use and idle GPUs",
    )

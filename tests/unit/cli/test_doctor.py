"""What `doctor` makes of what it finds; against a whole server it is tried end to end."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.fixtures.command_line import cluster, watchbill
from watchbill.cli.commands.doctor import Finding, Outcome, _clock, _cluster, _rights, _version

NOW = datetime.now(UTC)


def kind(name: str, state: str, group: str = "", message: str | None = None) -> dict[str, object]:
    return {"group": group, "kind": name, "state": state, "since": "", "message": message}


def told(**members: object) -> dict[str, Finding]:
    return {finding.what: finding for finding in _cluster(cluster(**members), NOW)}


@pytest.mark.parametrize(
    ("seconds", "verdict"),
    [(0, Outcome.OK), (4, Outcome.OK), (12, Outcome.WARN), (90, Outcome.FAIL)],
)
def test_clocks(seconds: int, verdict: Outcome) -> None:
    for sign in (1, -1):
        found = _clock(datetime.now(UTC) + sign * timedelta(seconds=seconds))
        assert found.verdict is verdict
        assert (found.advice is None) == (verdict is Outcome.OK)
    assert _clock(None).verdict is Outcome.WARN


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        ("connected", Outcome.OK),
        ("degraded", Outcome.WARN),
        ("disconnected", Outcome.FAIL),
        ("waiting", Outcome.WARN),
    ],
)
def test_clusters(state: str, verdict: Outcome) -> None:
    found = told(state=state)["cluster"]
    assert found.verdict is verdict
    assert (found.advice is None) == (verdict is Outcome.OK)


def test_kinds_and_metrics() -> None:
    found = told(
        kinds=[
            kind("Pod", "complete"),
            kind("RayJob", "forbidden", "ray.io", "rayjobs is forbidden"),
            kind("MPIJob", "absent", "kubeflow.org"),
            kind("gpu", "complete", "metrics"),
        ]
    )
    assert found["kinds"].verdict is Outcome.WARN
    assert "RayJob" in found["kinds"].said
    assert "MPIJob" not in found["kinds"].said
    assert found["metrics"] == Finding(Outcome.OK, "metrics", "west: measured by gpu")
    windowed = kind("gpu", "complete", "metrics") | {"idleAfterSeconds": 60.0}
    assert told(kinds=[windowed])["metrics"].said.endswith("a GPU is idle after 1m without use")
    assert told(kinds=[kind("Pod", "complete")])["kinds"].verdict is Outcome.OK
    still = told(kinds=[kind("Pod", "listing"), kind("Job", "complete")])["kinds"]
    assert (still.verdict, "1 kind still" in still.said) == (Outcome.WARN, True)
    assert told(kinds=[])["metrics"].verdict is Outcome.WARN
    failing = told(kinds=[kind("gpu", "failing", "metrics", "2 of 3 do not answer")])["metrics"]
    assert (failing.verdict, "2 of 3" in failing.said) == (Outcome.WARN, True)
    many = told(kinds=[kind("gpu", "complete", "metrics", "point the server at a Prometheus")])
    assert many["metrics"].verdict is Outcome.WARN
    assert many["metrics"].advice == "point the server at a Prometheus"


def test_versions_records_gaps_and_rights() -> None:
    assert _version("version", "the server", "9.9.9").verdict is Outcome.WARN
    gap = {
        "from": (NOW - timedelta(hours=2)).isoformat(),
        "to": (NOW - timedelta(hours=1)).isoformat(),
    }
    found = told(agentVersion="9.9.9", refused=[{"id": "x", "reason": "no"}], gaps=[gap])
    assert {"agent", "records", "gaps"} <= found.keys()
    scope = {"tenant": False, "clusterIds": [], "departmentIds": [], "projectIds": ["1", "2"]}
    me = {"name": "ada", "subject": "wbc-1", "scope": scope}
    assert _rights(me).said == "ada (wbc-1) reads 2 projects"
    assert _rights(me | {"scope": scope | {"projectIds": []}}).verdict is Outcome.WARN


async def test_no_server_at_all() -> None:
    environ = {
        "WATCHBILL_URL": "http://127.0.0.1:9",
        "WATCHBILL_CLIENT_ID": "x",
        "WATCHBILL_CLIENT_SECRET": "y",
    }
    outcome = await watchbill("doctor", environ=environ)
    assert outcome.code == 3
    assert outcome.out.startswith("fail  server      http://127.0.0.1:9: Cannot reach")

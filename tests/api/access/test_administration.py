"""Administration over its operations and the command line, the audit log, and the keys' change."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import yaml

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database, running_server
from tests.fixtures.identity.oidc_site import ran
from tests.fixtures.records import record, upsert, workload
from tests.fixtures.serving import SETTINGS, Answer, Served, fill, serving
from watchbill.access.audit import Audit
from watchbill.api.app import build_app
from watchbill.errors import Unavailable
from watchbill.store.identity.audit import AuditEvent, AuditQuery, audit_list, audit_purge

ADMIN = "/api/v1/admin"


async def post(served: Served, path: str, body: Any = None, **options: Any) -> Answer:
    if body is not None:
        options["json"] = body
    return await served.ask("POST", f"{ADMIN}/{path}", **options)


async def events(served: Served, operation: str = "") -> list[dict[str, Any]]:
    query = f"?operation={operation}" if operation else ""
    return list((await served.get(f"{ADMIN}/audit{query}")).json["events"])


class Shifted:
    def __init__(self) -> None:
        self.shift = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.shift


@asynccontextmanager
async def shifted(engine: Engine) -> AsyncIterator[tuple[Served, Shifted]]:
    clock = Shifted()
    async with serving(await fresh_database(engine), clock=clock) as served:
        yield served, clock


async def test_an_accounts_whole_life(embedded_engine: Engine) -> None:
    async with shifted(embedded_engine) as (served, clock):
        made = (await post(served, "accounts", {"name": "ci"})).json
        token = await served.token_of(made["clientId"], made["clientSecret"])
        assert_is_error(await served.get("/api/v1/workloads", token=token), 403)
        rule = {"subject": {"serviceAccount": "ci"}, "role": "viewer", "scope": {"tenant": True}}
        granted = await post(served, "rules", rule)
        assert granted.json["subject"] == made["clientId"]
        assert (await post(served, "rules", rule)).json["id"] == granted.json["id"]
        clock.shift = timedelta(seconds=31)
        assert (await served.get("/api/v1/workloads", token=token)).status == 200
        sent = {"clientId": made["clientId"], "clientSecret": made["clientSecret"]}
        begun = await served.ask("POST", "/api/v1/session", json=sent, token=None)
        cookie = {"Cookie": begun.headers["Set-Cookie"].partition(";")[0]}
        assert (await served.get("/api/v1/me", token=None, headers=cookie)).status == 200
        rotated = (await post(served, f"accounts/{made['clientId']}/rotate")).json
        body = {
            "grantType": "client_credentials",
            "clientId": made["clientId"],
            "clientSecret": made["clientSecret"],
        }
        assert_is_error(await served.ask("POST", "/api/v1/token", json=body, token=None), 401)
        clock.shift = timedelta(seconds=62)
        assert_is_error(await served.get("/api/v1/me", token=None, headers=cookie), 401)
        await served.token_of(made["clientId"], rotated["clientSecret"])
        removed = await served.ask("DELETE", f"{ADMIN}/rules/{granted.json['id']}")
        assert removed.status == 204
        clock.shift = timedelta(seconds=93)
        assert_is_error(await served.get("/api/v1/workloads", token=token), 403)
        gone = await served.ask("DELETE", f"{ADMIN}/accounts/{made['clientId']}")
        assert gone.status == 204
        clock.shift = timedelta(seconds=124)
        assert_is_error(await served.get("/api/v1/me", token=token), 401)
        listed = (await served.get(f"{ADMIN}/accounts")).json["accounts"]
        assert {account["name"]: account["isDisabled"] for account in listed}["ci"] is True
        assert made["clientSecret"] not in json.dumps(listed)


async def test_an_account_is_made_with_its_first_rule_or_not_at_all(server: Served) -> None:
    for wrong in (
        {"role": "viewer", "scope": {"cluster": "nowhere"}},
        {"role": "nobody", "scope": {"tenant": True}},
        {"role": "viewer"},
        {"scope": {"tenant": True}},
    ):
        assert_is_error(await post(server, "accounts", {"name": "never"} | wrong), 400)
    first = {"role": "viewer", "scope": {"tenant": True}}
    made = (await post(server, "accounts", {"name": "reader"} | first)).json
    token = await server.token_of(made["clientId"], made["clientSecret"])
    assert (await server.get("/api/v1/workloads", token=token)).status == 200
    created = (await events(server, "create_account"))[0]
    assert (created["outcome"], created["details"]) == (201, "name=reader viewer tenant:1")
    listed = (await server.get(f"{ADMIN}/accounts")).json["accounts"]
    assert "never" not in {account["name"] for account in listed}


@pytest.mark.parametrize(
    "rule",
    [
        {"subject": {}, "role": "viewer", "scope": {"tenant": True}},
        {"subject": {"user": "a", "group": "b"}, "role": "viewer", "scope": {"tenant": True}},
        {"subject": {"user": ""}, "role": "viewer", "scope": {"tenant": True}},
        {"subject": {"user": "a\0"}, "role": "viewer", "scope": {"tenant": True}},
        {"subject": {"serviceAccount": "nobody"}, "role": "viewer", "scope": {"tenant": True}},
        {"subject": {"user": "a"}, "role": "emperor", "scope": {"tenant": True}},
        {"subject": {"user": "a"}, "role": "viewer", "scope": {}},
        {"subject": {"user": "a"}, "role": "viewer", "scope": {"tenant": False}},
        {"subject": {"user": "a"}, "role": "viewer", "scope": {"tenant": True, "project": "x"}},
        {"subject": {"user": "a"}, "role": "viewer", "scope": {"project": "nowhere"}},
        {"subject": {"user": "a"}, "role": "viewer", "scope": {"project": "vision"}},
        {"subject": {"user": "a"}, "role": "viewer", "scope": {"cluster": "x' OR 1=1 --"}},
        {"subject": {"user": "a"}, "role": "viewer", "scope": {"tenant": True}, "tenantId": 2},
    ],
)
async def test_rules_that_mean_nothing(shared: Served, rule: dict[str, Any]) -> None:
    """A project that two clusters have is one of them: which, the rule must say."""
    assert_is_error(await post(shared, "rules", rule), 400)


async def test_a_name_in_two_clusters(shared: Served) -> None:
    rule = {
        "subject": {"user": "a"},
        "role": "viewer",
        "scope": {"project": "vision", "cluster": "cluster-2"},
    }
    assert (await post(shared, "rules", rule)).status == 201


async def test_rules_before_the_first_workload(embedded_engine: Engine) -> None:
    """A project or department that is named with its cluster need not have been seen; nor does one that is
    missing keep the rest of a file from being applied."""
    async with shifted(embedded_engine) as (served, clock):
        agents = await fill(served.db, clusters=2, workloads=3)
        token = await served.account()
        (client_id,) = [
            account["clientId"]
            for account in (await served.get(f"{ADMIN}/accounts")).json["accounts"]
            if account["name"] == "test"
        ]
        subject = {"serviceAccount": client_id}
        rules = [
            {"subject": subject, "role": "viewer", "scope": {kind: name, "cluster": "cluster-1"}}
            for kind, name in (("project", "to-come"), ("department", "board"))
        ]
        dry = (await post(served, "apply", {"document": {"rules": rules}, "dryRun": True})).json
        assert [rule["scopeId"] for rule in dry["added"]] == ["new:to-come", "new:board"]
        done = (await post(served, "apply", {"document": {"rules": rules}})).json
        assert all(rule["scopeId"].isdigit() for rule in done["added"])
        again = (await post(served, "apply", {"document": {"rules": rules}})).json
        assert (again["added"], again["removed"], again["unchanged"]) == ([], [], 2)
        clock.shift = timedelta(seconds=31)
        assert (await served.get("/api/v1/workloads/count", token=token)).json == {"count": 0}
        for agent in agents:
            number = agent.identity.cluster_id.int & 0xFF
            for offset, made in enumerate(
                (
                    workload(9000 + number * 10, project_name="To come"),
                    workload(9001 + number * 10, project_name="x", department_name="Board"),
                    workload(9002 + number * 10, project_name="y"),
                )
            ):
                keys = {0: ("to-come", ""), 1: ("x", "board"), 2: ("y", "")}[offset]
                changed = msgspec.structs.replace(
                    record(made), project_key=keys[0], department_key=keys[1]
                )
                await agent.send(upsert(changed), now=datetime.now(UTC))
        listed = (await served.get("/api/v1/workloads", token=token)).json["workloads"]
        assert sorted(account["projectName"] for account in listed) == ["To come", "x"]
        assert {account["clusterId"] for account in listed} == {str(agents[0].identity.cluster_id)}
        # Now it has a name besides its queue's: both mean the one project.
        for name in ("To come", "to-come"):
            scope = {"project": name, "cluster": "cluster-1"}
            rule = {"subject": subject, "role": "viewer", "scope": scope}
            made_rule = (await post(served, "rules", rule)).json
            assert made_rule["scopeId"] == done["added"][0]["scopeId"]


@pytest.mark.parametrize(
    "scope",
    [
        {"project": "to-come"},
        {"project": "to-come", "cluster": "no-such-cluster"},
        {"project": "4711", "cluster": "cluster-1"},
        {"project": "a b", "cluster": "cluster-1"},
        {"department": "../x", "cluster": "cluster-1"},
    ],
)
async def test_what_cannot_be_named_before(shared: Served, scope: dict[str, str]) -> None:
    rule = {"subject": {"user": "a"}, "role": "viewer", "scope": scope}
    assert_is_error(await post(shared, "rules", rule), 400)
    assert_is_error(await post(shared, "apply", {"document": {"rules": [rule]}}), 400)


async def test_the_last_administrator_stays(server: Served) -> None:
    rules = (await server.get(f"{ADMIN}/rules")).json["rules"]
    (own,) = [rule for rule in rules if rule["role"] == "administrator"]
    assert_is_error(await server.ask("DELETE", f"{ADMIN}/rules/{own['id']}"), 409)
    assert_is_error(await server.ask("DELETE", f"{ADMIN}/accounts/{server.client_id}"), 409)
    assert (await server.get(f"{ADMIN}/rules")).json["rules"] == rules
    other = {"subject": {"group": "board"}, "role": "administrator", "scope": {"tenant": True}}
    assert (await post(server, "rules", other)).status == 201
    assert (await server.ask("DELETE", f"{ADMIN}/rules/{own['id']}")).status == 204


async def test_a_declared_state(server: Served) -> None:
    await fill(server.db, clusters=1, workloads=5)
    ada = {
        "subject": {"user": "ada@example.com"},
        "role": "viewer",
        "scope": {"cluster": "cluster-1"},
    }
    team = {"subject": {"group": "ml"}, "role": "system-administrator", "scope": {"tenant": True}}
    bot = {"subject": {"serviceAccount": "bot"}, "role": "viewer", "scope": {"tenant": True}}
    document = {"serviceAccounts": [{"name": "bot"}], "rules": [ada, team, bot]}
    dry = (await post(server, "apply", {"document": document, "dryRun": True})).json
    assert (dry["newServiceAccounts"], len(dry["added"]), dry["credentials"]) == (["bot"], 3, [])
    assert len((await server.get(f"{ADMIN}/rules")).json["rules"]) == 1
    first = (await post(server, "apply", {"document": document})).json
    assert [credential["name"] for credential in first["credentials"]] == ["bot"]
    again = (await post(server, "apply", {"document": document})).json
    assert (again["added"], again["removed"], again["unchanged"]) == ([], [], 3)
    assert again["newServiceAccounts"] == again["credentials"] == []
    hand = {"subject": {"user": "hand@example.com"}, "role": "viewer", "scope": {"tenant": True}}
    await post(server, "rules", hand)
    less = (await post(server, "apply", {"document": {"rules": [team]}})).json
    assert (len(less["removed"]), less["unchanged"], less["leftAlone"]) == (2, 1, 2)
    subjects = {rule["subject"] for rule in (await server.get(f"{ADMIN}/rules")).json["rules"]}
    assert subjects == {server.client_id, "ml", "hand@example.com"}
    other = {"document": {"name": "second", "rules": []}}
    assert (await post(server, "apply", other)).json["removed"] == []
    bad = {"document": {"rules": [ada, {**ada, "role": "emperor"}]}}
    assert_is_error(await post(server, "apply", bad), 400)


async def test_tenants_see_their_own_administration(server: Served) -> None:
    made = (await post(server, "tenants", {"name": "second"})).json
    assert_is_error(await post(server, "tenants", {"name": "second"}), 400)
    token = await server.token_of(made["clientId"], made["clientSecret"])
    for path in ("accounts", "rules", "users", "audit?limit=1000"):
        body = (await server.get(f"{ADMIN}/{path}", token=token)).body.decode()
        assert server.client_id not in body, path
    (rule,) = (await server.get(f"{ADMIN}/rules")).json["rules"]
    gone = await server.ask("DELETE", f"{ADMIN}/rules/{rule['id']}", token=token)
    assert_is_error(gone, 404)
    path = f"{ADMIN}/accounts/{server.client_id}"
    assert_is_error(await server.ask("DELETE", path, token=token), 404)
    assert_is_error(await server.ask("POST", f"{path}/rotate", token=token), 404)
    assert_is_error(await post(server, "keys/rotate", {}, token=token), 403)
    assert_is_error(await post(server, "tenants", {"name": "third"}, token=token), 403)
    assert_is_error(await server.get("/metrics", token=token), 403)


# Keys


async def test_the_signing_key_changes_without_a_gap(embedded_engine: Engine) -> None:
    async with shifted(embedded_engine) as (served, clock):
        old = await served.token()
        assert (await post(served, "keys/rotate", {})).status == 200
        still = await served.token_of(served.client_id, served.secret)
        assert still.split(".")[0] == old.split(".")[0], "others must learn of the key first"
        clock.shift = timedelta(seconds=75)
        new = await served.token_of(served.client_id, served.secret)
        assert new.split(".")[0] != old.split(".")[0]
        for token in (old, new):
            assert (await served.get("/api/v1/me", token=token)).status == 200
        lifetime = SETTINGS.token_lifetime_seconds
        clock.shift = timedelta(seconds=lifetime + 200)
        served.tokens.clear()
        newest = await served.token()
        assert_is_error(await served.get("/api/v1/me", token=old), 401)
        assert (await served.get("/api/v1/me", token=newest)).status == 200


async def test_all_tokens_end_at_once_where_asked(embedded_engine: Engine) -> None:
    async with shifted(embedded_engine) as (served, clock):
        old = await served.token()
        assert (await post(served, "keys/rotate", {"atOnce": True})).status == 200
        clock.shift = timedelta(seconds=59)
        assert_is_error(await served.get("/api/v1/me", token=old), 401)
        fresh = await served.token_of(served.client_id, served.secret)
        assert (await served.get("/api/v1/me", token=fresh)).status == 200


# The audit log


async def test_what_the_audit_log_says(server: Served) -> None:
    token = await server.account(("viewer", "tenant", "1"))
    for _ in range(4):
        await server.get("/api/v1/workloads?search=hunter2&filterBy=name==secret-name", token=token)
    made = (await post(server, "accounts", {"name": "ci"})).json
    wrong = {"grantType": "app_token", "appId": made["clientId"], "appSecret": "hunter3"}
    await server.ask("POST", "/api/v1/token", json=wrong, token=None)
    pasted = {"grantType": "app_token", "appId": "hunter4-in-the-wrong-field", "appSecret": "x"}
    await server.ask("POST", "/api/v1/token", json=pasted, token=None)
    await server.get("/api/v1/workloads/hunter5-in-the-path", token=token)
    (read,) = await events(server, "get_workloads")
    assert (read["count"], read["outcome"], read["rules"]) == (4, 200, ["viewer@tenant:1"])
    assert (read["address"], read["subjectKind"]) == ("127.0.0.1", "service-account")
    (created,) = await events(server, "create_account")
    assert (created["target"], created["details"]) == (made["clientId"], "name=ci")
    assert created["rules"] == ["administrator@tenant:1"]
    signed = await events(server, "create_token")
    assert (made["clientId"], 401) in [(event["subject"], event["outcome"]) for event in signed]
    assert sum(event["outcome"] == 200 for event in signed) >= 2
    text = json.dumps(await events(server))
    for secret in ("hunter2", "hunter3", "hunter4", "hunter5", made["clientSecret"], token):
        assert secret not in text
    first = created["at"]
    later = await server.get(f"{ADMIN}/audit?until={first.replace('+', '%2B')}")
    assert created["id"] not in later.body.decode()


async def test_the_audit_log_says_what_was_asked_by(server: Served) -> None:
    """Names, ids and words of the contract; never what somebody typed."""
    cluster = "00000000-0000-4000-8000-0000000000aa"
    asked = {
        f"workloads?filterBy=clusterId=={cluster},name=@hunter2,phase==Running&search=hunter3":
            f"clusterId=={cluster} name=@* phase==Running search=*",
        "workloads?filterBy=projectId==12&deleted=true": "projectId==12 deleted=True",
        "workloads?filterBy=projectId==hunter4&filterBy=phase!=hunter5": "projectId==* phase!=*",
        "workloads?filterBy=hunter6": "a filter that is not understood",
        "workloads/telemetry?telemetryType=GPU_ALLOCATION&groupBy=Phase&nodepoolName=hunter7":
            "telemetryType=GPU_ALLOCATION groupBy=Phase nodepoolName=*",
        "workloads/count": "",
    }  # fmt: skip
    for path in asked:
        for _ in range(2):
            await server.get(f"/api/v1/{path}")
    answer = (await server.get(f"{ADMIN}/audit?limit=1000")).json["events"]
    reads = [answer_ for answer_ in answer if "workload" in answer_["operation"]]
    assert sorted(read["details"] for read in reads) == sorted(asked.values())
    assert {read["count"] for read in reads} == {2}
    for path in ("facets?fields=hunter", "export?format=hunter", "telemetry?telemetryType=hunter",
                 "telemetry?telemetryType=GPU_ALLOCATION&groupBy=hunter&filterByPhases=hunter",
                 f"{cluster}/metrics?metricType=hunter&start=hunter&end=hunter"):  # fmt: skip
        assert (await server.get(f"/api/v1/workloads/{path}")).status == 400, path
    answer = (await server.get(f"{ADMIN}/audit?limit=1000")).json["events"]
    assert "hunter" not in json.dumps(answer)


async def test_only_auditors_read_it(shared: Served) -> None:
    for role, status in (("viewer", 403), ("auditor", 200), ("administrator", 200)):
        token = await shared.account((role, "tenant", "1"))
        assert (await shared.get(f"{ADMIN}/audit", token=token)).status == status


def event(**members: Any) -> AuditEvent:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    made: dict[str, Any] = {
        "tenant_id": 1, "at": now, "last_at": now, "count": 1, "subject_kind": "user",
        "subject": "ada", "operation": "get_me", "target": "", "rules": ("a", "b"),
        "address": "192.0.2.1", "outcome": 200, "request_id": "r", "details": "",
    }  # fmt: skip
    return AuditEvent(**(made | members))


async def test_events_wait_while_the_database_is_away(server: Served) -> None:
    class Away:
        is_away = True

        def acquire(self, tenant_id: int) -> Any:
            if self.is_away:
                raise Unavailable("The database does not answer.")
            return server.db.acquire(tenant_id)

    away: Any = Away()
    audit = Audit(away, most_waiting=3)
    for number in range(5):
        audit.note(event(operation=f"op-{number}"), is_read=False)
    audit.note(event(operation="op-4"), is_read=True)
    with pytest.raises(Unavailable):
        await audit.flush()
    assert audit.lost == 3
    away.is_away = False
    await audit.flush()
    kept = await audit_list(server.db, 1, AuditQuery())
    assert {event.operation for _, event in kept} == {"op-0", "op-1", "op-2"}
    assert all(event.rules == ("a", "b") for _, event in kept)


async def test_an_orderly_stop_writes_what_waits(embedded_engine: Engine) -> None:
    url = await fresh_database(embedded_engine)
    async with running_server(url) as server:
        served = Served(server.url, None, server.client_id, server.client_secret, None)  # type: ignore[arg-type]
        import aiohttp

        async with aiohttp.ClientSession() as session:
            served.session = session
            for _ in range(7):
                assert (await served.get("/api/v1/me")).status == 200
    connection = await asyncpg.connect(url)
    count = await connection.fetchval(
        "SELECT sum(count) FROM audit_event WHERE operation = 'get_me'"
    )
    await connection.close()
    assert count == 7


async def test_retention_and_what_cannot_be_changed(server: Served) -> None:
    audit = Audit(server.db)
    old = datetime(2025, 1, 1, tzinfo=UTC)
    audit.note(event(at=old, last_at=old, operation="old"), is_read=False)
    audit.note(event(operation="new"), is_read=False)
    await audit.flush()
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    assert await audit_purge(server.db, 1, keep=timedelta(days=365), now=now) == 1
    kept = await audit_list(server.db, 1, AuditQuery())
    assert [event.operation for _, event in kept] == ["new"]
    async with server.db.acquire(1) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE audit_event SET subject = 'somebody else'")


async def test_the_log_costs_a_request_nothing(server: Served) -> None:
    """A log that cannot be written keeps nobody waiting."""

    class Stuck:
        def acquire(self, _: int) -> Any:
            raise AssertionError("a request wrote to the log itself")

    stuck: Any = Stuck()
    services = replace(server.services, audit=Audit(stuck))
    from tests.fixtures.serving import listening

    async with listening(build_app(services)) as url:
        served = replace(server, url=url)
        answers = await asyncio.gather(*(served.get("/api/v1/me") for _ in range(20)))
        assert {answer.status for answer in answers} == {200}


# The command line


async def test_administration_on_the_command_line(server: Served, tmp_path: Path) -> None:
    import os

    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WATCHBILL", "RUNAI"))
    } | {
        "WATCHBILL_URL": server.url,
        "WATCHBILL_CLIENT_ID": server.client_id,
        "WATCHBILL_CLIENT_SECRET": server.secret,
    }
    made = json.loads((await ran(env, "admin", "account", "create", "ci", "--role", "viewer"))[0])
    assert set(made) >= {"url", "clientId", "clientSecret"}
    rules = (await ran(env, "admin", "rule", "list"))[0]
    assert f"service-account:{made['clientId']}" in rules
    added = await ran(env, "admin", "rule", "add", "--user", "ada@example.com", "--role", "editor")
    file = tmp_path / "access.yaml"
    rule = {"subject": {"group": "ml"}, "role": "viewer", "scope": {"tenant": True}}
    file.write_text(yaml.safe_dump({"rules": [rule]}))
    output = (await ran(env, "admin", "apply", "-f", str(file), "--dry-run"))[1]
    assert "+ group:ml viewer tenant:1" in output
    assert "1 would change" in output
    assert "1 changed" in (await ran(env, "admin", "apply", "-f", str(file)))[1]
    assert "0 changed, 1 unchanged" in (await ran(env, "admin", "apply", "-f", str(file)))[1]
    await ran(env, "admin", "rule", "remove", added[0].strip())
    await ran(env, "admin", "account", "rotate", made["clientId"])
    await ran(env, "admin", "account", "disable", made["clientId"])
    await ran(env, "admin", "keys", "rotate")
    audit = (await ran(env, "admin", "audit", "--operation", "create_rule"))[0]
    assert "ada@example.com" in audit
    assert "metrics-reader" in (await ran(env, "admin", "role", "list"))[0]
    assert "disabled" in (await ran(env, "admin", "account", "list"))[0]
    assert json.loads((await ran(env, "admin", "user", "list", "--json"))[0]) == {"users": []}

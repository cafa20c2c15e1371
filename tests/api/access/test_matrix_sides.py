"""The matrix beyond reading: who may change what, and what the edges of an answer could tell of the rest."""

import asyncio
from typing import Any

from tests.api.access.test_matrix import ABSENT, OF_IDS, RANGE, ask, in_turns, leaks, refusal
from tests.fixtures.estate import Estate, EstateCaller, Placed, touch
from tests.fixtures.samples import OPERATIONS, SAMPLES
from tests.fixtures.serving import Answer
from watchbill.access.roles import SCOPED, Permission
from watchbill.api.http.contract import LoginRequirement

ADMINISTRATORS = {
    "administrator": frozenset(Permission),
    "administrator of the second": frozenset(Permission) - {Permission.SERVER_READ},
    "auditor": frozenset({Permission.AUDIT_READ, Permission.ACCESS_READ}),
}
"""Which of the principals hold rights that know no scope. All others hold none."""


async def kept(made: Estate) -> dict[int, list[Any]]:
    """All that administration could change, by tenant."""
    collected = {}
    for tenant in (1, 2):
        async with made.served.db.acquire(tenant) as connection:
            collected[tenant] = [
                await connection.fetch(f"SELECT {columns} FROM {table} ORDER BY id")
                for table, columns in (
                    ("account", "id, secret_hash, disabled_at"),
                    ("person", "id, disabled_at"),
                    ("access_rule", "id, role, scope_kind, scope_id, subject"),
                    ("cluster", "id, removed_at"),
                )
            ]
    return collected


async def targets(made: Estate) -> dict[str, str]:
    """The first tenant's own objects, by the last parameter of an operation's path."""
    served = made.served
    rules = (await served.get("/api/v1/admin/rules")).json["rules"]
    users = (await served.get("/api/v1/admin/users")).json["users"]
    accounts = (await served.get("/api/v1/admin/accounts")).json["accounts"]
    return {
        "clientId": accounts[0]["clientId"],
        "userId": users[0]["id"],
        "ruleId": rules[0]["id"],
        "clusterUuid": str(made.agents[1, "north"].identity.cluster_id),
    }


def addressed(name: str, ids: dict[str, str]) -> str:
    """The operation's address, aimed at the first tenant's object where it takes one."""
    path = OPERATIONS[name].path
    if "{" not in path:
        return SAMPLES[name].path
    parameter = path[path.index("{") + 1 : path.index("}")]
    return path.replace(f"{{{parameter}}}", ids[parameter])


async def test_changes_for_everybody(made: Estate) -> None:
    """What takes a right without a scope is refused to whoever lacks it, and reaches no other tenant."""
    ids, before = await targets(made), await kept(made)
    everything = {
        name: operation
        for name, operation in OPERATIONS.items()
        if operation.login is LoginRequirement.CALLER
        and operation.permission is not None
        and operation.permission not in SCOPED
    }
    assert len(everything) >= 17

    async def check(name: str, principal: EstateCaller, operation_id: str) -> None:
        operation = everything[operation_id]
        rights = ADMINISTRATORS.get(name, frozenset())
        is_foreign = name == "administrator of the second" and "{" in operation.path
        if operation.permission in rights and operation.method != "GET" and not is_foreign:
            return  # it may, and would: other tests see to that
        asked = addressed(operation_id, ids)
        answer = await made.served.ask(
            operation.method, asked, token=principal.token, **SAMPLES[operation_id].options
        )
        text = answer.body.decode().replace(max(asked.split("/"), key=len), "asked")
        if principal.token is None or principal.status == 401:
            assert answer.status == 401, (name, operation_id)
        elif operation.permission not in rights:
            assert answer.status == 403, (name, operation_id)
        elif is_foreign:
            assert answer.status == 404, (name, operation_id)
        else:
            assert answer.status == 200, (name, operation_id, text)
        # The audit log says what its own people asked for, foreign ids included.
        if name not in ("administrator", "auditor") and operation_id != "list_audit":
            assert not any(id_ in text for id_ in ids.values()), (name, operation_id)
        result = leaks(made, principal, answer)
        if operation_id == "list_audit":
            result = [row for row in result if row in text]
        assert not result, (name, operation_id)

    cases = [
        (name, principal, each)
        for name, principal in made.principals.items()
        for each in everything
    ]
    assert await in_turns(cases, check) >= 350
    assert await kept(made) == before


async def test_the_second_tenant_makes_rules_about_itself_alone(made: Estate) -> None:
    ids, before = await targets(made), await kept(made)
    token = made.principals["administrator of the second"].token
    for scope in ({"cluster": ids["clusterUuid"]}, {"project": "1"}, {"department": "1"}):
        rule = {"subject": {"user": "eve@example.com"}, "role": "viewer", "scope": scope}
        answer = await made.served.ask("POST", "/api/v1/admin/rules", json=rule, token=token)
        assert answer.status in (201, 400)
        if answer.status == 201:  # a number that the second tenant has as well
            path = f"/api/v1/admin/rules/{answer.json['id']}"
            assert (await made.served.ask("DELETE", path, token=token)).status == 204
    for path in ("/api/v1/admin/tenants", "/api/v1/admin/keys/rotate"):
        body = {"name": "third"} if "tenants" in path else {}
        answer = await made.served.ask("POST", path, json=body, token=token)
        assert answer.status == 403
    assert await kept(made) == before


async def test_the_servers_own_metrics_name_nobody(made: Estate) -> None:
    allowed = 0
    for name, principal in made.principals.items():
        answer = await made.served.get("/metrics", token=principal.token)
        assert answer.status == (200 if name == "administrator" else principal_status(principal))
        allowed += answer.status == 200
        text = answer.body.decode()
        for workload in made.placed:
            assert workload.name not in text
            assert str(workload.id) not in text
        for word in ("vision", "speech", "research", "orphan", "wbc-", "example.com", "tenant="):
            assert word not in text, (name, word)
    assert allowed == 1


def principal_status(principal: EstateCaller) -> int:
    return 401 if principal.status == 401 else 403


async def test_me_tells_of_oneself(made: Estate) -> None:
    for name, principal in made.principals.items():
        answer = await made.served.get("/api/v1/me", token=principal.token)
        assert answer.status == (401 if principal.status == 401 else 200), name
        assert not leaks(made, principal, answer), name
        if answer.status == 200:
            assert answer.json["tenantId"] == (2 if "of the second" in name else 1)


ABOUT_ONE: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("HEAD", "", {}),
    ("GET", "", {"If-None-Match": "*"}),
    ("GET", "", {"If-None-Match": "ETAG"}),
    ("HEAD", "", {"If-None-Match": "ETAG"}),
    ("GET", "", {"Range": "bytes=0-10"}),
    ("GET", f"/metrics?metricType=POD_COUNT&{RANGE}", {"Accept": "text/csv"}),
    ("GET", f"/metrics?metricType=nonsense&{RANGE}", {}),
    ("GET", "/elements?limit=1&offset=1000", {}),
    ("GET", "/elements?limit=0", {}),
    ("POST", "", {}),
    ("DELETE", "", {}),
    ("OPTIONS", "", {}),
)
"""Ways of asking for one workload besides the plain one. ETAG: what an administrator is answered."""


async def test_edges_of_an_answer_tell_nothing(made: Estate) -> None:
    """Whatever way is used: of a workload out of scope the whole answer is that of one that never was."""
    placed = [workload for workload in made.placed if workload.number % 10 in (1, 4)]
    etags = {workload.id: await _etag(made, workload) for workload in placed}
    assert any(etags.values())
    absent: dict[tuple[str, int], Any] = {}

    async def one_answer(
        principal: EstateCaller,
        method: str,
        tail: str,
        headers: dict[str, str],
        id_: str,
        etag: str,
    ) -> tuple[int, str, dict[str, str]]:
        sent = {name: value.replace("ETAG", etag) for name, value in headers.items()}
        path = f"/api/v1/workloads/{id_}{tail}"
        answer = await made.served.ask(method, path, token=principal.token, headers=sent)
        return refusal(answer, id_)

    async def check(name: str, principal: EstateCaller, workload: Placed, way: int) -> None:
        method, tail, headers = ABOUT_ONE[way]
        etag = etags[workload.id] or '"none"'
        result = await one_answer(principal, method, tail, headers, str(workload.id), etag)
        if (name, way) not in absent:
            absent[name, way] = await one_answer(
                principal, method, tail, headers, str(ABSENT), etag
            )
        assert result == absent[name, way], (name, workload, method, tail, headers)
        assert result[0] not in (200, 206, 304)

    cases = [
        (name, principal, workload, way)
        for name, principal in made.principals.items()
        for workload in placed
        if not (principal.status == 200 and principal.sees(workload))
        for way in range(len(ABOUT_ONE))
    ]
    assert await in_turns(cases, check) >= 1_500


async def _etag(made: Estate, workload: Placed) -> str:
    who = "administrator" if workload.tenant == 1 else "administrator of the second"
    token = made.principals[who].token
    answer: Answer = await made.served.get(f"/api/v1/workloads/{workload.id}", token=token)
    return answer.headers.get("ETag", "")


async def test_narrowing_by_what_is_foreign_is_narrowing_by_what_never_was(made: Estate) -> None:
    """Clusters, departments, projects and node pools of others, in every parameter that takes one."""
    foreign = {
        "clusterId": [str(agent.identity.cluster_id) for agent in made.agents.values()],
        "departmentId": [str(number) for number in range(1, 8)],
        "projectId": [str(number) for number in range(1, 10)],
    }
    never = {"clusterId": str(ABSENT), "departmentId": "2000000000", "projectId": "2000000000"}
    ways = [
        ("clusterId", "/api/v1/workloads/telemetry?telemetryType=WORKLOADS_COUNT&clusterId={}"),
        ("departmentId", "/api/v1/workloads/telemetry?telemetryType=WORKLOADS_COUNT&departmentId={}"),
        *(
            (field, f"/api/v1/workloads{tail}filterBy={field}=={{}}")
            for field in never
            for tail in ("?", "/count?", "/facets?fields=phase&", "/export?format=csv&", "/idle?")
        ),
        *(
            (field, f"/api/v1/workloads?deleted=true&sortBy={field}&filterBy={field}=={{}}")
            for field in ("clusterId", "projectId")
        ),
    ]  # fmt: skip

    async def check(name: str, principal: EstateCaller, field: str, path: str, value: str) -> None:
        if "/export" in path:
            async with made.exporting:
                result = await made.served.get(path.format(value), token=principal.token)
                never_was = await made.served.get(path.format(never[field]), token=principal.token)
        else:
            result = await made.served.get(path.format(value), token=principal.token)
            never_was = await made.served.get(path.format(never[field]), token=principal.token)
        assert not leaks(made, principal, result), (name, path, value)
        members = {"clusterId": "cluster_id"}
        if field in members and not _sees_cluster(made, principal, value):
            assert refusal(result, value) == refusal(never_was, never[field]), (name, path)
        assert result.status == never_was.status == 200, (name, path, result.body)

    cases = [
        (name, made.principals[name], field, path, value)
        for name in ("viewer of a project", "administrator of the second", "two apart")
        for field, path in ways
        for value in foreign[field]
    ]
    assert await in_turns(cases, check) >= 300


def _sees_cluster(made: Estate, principal: EstateCaller, cluster_id: str) -> bool:
    return any(
        str(made.agents[workload.tenant, workload.cluster].identity.cluster_id) == cluster_id
        for workload in made.placed
        if principal.sees(workload)
    )


async def test_streams_for_everybody(made: Estate) -> None:
    """Something changes everywhere; each is notified of what is in its scope and of nothing else."""
    changed = [workload for workload in made.placed if not workload.is_deleted][::3]
    listening = {name: asyncio.Event() for name in made.principals}
    reported: dict[str, set[str]] = {}

    async def listen(name: str, principal: EstateCaller) -> None:
        headers = {"Authorization": f"Bearer {principal.token}"} if principal.token else {}
        url = f"{made.served.url}/api/v1/workloads/stream?timeoutSeconds=4"
        async with made.served.session.get(url, headers=headers) as answer:
            assert answer.status == principal.status, name
            text = (await answer.content.readline()).decode()
            listening[name].set()
            text += (await answer.read()).decode()
        reported[name] = {str(workload.id) for workload in made.placed if str(workload.id) in text}
        assert "resync" not in text, name

    async def change() -> None:
        await asyncio.gather(*(listener.wait() for listener in listening.values()))
        await asyncio.sleep(0.5)
        for id_ in changed:
            await touch(made, id_)

    await asyncio.gather(change(), *(listen(*principal) for principal in made.principals.items()))
    for name, principal in made.principals.items():
        sees = principal.status == 200
        assert reported[name] == {str(id_.id) for id_ in changed if sees and principal.sees(id_)}, (
            name
        )


async def test_what_is_asked_for_by_ids_for_everybody(made: Estate) -> None:
    """Of a list with foreign ids the answer tells those that may be seen, and nothing of the others."""
    placed = made.placed[:100]
    ids = [str(workload.id) for workload in placed]
    for name, principal in made.principals.items():
        answer = await ask(made, principal, OF_IDS + ",".join(ids))
        assert answer.status == principal.status, name
        assert not leaks(made, principal, answer), name
        if principal.status == 200:
            response = {workload["id"] for workload in answer.json["workloads"]}
            assert response == {str(each.id) for each in placed if principal.sees(each)}, name
        few = await ask(made, principal, OF_IDS + ",".join((str(ABSENT), ids[0])))
        assert not leaks(made, principal, few), name

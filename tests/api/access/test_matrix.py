"""Every kind of principal × every read × every placement: contents, not only statuses.

One server answers all of it; the cases are counted, and fewer than two thousand fail. The tenants' part runs a
second time with the scope predicate taken away, so that row security stands alone.
"""

import asyncio
import csv
import importlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from types import ModuleType
from typing import Any
from unittest.mock import patch
from uuid import UUID

from tests.fixtures.estate import Estate, EstateCaller, Placed, add
from tests.fixtures.samples import JOB_TYPE_ID, OPERATIONS, PAGES, TRAIN_ID
from tests.fixtures.serving import Answer
from tests.fixtures.statements import take_unbound
from tests.fixtures.store_modules import store_modules
from watchbill.access.roles import SCOPED
from watchbill.api.app import routes
from watchbill.api.http.contract import LoginRequirement, Operation
from watchbill.api.http.server_metrics import ServerMetrics
from watchbill.query import Scope
from watchbill.store.workloads.select import Statement

ABSENT = UUID("00000000-dead-4bad-8bad-000000000000")
MALFORMED = "not-an-id"
RANGE = "start=2026-11-22T00:00:00Z&end=2026-11-23T12:00:00Z"
OF_ONE = {
    "workload": "",
    "endpoints": "/endpoints",
    "elements": "/elements",
    "element count": "/elements/count",
    "phases": "/phases",
    "events": "/events",
    "history": "/history",
    "pods": "/pods",
    "pods that are gone": "/pods?deleted=true",
    "metrics": f"/metrics?metricType=POD_COUNT&{RANGE}",
}
TELEMETRY = [
    f"/api/v1/workloads/telemetry?telemetryType={kind}{group}"
    for kind in ("WORKLOADS_COUNT", "GPU_ALLOCATION")
    for group in (
        "", "&groupBy=ClusterId", "&groupBy=DepartmentId", "&groupBy=ProjectId",
        "&groupBy=Phase,ProjectId", "&groupBy=CurrentNodepools", "&groupBy=Category",
    )
]  # fmt: skip
OF_ALL = [
    "/api/v1/workloads?limit=500",
    "/api/v1/workloads?limit=500&deleted=true",
    "/api/v1/workloads?limit=2&offset=1&sortBy=name&sortOrder=desc",
    "/api/v1/workloads?limit=500&search=marker",
    "/api/v1/workloads?limit=500&filterBy=projectName==vision",
    "/api/v1/workloads?limit=500&filterBy=departmentName=@e",
    "/api/v1/workloads?limit=500&sortBy=allocatedGPU",
    "/api/v1/workloads/count",
    "/api/v1/workloads/count?deleted=true",
    "/api/v1/workloads/count?filterBy=projectName==vision",
    "/api/v1/workloads/count?search=marker-1-0",
    "/api/v1/workloads/facets?fields=phase,type,category,clusterId,departmentName,projectName",
    "/api/v1/workloads/export?format=ndjson",
    "/api/v1/workloads/export?format=csv",
    "/api/v1/workloads/export?format=ndjson&deleted=true",
    "/api/v1/workloads/idle",
    "/api/v1/workloads/pods?limit=500&verbosity=full",
    "/api/v1/workloads/pods?limit=500&deleted=true",
    "/api/v1/workloads/pods?search=marker",
    "/api/v1/workloads/pods/count",
    "/api/v1/nodes?limit=500",
    "/api/v1/nodes?search=node&sortBy=clusterUuid",
    "/api/v1/nodes/count",
    "/api/v1/nodes/telemetry?telemetryType=ALLOCATED_GPUS&groupBy=Node,ClusterId",
    "/api/v1/node-pools",
    "/api/v1/node-pools/count",
    "/api/v1/org-unit/projects?limit=500",
    "/api/v1/org-unit/projects?sortBy=gpuAllocated&search=s",
    "/api/v1/org-unit/projects/count",
    "/api/v1/org-unit/departments?limit=500&verbosity=verbose",
    "/api/v1/org-unit/departments/count",
    "/api/v1/org-unit/projects/telemetry?telemetryType=GPU_ALLOCATION&groupBy=ClusterId,ParentId",
    "/api/v1/org-unit/projects/telemetry?telemetryType=GPU_ALLOCATION&groupBy=NodepoolId",
    "/api/v1/org-unit/departments/telemetry?telemetryType=GPU_ALLOCATION",
    "/api/v1/fleet",
    "/api/v1/usage",
    "/api/v1/usage?start=2026-11-20&end=2026-11-25&groupBy=workload,project,owner",
    "/api/v1/usage?start=2026-11-20&end=2026-11-25&groupBy=department,cluster&format=csv",
    "/api/v1/workload-types?filterBy=name=@Job",
    f"/api/v1/workload-types/{JOB_TYPE_ID}",
    "/api/v1/workload-categories",
    f"/api/v1/workload-categories/{TRAIN_ID}",
    "/api/v1/workload-priorities",
    *TELEMETRY,
]
CLUSTERS = "/api/v1/clusters"
OF_NODE = f"/api/v1/nodes/{ABSENT}/metrics"
OF_IDS = "/api/v1/workloads/utilization?ids="
OF_CLUSTER = [
    f"/{ABSENT}/{tail}" for tail in ("nodes", "nodes/count", "metrics", "nodepools/a100/metrics")
]
OF_POD = f"/pods/{ABSENT}/metrics?metricType=GPU_UTILIZATION&{RANGE}"


async def ask(made: Estate, principal: EstateCaller, path: str) -> Answer:
    """On a busy machine the server may say that it has no time: that is asked again."""
    async with made.exporting if "/export" in path else nullcontext():
        answer = await made.served.get(path, token=principal.token)
        while answer.status in (429, 503) and "Retry-After" in answer.headers:
            await asyncio.sleep(1)
            answer = await made.served.get(path, token=principal.token)
        return answer


def visible(made: Estate, principal: EstateCaller, *, deleted: bool = False) -> list[Placed]:
    if principal.status != 200:
        return []
    return [
        workload
        for workload in made.placed
        if principal.sees(workload) and workload.is_deleted is deleted
    ]


def leaks(made: Estate, principal: EstateCaller, answer: Answer, asked: str = "") -> list[str]:
    """Names and ids of what the principal may not see, anywhere in the answer."""
    text = answer.body.decode() + str(answer.headers)
    return [
        workload.name
        for workload in made.placed
        if not (principal.status == 200 and principal.sees(workload))
        and (workload.name in text or (str(workload.id) in text and str(workload.id) != asked))
    ]


def objects(made: Estate) -> Iterator[str]:
    """One live and one deleted workload of every place in both tenants, and two that never were."""
    seen = set()
    for workload in made.placed:
        key = (
            workload.tenant,
            workload.cluster,
            workload.department,
            workload.project,
            workload.is_deleted,
        )
        if key not in seen:
            seen.add(key)
            yield str(workload.id)
    yield str(ABSENT)
    yield MALFORMED


async def in_turns(cases: list[Any], check: Any, *, at_once: int = 8) -> int:
    """All cases, a few at a time. Returns how many there were. Cases stand so that different principals ask
    the same at the same time: what they share of an answer would show."""
    queue = iter(cases)

    async def work() -> None:
        for case in queue:
            await check(*case)

    await asyncio.gather(*(work() for _ in range(at_once)))
    return len(cases)


def refusal(answer: Answer, id_: str) -> tuple[int, str, dict[str, str]]:
    """Everything of a refusal but the id that was asked for, and the request's own."""
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("Date", "X-Request-ID")
    }
    return answer.status, answer.body.decode().replace(id_, "ID"), headers


async def test_one_workload_for_everybody(made: Estate) -> None:
    by_id = {str(workload.id): workload for workload in made.placed}
    refusals: dict[tuple[str, str], set[str]] = {}

    async def check(name: str, principal: EstateCaller, what: str, tail: str, id_: str) -> None:
        answer = await ask(made, principal, f"/api/v1/workloads/{id_}{tail}")
        workload = by_id.get(id_)
        assert not leaks(made, principal, answer, id_), (name, what, id_)
        if principal.status != 200:
            assert answer.status == principal.status, (name, what, id_)
        elif workload is not None and principal.sees(workload):
            assert answer.status == 200, (name, what, id_, answer.body)
            if what == "workload":
                assert (answer.json["id"], answer.json["name"]) == (id_, workload.name)
            if what == "elements":
                assert [element["name"] for element in answer.json["elements"]] == [workload.name]
        else:
            assert answer.status == 404, (name, what, id_)
            if id_ != MALFORMED:
                refusals.setdefault((name, what), set()).add(str(refusal(answer, id_)))

    cases = [
        (name, principal, what, tail, id_)
        for what, tail in OF_ONE.items()
        for id_ in objects(made)
        for name, principal in made.principals.items()
    ]
    assert await in_turns(cases, check) >= 2_000
    # Absent, elsewhere, another tenant's and deleted elsewhere: one and the same answer.
    assert refusals
    for case, different in refusals.items():
        assert len(different) == 1, (case, different)


async def test_a_pod_that_a_workload_does_not_have(made: Estate) -> None:
    """Whoever sees the workload and whoever does not learn as little of it."""

    async def check(name: str, principal: EstateCaller, id_: str) -> None:
        answer = await ask(made, principal, f"/api/v1/workloads/{id_}{OF_POD}")
        assert answer.status == (404 if principal.status == 200 else principal.status), (name, id_)
        assert not leaks(made, principal, answer, id_), (name, id_)

    cases = [
        (name, principal, id_)
        for name, principal in made.principals.items()
        for id_ in objects(made)
    ]
    assert await in_turns(cases, check) >= 200


async def test_all_workloads_for_everybody(made: Estate) -> None:
    async def check(name: str, principal: EstateCaller, path: str) -> None:
        answer = await ask(made, principal, path)
        assert answer.status == principal.status, (name, path, answer.body)
        assert not leaks(made, principal, answer), (name, path)

    cases = [
        (name, principal, path) for path in OF_ALL for name, principal in made.principals.items()
    ]
    assert await in_turns(cases, check) >= 500


def reading(made: Estate) -> list[tuple[str, EstateCaller]]:
    return [
        (name, principal) for name, principal in made.principals.items() if principal.status == 200
    ]


async def test_lists_counts_exports_and_sums_agree(made: Estate) -> None:
    async def check(name: str, principal: EstateCaller) -> None:
        for deleted in (False, True):
            expected = visible(made, principal, deleted=deleted)
            ids = {str(workload.id) for workload in expected}
            flag = f"deleted={str(deleted).lower()}"
            listed = (await ask(made, principal, f"/api/v1/workloads?limit=500&{flag}")).json
            assert {row["id"] for row in listed["workloads"]} == ids, name
            assert "next" not in listed
            counted = (await ask(made, principal, f"/api/v1/workloads/count?{flag}")).json["count"]
            assert counted == len(ids), name
            lines = await ask(made, principal, f"/api/v1/workloads/export?format=ndjson&{flag}")
            assert {json.loads(line)["id"] for line in lines.body.splitlines()} == ids
            rows = await ask(made, principal, f"/api/v1/workloads/export?format=csv&{flag}")
            table = list(csv.DictReader(io.StringIO(rows.body.decode())))
            assert {row["id"] for row in table} == ids
            for id_ in sorted(ids)[:2]:
                assert (await ask(made, principal, f"/api/v1/workloads/{id_}")).status == 200
        await _sums(made, name, principal)

    await in_turns(reading(made), check, at_once=3)


async def _sums(made: Estate, name: str, principal: EstateCaller) -> None:
    """Telemetry and facets are the list, added up; and every key belongs to something in it."""
    listed = (await ask(made, principal, "/api/v1/workloads?limit=500")).json["workloads"]
    gpus = sum(row["allocatedResources"].get("gpu", 0) for row in listed)
    totals = {"WORKLOADS_COUNT": len(listed), "GPU_ALLOCATION": gpus}
    members = {
        "ClusterId": "clusterId", "DepartmentId": "departmentId", "ProjectId": "projectId",
        "Phase": "phase", "Category": "category",
    }  # fmt: skip
    for path in TELEMETRY:
        answer = (await ask(made, principal, path)).json
        if "CurrentNodepools" not in path:
            total = sum(float(value["value"]) for value in answer["values"])
            assert total == totals[answer["type"]], (name, path)
        for value in answer["values"]:
            for group in value.get("groups", ()):
                if group["key"] in members:
                    known = {str(row.get(members[group["key"]], "")) for row in listed}
                    assert group["value"] in known, (name, path, group)
    facets = (await ask(made, principal, OF_ALL[11])).json
    assert facets["total"] == len(listed)
    for facet in facets["facets"]:
        assert sum(value["count"] for value in facet["values"]) == len(listed)
        known = {str(row.get(facet["field"], "")) for row in listed}
        assert {value["value"] for value in facet["values"]} <= known


async def test_pods_follow_their_workloads(made: Estate) -> None:
    """One pod for each workload; of a deleted one it is gone too."""

    async def check(name: str, principal: EstateCaller) -> None:
        for deleted in (False, True):
            flag = f"deleted={str(deleted).lower()}"
            ids = {str(workload.id) for workload in visible(made, principal, deleted=deleted)}
            path = f"/api/v1/workloads/pods?limit=500&verbosity=full&{flag}"
            pods = (await ask(made, principal, path)).json["pods"]
            assert {pod["workloadId"] for pod in pods} == ids, name
            assert all(pod["name"] == f"{pod['workloadName']}-0" for pod in pods)
            counted = await ask(made, principal, f"/api/v1/workloads/pods/count?{flag}")
            assert counted.json == {"count": len(ids)}, name

    await in_turns(reading(made), check)


async def test_usage_counts_what_is_visible(made: Estate) -> None:
    """Everything was created an hour ago, and all but the last ten minutes are accounted."""

    async def check(name: str, principal: EstateCaller) -> None:
        path = "/api/v1/usage?start=2026-11-20&end=2026-11-25&groupBy=workload"
        report = (await ask(made, principal, path)).json
        placed = [workload for workload in made.placed if principal.sees(workload)]
        assert {row["group"]["workload"] for row in report["rows"]} == {
            workload.name for workload in placed
        }
        hours: float = sum(workload.number % 3 for workload in placed) * 50 / 60
        assert abs(report["totals"]["allocatedGpuHours"] - hours) < 1e-4, name

    await in_turns(reading(made), check)


async def test_clusters_for_everybody(made: Estate) -> None:
    for name, principal in made.principals.items():
        answer = await ask(made, principal, CLUSTERS)
        assert answer.status == principal.clusters, name
        if answer.status != 200:
            continue
        live = visible(made, principal)
        held = {
            str(made.agents[workload.tenant, workload.cluster].identity.cluster_id)
            for workload in made.placed
            if principal.sees(workload)
        }
        assert {row["id"] for row in answer.json} == held, name
        assert sum(row["workloads"] for row in answer.json) == len(live), name
        for agent in made.agents.values():
            id_ = str(agent.identity.cluster_id)
            alone = await ask(made, principal, f"{CLUSTERS}/{id_}")
            assert alone.status == (200 if id_ in held else 404), name
            if id_ in held:
                assert alone.json in answer.json
        if "viewer of a project" in name:
            (cluster,) = answer.json
            assert (cluster["kinds"], cluster["nodePools"], cluster["refused"]) == ([], [], [])


async def test_search_and_filters_are_no_oracle(made: Estate) -> None:
    """Asking for a foreign workload by anything of it answers as for one that never was."""
    asked = [
        (principal, name, workload)
        for name, principal in reading(made)
        for workload in made.placed[::5]
        if not principal.sees(workload)
    ]

    async def check(principal: EstateCaller, name: str, workload: Placed) -> None:
        for field in (f"filterBy=name=={workload.name}", f"filterBy=name=^{workload.name[:12]}",
                      f"search={workload.name}", f"search={workload.id}"):  # fmt: skip
            result = await ask(made, principal, f"/api/v1/workloads/count?{field}")
            same = [
                seen
                for seen in visible(made, principal)
                if seen.name.startswith(workload.name[:12])
            ]
            expected = len(same) if "=^" in field else 0
            assert result.json == {"count": expected}, (name, field)

    await in_turns(asked, check)


async def test_bytes_are_equal_with_and_without_foreign_rows(made: Estate) -> None:
    """Rows of others, of other projects and of other tenants, change no byte of an answer."""
    names = ("viewer of a project", "researcher of a project", "viewer of the orphan",
             "administrator of the second")  # fmt: skip
    asked = [(name, path) for name in names for path in [*OF_ALL, CLUSTERS]]

    async def bodies() -> dict[tuple[str, str], bytes]:
        collected: dict[tuple[str, str], bytes] = {}

        async def fetch(name: str, path: str) -> None:
            collected[name, path] = (await ask(made, made.principals[name], path)).body

        await in_turns(asked, fetch)
        return collected

    before = await bodies()
    await add(made, 1, ("north", "products", "shop"), first=201)
    await add(made, 1, ("south", "research", "vision"), first=211)
    await add(made, 1, ("north", "secret", "brand-new"), first=221)
    after = await bodies()
    assert len(before) >= 100
    for key, body in before.items():
        assert after[key] == body, key


def _matches(operation: Operation, path: str) -> bool:
    pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(operation.path))
    return re.fullmatch(pattern, path.partition("?")[0]) is not None


def test_every_read_of_workloads_is_in_the_matrix() -> None:
    """A route that is new, and narrowed by nobody, must not go unnoticed."""
    clusters = [f"{CLUSTERS}{tail}" for tail in ("", f"/{ABSENT}", *OF_CLUSTER)]
    units = [f"/api/v1/org-unit/{unit}/{ABSENT}" for unit in ("projects", "departments")]
    asked = [
        *OF_ALL,
        *units,
        *(f"{path}/metrics" for path in units),
        *clusters,
        OF_NODE,
        f"{OF_IDS}{ABSENT}",
        *(f"/api/v1/workloads/{ABSENT}{tail}" for tail in (*OF_ONE.values(), OF_POD)),
    ]
    missing = [
        name
        for name, operation in OPERATIONS.items()
        if operation.login is LoginRequirement.CALLER
        and operation.permission in SCOPED
        and not any(_matches(operation, path) for path in asked)
    ]
    assert missing == ["stream_workloads"], "the stream has a test of its own, among the sides"


def test_nothing_is_served_that_no_document_names(made: Estate) -> None:
    services = made.served.services
    meters = ServerMetrics(services.background, services.standby)
    served = {route.path for route in routes(services, meters, {})}
    assert served == {operation.path for operation in OPERATIONS.values()} | PAGES.keys()


def reading_modules() -> list[ModuleType]:
    """Every module of the store that narrows a read."""
    result = [importlib.import_module(name) for name in store_modules()]
    narrowing = [module for module in result if hasattr(module, "in_scope")]
    assert len(narrowing) >= 5
    return narrowing


def _unlocked(statement: Statement, scope: Scope) -> None:
    """The scope predicate, gone; the tenant stays the second parameter, which some statements name."""
    statement.conditions.append(f"{statement.bind(scope.tenant_id, '::int')} IS NOT NULL")


async def test_row_security_alone_holds_tenants_apart(made: Estate) -> None:
    names = ("administrator", "viewer of the tenant", "administrator of the second")
    by_id = {str(workload.id): workload for workload in made.placed}
    with ExitStack() as stack:
        for module in reading_modules():
            stack.enter_context(patch.object(module, "in_scope", _unlocked))
        # The predicate is really gone: a project's viewer sees the whole tenant now.
        everything = [
            workload for workload in made.placed if workload.tenant == 1 and not workload.is_deleted
        ]
        viewer = made.principals["viewer of a project"]
        listed = (await ask(made, viewer, "/api/v1/workloads?limit=500")).json["workloads"]
        assert len(listed) == len(everything)

        async def check(name: str, path: str, id_: str) -> None:
            principal = made.principals[name]
            answer = await ask(made, principal, path)
            assert not leaks(made, principal, answer, id_), (name, path)
            if id_ in by_id:
                assert answer.status == (200 if principal.sees(by_id[id_]) else 404), (name, path)

        cases = [(name, path, "") for name in names for path in OF_ALL]
        cases += [
            (name, f"/api/v1/workloads/{id_}{tail}", id_)
            for name in names
            for tail in OF_ONE.values()
            for id_ in objects(made)
        ]
        assert await in_turns(cases, check) >= 400
    take_unbound()  # statements that name no tenant are what is tried here

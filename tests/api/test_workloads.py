"""Workloads over HTTP: the contract's operations and the ones beyond it."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import jsonschema_rs
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import upsert, workload
from tests.fixtures.samples import MERGED, ONE, OPERATIONS, SAMPLES
from tests.fixtures.serving import ABSENT_ID, DETAILED_ID, Served
from watchbill.protocol import Delete
from watchbill.workload import Phase

TOTAL = 121


def schema_of(name: str, status: str = "200") -> dict[str, Any]:
    operation = OPERATIONS[name]
    response = MERGED["paths"][operation.path][operation.method.lower()]["responses"][status]
    schema: dict[str, Any] = response["content"]["application/json"]["schema"]
    return _nullable({**schema, "components": MERGED["components"]})


def _nullable(node: Any) -> Any:
    """OpenAPI 3.0 has `nullable` where JSON Schema has a second type."""
    if isinstance(node, list):
        return [_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {name: _nullable(value) for name, value in node.items() if name != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if node.get("nullable") is True else made


READING = [
    name
    for name, operation in OPERATIONS.items()
    if operation.method == "GET" and operation.offers and operation.login.value == "caller"
]


@pytest.mark.parametrize("name", READING)
async def test_answers_fit_their_schemas(filled: Served, name: str) -> None:
    answer = await filled.get(SAMPLES[name].path)
    assert answer.status == 200
    jsonschema_rs.validator_for(schema_of(name), validate_formats=True).validate(answer.json)


async def test_every_workload_fits_the_schema(filled: Served) -> None:
    answer = await filled.get("/api/v1/workloads?limit=500")
    assert len(answer.json["workloads"]) == TOTAL
    assert "next" not in answer.json
    jsonschema_rs.validator_for(schema_of("get_workloads")).validate(answer.json)


async def test_pages_meet_every_workload_once(filled: Served) -> None:
    ids, offset = [], 0
    while True:
        page = (await filled.get(f"/api/v1/workloads?limit=50&offset={offset}&sortBy=name")).json
        ids += [workload["id"] for workload in page["workloads"]]
        if "next" not in page:
            break
        offset = page["next"]
    assert len(ids) == len(set(ids)) == TOTAL
    assert (await filled.get("/api/v1/workloads?offset=500")).json == {"workloads": []}
    exact = await filled.get(f"/api/v1/workloads?limit={TOTAL}")
    assert "next" not in exact.json


@pytest.mark.parametrize(
    "query",
    [
        "filterBy=phase==Running",
        "filterBy=phase==Running&filterBy=allocatedGPU>=1",
        "filterBy=phase==Running,allocatedGPU>=1",
        "filterBy=" + quote('["phase==Running","allocatedGPU>=1"]'),
        "filterBy=" + quote("name=@sdxl, v2,phase!=Running"),
        "filterBy=createdAt>=2026-11-20T08:00:00+00:00",
        "search=LLAMA",
        "search=%00",
        "search=%25",
        "deleted=true",
        "deleted=false",
    ],
)
async def test_count_is_the_length_of_the_list(filled: Served, query: str) -> None:
    listed = (await filled.get(f"/api/v1/workloads?limit=500&{query}")).json["workloads"]
    counted = (await filled.get(f"/api/v1/workloads/count?{query}")).json["count"]
    assert len(listed) == counted
    exported = await filled.get(f"/api/v1/workloads/export?format=ndjson&{query}")
    assert len(exported.body.splitlines()) == counted


async def test_filters_narrow(filled: Served) -> None:
    both = await filled.get("/api/v1/workloads?limit=500&filterBy=phase==Running,type==Job")
    for item in both.json["workloads"]:
        assert (item["phase"], item["type"]) == ("Running", "Job")
    assert (await filled.get("/api/v1/workloads/count")).json["count"] == TOTAL


@pytest.mark.parametrize(
    "query",
    [
        "filterBy=nothing==1",
        "filterBy=name=a",
        "filterBy=phase!=",
        "filterBy=allocatedGPU==NaN",
        "filterBy=allocatedGPU==1e309",
        "filterBy=allocatedGPU=@1",
        "filterBy=createdAt==yesterday",
        "filterBy=[1]",
        "filterBy=" + ",".join(["name==a"] * 11),
        "sortBy=name&sortBy=type",
    ],
)
@pytest.mark.parametrize("path", ["", "/count", "/facets", "/export"])
async def test_what_cannot_be_understood(filled: Served, path: str, query: str) -> None:
    if "sortBy" in query and path:
        return
    assert_is_error(await filled.get(f"/api/v1/workloads{path}?{query}"), 400)


async def test_huge_numbers_are_no_failure(filled: Served) -> None:
    for value in ("priority>=99999999999", "allocatedGPU<=1e308", "idleGpus==-1e300"):
        answer = await filled.get(f"/api/v1/workloads/count?filterBy={value}")
        assert answer.status == 200, value
    assert (await filled.get("/api/v1/workloads?offset=2147483647")).status == 200


async def test_a_workload_with_its_reasons(filled: Served) -> None:
    answer = await filled.get(ONE)
    assert answer.json["id"] == str(DETAILED_ID)
    assert answer.json["phase"] == "Pending"
    assert answer.json["pendingSchedulingMessages"] == []
    assert answer.json["totalPendingTimeSeconds"] >= 3600
    assert "ETag" not in answer.headers, "its total is running"
    assert answer.headers["Cache-Control"] == "no-store"


async def test_upper_case_ids_are_the_same(filled: Served) -> None:
    assert (
        await filled.get(ONE.upper().replace("/API/V1/WORKLOADS", "/api/v1/workloads"))
    ).status == 200


async def test_structure(filled: Served) -> None:
    page = (await filled.get(f"{ONE}/elements?limit=5")).json
    assert [element["name"] for element in page["elements"]] == [f"worker-{n}" for n in range(5)]
    rest = (await filled.get(f"{ONE}/elements?limit=5&offset={page['next']}")).json
    assert len(rest["elements"]) == 2
    assert "next" not in rest
    counted = (await filled.get(f"{ONE}/elements/count")).json
    assert counted == {"totalElementsCount": 9, "storedElementsCount": 7}
    assert_is_error(await filled.get(f"{ONE}/elements?offset=-1"), 400)
    endpoints = (await filled.get(f"{ONE}/endpoints")).json["endpoints"]
    assert endpoints == [
        {"host": "train.example.com", "port": 443, "url": "https://train.example.com"}
    ]


async def test_history(filled: Served) -> None:
    history = (await filled.get(f"{ONE}/phases")).json["history"]
    assert [interval["phase"] for interval in history] == ["Creating", "Pending"]
    assert history[0]["endedAt"] == history[1]["startedAt"]
    assert "endedAt" not in history[1]


async def test_facets_leave_out_their_own_predicate(filled: Served) -> None:
    path = "/api/v1/workloads/facets?fields=phase,type&filterBy=phase==Running"
    answer = (await filled.get(path)).json
    phases, types = (
        {item["value"]: item["count"] for item in facet["values"]} for facet in answer["facets"]
    )
    running = (await filled.get("/api/v1/workloads/count?filterBy=phase==Running")).json["count"]
    assert answer["total"] == running == phases["Running"] == sum(types.values())
    assert sum(phases.values()) == TOTAL
    default = (await filled.get("/api/v1/workloads/facets")).json
    assert [facet["field"] for facet in default["facets"]] == ["phase"]


async def test_export_as_csv(filled: Served) -> None:
    answer = await filled.get("/api/v1/workloads/export")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="workloads.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    assert len(rows) == TOTAL
    listed = (await filled.get("/api/v1/workloads?limit=500")).json["workloads"]
    by_id = {row["id"]: row for row in listed}
    for row in rows:
        other = by_id[row["id"]]
        assert row["phase"] == other["phase"]
        assert row["allocatedGpus"] == str(other["allocatedResources"]["gpu"])
        assert row["currentNodePools"] == ", ".join(other["currentNodePools"])
        assert row["createdAt"] == other["createdAt"]


async def test_an_empty_export_has_its_header(filled: Served) -> None:
    answer = await filled.get("/api/v1/workloads/export?deleted=true")
    assert answer.body.startswith(b"id,name,type,")
    assert answer.body.count(b"\r\n") == 1
    answer = await filled.get("/api/v1/workloads/export?deleted=true&format=ndjson")
    assert answer.body == b""


async def test_export_as_ndjson_is_the_list(filled: Served) -> None:
    exported = await filled.get("/api/v1/workloads/export?format=ndjson")
    listed = (await filled.get("/api/v1/workloads?limit=500")).json["workloads"]
    totals = ("totalPendingTimeSeconds", "totalRunningTimeSeconds")
    document = [json.loads(line) for line in exported.body.splitlines()]
    assert [_without(row, totals) for row in document] == [_without(row, totals) for row in listed]


def _without(workload: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in workload.items() if name not in names}


async def test_names_that_would_be_formulas_are_harmless_in_csv(server: Served) -> None:
    now = datetime.now(UTC)
    agent = await connected_agent(server.db, now)
    await agent.send(upsert(workload(1, name="=HYPERLINK(1)", submitted_by="@ada")), now=now)
    text = (await server.get("/api/v1/workloads/export")).body.decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert (row["name"], row["submittedBy"]) == ("'=HYPERLINK(1)", "'@ada")


async def test_an_etag_while_nothing_runs(server: Served) -> None:
    now = datetime.now(UTC)
    agent = await connected_agent(server.db, now)
    await agent.send(upsert(workload(1, phase=Phase.COMPLETED, k8s_phase="Completed")), now=now)
    path = f"/api/v1/workloads/{UUID(int=1)}"
    first = await server.get(path)
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    for held in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await server.get(path, headers={"If-None-Match": held})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", etag)
    other = await server.get(path, headers={"If-None-Match": '"other"'})
    assert (other.status, other.body) == (200, first.body)


async def test_deleted_workloads_are_read_by_id_and_listed_apart(server: Served) -> None:
    now = datetime.now(UTC)
    agent = await connected_agent(server.db, now)
    await agent.send(upsert(workload(1)), upsert(workload(2)), now=now)
    await agent.send(Delete(id=UUID(int=1), deleted_at=now), now=now)
    live = (await server.get("/api/v1/workloads")).json["workloads"]
    gone = (await server.get("/api/v1/workloads?deleted=true")).json["workloads"]
    assert [row["id"] for row in live] == [str(UUID(int=2))]
    assert [row["id"] for row in gone] == [str(UUID(int=1))]
    assert (await server.get(f"/api/v1/workloads/{UUID(int=1)}")).json["deletedAt"] is not None


async def test_scope_narrows_everything(server: Served) -> None:
    now = datetime.now(UTC)
    agent = await connected_agent(server.db, now, number=1)
    two = await connected_agent(server.db, now, number=2)
    await agent.send(
        upsert(workload(1, project_name="vision")), upsert(workload(2, project_name="nlp")), now=now
    )
    await two.send(upsert(workload(3, project_name="vision")), now=now)
    listed = (await server.get("/api/v1/workloads")).json["workloads"]
    project = next(entry["projectId"] for entry in listed if entry["id"] == str(UUID(int=1)))
    cluster = str(two.identity.cluster_id)
    narrow = await server.account(("viewer", "project", project))
    wide = await server.account(("viewer", "project", project), ("viewer", "cluster", cluster))
    for token, numbers in ((narrow, {1}), (wide, {1, 3})):
        await _sees_only(server, token, {str(UUID(int=number)) for number in numbers})


async def _sees_only(server: Served, token: str, ids: set[str]) -> None:
    base = "/api/v1/workloads"
    result = (await server.get(base, token=token)).json["workloads"]
    assert {entry["id"] for entry in result} == ids
    assert (await server.get(f"{base}/count", token=token)).json["count"] == len(ids)
    assert (await server.get(f"{base}/facets", token=token)).json["total"] == len(ids)
    exported = await server.get(f"{base}/export?format=ndjson", token=token)
    assert {json.loads(line)["id"] for line in exported.body.splitlines()} == ids
    summed = await server.get(f"{base}/telemetry?telemetryType=WORKLOADS_COUNT", token=token)
    assert summed.json["values"] == [{"value": str(len(ids))}]
    for number in (1, 2, 3):
        for end in (
            "",
            "/phases",
            "/elements",
            "/elements/count",
            "/endpoints",
            "/metrics?" + METRIC,
        ):
            id_ = str(UUID(int=number))
            answer = await server.get(f"{base}/{id_}{end}", token=token)
            absent = await server.get(f"{base}/{ABSENT_ID}{end}", token=token)
            if id_ in ids:
                assert answer.status == 200
            else:
                assert answer.status == absent.status == 404
                assert answer.body == absent.body.replace(str(ABSENT_ID).encode(), id_.encode())
    clusters = (await server.get("/api/v1/clusters", token=token)).json
    assert sum(cluster["workloads"] for cluster in clusters) == len(ids)


METRIC = "metricType=POD_COUNT&start=2026-11-20T00:00:00Z&end=2026-11-21T00:00:00Z"

"""The fleet's figures over HTTP: one shape for now and for the series, nothing from outside the scope."""

from datetime import UTC, datetime, timedelta

import jsonschema_rs
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.samples import MERGED
from tests.fixtures.serving import Served
from watchbill.store.fleet.fleet import fleet_record, last_instant


async def test_now_and_a_series_in_their_schema(filled: Served) -> None:
    at = last_instant(datetime.now(UTC))
    await fleet_record(filled.db, 1, at)
    answer = await filled.get("/api/v1/fleet")
    assert answer.status == 200
    schema = MERGED["paths"]["/api/v1/fleet"]["get"]["responses"]["200"]["content"]
    jsonschema_rs.Draft4Validator(
        {**schema["application/json"]["schema"], "components": _nullable(MERGED["components"])}
    ).validate(answer.json)
    (moment,) = answer.json["series"]
    now = answer.json["now"]
    assert moment["phases"] == now["phases"]
    assert moment["gpus"] == now["gpus"]
    count = await filled.get("/api/v1/workloads/count")
    assert now["workloads"] == sum(now["phases"].values()) == count.json["count"]
    for phase, number in now["phases"].items():
        item = await filled.get(f"/api/v1/workloads/count?filterBy=phase=={phase}")
        assert item.json["count"] == number


def _nullable(node: object) -> object:
    """OpenAPI 3.0 says `nullable`, JSON Schema a second type."""
    if isinstance(node, dict):
        result = {name: _nullable(value) for name, value in node.items()}
        if result.pop("nullable", False) and isinstance(result.get("type"), str):
            result["type"] = [result["type"], "null"]
        return result
    return [_nullable(point) for point in node] if isinstance(node, list) else node


async def test_a_part_of_the_fleet(filled: Served) -> None:
    workloads = (await filled.get("/api/v1/workloads?limit=500")).json["workloads"]
    project = workloads[0]["projectId"]
    own = [workload for workload in workloads if workload["projectId"] == project]
    token = await filled.account(("viewer", "project", project))
    await fleet_record(filled.db, 1, last_instant(datetime.now(UTC)))
    answer = (await filled.get("/api/v1/fleet", token=token)).json
    for moment in (answer["now"], answer["series"][-1]):
        assert moment["workloads"] == len(own)
        assert moment["gpus"]["total"] is None
        allocated = sum(point["allocatedResources"]["gpu"] for point in own)
        assert moment["gpus"]["allocated"] == pytest.approx(allocated, abs=1e-5)


async def test_ranges(shared: Served) -> None:
    now = datetime.now(UTC)
    far = (now - timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (await shared.get(f"/api/v1/fleet?start={far}")).json["stepSeconds"] == 29 * 300
    early = await shared.get("/api/v1/fleet?start=1970-01-01T00:00:00Z&end=1970-01-02T00:00:00Z")
    assert (early.status, early.json["series"]) == (200, [])
    assert_is_error(await shared.get(f"/api/v1/fleet?start={far}&end={far}"), 400)
    for refused in ("start=yesterday", "end=0001-01-01T00:00:00Z", "end=9999-12-31T23:59:59Z"):
        assert_is_error(await shared.get(f"/api/v1/fleet?{refused}"), 400)
    edge = "metricType=GPU_QUOTA&start=9999-12-31T23:59:58Z&end=9999-12-31T23:59:59Z"
    assert_is_error(await shared.get(f"/api/v1/org-unit/departments/1/metrics?{edge}"), 400)

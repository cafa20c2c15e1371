"""Telemetry over HTTP: every type, every grouping alone and in pairs, as JSON and as CSV."""

import csv
import io
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import combinations
from typing import Any

import jsonschema_rs
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.api.test_workloads import TOTAL, schema_of
from tests.fixtures.serving import ABSENT_ID, Served
from watchbill.query import TELEMETRY_GROUPS

BASE = "/api/v1/workloads/telemetry?telemetryType="
TYPES = ("WORKLOADS_COUNT", "GPU_ALLOCATION", "PENDING_TIME_DISTRIBUTION", "IDLE_ALLOCATED_GPUS")
GROUPINGS = [(), *((group,) for group in TELEMETRY_GROUPS), *combinations(TELEMETRY_GROUPS, 2)]
MANY = {"CurrentNodepools", "RequestedNodepools"}
SCHEMA = jsonschema_rs.validator_for(schema_of("get_workloads_telemetry"), validate_formats=True)


@pytest.mark.parametrize("kind", TYPES)
async def test_every_grouping(filled: Served, kind: str) -> None:
    total = sum(Decimal(item["value"]) for item in (await filled.get(BASE + kind)).json["values"])
    for grouping in GROUPINGS:
        answer = await filled.get(f"{BASE}{kind}&groupBy={','.join(grouping)}")
        if kind == "PENDING_TIME_DISTRIBUTION" and len(grouping) == 2:
            assert_is_error(answer, 400)
            continue
        assert answer.status == 200, (grouping, answer.body)
        SCHEMA.validate(answer.json)
        assert answer.json["type"] == kind
        if kind == "GPU_ALLOCATION" or not MANY & set(grouping):
            result = sum(Decimal(item["value"]) for item in answer.json["values"])
            assert abs(result - total) < Decimal("0.0001"), grouping
        extra = ["PendingTime"] if kind == "PENDING_TIME_DISTRIBUTION" else []
        for value in answer.json["values"]:
            assert [group["key"] for group in value.get("groups", [])] == [*grouping, *extra]


async def test_ungrouped_is_one_value(filled: Served) -> None:
    answer = await filled.get(BASE + "WORKLOADS_COUNT")
    assert answer.json["values"] == [{"value": str(TOTAL)}]


async def test_ids_have_names(filled: Served) -> None:
    answer = await filled.get(BASE + "WORKLOADS_COUNT&groupBy=ClusterId")
    names = {value["groups"][0]["name"] for value in answer.json["values"]}
    assert names == {"cluster-1", "cluster-2"}


async def test_pending_times_always_have_four_buckets(filled: Served) -> None:
    answer = await filled.get(BASE + "PENDING_TIME_DISTRIBUTION&filterByPhases=Running")
    labels = [value["groups"][0]["value"] for value in answer.json["values"]]
    assert labels == ["0-5m", "5m-1h", "1h-24h", "24h+"]
    assert {value["value"] for value in answer.json["values"]} == {"0"}


async def test_phases_narrow(filled: Served) -> None:
    answer = await filled.get(BASE + "WORKLOADS_COUNT&groupBy=Phase&filterByPhases=Running,Failed")
    assert {value["groups"][0]["value"] for value in answer.json["values"]} == {"Failed", "Running"}


@pytest.mark.parametrize(
    "query",
    [
        f"clusterId={ABSENT_ID}",
        "departmentId=999",
        "departmentId=x",
        "departmentId=%00",
        "nodepoolName=none",
        "nodepoolName=%00",
        "nodepoolName=%27--",
    ],
)
async def test_what_is_not_there_holds_no_workloads(filled: Served, query: str) -> None:
    answer = await filled.get(f"{BASE}WORKLOADS_COUNT&{query}")
    assert answer.json["values"] == [{"value": "0"}]


async def test_a_filter_counts_what_the_list_counts(filled: Served) -> None:
    answer = await filled.get(f"{BASE}WORKLOADS_COUNT&nodepoolName=a100")
    counted = await filled.get("/api/v1/workloads/count?filterBy=nodepool==a100")
    assert answer.json["values"] == [{"value": str(counted.json["count"])}]


NARROWED = [
    ("clusterId", "clusterId", lambda row: [row["clusterId"]]),
    ("departmentId", "departmentId", lambda row: [row["departmentId"]]),
    ("nodepoolName", "nodepool", lambda row: row["currentNodePools"]),
    ("filterByPhases", "phase", lambda row: [row["phase"]]),
]


@pytest.mark.parametrize(
    ("parameter", "field", "values"), NARROWED, ids=[parameter[0] for parameter in NARROWED]
)
async def test_every_filter_sums_what_the_list_holds(
    filled: Served, parameter: str, field: str, values: Callable[[Any], list[str]]
) -> None:
    rows = (await filled.get("/api/v1/workloads?limit=500")).json["workloads"]
    result = sorted({value for row in rows for value in values(row) if value})
    assert len(result) > 1, "nothing to tell apart"
    for value in result:
        within = [row for row in rows if value in values(row)]
        pending = [row for row in within if row["phase"] == "Pending"]
        expected = {
            "WORKLOADS_COUNT": Decimal(len(within)),
            "PENDING_TIME_DISTRIBUTION": Decimal(len(pending)),
        }
        if field != "nodepool":  # of a pool only the share held there counts
            expected["GPU_ALLOCATION"] = _sum(row["allocatedResources"]["gpu"] for row in within)
            expected["IDLE_ALLOCATED_GPUS"] = _sum(row["idleAllocatedGpus"] for row in within)
        for kind, total in expected.items():
            answer = (await filled.get(f"{BASE}{kind}&{parameter}={value}")).json["values"]
            difference = _sum(item["value"] for item in answer) - total
            assert abs(difference) < Decimal("0.0001"), (kind, value)


def _sum(figures: Iterable[Any]) -> Decimal:
    return sum((Decimal(str(figure or 0)) for figure in figures), Decimal())


@pytest.mark.parametrize("kind", TYPES)
async def test_csv_says_what_json_says(filled: Served, kind: str) -> None:
    path = f"{BASE}{kind}&groupBy=ProjectId"
    answer = await filled.get(path, headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode(), newline="")))
    values = (await filled.get(path)).json["values"]
    assert len(rows) == len(values)
    for row, value in zip(rows, values, strict=True):
        assert row["type"] == kind
        assert row["value"] == value["value"]
        for group in value["groups"]:
            assert row[group["key"]] == group["value"]
            assert row[f"{group['key']}Name"] == group.get("name", "")


async def test_csv_without_values_has_its_header(filled: Served) -> None:
    path = f"{BASE}IDLE_ALLOCATED_GPUS&groupBy=Type,Phase&clusterId={ABSENT_ID}"
    answer = await filled.get(path, headers={"Accept": "text/csv"})
    assert answer.body == b"type,timestamp,Type,TypeName,Phase,PhaseName,value\r\n"

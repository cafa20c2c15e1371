"""Metrics over HTTP: samples, and the status that a partial or a whole failure is answered with."""

import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jsonschema_rs
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.api.test_workloads import schema_of
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import record, upsert, workload
from tests.fixtures.samples import ONE
from tests.fixtures.serving import ABSENT_ID, Served, listening
from watchbill.api.app import build_app
from watchbill.metric_types import METRICS
from watchbill.metrics.source import (
    FailedType,
    Measurement,
    MetricPoint,
    MetricsQuery,
    Outcome,
    Reason,
)
from watchbill.query import Scope
from watchbill.workload import Usage

SCHEMA = jsonschema_rs.validator_for(schema_of("get_workload_metrics"), validate_formats=True)
FROM_USAGE = [name for name, metric in METRICS.items() if metric.from_usage]
START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def path(types: str, *, samples: int = 4, hours: float = 4, id_: object = "") -> str:
    base = f"/api/v1/workloads/{id_}" if id_ else ONE
    end = START + timedelta(hours=hours)
    return (
        f"{base}/metrics?metricType={types}&start={START:%Y-%m-%dT%H:%M:%SZ}"
        f"&end={end:%Y-%m-%dT%H:%M:%SZ}&numberOfSamples={samples}"
    )


async def with_usage(server: Served) -> str:
    """A workload that had 1 pod, then 3, and went."""
    now = START
    agent = await connected_agent(server.db, now)
    for hours, pods in ((0, 1), (2, 3)):
        now = START + timedelta(hours=hours, minutes=30)
        usage = Usage(
            pod_count=pods,
            running_pod_count=pods,
            gpu_millionths=1_500_000,
            gpu_memory_request_bytes=0,
        )
        entry = record(workload(1, running_pods=pods), usage=usage)
        await agent.send(upsert(entry, observed_at=now), now=now)
    return str(UUID(int=1))


async def test_samples_follow_the_steps(server: Served) -> None:
    id_ = await with_usage(server)
    answer = await server.get(path("POD_COUNT,GPU_ALLOCATION,CPU_REQUEST_CORES", id_=id_))
    assert answer.status == 200, answer.body
    SCHEMA.validate(answer.json)
    pods, gpus, cores = answer.json["measurements"]
    # Nothing is known after the cluster's last contact at 10:30.
    assert pods == {
        "type": "POD_COUNT",
        "values": [
            {"value": "1", "timestamp": "2026-11-20T09:00:00.000Z"},
            {"value": "1", "timestamp": "2026-11-20T10:00:00.000Z"},
        ],
    }
    assert [value["value"] for value in gpus["values"]] == ["1.5", "1.5"]
    assert cores == {"type": "CPU_REQUEST_CORES", "values": []}


@pytest.mark.parametrize("name", list(METRICS))
async def test_every_type_alone(shared: Served, name: str) -> None:
    answer = await shared.get(path(name))
    if name in FROM_USAGE:
        assert answer.status == 200
        SCHEMA.validate(answer.json)
        assert answer.json["measurements"][0]["type"] == name
    else:
        assert_is_error(answer, 503)
        assert name in answer.json["details"]
        assert "Retry-After" not in answer.headers, "asking again cannot help"


async def test_some_failed(shared: Served) -> None:
    for headers in ({}, {"Accept": "text/csv"}):
        answer = await shared.get(path("GPU_UTILIZATION,POD_COUNT"), headers=headers)
        assert answer.status == 207
        assert answer.headers["Content-Type"] == "application/json"
        SCHEMA.validate(answer.json)
        assert answer.json["measurements"][0] == {
            "type": "GPU_UTILIZATION",
            "labels": {"reason": "unsupported"},
            "values": None,
        }


async def test_no_samples_asked_for(shared: Served) -> None:
    answer = await shared.get(path("POD_COUNT", samples=0))
    assert answer.json == {"measurements": [{"type": "POD_COUNT", "values": []}]}


async def test_a_type_asked_for_twice_is_answered_once(shared: Served) -> None:
    answer = await shared.get(path("POD_COUNT,POD_COUNT,RUNNING_POD_COUNT"))
    assert [measurement["type"] for measurement in answer.json["measurements"]] == [
        "POD_COUNT",
        "RUNNING_POD_COUNT",
    ]


@pytest.mark.parametrize("hours", [0, -1, 90 * 24 + 0.001])
async def test_ranges_that_are_refused(shared: Served, hours: float) -> None:
    assert_is_error(await shared.get(path("POD_COUNT", hours=hours)), 400)


async def test_ninety_days_are_taken(shared: Served) -> None:
    assert (await shared.get(path("POD_COUNT", hours=90 * 24))).status == 200


async def test_as_csv(server: Served) -> None:
    id_ = await with_usage(server)
    answer = await server.get(path("POD_COUNT", id_=id_), headers={"Accept": "text/csv"})
    assert answer.status == 200
    assert answer.headers["Content-Disposition"] == 'attachment; filename="metrics.csv"'
    rows = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
    assert rows == [
        ["type", "labels", "timestamp", "value"],
        ["POD_COUNT", "", "2026-11-20T09:00:00.000Z", "1"],
        ["POD_COUNT", "", "2026-11-20T10:00:00.000Z", "1"],
    ]


async def test_nothing_there(shared: Served) -> None:
    assert_is_error(await shared.get(path("POD_COUNT", id_=ABSENT_ID)), 404)


class Source:
    """A source that answers as a test wants it."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = outcomes

    async def measure(
        self, scope: Scope, workload_id: UUID, query: MetricsQuery, now: datetime
    ) -> list[Outcome] | None:
        return list(self.outcomes)


@asynccontextmanager
async def answering(served: Served, *outcomes: Outcome) -> AsyncIterator[Served]:
    services = replace(served.services, metrics=Source(*outcomes))
    async with listening(build_app(services)) as url:
        yield replace(served, url=url)


@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.SOURCE_ERROR])
async def test_a_failure_that_may_pass_says_when_to_ask_again(
    shared: Served, reason: Reason
) -> None:
    failed = FailedType(type="GPU_UTILIZATION", reason=reason)
    unsupported = FailedType(type="NVLINK_BANDWIDTH_TOTAL", reason=Reason.UNSUPPORTED)
    async with answering(shared, failed, unsupported) as served:
        answer = await served.get(path("GPU_UTILIZATION,NVLINK_BANDWIDTH_TOTAL"))
        assert_is_error(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
        assert reason in answer.json["details"]


async def test_labels(shared: Served) -> None:
    def series(gpu: str) -> Measurement:
        labels = {"gpu": gpu, "a": "=1"}
        return Measurement(
            type="GPU_UTILIZATION", samples=(MetricPoint(START, "9"),), labels=labels
        )

    async with answering(shared, series("0"), series("1")) as served:
        answer = await served.get(path("GPU_UTILIZATION"))
        SCHEMA.validate(answer.json)
        labels: list[Any] = [measurement["labels"] for measurement in answer.json["measurements"]]
        assert [label["gpu"] for label in labels] == ["0", "1"]
        table = await served.get(path("GPU_UTILIZATION"), headers={"Accept": "text/csv"})
        assert (
            table.body.splitlines()[1] == b'GPU_UTILIZATION,"a==1,gpu=0",2026-11-20T08:00:00.000Z,9'
        )

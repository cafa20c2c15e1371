"""Idle GPUs over HTTP: who is listed, in which order, and the arithmetic of GPU-hours."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import Served
from watchbill.identity import AgentIdentity
from watchbill.protocol import PROTOCOL_VERSION, HelloRequest
from watchbill.store.ingest.stream import stream_open

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


async def filled(server: Served) -> None:
    """Last contact at 12:00. Number 1: 2 GPUs for an hour; 2: half a GPU for ten, and 3 hours before."""
    agent = await connected_agent(server.db, NOW)
    made = [
        workload(
            number,
            idle_allocated_gpus=idle,
            idle_gpus=None if idle is None else int(idle),
            project_name=project,
            additional_fields={
                "idleGpuHours": closed,
                "idleMeasuredSince": stamp(NOW - timedelta(days=1)),
            }
            | (
                {"idleSince": stamp(since), "idleMeanSince": stamp(since)}
                if (since := NOW - timedelta(hours=hours)) and idle
                else {}
            ),
        )
        for number, idle, hours, closed, project in (
            (1, 2.0, 1, 0.0, "vision"),
            (2, 0.5, 10, 3.0, "speech"),
            (3, 0.0, 0, 50.0, "speech"),
            (4, None, 0, 0.0, "speech"),
        )
    ]
    await agent.send(*(upsert(entry) for entry in made), now=NOW)


async def test_most_gpu_hours_first(server: Served) -> None:
    await filled(server)
    answer = await server.get("/api/v1/workloads/idle")
    assert answer.status == 200, answer.body
    listed = [(workload["name"], workload["idleGpuHours"]) for workload in answer.json["workloads"]]
    assert listed == [("llama-sft-2", 8.0), ("llama-sft-1", 2.0)]
    assert {name: answer.json[name] for name in ("total", "idleGpus", "idleGpuHours")} == {
        "total": 2,
        "idleGpus": 2.5,
        "idleGpuHours": 10.0,
    }
    assert "next" not in answer.json


async def test_an_agent_that_starts_gets_the_hours_before_it(server: Served) -> None:
    """Up to the last contact: what nobody observed since then is not counted."""
    await filled(server)
    identity = AgentIdentity(1, UUID(int=0xC0 << 64 | 1))
    request = HelloRequest(protocol=PROTOCOL_VERSION, agent_version="test")
    reply = await stream_open(server.db, identity, request, NOW + timedelta(hours=5))
    assert {workload.id.int: workload.gpu_hours for workload in reply.idle} == {
        1: 2.0,
        2: 8.0,
        3: 50.0,
    }
    assert {workload.measured_since for workload in reply.idle} == {NOW - timedelta(days=1)}
    other = await connected_agent(server.db, NOW, number=2)
    assert (await stream_open(server.db, other.identity, request, NOW)).idle == ()


async def test_who_holds_them(server: Served) -> None:
    """Sums over all that match, whatever the page; those without an owner are counted as such."""
    agent = await connected_agent(server.db, NOW)
    since = stamp(NOW - timedelta(hours=4))
    owners = {1: "ada@example.com", 2: "ada@example.com", 3: "grace@example.com", 4: ""}
    made = [
        workload(
            number,
            submitted_by=owner,
            idle_allocated_gpus=float(number),
            idle_gpus=number,
            additional_fields={
                "idleGpuHours": 0.0,
                "idleMeasuredSince": since,
                "idleSince": since,
                "idleMeanSince": since,
            },
        )
        for number, owner in owners.items()
    ]
    await agent.send(*(upsert(entry) for entry in made), now=NOW)
    result = (await server.get("/api/v1/workloads/idle?limit=1")).json["owners"]
    assert [tuple(row.values()) for row in result] == [
        (None, 1, 4.0, 16.0),
        ("ada@example.com", 2, 3.0, 12.0),
        ("grace@example.com", 1, 3.0, 12.0),
    ]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("limit=1", ["llama-sft-2"]),
        ("limit=1&offset=1", ["llama-sft-1"]),
        ("filterBy=projectName==vision", ["llama-sft-1"]),
        ("filterBy=idleAllocatedGpus>=1", ["llama-sft-1"]),
        ("search=SFT-2", ["llama-sft-2"]),
        ("deleted=true", []),
    ],
)
async def test_filters_search_and_pages(server: Served, query: str, names: list[str]) -> None:
    await filled(server)
    answer = await server.get(f"/api/v1/workloads/idle?{query}")
    assert [workload["name"] for workload in answer.json["workloads"]] == names
    assert ("next" in answer.json) is (query == "limit=1")

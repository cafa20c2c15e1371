"""Nothing in one reply is unbounded, in rows or in bytes, whatever an agent stored."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import Served
from watchbill.client import Client, Selection
from watchbill.protocol import Delete
from watchbill.store.workloads import document, telemetry, workloads
from watchbill.workload import Phase, Transition

NOW = datetime.now(UTC)
DAY_AGO = NOW - timedelta(days=1)


async def pages(served: Served, path: str, member: str) -> list[list[Any]]:
    rows, offset = [], 0
    while offset is not None:
        answer = await served.get(f"{path}{'&' if '?' in path else '?'}offset={offset}")
        assert answer.status == 200, answer.body
        rows.append(answer.json[member])
        offset = answer.json.get("next")
    return rows


@pytest.mark.parametrize("path", ["/api/v1/workloads", "/api/v1/workloads/idle"])
async def test_a_page_of_large_documents_ends_earlier(
    server: Served, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Documents of 3 kB, pages of 10 kB; one document alone may be larger than a page."""
    monkeypatch.setattr(document, "PAGE_BYTES", 10_000)
    agent = await connected_agent(server.db, NOW)
    sizes = dict.fromkeys(range(1, 8), 3000) | {8: 20_000, 9: 1}
    made = [
        workload(
            n,
            name=f"n{n}",
            created_at=DAY_AGO + timedelta(seconds=n),
            idle_allocated_gpus=2.0,
            idle_gpus=2,
            additional_fields={"idleGpuHours": 100.0 - n, "text": "x" * size},
        )
        for n, size in sizes.items()
    ]
    await agent.send(*map(upsert, made), now=NOW)
    result = await pages(server, path, "workloads")
    names = [[row["name"] for row in page] for page in result]
    assert names == [["n1", "n2"], ["n3", "n4"], ["n5", "n6"], ["n7"], ["n8"], ["n9"]]


async def test_a_program_reads_on_where_a_page_ended_earlier(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "PAGE_BYTES", 10_000)
    agent = await connected_agent(server.db, NOW)
    fields = {"text": "x" * 3_000}
    await agent.send(
        *(upsert(workload(n, additional_fields=fields)) for n in range(1, 20)), now=NOW
    )
    async with Client(server.url, server.client_id, server.secret) as client:
        assert len(await client.workloads(Selection())) == 19


async def flapping(served: Served, *, phases: int) -> str:
    """A workload that went to and fro."""
    agent = await connected_agent(served.db, NOW)
    history = [
        (Phase.PENDING if n % 2 else Phase.RUNNING, DAY_AGO + timedelta(seconds=n))
        for n in range(phases)
    ]
    made = workload(1, phase=history[-1][0], created_at=DAY_AGO)
    await agent.send(upsert(made, *history), now=NOW)
    return f"/api/v1/workloads/{workload(1).id}/phases"


async def test_a_history_is_read_by_pages(server: Served) -> None:
    path = await flapping(server, phases=601)
    (first, second) = await pages(server, path, "history")
    assert (len(first), len(second)) == (500, 101)
    assert first[-1]["endedAt"] == second[0]["startedAt"]
    assert "endedAt" not in second[-1]
    assert [len(page) for page in await pages(server, f"{path}?limit=300", "history")] == [
        300,
        300,
        1,
    ]
    beyond = await server.get(f"{path}?offset=2000000000")
    assert beyond.json == {"history": []}
    async with Client(server.url, server.client_id, server.secret) as client:
        assert len((await client.history(workload(1).id)).history) == 601


async def test_a_history_of_long_messages_is_read_by_pages(server: Served) -> None:
    """Ten batches of twenty messages of 50 kB each make 10 MB."""
    agent = await connected_agent(server.db, NOW)
    for batch in range(10):
        history = tuple(
            Transition(
                phase=Phase.PENDING if n % 2 else Phase.RUNNING,
                at=DAY_AGO + timedelta(seconds=20 * batch + n),
                message="x" * 50_000,
            )
            for n in range(20)
        )
        made = workload(1, phase=history[-1].phase, created_at=DAY_AGO, name=f"n{batch}")
        await agent.send(msgspec.structs.replace(upsert(made), transitions=history), now=NOW)
    result = await pages(server, f"/api/v1/workloads/{workload(1).id}/phases", "history")
    assert len(result) == 2
    assert sum(map(len, result)) == 200
    assert len(result[0]) * 50_000 <= document.PAGE_BYTES


async def test_the_last_phase_of_what_is_deleted_has_its_end(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    await agent.send(upsert(workload(1, created_at=DAY_AGO)), now=NOW)
    await agent.send(Delete(id=workload(1).id, deleted_at=NOW), now=NOW)
    (page,) = await pages(server, f"/api/v1/workloads/{workload(1).id}/phases", "history")
    assert all("endedAt" in interval for interval in page)


KINDS = ("WORKLOADS_COUNT", "GPU_ALLOCATION", "PENDING_TIME_DISTRIBUTION")


@pytest.mark.parametrize("kind", KINDS)
async def test_telemetry_has_so_many_groups_and_says_so(
    server: Served, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    buckets = 4 if kind == KINDS[2] else 1
    monkeypatch.setattr(telemetry, "MAX_GROUPS", 3 * buckets)
    agent = await connected_agent(server.db, NOW)
    pending = {"phase": Phase.PENDING, "k8s_phase": "Pending", "created_at": DAY_AGO}
    await agent.send(
        *(upsert(workload(n, type=f"T{n % 5}", gpus=1.0, **pending)) for n in range(1, 15)),
        now=NOW,
    )
    path = f"/api/v1/workloads/telemetry?telemetryType={kind}"
    answer = await server.get(f"{path}&groupBy=Type")
    types = [value["groups"][0]["value"] for value in answer.json["values"]]
    assert list(dict.fromkeys(types)) == ["T1", "T2", "T3"], "T0 has the fewest"
    assert answer.headers["Watchbill-Partial"] == "groups"
    whole = await server.get(f"{path}&groupBy=Category")
    assert "Watchbill-Partial" not in whole.headers


async def test_facets_say_where_there_are_more_values(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workloads, "MAX_FACET_VALUES", 3)
    agent = await connected_agent(server.db, NOW)
    await agent.send(*(upsert(workload(n, type=f"T{n}")) for n in range(1, 6)), now=NOW)
    answer = (await server.get("/api/v1/workloads/facets?fields=type,phase")).json
    types, phases = answer["facets"]
    assert len(types["values"]) == 3
    assert types["isPartial"] is True
    assert "isPartial" not in phases

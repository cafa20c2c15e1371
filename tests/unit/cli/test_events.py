"""`events`: Kubernetes' events of a workload, and its phases."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.command_line import CLUSTER_ID, FakeServer, aged, document
from watchbill.cli.output.terminal import csv_document


def ago(minutes: int) -> str:
    return (datetime.now(UTC) - timedelta(minutes=minutes, seconds=20)).isoformat()


def event(minutes: int, **members: Any) -> dict[str, Any]:
    plain = {
        "id": str(UUID(int=5)),
        "createdAt": ago(minutes),
        "type": "Warning",
        "clusterId": str(CLUSTER_ID),
        "message": "no\x1b[2J room",
        "reason": "FailedScheduling",
        "source": "default-scheduler",
        "involvedObject": {
            "uid": str(UUID(int=6)), "kind": "Pod", "name": "w-0", "namespace": "team-vision"
        },
        "count": 12,
        "firstAt": ago(minutes + 1),
    }  # fmt: skip
    meta = {"creationTimestamp": plain["createdAt"], "type": "Event"}
    return {"meta": meta, "spec": {"event": plain | members}}


def phase(minutes: int, name: str, message: str = "") -> dict[str, Any]:
    meta = {"creationTimestamp": ago(minutes), "type": "PhaseUpdate"}
    return {"meta": meta, "spec": {"phaseUpdate": {"phase": name, "phaseMessage": message}}}


async def test_one_line_of_time() -> None:
    records = [event(2), phase(131, "Pending", "It waits."), phase(132, "Creating")]
    async with FakeServer(live=[document(aged(1))], records=records).running() as watchbill:
        outcome = await watchbill("events", "llama-sft-1")
        single = await watchbill("events", "llama-sft-1", "--limit", "1", "--no-headers")
        as_json = await watchbill("events", "llama-sft-1", "-o", "json")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["AGE", "TYPE", "REASON", "OBJECT", "COUNT", "MESSAGE"]
    assert lines[1].split()[0] == "2m"
    assert lines[1].split()[2:6] == ["Warning", "FailedScheduling", "Pod/w-0", "12"]
    assert "\x1b" not in outcome.out
    assert lines[2].split()[2:4] == ["Phase", "Pending"]
    assert lines[2].endswith("It waits.")
    assert len(single.out.splitlines()) == 1
    assert single.err == "The newest 1; --limit shows more.\n"
    assert len(json.loads(as_json.out)["records"]) == 3


async def test_describe_shows_the_sections_that_are_chosen() -> None:
    records = [event(2), phase(131, "Pending", "It waits.")]
    titles = {"Phase", "Resources", "Events"}

    def sections(out: str) -> set[str]:
        return titles & set(out.splitlines())

    async with FakeServer(live=[document(aged(1))], records=records).running() as watchbill:
        everything = await watchbill("describe", "llama-sft-1")
        chosen = await watchbill("describe", "llama-sft-1", "--events", "--compute")
        without = await watchbill("workload", "describe", "llama-sft-1", "--no-events")
    assert sections(everything.out) == titles
    assert chosen.out.startswith("Resources\n")
    assert sections(chosen.out) == {"Resources", "Events"}
    assert "FailedScheduling" in chosen.out
    assert "It waits." not in chosen.out.split("Events\n")[1]
    assert sections(without.out) == {"Phase", "Resources"}


def test_a_document_as_csv_has_a_column_for_each_member() -> None:
    first = {
        "id": 1,
        "name": "=x",
        "a": {"b": 1.5},
        "tags": ["p", "q"],
        "many": [{"k": 1}],
        "ok": True,
    }
    second = {"id": 2, "name": None, "more": "2026-11-30T08:00:00Z", "tags": []}
    assert csv_document({"rows": [first, second]}).decode().splitlines() == [
        "id,name,a.b,tags,many,ok,more",
        """1,'=x,1.5,"p, q","[{""k"":1}]",true,""",
        "2,,,,,,2026-11-30T08:00:00Z",
    ]
    assert csv_document(second).decode().splitlines() == [
        "id,name,more,tags",
        "2,,2026-11-30T08:00:00Z,",
    ]


@pytest.mark.parametrize(
    ("command", "member"),
    [
        ("events llama-sft-1", "records"),
        ("why", "workloads"),
        ("top", "workloads"),
        ("clusters", "clusters"),
    ],
)
async def test_csv_has_the_rows_of_the_json(command: str, member: str) -> None:
    records = [event(2), phase(131, "Pending", "It waits.")]
    server = FakeServer(live=[document(aged(1)), document(aged(2))], records=records, counts=[2])
    async with server.running() as watchbill:
        as_json = await watchbill(*command.split(), "-o", "json")
        as_csv = await watchbill(*command.split(), "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(as_csv.out)))
    assert len(rows) == len(json.loads(as_json.out)[member]) > 0
    assert None not in rows[0]


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        ("events llama-sft-1", {"meta.creationTimestamp", "spec.event.reason"}),
        ("history llama-sft-1", {"phase", "startedAt", "endedAt", "phaseMessage"}),
        ("tree llama-sft-1", {"id", "name"}),
        ("why", {"name", "phaseUpdatedAt", "pendingReasons"}),
        ("top", {"name", "allocatedGpus", "gpuUtilization"}),
        ("top --by owner", {"owner", "workloads", "gpus", "idleGpus"}),
        ("clusters", {"name", "state", "lastContactAt"}),
        ("idle", {"name", "idleGpuHours"}),
        ("pods", {"name", "status"}),
        ("nodes", {"name", "gpuType"}),
        ("projects", {"name"}),
        ("usage", {"project", "allocatedGpuHours"}),
        ("get", {"name", "phase"}),
    ],
)
async def test_csv_of_an_empty_list_has_its_header(command: str, columns: set[str]) -> None:
    live = [document(aged(1))] if "llama-sft-1" in command else []
    async with FakeServer(live=live, clusters=[]).running() as watchbill:
        outcome = await watchbill(*command.split(), "-o", "csv")
    assert (outcome.code, columns - set(outcome.out.splitlines()[0].split(","))) == (0, set())

"""The questions that people come with, asked of everything at once: what waits and why, who holds idle GPUs."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.fixtures.command_line import FakeServer, aged, document, watchbill
from watchbill.workload import Phase

REASON = "GPU quota is short – 16 asked, 3 free – ask for fewer or wait."


def idle_report(number: int, owner: str, hours: float) -> dict[str, Any]:
    since = datetime.now(UTC) - timedelta(minutes=90, seconds=20 + number)
    result = document(
        aged(
            number,
            submitted_by=owner,
            idle_allocated_gpus=2,
            additional_fields={"idleSince": since.isoformat()},
        )
    )
    return result | {"idleGpuHours": hours}


async def test_all_that_waits_a_line_each() -> None:
    reason = {
        "source": "kai",
        "reason": "OverLimit",
        "message": "asked 16, quota 8",
        "userMessage": REASON,
        "since": "2026-11-20T08:00:00Z",
    }
    extra = {"pendingReasons": [reason]}
    waiting = [
        document(aged(1, phase=Phase.PENDING, additional_fields=extra, gpus=16)),
        document(aged(2, phase=Phase.PENDING)),
        document(aged(3, phase=Phase.PENDING, phase_message="bad\x1b[2J\nforged")),
    ]
    async with FakeServer(live=waiting, counts=[40]).running() as fake:
        outcome = await fake("why", "--limit", "3", "--no-headers", "-p", "vision")
    assert [line.split("2h 11m   ")[1] for line in outcome.out.splitlines()] == [
        REASON,
        "no scheduler and no queue has given a reason yet",
        "bad\\x1b[2J\\nforged",
    ]
    assert outcome.err.startswith("3 of 40 shown")
    query = fake.asked("/api/v1/workloads")[0].query
    assert query.getall("filterBy") == ["phase==Pending", '["projectName==vision"]']
    assert (query["sortBy"], query.get("sortOrder")) == ("phaseUpdatedAt", None)


async def test_why_for_programs_has_the_evidence_under_the_apis_names() -> None:
    reason = {
        "source": "kai",
        "reason": "OverLimit",
        "message": "asked 16, quota 8",
        "userMessage": REASON,
        "since": "2026-11-20T08:00:00Z",
    }
    waiting = document(aged(1, phase=Phase.PENDING, additional_fields={"pendingReasons": [reason]}))
    async with FakeServer(live=[waiting]).running() as fake:
        single = json.loads((await fake("why", "llama-sft-1", "-o", "json")).out)
        every = json.loads((await fake("why", "-o", "json")).out)
    assert single["pendingReasons"] == [reason]
    assert (single["phase"], single["id"]) == ("Pending", waiting["id"])
    assert every == {"workloads": [single]}


@pytest.mark.parametrize(
    ("position", "line"),
    [
        (
            {"ahead": 3, "others": 1200},
            "Ahead of it by priority and time waited: 3 of 1,200 other workloads pending in its project; "
            "its scheduler may order them differently.",
        ),
        ({"ahead": 0, "others": 0}, ""),
        (
            {"ahead": 3, "others": 1200, "source": "Kueue"},
            "Ahead of it in Kueue's own order: 3 of 1,200 others waiting in its ClusterQueue.",
        ),
    ],
)
async def test_why_counts_those_ahead(position: dict[str, int | str], line: str) -> None:
    waiting = document(aged(1, phase=Phase.PENDING, additional_fields={"queuePosition": position}))
    async with FakeServer(live=[waiting]).running() as fake:
        outcome = await fake("why", "llama-sft-1")
        single = json.loads((await fake("why", "llama-sft-1", "-o", "json")).out)
    assert [text for text in outcome.out.splitlines() if "Ahead of it" in text] == [line][
        : bool(line)
    ]
    assert single["queuePosition"] == position


async def test_nothing_waits() -> None:
    async with FakeServer().running() as fake:
        outcome = await fake("why")
        torn = await fake("why", "--deleted")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "No pending workloads visible to you.\n"
    assert torn.code == 2


async def test_idle_says_since_when_and_what_it_cost() -> None:
    fake = FakeServer(
        idle=[idle_report(1, "ada@example.com", 1234.56), idle_report(2, "alan@x", 3)]
    )
    async with fake.running() as running:
        outcome = await running("idle")
        document = json.loads((await running("idle", "-o", "json")).out)
        lines = (await running("idle", "-o", "csv")).out.splitlines()
    assert lines[0].split(",")[:2] + lines[0].split(",")[-2:] == [
        "name",
        "id",
        "idleSince",
        "idleGpuHours",
    ]
    assert [line.split(",")[-1] for line in lines[1:]] == ["1234.56", "3.0"], "numbers as they are"
    header, first, _ = outcome.out.splitlines()
    assert header.split()[-4:] == ["IDLE", "IDLE-FOR", "IDLE-HOURS", "PHASE"]
    assert first.split()[-5:] == ["2", "1h", "30m", "1,234.6", "Running"]
    assert outcome.err.startswith(
        "4 GPUs of 2 workloads are idle: 1,237.6 GPU-hours in their whole lives.\n"
    )
    assert [workload["idleGpuHours"] for workload in document["workloads"]] == [1234.56, 3]


async def test_idle_by_owner_sums_every_page() -> None:
    many = [
        idle_report(n, "ada@example.com" if n % 2 else "alan@example.com", n) for n in range(1, 603)
    ]
    async with FakeServer(idle=many).running() as running:
        outcome = await running("idle", "--by", "owner", "--no-headers")
        cut = await running("idle", "--by", "owner", "--limit", "1")
        sums = (await running("idle", "--by", "owner", "-o", "csv")).out.splitlines()
        document = json.loads((await running("idle", "--by", "owner", "-o", "json")).out)
    assert [line.split(",")[:3] + line.split(",")[-1:] for line in sums] == [
        ["owner", "workloads", "idleAllocatedGpus", "idleGpuHours"],
        ["alan@example.com", "301", "602.0", "90902.0"],
        ["ada@example.com", "301", "602.0", "90601.0"],
    ]
    assert [[*group.values()][:3] for group in document["groups"]] == [
        ["alan@example.com", 301, 602.0],
        ["ada@example.com", 301, 602.0],
    ]
    assert [line.split() for line in outcome.out.splitlines()] == [
        ["alan@example.com", "301", "602", "1h", "40m", "90,902.0"],
        ["ada@example.com", "301", "602", "1h", "40m", "90,601.0"],
    ]
    assert "of 2 shown" not in outcome.err
    assert len(cut.out.splitlines()) == 2
    assert "1 of 2 shown" in cut.err


@pytest.mark.parametrize(
    ("word", "field"),
    [
        ("CREATEDAT", "createdAt"),
        (".metadata.creationTimestamp", "createdAt"),
        ("{.metadata.name}", "name"),
        ("age", "createdAt"),
        ("owner", "submittedBy"),
        ("nonsense", "nonsense"),
    ],
)
async def test_fields_to_sort_by_go_by_the_names_that_people_know(word: str, field: str) -> None:
    async with FakeServer().running() as running:
        await running("get", "--sort-by", word)
    assert running.asked("/api/v1/workloads")[0].query["sortBy"] == field


@pytest.mark.parametrize(
    ("arguments", "order"),
    [
        ((), ("createdAt", "desc")),
        (("--deleted",), ("deletedAt", "desc")),
        (("-o", "json"), (None, None)),
        (("--sort-by", "name"), ("name", None)),
    ],
)
async def test_people_see_what_is_new_and_programs_the_apis_order(
    arguments: tuple[str, ...], order: tuple[str | None, str | None]
) -> None:
    async with FakeServer().running() as running:
        await running("get", *arguments)
    path = "/api/v1/workloads/export" if "-o" in arguments else "/api/v1/workloads"
    query = running.asked(path)[0].query
    assert (query.get("sortBy"), query.get("sortOrder")) == order


@pytest.mark.parametrize(
    ("arguments", "filters"),
    [
        (("get",), ['["projectName==vision"]']),
        (("get", "-p", "speech"), ['["projectName==speech"]']),
        (("get", "-A"), []),
        (("get", "--all-projects", "-p", "speech"), []),
        (("workload", "list", "-A"), []),
    ],
)
async def test_a_project_of_ones_own_until_all_are_asked_for(
    arguments: tuple[str, ...], filters: list[str]
) -> None:
    async with FakeServer().running() as running:
        environ = running.environ | {"WATCHBILL_PROJECT": "vision"}
        assert (await watchbill(*arguments, environ=environ)).code == 0
    asked = running.asked("/api/v1/workloads")[0].query.getall("filterBy", [])
    assert asked == [*filters, "workloadClass!=General"]


@pytest.mark.parametrize(
    "selector", ["a=b,c=d", "team!=vision", "team==vision", "team in (a)", "!team"]
)
async def test_selectors_of_kubectl_are_refused_rather_than_matched_with_nothing(
    selector: str,
) -> None:
    async with FakeServer().running() as running:
        outcome = await running("get", "-l", selector)
    assert outcome.code == 2
    assert outcome.err.startswith(
        f"error: --label takes one KEY=VALUE or one KEY, not '{selector}'."
    )
    assert running.asked("/api/v1/workloads") == []

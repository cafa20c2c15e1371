"""`pods`, `logs`, and the pods of `describe`."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from tests.fixtures.command_line import CLUSTER_ID, FakeServer, aged, cluster, document
from tests.fixtures.records import pod
from watchbill.cli.commands.pods import POD_COLUMNS, pod_lines, pod_rows
from watchbill.cli.output.terminal import Terminal
from watchbill.responses.contract import PodResponse
from watchbill.workload import AllocatedResources
from watchbill.workload_pod import PodContainer

CRASHED = PodContainer(
    name="main",
    image="registry.example.com/train:1",
    state="waiting",
    reason="CrashLoopBackOff",
    restarts=4,
    last_reason="OOMKilled",
    last_exit_code=137,
)


def answered(number: int = 1, *, workload: int = 1, **members: Any) -> dict[str, Any]:
    """What the API answers for this pod."""
    deleted_at = members.pop("deletedAt", None)
    created_at = datetime.now(UTC) - timedelta(hours=2, minutes=11, seconds=20)
    held = AllocatedResources(gpu=2.0, extended_resources=())
    plain = {"created_at": created_at, "allocated_resources": held}
    document: dict[str, Any] = json.loads(msgspec.json.encode(pod(number, **(plain | members))))
    server = {
        "tenantId": 1,
        "clusterId": str(CLUSTER_ID),
        "workloadId": str(UUID(int=workload)),
        "projectId": "11",
        "updatedAt": created_at.isoformat(),
        "workloadName": f"llama-sft-{workload}",
    }
    return document | server | ({} if deleted_at is None else {"deletedAt": deleted_at})


def fake(*pods: dict[str, Any]) -> FakeServer:
    return FakeServer(live=[document(aged(1)), document(aged(2))], pods=list(pods))


CRASHING = answered(
    2,
    containers=(CRASHED,),
    restarts=4,
    is_ready=False,
    reason="CrashLoopBackOff",
    message="It ends.",
)


async def test_pods_of_a_workload() -> None:
    async with fake(answered(1), CRASHING, answered(3, workload=2)).running() as watchbill:
        outcome = await watchbill("pods", "llama-sft-1")
        wide = await watchbill("pods", "llama-sft-1", "-o", "wide")
    header, second, first = outcome.out.splitlines()
    assert wide.out.splitlines()[0].split()[-2:] == ["IP", "ID"]
    assert wide.out.splitlines()[2].split()[-2:] == ["-", str(UUID(int=1))]
    assert header.split()[:4] == ["NAME", "STATUS", "READY", "RESTARTS"]
    assert first.split() == [
        "llama-sft-1",
        "Running",
        "yes",
        "0",
        "-",
        "node-1",
        "a100",
        "2",
        "2h",
        "11m",
    ]
    assert second.split()[:6] == [
        "llama-sft-2",
        "CrashLoopBackOff",
        "no",
        "4",
        "OOMKilled",
        "(137)",
    ]
    assert outcome.err == "note: pod llama-sft-2: It ends.\n"


async def test_pods_of_all_workloads_and_those_that_are_gone() -> None:
    gone = answered(4, deletedAt="2026-11-23T12:00:00Z")
    async with fake(answered(1), answered(3, workload=2), gone).running() as watchbill:
        listed = await watchbill("pods", "--limit", "1")
        as_json = await watchbill("pods", "-o", "json")
        as_csv = await watchbill("pods", "-o", "csv")
        deleted = await watchbill("pods", "llama-sft-1", "--deleted", "--no-headers")
        nothing = await watchbill("pods", "llama-sft-2", "--deleted")
        project = await watchbill("pods", "-p", "vision")
    assert listed.out.splitlines()[0].startswith("WORKLOAD")
    assert len(listed.out.splitlines()) == 2
    assert listed.err == "The first 1; --limit shows more.\n"
    assert [each["name"] for each in json.loads(as_json.out)["pods"]] == [
        "llama-sft-1",
        "llama-sft-3",
    ]
    rows = [line.split(",")[0] for line in as_csv.out.splitlines()]
    assert rows == ["name", "llama-sft-1", "llama-sft-3"]
    assert deleted.out.split()[0] == "llama-sft-4"
    assert (nothing.out, nothing.err) == (nothing.out, "No pods visible to you.\n")
    assert project.code == 2


async def test_a_workload_of_2000_pods_is_read_page_by_page() -> None:
    """The table begins with what has failed, wherever that stands."""
    crashing = [CRASHING | {"id": str(UUID(int=n)), "name": f"late-{n}"} for n in (1_999, 2_000)]
    pods = [*(answered(number) for number in range(1, 1_999)), *crashing]
    async with fake(*pods).running() as watchbill:
        listed = await watchbill("pods", "llama-sft-1", "--limit", "1200", "--no-headers")
        as_json = await watchbill("pods", "llama-sft-1", "-o", "json")
        pages = watchbill.asked(f"/api/v1/workloads/{UUID(int=1)}/pods")
    rows = [line.split()[0] for line in listed.out.splitlines()]
    assert rows[:3] == ["late-1999", "late-2000", "llama-sft-1"]
    assert len(rows) == 1_200
    assert "note: pod late-1999 and 1 more: It ends.\n" in listed.err
    assert "The first 1,200; --limit shows more." in listed.err
    assert len({each["id"] for each in json.loads(as_json.out)["pods"]}) == 2_000
    every = [(str(offset), "500") for offset in range(0, 2_000, 500)]
    assert [(page.query["offset"], page.query["limit"]) for page in pages] == every * 2


async def test_pods_of_a_cluster_that_is_not_observed_say_so() -> None:
    server = fake(answered(1))
    server.clusters = [cluster(state="degraded", reason="Its agent cannot read pods (failing).")]
    async with server.running() as watchbill:
        outcome = await watchbill("pods")
    assert "note: cluster west is degraded: not observed for" in outcome.err
    assert "Its agent cannot read pods (failing)." in outcome.err


async def test_a_project_of_the_environment_refuses_no_list_of_all_pods() -> None:
    everywhere = {"WATCHBILL_PROJECT": "vision"}
    async with fake(answered(1), answered(3, workload=2)).running() as running:
        listed = await running("pods", "--no-headers", "--cluster", "west", environ=everywhere)
        typed = await running("pods", "--project", "vision", environ=everywhere)
    assert len(listed.out.splitlines()) == 2
    assert listed.err == "Pods of all projects: WATCHBILL_PROJECT does not narrow this list.\n"
    assert typed.code == 2


async def test_hostile_names_are_shown_harmless() -> None:
    async with fake(answered(1, name="a\x1b[2Jb", namespace="n; rm -rf /")).running() as watchbill:
        listed = await watchbill("pods", "llama-sft-1")
        printed = await watchbill("logs", "llama-sft-1")
    assert "\x1b" not in listed.out + printed.out
    assert "-n 'n; rm -rf /'" in printed.out


async def test_logs_prints_what_kubectl_can_show() -> None:
    async with fake(answered(1), CRASHING).running() as watchbill:
        outcome = await watchbill("logs", "llama-sft-1")
        without = await watchbill("logs", "llama-sft-2")
    assert outcome.out.splitlines() == [
        "kubectl logs llama-sft-2 -n team-vision --all-containers --tail 100",
        "kubectl logs llama-sft-2 -n team-vision -c main --previous --tail 100",
        "kubectl logs llama-sft-1 -n team-vision --all-containers --tail 100",
    ]
    assert (without.code, without.out) == (0, "")


def test_a_narrow_terminal_shows_which_pod_it_is() -> None:
    """Columns that say least are left out: cut to its beginning each name would be its workload's."""
    names = [f"whisper-split-1-0-decode-{number}" for number in range(3)]
    listed = [
        msgspec.json.decode(
            msgspec.json.encode(answered(number, name=name)), type=PodResponse, strict=False
        )
        for number, name in enumerate(names)
    ]
    rows = pod_rows(listed, datetime.now(UTC))
    header, *lines = pod_lines(POD_COLUMNS, rows, Terminal(columns=80))
    assert header.split() == ["NAME", "STATUS", "RESTARTS", "LAST-EXIT", "NODE", "AGE"]
    assert [line.split()[0] for line in lines] == names
    assert "READY" in pod_lines(POD_COLUMNS, rows, Terminal(columns=120))[0]


async def test_describe_shows_the_first_pods() -> None:
    pods = [answered(number) for number in range(1, 13)]
    async with fake(*pods).running() as watchbill:
        outcome = await watchbill("describe", "llama-sft-1")
    lines = outcome.out.splitlines()
    start = lines.index("Pods")
    assert lines[start + 2].split()[0] == "llama-sft-1"
    assert lines[start + 12] == f"  (more: `watchbill pods {UUID(int=1)}`)"

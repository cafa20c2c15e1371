"""`describe`, `why`, `history`, `tree` and `clusters`; and how a word finds its workload or does not."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.command_line import NOT_COUNTED, FakeServer, aged, cluster, document
from watchbill.cli.commands.history import tree_lines
from watchbill.responses.usage import NO_USAGE
from watchbill.workload import Condition, Element, Phase

SINCE = datetime.now(UTC) - timedelta(days=2, hours=3, minutes=30)
"""Said as "2d 3h" for half an hour, however long the suite takes."""
REASONS = [
    {
        "source": "kai",
        "nodePool": "a100",
        "reason": "OverLimit",
        "message": "Workload requested 16 GPUs, but quota is 8",
        "userMessage": "GPU quota is short – 16 asked, 3 free – ask for fewer or wait.",
        "since": SINCE.isoformat(),
    },
    {
        "source": "kueue",
        "reason": "Inadmissible",
        "message": "couldn't assign flavors\x1b[2J\nto pod set main",
        "userMessage": "",
        "since": SINCE.isoformat(),
    },
]


def pending(**members: Any) -> dict[str, Any]:
    plain = {
        "phase": Phase.PENDING,
        "k8s_phase": "Pending",
        "running_pods": 0,
        "additional_fields": {"pendingReasons": REASONS},
        "phase_message": REASONS[0]["userMessage"],
    }
    return document(aged(1, **(plain | members)))


async def test_why_pending_gives_each_reason_with_its_evidence() -> None:
    async with FakeServer(live=[pending()]).running() as watchbill:
        outcome = await watchbill("why", "llama-sft-1")
    shown = f"{SINCE:%Y-%m-%d %H:%M:%S} UTC (2d 3h ago)"
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "llama-sft-1 (PyTorchJob) in project vision on cluster west has been Pending for 2h 11m.",
        "",
        "Because: GPU quota is short – 16 asked, 3 free – ask for fewer or wait.",
        "  source        KAI scheduler, for node pool a100",
        f"  since         {shown}",
        "  reason        OverLimit",
        "  original      Workload requested 16 GPUs, but quota is 8",
        "",
        "Also: couldn't assign flavors\\x1b[2J\\nto pod set main",
        "  source        Kueue",
        f"  since         {shown}",
        "  reason        Inadmissible",
        "  original      couldn't assign flavors\\x1b[2J\\nto pod set main",
    ]


async def test_why_ends_with_the_kubectl_lines_that_lead_on() -> None:
    elements = [
        object_of(1, "llama", "PyTorchJob", "kubeflow.org"),
        object_of(2, "llama-0; rm", "Pod"),
    ]
    async with FakeServer(live=[pending(namespace="ml")], elements=elements).running() as watchbill:
        lines = (await watchbill("why", "llama-sft-1")).out.splitlines()
    assert lines[-4:] == [
        "Next, with kubectl on cluster west:",
        "  kubectl describe pytorchjob.v1.kubeflow.org llama -n ml",
        "  kubectl events --for 'pod/llama-0; rm' -n ml",
        "  kubectl logs 'llama-0; rm' --all-containers --tail 100 -n ml",
    ]


def object_of(number: int, name: str, kind: str, group: str = "") -> dict[str, Any]:
    gvk = {"group": group, "version": "v1", "kind": kind}
    return {
        "id": str(UUID(int=number)),
        "name": name,
        "hierarchyLevel": number,
        "kubernetesRef": {"uid": f"u{number}", "name": name, "gvk": gvk},
    }


async def test_why_pending_without_a_reason_invents_none() -> None:
    made = pending(additional_fields={}, phase_message="2 of 4 pods wait for a node.")
    async with FakeServer(live=[made]).running() as watchbill:
        outcome = await watchbill("why", "llama-sft-1")
    assert outcome.out.splitlines()[1:] == [
        "Message: 2 of 4 pods wait for a node.",
        "No scheduler and no queue has given a reason yet.",
    ]


async def test_why_of_a_running_one_says_what_is_true() -> None:
    made = [
        document(aged(1)),
        document(aged(2, idle_allocated_gpus=1.5)),
    ]
    async with FakeServer(live=made).running() as watchbill:
        unmeasured = await watchbill("why", "llama-sft-1")
        idle = await watchbill("why", "llama-sft-2")
    assert unmeasured.out.splitlines()[1:] == [
        "1 of 1 pods running, 2 GPUs allocated.",
        "GPU use is not measured: idle GPUs are unknown.",
        "Total pending time 1m 1s, total running time 2h 11m.",
    ]
    assert "1.5 GPUs idle." in idle.out


async def test_why_of_a_failed_one_brings_the_conditions_that_say_something() -> None:
    conditions = (
        Condition(type="Created", status="True", message="created", last_transition_time=SINCE),
        Condition(type="Quiet", status="True"),
        Condition(
            type="Failed",
            status="True",
            reason="BackoffLimitExceeded",
            message="has reached\nthe limit",
            last_transition_time=SINCE + timedelta(hours=1),
        ),
    )
    made = document(
        aged(
            1,
            phase=Phase.FAILED,
            phase_message="Pod x: OOMKilled",
            completed_at=SINCE + timedelta(hours=1),
            conditions=conditions,
        )
    )
    async with FakeServer(live=[made]).running() as watchbill:
        outcome = await watchbill("why", "llama-sft-1")
    out = outcome.out.splitlines()
    assert out[1] == "Message: Pod x: OOMKilled"
    assert out[2].startswith("It ended ")
    assert [line.split()[0] for line in out[-3:]] == ["CONDITION", "Failed=True", "Created=True"]
    assert "has reached\\nthe limit" in out[-2]
    assert "Quiet" not in outcome.out


async def test_why_of_a_deleted_one_says_that_it_is_gone() -> None:
    gone = document(aged(1), deleted_at=datetime.now(UTC) - timedelta(hours=1, seconds=5))
    async with FakeServer(deleted=[gone]).running() as watchbill:
        outcome = await watchbill("why", "llama-sft-1")
    assert "was Running when it was deleted." in outcome.out
    assert "(1h ago)" in outcome.out


async def test_describe_shows_the_parts_and_nothing_empty() -> None:
    made = pending(
        name="evil\x1b]8;;http://x\x07\nPhase  Running",
        environment_variables={"A\x1b": "b\n"},
        conditions=(Condition(type="Ready", status="False", message="no\u202e"),),
    )
    async with FakeServer(live=[made]).running() as watchbill:
        outcome = await watchbill("describe", str(UUID(int=1)))
    assert outcome.code == 0
    assert outcome.err == ""
    assert not any(forbidden in outcome.out for forbidden in ("\x1b", "\x07", "\u202e"))
    lines = outcome.out.splitlines()
    assert lines[0] == "Name                    evil\\x1b]8;;http://x\\x07\\nPhase ␣Running"
    assert "  Phase                 Pending" in lines
    assert "  GPUs                  2 requested, 2 allocated" in lines
    assert "  Idle GPUs             not measured" in lines
    assert "  CPU cores             4 requested, 0 allocated" in lines
    assert "Why it is pending" in lines
    assert "  $A\\x1b                b\\n" in lines
    assert not any(line.startswith("Deleted") for line in lines)


async def test_describe_as_data_is_the_apis_document() -> None:
    async with FakeServer(live=[pending()]).running() as watchbill:
        outcome = await watchbill("describe", "llama-sft-1", "-o", "json")
    assert json.loads(outcome.out)["additionalFields"] == {"pendingReasons": REASONS}


async def test_an_ambiguous_name_lists_its_candidates() -> None:
    same = [
        document(aged(1, name="train", project_name="vision")),
        document(aged(2, name="train", project_name="nlp\x1b[2J", type="Job")),
    ]
    async with FakeServer(live=same).running() as watchbill:
        outcome = await watchbill("why", "train")
    assert (outcome.code, outcome.out) == (2, "")
    lines = outcome.err.splitlines()
    assert lines[0] == "error: 'train' is the name of 2 workloads."
    assert lines[1].split() == [
        *("ID", "TYPE", "PHASE", "PROJECT", "NAMESPACE", "CLUSTER", "AGE", "DELETED")
    ]
    assert lines[2].split()[:4] == [str(UUID(int=1)), "PyTorchJob", "Running", "vision"]
    assert "nlp\\x1b[2J" in lines[3]
    assert "west" in lines[3]
    assert lines[4] == "hint: give its id, or narrow with --project or --cluster"


async def test_many_candidates_are_not_cut_in_silence() -> None:
    same = [document(aged(n, name="train")) for n in range(1, 31)]
    async with FakeServer(live=same).running() as watchbill:
        outcome = await watchbill("describe", "train")
    assert outcome.err.startswith("error: 'train' is the name of more than 20 workloads.\n")
    assert "The newest 20 of more are listed." in outcome.err


async def test_a_live_one_is_meant_before_deleted_ones() -> None:
    gone = [document(aged(n, name="train"), deleted_at=SINCE) for n in (2, 3)]
    live = [document(aged(1, name="train"))]
    async with FakeServer(live=live, deleted=gone).running() as watchbill:
        assert (await watchbill("describe", "train")).code == 0
        assert (await watchbill("describe", "train", "--deleted")).code == 2


async def test_a_name_that_is_not_there() -> None:
    async with FakeServer(live=[document(aged(1))]).running() as watchbill:
        outcome = await watchbill("describe", "llama\x1b", "-p", "vision")
    assert (outcome.code, outcome.out) == (1, "")
    lines = outcome.err.splitlines()
    assert (
        lines[0]
        == "error: There is no workload named 'llama\\x1b' in project 'vision', neither live nor deleted."
    )
    assert lines[1] == "hint: similar: llama-sft-1"
    assert "watchbill get --search" in lines[2]


async def test_an_id_that_is_not_there() -> None:
    async with FakeServer().running() as watchbill:
        outcome = await watchbill("describe", str(UUID(int=5)))
    assert (outcome.code, outcome.err) == (1, f"error: There is no workload {UUID(int=5)}.\n")


async def test_a_phase_of_a_cluster_that_is_not_observed_lasts_as_far_as_it_was() -> None:
    until = datetime.now(UTC) - timedelta(hours=1, minutes=11)
    extra = {"pendingReasons": REASONS, "observedUntil": until.isoformat()}
    live = pending(additional_fields=extra)
    fake = FakeServer(live=[live], clusters=[cluster(state="degraded", reason="Unauthorized.")])
    started_at = until - timedelta(minutes=30)
    fake.history = [{"phase": "Pending", "startedAt": started_at.isoformat()}]
    async with fake.running() as watchbill:
        outcomes = [
            await watchbill("why", "llama-sft-1"),
            await watchbill("history", "llama-sft-1"),
        ]
    assert "had been Pending for 1h when its cluster was last observed." in outcomes[0].out
    assert "30m so far" in outcomes[1].out
    assert all("note: cluster west is degraded: not observed for" in each.err for each in outcomes)


@pytest.mark.parametrize("command", ["describe", "why", "history", "tree"])
async def test_an_empty_name_is_refused(command: str) -> None:
    async with FakeServer().running() as watchbill:
        outcome = await watchbill(command, "")
    assert outcome.code == 2


async def test_history() -> None:
    fake = FakeServer(live=[document(aged(1))])
    fake.history = [
        {
            "phase": "Pending",
            "phaseMessage": "short\nof GPUs",
            "startedAt": SINCE.isoformat(),
            "endedAt": (SINCE + timedelta(minutes=11)).isoformat(),
        },
        {"phase": "Running", "startedAt": (SINCE + timedelta(minutes=11)).isoformat()},
    ]
    async with fake.running() as watchbill:
        outcome = await watchbill("history", "llama-sft-1")
        as_json = await watchbill("history", "llama-sft-1", "-o", "json")
    lines = outcome.out.splitlines()
    assert len(lines) == 3
    assert "11m" in lines[1]
    assert lines[1].endswith("short\\nof GPUs")
    assert "2d 3h so far" in lines[2]
    answer = json.loads(as_json.out)
    assert answer == {"history": [instants(interval) for interval in fake.history]}


def instants(members: dict[str, str]) -> dict[str, str]:
    """With UTC written as the API writes it."""
    return {name: value.replace("+00:00", "Z") for name, value in members.items()}


def element(number: int, name: str, parent: int | None = None) -> dict[str, Any]:
    members: dict[str, Any] = {"id": str(UUID(int=number)), "name": name, "hierarchyLevel": 1}
    return members | ({"parentId": str(UUID(int=parent))} if parent is not None else {})


async def test_tree() -> None:
    fake = FakeServer(live=[document(aged(1))], elements_total=9)
    worker = element(3, "worker", 2)
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    worker["kubernetesRef"] = {"uid": "u", "name": "w", "gvk": kind}
    fake.elements = [
        element(1, "head\n"),
        element(2, "workers"),
        worker,
        element(4, "worker-2", 2),
    ]
    async with fake.running() as watchbill:
        outcome = await watchbill("tree", "llama-sft-1")
    assert outcome.out.splitlines() == [
        "llama-sft-1 (PyTorchJob)",
        "├─ head\\n",
        "└─ workers",
        "   ├─ worker (Pod)",
        "   └─ worker-2",
    ]
    assert outcome.err == "4 of 9 elements are stored and shown.\n"


def test_a_tree_with_an_absent_parent_or_a_loop_still_ends() -> None:
    orphan = msgspec.convert([element(1, "orphan", 7)], list[Element])
    assert list(tree_lines(orphan)) == ["└─ orphan"]
    loop = [element(1, "a", 2), element(2, "b", 1), element(3, "c")]
    assert list(tree_lines(msgspec.convert(loop, list[Element]))) == ["└─ c", "└─ a", "   └─ b"]


async def test_clusters() -> None:
    troubled = cluster(
        name="east",
        state="disconnected",
        takeovers=2,
        lastTakeoverAt=(datetime.now(UTC) - timedelta(hours=3)).isoformat(),
        kinds=[
            {"group": "", "kind": "Pod", "state": "complete", "since": SINCE.isoformat()},
            {
                "group": "ray.io",
                "kind": "RayJob",
                "state": "forbidden",
                "since": SINCE.isoformat(),
                "message": "no\x1b right",
            },
            {
                "group": "ray.io",
                "kind": "RayCluster",
                "state": "forbidden",
                "since": SINCE.isoformat(),
                "message": "no\x1b right",
            },
        ],
        refused=[{"id": str(UUID(int=7)), "reason": "held elsewhere"}],
        heldDeletions={"count": 120, "since": SINCE.isoformat(), "isRefused": False},
    )
    async with FakeServer(clusters=[cluster(), troubled]).running() as watchbill:
        outcome = await watchbill("clusters")
        names = await watchbill("clusters", "-o", "name")
        wide = await watchbill("clusters", "-o", "wide")
        administered = await watchbill("admin", "cluster", "list")
        as_json = await watchbill("clusters", "-o", "json")
    lines = outcome.out.splitlines()
    assert lines[1].split()[:2] == ["west", "connected"]
    assert [text.splitlines()[0].split()[-1] for text in (outcome.out, wide.out)] == [
        "PROBLEMS",
        "ID",
    ]
    assert lines[2].split()[:2] == ["east", "disconnected"]
    assert outcome.err.splitlines() == [
        "note: cluster east: cannot be read (forbidden): RayJob, RayCluster. no\\x1b right",
        f"note: cluster east: 1 workload rejected, the last one {UUID(int=7)}: held elsewhere",
        "note: cluster east: 120 workloads disappeared at once and are deleted if the next inventory "
        "confirms it; `watchbill admin cluster release east` deletes them now, "
        "`watchbill admin cluster refuse east` keeps them",
        "note: cluster east: 2 takeovers by another agent, the last one 3h ago: "
        "do two agents run with one credential?",
    ]
    assert names.out == "west\neast\n"
    assert administered.out == outcome.out
    assert len(json.loads(as_json.out)["clusters"]) == 2


async def test_no_cluster_yet() -> None:
    async with FakeServer(clusters=[]).running() as watchbill:
        outcome = await watchbill("clusters")
    assert (outcome.code, outcome.out) == (0, "")
    assert "watchbill admin cluster create NAME" in outcome.err


async def test_a_life_has_its_hours_and_its_cost() -> None:
    row = msgspec.structs.replace(
        NO_USAGE,
        group={"workload": "llama-sft-1", "workloadId": str(UUID(int=1))},
        allocated_gpu_hours=12.5,
        idle_gpu_hours=2.5,
        cost=31.25,
    )
    report = msgspec.structs.replace(
        NOT_COUNTED, accounted_until=NOT_COUNTED.end, currency="EUR", rows=(row,)
    )
    server = FakeServer(live=[document(aged(1))], usage=msgspec.to_builtins(report))
    async with server.running() as watchbill:
        outcome = await watchbill("describe", "llama-sft-1")
    assert "12.5 allocated, 2.5 idle, 31.25 EUR" in outcome.out

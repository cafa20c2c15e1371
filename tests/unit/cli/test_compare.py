"""`compare`: workloads side by side, for people and for programs."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from tests.fixtures.command_line import FakeServer, aged, document
from tests.unit.cli.test_usage import FIGURES, answer
from watchbill.workload import Phase

NOW = datetime.now(UTC)


def ago(minutes: int) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat()


def server() -> FakeServer:
    """Both were pending twice and ran since; the second one left nothing to account."""
    own = FIGURES | {"group": {"workload": "llama-sft-1", "workloadId": str(UUID(int=1))}}
    other = FIGURES | {"allocatedGpuHours": 7.0, "group": {"workload": "x", "workloadId": "else"}}
    return FakeServer(
        live=[
            document(aged(1, gpus=2)),
            document(aged(2, gpus=0, phase=Phase.PENDING, running_pods=0)),
        ],
        history=[
            {"phase": "Pending", "startedAt": ago(120), "endedAt": ago(100)},
            {"phase": "Running", "startedAt": ago(100), "endedAt": ago(40)},
            {"phase": "Pending", "startedAt": ago(40), "endedAt": ago(30)},
        ],
        measurements=[
            {"type": "GPU_UTILIZATION", "values": [{"timestamp": ago(20), "value": "45"}]},
        ],
        usage=answer(other, own),
    )


async def test_a_column_for_each() -> None:
    async with server().running() as watchbill:
        outcome = await watchbill("compare", "llama-sft-1", "llama-sft-2")
    assert (outcome.code, outcome.err) == (0, "")
    rows = {line[:17].strip(): line[17:].split() for line in outcome.out.splitlines()}
    assert rows["NAME"] == ["llama-sft-1", "llama-sft-2"]
    assert rows["phase"] == ["Running", "Pending"]
    assert rows["in Pending"] == ["30m", "30m"]
    assert rows["in Running"] == ["1h", "1h"]
    assert rows["GPUs allocated"] == ["2", "0"]
    assert rows["GPU use now"] == ["45%", "45%"]
    assert rows["GPU-hours"] == ["100.0", "?"]
    assert rows["GPU-hours pending"] == ["8.0", "?"]


async def test_programs_get_the_api_s_names() -> None:
    async with server().running() as watchbill:
        outcome = await watchbill("compare", "llama-sft-1", str(UUID(int=2)), "-o", "json")
    first, second = json.loads(outcome.out)["workloads"]
    assert first["phaseSeconds"] == {"Pending": 1800, "Running": 3600}
    assert first["use"] == {"GPU_UTILIZATION": 45.0}
    assert first["usage"]["pendingGpuHours"] == 8.0
    assert (second["name"], second["usage"]) == ("llama-sft-2", None)
    async with server().running() as watchbill:
        outcome = await watchbill("compare", "llama-sft-1", str(UUID(int=2)), "-o", "csv")
    first, second = csv.DictReader(io.StringIO(outcome.out))
    assert (first["phaseSeconds.Running"], first["usage.pendingGpuHours"]) == ("3600", "8.0")
    assert (second["name"], second["usage"]) == ("llama-sft-2", "")


@pytest.mark.parametrize("names", [["one"], [str(n) for n in range(6)]])
async def test_one_alone_and_too_many_are_refused(names: list[str]) -> None:
    async with server().running() as watchbill:
        outcome = await watchbill("compare", *names)
    assert outcome.code == 2
    assert "Between 2 and 5 workloads can be compared" in outcome.err

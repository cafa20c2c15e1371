"""Generated requests: valid ones by the bare contract, invalid ones by everything that we serve."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import Engine, fresh_database
from tests.fixtures.samples import MERGED, OPERATIONS
from tests.fixtures.serving import DETAILED_ID, Served, fill, serving
from watchbill.api.http import guard
from watchbill.api.http.contract import contract_document

EXAMPLES = 60
INVALID_EXAMPLES = 100 if "WATCHBILL_HISTORIES" in os.environ else 12
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# The contract admits these and declares no status for what they mean; docs/api-semantics.md says 400.
TOLERATED = ("filterBy ", "The filter '", "The operator ", "offset must be an integer")
REFUSED_VALUES = (" must be a number, ", " must be a date, ")
CONTRACT = contract_document()


def is_tolerated(status: int, message: str) -> bool:
    return status == 400 and (
        message.startswith(TOLERATED) or any(part in message for part in REFUSED_VALUES)
    )


def exercise(url: str, token: str, operation_id: str) -> dict[int, int]:
    """Statuses by how often they came."""
    schema = schemathesis.openapi.from_dict(CONTRACT)
    operation = schema.find_operation_by_id(operation_id)
    collected: dict[int, int] = {}

    @seed(20261123)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def run(case: Any) -> None:
        if "workloadId" in case.path_parameters:
            case.path_parameters["workloadId"] = str(DETAILED_ID)
        response = case.call(base_url=url, headers={"Authorization": f"Bearer {token}"})
        status = response.status_code
        collected[status] = collected.get(status, 0) + 1
        assert status < 500 or is_no_source(operation_id, status), response.text
        if not (status >= 400 and is_tolerated(status, response.json()["message"])):
            case.validate_response(response, checks=CHECKS)

    run()
    return collected


def is_no_source(operation_id: str, status: int) -> bool:
    """503 is the contract's answer where none of the metrics asked for has a source."""
    return (operation_id, status) == ("get_workload_metrics", 503)


@pytest.mark.parametrize(
    "operation_id",
    [
        operation["operationId"]
        for item in CONTRACT["paths"].values()
        for operation in item.values()
    ],
)
async def test_valid_requests_by_the_bare_contract(shared: Served, operation_id: str) -> None:
    result = await asyncio.to_thread(exercise, shared.url, await shared.token(), operation_id)
    assert result.get(200, 0) + result.get(207, 0) >= 1, result


NEGATIVE_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
ENDLESS = "stream_workloads"
"""The tool would wait for its end; tests/api/test_stream.py sends it bad requests."""
UNSUPPORTED_METRICS = "".join(
    f"""
[[operations]]
include-operation-id = "{operation_id}"
checks.not_a_server_error.expected-statuses = ["2xx", "4xx", "503"]
"""
    for operation_id in OPERATIONS
    if operation_id.endswith("_metrics")
)
OPERATION_COUNT = sum(len(item) for item in MERGED["paths"].values())


async def run_invalid(url: str, token: str, folder: Path, *options: str) -> int:
    """How many operations were tested. Fails with the tool's own report."""
    (folder / "schemathesis.toml").write_text(UNSUPPORTED_METRICS)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        "--mode=negative",
        "--phases=examples,coverage,fuzzing",
        f"--max-examples={INVALID_EXAMPLES}",
        "--seed=20261123",
        "--generation-database=none",
        f"--checks={','.join(NEGATIVE_CHECKS)}",
        "--request-timeout=120",
        "--no-color",
        f"--header=Authorization: Bearer {token}",
        *options,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output[-8000:]
    tested = re.search(r"Tested: ([0-9]+)", output)
    assert tested, output[-2000:]
    return int(tested[1])


async def test_invalid_requests_to_everything(embedded_engine: Engine, tmp_path: Path) -> None:
    """Of a server of its own: the tool reuses ids of answers, and may rotate the administrator's secret."""
    endless = f"--exclude-operation-id={ENDLESS}"
    async with serving(await fresh_database(embedded_engine)) as served:
        await fill(served.db)
        tested = await run_invalid(served.url, await served.token(), tmp_path, endless)
    assert tested >= OPERATION_COUNT - 2, "all but that one and the document that the tool reads"


async def test_invalid_requests_of_an_agent(embedded_engine: Engine, tmp_path: Path) -> None:
    with patch.object(guard, "AGENT_REQUESTS_BURST", 1_000_000):
        async with serving(await fresh_database(embedded_engine)) as served:
            made = await served.ask("POST", "/api/v1/clusters", json={"name": "north"})
            credential = made.json["credential"]
            tested = await run_invalid(
                served.url, credential, tmp_path, "--include-path-regex=^/agent/"
            )
            assert tested == 6

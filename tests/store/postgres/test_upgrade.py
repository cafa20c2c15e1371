"""Data and agents of earlier versions: a database that one wrote answers alike, and its agents are understood.

`fixtures/releases/VERSION` holds a backup that the version made, what its API answered at one instant, and the
messages of a real agent of it.
"""

import gzip
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.conftest import Engine
from tests.fixtures.serving import Served, serving
from watchbill.store.postgres.backup import restore_backup

RELEASES = sorted(path for path in (Path(__file__).parents[2] / "fixtures" / "releases").iterdir())


def renamed(path: str) -> str:
    """What was renamed on purpose, before anything was published: Run:ai's own history has that name now."""
    return f"{path.removesuffix('/history')}/phases" if path.endswith("/history") else path


def reshaped(path: str, before: Any) -> Any:
    """What has another shape on purpose: the list of clusters is Run:ai's, and its sentences are for people."""
    if path != "/api/v1/clusters":
        return before
    return [
        {name: value for name, value in cluster.items() if name != "reason"}
        for cluster in before["clusters"]
    ]


def differences(before: Any, now: Any, at: str = "") -> list[str]:
    """Where the answer lacks a member that it had, or has another value; new members are welcome."""
    if isinstance(before, dict) and isinstance(now, dict):
        missing = [f"{at}.{name} is missing" for name in before.keys() - now.keys()]
        both = sorted(before.keys() & now.keys())
        return missing + [
            difference
            for name in both
            for difference in differences(before[name], now[name], f"{at}.{name}")
        ]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [difference for n, (a, b) in pairs for difference in differences(a, b, f"{at}[{n}]")]
    return [] if before == now else [f"{at}: {before!r} became {now!r}"]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
async def test_what_a_version_wrote_is_answered_alike(
    embedded_engine: Engine, release: Path
) -> None:
    made = json.loads(gzip.decompress((release / "answers.json.gz").read_bytes()))
    name = f"upgrade_{uuid4().hex[:12]}"
    connection = await asyncpg.connect(embedded_engine.database("postgres"))
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = embedded_engine.database(name)
    await restore_backup(url, release / "backup.dump")
    at = datetime.fromisoformat(made["at"])
    async with serving(url, clock=lambda: at) as served:
        served.client_id, served.secret = made["clientId"], made["clientSecret"]
        answers = {path: await served.get(renamed(path)) for path in made["answers"]}
        assert {path for path, answer in answers.items() if answer.status != 200} == set()
        changed = {
            path: differences(reshaped(path, before), answers[path].json)
            for path, before in made["answers"].items()
        }
        assert {path: changes for path, changes in changed.items() if changes} == {}
        await check_agent(served, made["agent"])


async def check_agent(served: Served, agent: dict[str, Any]) -> None:
    """Its messages are taken, and do what they did: three pods, of which one is deleted in the end."""
    stream_id = inventory_id = ""
    for path, message in agent["messages"]:
        message |= {"streamId": stream_id} if "streamId" in message else {}
        message |= {"inventoryId": inventory_id} if "inventoryId" in message else {}
        answer = await served.ask(
            "POST", f"/agent/v1/{path}", json=message, token=agent["credential"]
        )
        assert answer.status == 200, (path, answer.body)
        stream_id = answer.json.get("streamId", stream_id)
        inventory_id = answer.json.get("inventoryId", inventory_id)
        assert answer.json.get("refused", []) == []
    clusters = (await served.get("/api/v1/clusters")).json
    (cluster,) = [cluster for cluster in clusters if cluster["name"] == "agent"]
    assert cluster["workloads"] == 2
    query = f"filterBy=clusterId=={cluster['id']}&sortBy=name"
    listed = (await served.get(f"/api/v1/workloads?{query}")).json["workloads"]
    assert [(row["name"], row["phase"]) for row in listed] == [
        ("pod-0", "Running"),
        ("pod-1", "Running"),
    ]

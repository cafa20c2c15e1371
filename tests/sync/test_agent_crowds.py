"""Many events, many pods of one workload: what the agent sends is bounded by counts, and nothing else waits."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp import web

from tests.fixtures.agents import agent, until
from tests.fixtures.kubernetes.agent_objects import job, made, pod, uid
from tests.fixtures.kubernetes.kube_api import kube_api
from tests.fixtures.receiver import Receiver, receiver
from watchbill.agent import run
from watchbill.agent.cache import event_log
from watchbill.agent.cache.event_log import EVENTS_PER_TURN, MAX_UNSENT_OF_NAMESPACE, EventLog
from watchbill.agent.stream import additions
from watchbill.agent.stream.stream import BATCH_BYTES
from watchbill.protocol import Batch, Upsert
from watchbill.workload import WorkloadEvent
from watchbill.workload_pod import MAX_PODS

STORM = 3_000
"""Events at once: 10,000 a minute for 18 seconds, while none of them can be sent."""


class CountedLog(EventLog):
    """Tells how many events were read."""

    read = 0

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        logs.append(self)

    def put(self, *event: Any) -> None:
        super().put(*event)
        self.read += 1


logs: list[CountedLog] = []


def event(about: dict[str, Any], number: int) -> dict[str, Any]:
    metadata = about["metadata"]
    at = (datetime(2026, 11, 23, 12, tzinfo=UTC) + timedelta(seconds=number)).isoformat()
    return made(
        "Event",
        f"{metadata['name']}.{number}",
        namespace=metadata["namespace"],
        reason="BackOff",
        type="Warning",
        message=f"Back-off restarting container, attempt {number}.",
        firstTimestamp=at,
        lastTimestamp=at,
        count=1,
        involvedObject={
            "uid": metadata["uid"],
            "kind": "Pod",
            "name": metadata["name"],
            "namespace": metadata["namespace"],
        },
    )


async def test_a_storm_of_events_in_one_namespace_delays_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(additions, "TURN_SECONDS", 0.05)
    logs.clear()
    monkeypatch.setattr(run, "EventLog", CountedLog)
    noisy, calm = pod("noisy", namespace="storm"), pod("calm", namespace="quiet")
    async with kube_api() as api, receiver() as server:
        for obj in (noisy, calm):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until(lambda: {uid(noisy), uid(calm)} <= server.live().keys())
            server.fault = lambda _, message: (
                web.Response(status=503) if isinstance(message, Batch) else None
            )
            for number in range(STORM):
                api.put(event(noisy, number))
            api.put(event(calm, 0))
            (log,) = logs
            await until(lambda: log.read == STORM + 1)
            assert len(log) <= MAX_UNSENT_OF_NAMESPACE + 1 + EVENTS_PER_TURN
            failed = calm | {"status": {"phase": "Failed"}}
            api.put(failed)
            sent_before = len(server.batches)
            server.fault = lambda *_: None
            await until(lambda: server.rows[uid(calm)].record.workload.phase == "Failed")

            def turns() -> list[tuple[WorkloadEvent, ...]]:
                return [batch.events for batch in server.batches[sent_before:] if batch.events]

            # What the log no longer holds may still be on its way.
            await until(lambda: sum(map(len, turns())) + log.dropped >= STORM + 1)
    sent = [each for turn in turns() for each in turn]
    assert max(map(len, turns())) <= EVENTS_PER_TURN
    assert uid(calm) in {each.workload_id for turn in turns()[:3] for each in turn}
    assert len({each.id for each in sent}) == len(sent) == STORM + 1 - log.dropped
    newest = {f"Back-off restarting container, attempt {number}." for number in range(2_800, STORM)}
    assert newest <= {each.message for each in sent}, "the newest 200 are among what was kept"


async def test_a_workload_of_2000_pods_is_sent_whole_and_then_by_its_changes(
    tmp_path: Path,
) -> None:
    root = job("wide")
    pods = [pod(f"wide-{number}", root) for number in range(MAX_PODS)]
    async with kube_api() as api, receiver() as server:
        for obj in (root, *pods):
            api.put(obj)
        async with agent(tmp_path, api, server):
            await until(lambda: len(phases_of_pods(server, uid(root))) == MAX_PODS)
            before = len(server.batches)
            status = pods[7]["status"] | {"phase": "Failed", "reason": "Evicted"}
            api.put(pods[7] | {"status": status})
            await until(
                lambda: phases_of_pods(server, uid(root))[uid_of_pod(server, "wide-7")] == "Failed"
            )
            later = [
                item
                for batch in server.batches[before:]
                for item in batch.items
                if isinstance(item, Upsert)
            ]
    changes_sent = [item.pods for item in later if item.pods is not None]
    assert [len(changes.changed) for changes in changes_sent] == [1], "only what changed"
    assert all(changes.since is not None for changes in changes_sent)
    assert max(len(msgspec.json.encode(batch)) for batch in server.batches) <= BATCH_BYTES


def phases_of_pods(server: Receiver, workload_id: UUID) -> dict[UUID, str]:
    """The phases of the workload's pods, as the batches say one after the other."""
    return {
        each.id: each.k8s_phase
        for batch in server.batches
        for item in batch.items
        if isinstance(item, Upsert) and item.record.workload.id == workload_id and item.pods
        for each in item.pods.changed
    }


def uid_of_pod(server: Receiver, name: str) -> UUID:
    return next(
        each.id
        for batch in server.batches
        for item in batch.items
        if isinstance(item, Upsert) and item.pods
        for each in item.pods.changed
        if each.name == name
    )

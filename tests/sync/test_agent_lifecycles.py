"""Recorded lives, played to the whole agent over HTTP: what is reported to the server at every named moment.

The expected records are derived straight from the moment's lists, gathered by other code than the agent's.
"""

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.fixtures.agents import agent
from tests.fixtures.kubernetes.kube_api import KubeApi, kind, kube_api
from tests.fixtures.kubernetes.lives import SETTINGS, all_lives, definitions, moments, workloads
from tests.fixtures.receiver import Receiver, receiver
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.pod import owners
from watchbill.kinds.pending.events import EVENT_REASONS
from watchbill.protocol import Record
from watchbill.workload import Phase

RECORDINGS = Path(__file__).parents[1] / "fixtures" / "recordings"
_PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)/(?:namespaces/[^/]+/)?(?P<plural>[a-z]+)"
)
_LEFT_OUT = {
    "Endpoints",
    "EndpointSlice",
    "ControllerRevision",
    "ResourceQuota",
    "PodDisruptionBudget",
}


@cache
def lines(version: str, life: str) -> tuple[dict[str, Any], ...]:
    path = RECORDINGS / version / "life" / f"{life}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return tuple(map(json.loads, file))


@dataclass
class Play:
    """One life, played into an API server."""

    version: str
    life: str
    api: KubeApi

    def __post_init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []
        for line in lines(self.version, self.life):
            if "watch" in line and line["event"]["type"] != "BOOKMARK":
                self.kinds.setdefault(line["watch"], line["event"]["object"]["kind"])
        for path, name in self.kinds.items():
            matched = _PATH.match(path)
            assert matched is not None
            if name not in _LEFT_OUT:
                is_namespaced = "/namespaces/" in path
                self.api.serve(
                    kind(
                        matched["group"] or "",
                        matched["version"],
                        name,
                        matched["plural"],
                        is_namespaced=is_namespaced,
                    )
                )

    def moments(self) -> Iterator[str]:
        """Play up to each moment, and to its lists exactly."""
        for line in lines(self.version, self.life):
            if "watch" in line:
                self._event(line["event"])
            elif "moment" in line:
                for path, body in line["lists"].items():
                    self._adjust(path, body)
                yield line["moment"]

    def _event(self, event: dict[str, Any]) -> None:
        obj = event["object"]
        if event["type"] == "BOOKMARK" or obj["kind"] in _LEFT_OUT:
            return
        obj = json.loads(json.dumps(obj))
        if obj["kind"] == "Event" and obj["reason"] in EVENT_REASONS:
            self.events.append(obj)
        (self.api.delete if event["type"] == "DELETED" else self.api.put)(obj)

    def _adjust(self, path: str, body: dict[str, Any]) -> None:
        if self.kinds.get(path, "Event") in {*_LEFT_OUT, "Event"}:
            return
        matched = _PATH.match(path)
        assert matched is not None
        group = f"{matched['group']}/" if matched["group"] else ""
        typed = {"apiVersion": f"{group}{matched['version']}", "kind": self.kinds[path]}
        held = {stored.uid: stored for stored in self.api.table_of(typed).objects.values()}
        listed = {item["metadata"]["uid"] for item in body["items"]}
        for uid in held.keys() - listed:
            self.api.delete(typed | held[uid].decode())
        for item in body["items"]:
            known = held.get(item["metadata"]["uid"])
            if known is None or _without_version(known.decode()) != _without_version(item):
                self.api.put(typed | item)


def _without_version(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")
    }
    members = {k: v for k, v in obj.items() if k not in ("apiVersion", "kind")}
    return members | {"metadata": metadata}


def expected(play: Play, moment: str) -> dict[UUID, Record]:
    """Records of the workloads whose whole chain of owners exists, and which are any."""
    collected = {}
    held = moments(play.version, play.life)[moment]
    uids = {obj["metadata"]["uid"] for obj in held.objects}
    for objects in workloads(held):
        chain = {
            objects.root["metadata"]["uid"],
            *(child["metadata"]["uid"] for child in objects.children),
            *(pod.uid for pod in objects.pods),
        }
        newest = {event["involvedObject"]["uid"]: event for event in play.events}
        events = [event for uid, event in newest.items() if uid in chain]
        objects = msgspec.structs.replace(objects, scheduling_events=events)
        is_rooted = all(owner.uid in uids for owner in owners(objects.root))
        defined = definitions().for_object(objects.root).key.kind != "*"
        if is_rooted and (objects.pods or defined):
            record = derive(objects, definitions(), SETTINGS).record
            collected[record.workload.id] = record
    return collected


def is_broken(play: Play, moment: str) -> bool:
    """Whether owners are gone before what they own, so that lists alone do not tell who belongs where."""
    held = moments(play.version, play.life)[moment].objects
    uids = {obj["metadata"]["uid"] for obj in held}
    kinds = {obj["kind"] for obj in held} | {"Pod"}
    return any(
        owner.uid not in uids and obj["kind"] in kinds - _LEFT_OUT
        for obj in held
        for owner in owners(obj)
    )


def difference(server: Receiver, wanted: dict[UUID, Record], *, by_id_alone: bool) -> str:
    """What keeps the reported record from being the expected one, or nothing."""
    live = server.live()
    for uid, record in wanted.items():
        if uid not in live:
            return f"{record.workload.type}/{record.workload.name} is not told: {server.summary()}"
        if by_id_alone:
            continue
        answer = json.loads(_json(live[uid].record))
        for name, value in json.loads(_json(record)).items():
            if answer.get(name) != value:
                return f"{record.workload.name}.{name}: told {answer.get(name)}, expected {value}"
    for uid, row in live.items():
        if uid not in wanted and row.record.workload.phase is not Phase.TERMINATING:
            return f"{row.record.workload.type}/{row.record.workload.name} is told and is not there"
    return ""


def _json(record: Record) -> bytes:
    return msgspec.json.encode(record)


async def _until_reported(server: Receiver, play: Play, moment: str) -> None:
    wanted, by_id_alone = expected(play, moment), is_broken(play, moment)
    deadline = asyncio.get_running_loop().time() + 120
    while differences := difference(server, wanted, by_id_alone=by_id_alone):
        assert asyncio.get_running_loop().time() < deadline, f"{moment}: {differences}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(("version", "life"), all_lives())
async def test_every_moment_of_a_life(tmp_path: Path, version: str, life: str) -> None:
    async with kube_api() as api, receiver() as server:
        play = Play(version, life, api)
        async with agent(tmp_path, api, server):
            for moment in play.moments():
                await _until_reported(server, play, moment)
        for row in server.rows.values():
            assert row.deletions == (row.deleted_at is not None), "one end at most"
            assert not row.is_inferred, "every end was seen"

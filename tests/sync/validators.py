"""What must hold of every history, under the names by which etcd's robustness tests call it.

After each step: *No-false-delete*, *No-phantom*, *Bounded*. Once everything has healed: *Complete*, *Reliable*,
*Unique*, *Ordered*, *Bookmarkable*.
"""

import asyncio
import json
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from tests.fixtures.kubernetes.model_cluster import ModelCluster
from tests.fixtures.model_server import ModelServer
from tests.fixtures.model_world import Json, Life, World
from tests.fixtures.virtual_time import VirtualLoop
from watchbill.agent.kubernetes.reflector import BOOKMARK_OVERDUE_SECONDS
from watchbill.agent.run import Agent
from watchbill.protocol import digest_of

Rows = Mapping[UUID, Any]

EXACT = timedelta(seconds=5)
"""How much later than it happened a deletion may be reported without an interval."""
UNNOTICED = timedelta(seconds=BOOKMARK_OVERDUE_SECONDS) + EXACT
"""The same where watches stood still, which only the absence of bookmarks tells."""


class Validators:
    """Of one history: what the cluster holds, and what was reported of it to the server."""

    world: World
    loop: VirtualLoop
    cluster: ModelCluster
    server: ModelServer
    agent: Agent | None
    task: asyncio.Task[None] | None
    steps: list[list[Any]]
    lives: dict[UUID, Life]
    others: set[UUID]
    """Objects that are no workloads."""
    reported: set[UUID]
    """Workloads of which the server has ever had a row."""
    most_skew: timedelta

    def check(self) -> None:
        if self.task is not None and self.task.done():
            self.task.result()
        rows = self.rows()
        self.no_phantom(rows)
        self.no_false_delete(rows)
        self.bounded()
        self.reported |= {id_ for id_ in rows if id_ in self.lives}

    def check_end(self) -> None:
        rows = self.rows()
        histories, documents = self.world.call(self._histories())
        self.complete(rows)
        self.reliable(rows)
        self.unique(rows, histories)
        self.ordered(histories)
        self.bookmarkable(rows)
        self.truthful(rows, documents)

    def no_phantom(self, rows: Rows) -> None:
        """Nothing is reported that never existed."""
        for id_ in rows:
            assert id_ in self.lives or id_ in self.others, f"phantom {id_}"

    def no_false_delete(self, rows: Rows) -> None:
        """Nothing is deleted that exists."""
        for id_, row in rows.items():
            life = self.lives.get(id_)
            if life is not None and row["deleted_at"] is not None:
                assert not self.cluster.exists(life.root), f"false delete of {life.root}"

    def bounded(self) -> None:
        """What waits grows with workloads, not with events."""
        assert self.agent is not None
        most = 2 * (len(self.lives) + len(self.others))
        assert len(self.agent.pending) <= most, "the backlog is unbounded"

    def complete(self, rows: Rows) -> None:
        """Live is what exists, with the pods that exist."""
        live = {id_ for id_, row in rows.items() if row["deleted_at"] is None}
        existing = {life.id for life in self.existing()}
        assert live == existing, f"missing {existing - live}, beyond {live - existing}"
        assert self.world.call(self.live_pods()) == self.existing_pods()

    def reliable(self, rows: Rows) -> None:
        """Whatever was reported and is gone has its end."""
        for id_ in self.reported - {life.id for life in self.existing()}:
            assert id_ in rows, "a workload that was told is forgotten"
            assert rows[id_]["deleted_at"] is not None, "it is gone, and has no end"

    def unique(self, rows: Rows, histories: Mapping[UUID, list[Any]]) -> None:
        """One history, without holes, and no phase twice in a row."""
        for id_, history in histories.items():
            numbers = [row["number"] for row in history]
            assert numbers == list(range(len(numbers))), "a history has holes or doubles"
            phases = [row["phase"] for row in history]
            doubled = any(a == b for a, b in pairwise(phases))
            assert not doubled or rows[id_]["deleted_at"] is None, phases

    def ordered(self, histories: Mapping[UUID, list[Any]]) -> None:
        """Forward in time."""
        for history in histories.values():
            times = [row["at"] for row in history]
            assert times == sorted(times), "a history goes back in time"

    def bookmarkable(self, rows: Rows) -> None:
        """Where nothing waits to be sent, both sides name what they hold by the same digest."""
        assert self.agent is not None
        held = {str(id_): _hash(row) for id_, row in rows.items() if row["deleted_at"] is None}
        acknowledged = {
            root: state.acknowledged for root, state in self.agent.pending.workloads.items()
        }
        assert self.agent.pending.digest() == digest_of(held.values()), (held, acknowledged)
        assert held == acknowledged, "the digests are equal, what they stand for is not"

    def truthful(self, rows: Rows, documents: Mapping[UUID, Json]) -> None:
        """Every end is reported at the time when it was, or with an interval that holds it."""
        for id_, row in rows.items():
            life = self.lives.get(id_)
            if life is not None and row["deleted_at"] is not None:
                self._check_deletion_time(life, row["deleted_at"], documents[id_])

    def _check_deletion_time(self, life: Life, reported: Any, document: Json) -> None:
        between = document["additionalFields"].get("deletedBetween")
        ended = life.ended_at
        if between is None:
            most = UNNOTICED if any(name == "stall" for name, _ in self.steps) else EXACT
            is_exact = abs(reported - ended) <= most + self.most_skew
            assert is_exact, f"{reported} instead of {ended}, and said to be exact"
            return
        exact = EXACT + self.most_skew
        assert between["notBefore"] <= _text(ended + exact), (between, ended)
        assert between["notAfter"] >= _text(ended - exact), (between, ended)

    # What there is, and what the server holds

    def existing(self) -> list[Life]:
        return [life for life in self.lives.values() if self.cluster.exists(life.root)]

    def existing_pods(self) -> set[UUID]:
        pods = [pod for life in self.existing() for pod in (life.root, *life.pods)]
        return {
            UUID(pod["metadata"]["uid"])
            for pod in pods
            if pod["kind"] == "Pod" and self.cluster.exists(pod)
        }

    def is_right(self) -> bool:
        rows = self.rows()
        live = {id_ for id_, row in rows.items() if row["deleted_at"] is None}
        assert self.agent is not None
        return (
            live == {life.id for life in self.existing()}
            and self.world.call(self.live_pods()) == self.existing_pods()
            and self.agent.stream.is_drained
            and self.agent.pending.digest() == digest_of(_hash(rows[id_]) for id_ in live)
        )

    def rows(self) -> dict[UUID, Any]:
        rows: dict[UUID, Any] = self.world.call(self.stored())
        return rows

    async def stored(self) -> dict[UUID, Any]:
        rows = await self.world.fetch_all(
            "SELECT id, deleted_at, revision, record_hash, phase FROM workload "
            "WHERE tenant_id = 1 AND cluster_id = $1",
            self.server.identity.cluster_id,
        )
        return {row["id"]: row for row in rows}

    async def live_pods(self) -> set[UUID]:
        rows = await self.world.fetch_all(
            "SELECT p.id FROM workload_pod p JOIN workload w "
            "ON w.tenant_id = 1 AND w.id = p.workload_id "
            "WHERE p.tenant_id = 1 AND p.deleted_at IS NULL AND w.cluster_id = $1",
            self.server.identity.cluster_id,
        )
        return {row["id"] for row in rows}

    async def _histories(self) -> tuple[dict[UUID, list[Any]], dict[UUID, Json]]:
        cluster = self.server.identity.cluster_id
        steps = await self.world.fetch_all(
            "SELECT t.workload_id, t.number, t.at, t.phase FROM phase_transition t "
            "JOIN workload w ON w.tenant_id = 1 AND w.id = t.workload_id "
            "WHERE t.tenant_id = 1 AND w.cluster_id = $1 ORDER BY t.workload_id, t.number",
            cluster,
        )
        rows = await self.world.fetch_all(
            "SELECT id, document FROM workload WHERE tenant_id = 1 AND cluster_id = $1", cluster
        )
        histories: dict[UUID, list[Any]] = {}
        for step in steps:
            histories.setdefault(step["workload_id"], []).append(step)
        return histories, {row["id"]: json.loads(row["document"] + b"}") for row in rows}


def _hash(row: Any) -> str:
    return str(row["record_hash"].hex())


def _text(at: Any) -> str:
    return str(at.strftime("%Y-%m-%dT%H:%M:%S"))

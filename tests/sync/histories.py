"""The steps of a random history and what must hold after each, for `test_model`."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.fixtures.kubernetes.model_cluster import ModelCluster
from tests.fixtures.model_server import ModelServer
from tests.fixtures.model_world import Json, Life, World
from watchbill.agent.cache import watch_manager
from watchbill.agent.kubernetes.reflector import BOOKMARK_OVERDUE_SECONDS
from watchbill.agent.run import Agent
from watchbill.identity import AgentIdentity
from watchbill.kinds.objects.objects import GroupKind
from watchbill.settings.agent import AgentSettings
from watchbill.store.fleet.clusters import cluster_create

HEAL_SECONDS = 1_500.0
EXACT = timedelta(seconds=5)
"""How much later than it happened a deletion may be told without an interval."""
UNNOTICED = timedelta(seconds=BOOKMARK_OVERDUE_SECONDS) + EXACT
"""The same where watches stood still, which only the absence of bookmarks tells."""
NAMES = 6
FORBIDDABLE = (GroupKind("", "Pod"), GroupKind("batch", "Job"), GroupKind("apps", "Deployment"))


def recorded(step: Callable[..., None]) -> Callable[..., None]:
    """Steps write themselves down, so that a history can be run again from a file."""

    @wraps(step)
    def recording(self: "Histories", **arguments: Any) -> None:
        self.steps.append([step.__name__, arguments])
        try:
            step(self, **arguments)
        except BaseException:
            self.keep()
            raise

    return recording


class Histories:
    """Every argument is a number or a word, and picks among what there is."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[list[Any]] = []
        self.world.histories += 1
        self.number = self.world.histories
        self.objects = 0
        self.loop = self.world.loop
        self.cluster = ModelCluster()
        self.lives: dict[UUID, Life] = {}
        self.others: set[UUID] = set()
        """Objects that are no workloads."""
        self.reported: set[UUID] = set()
        identity = AgentIdentity(1, UUID(int=0xC0 << 64 | self.number))
        self.server = ModelServer(self.loop, self.world.db, identity)
        self.agent: Agent | None = None
        self.task: asyncio.Task[None] | None = None
        self.most_skew = timedelta(0)
        self.world.reports_pods = True
        self.loop.agent_clock_ahead_seconds = 0.0
        self.stop = asyncio.Event()
        self.world.call(self._register())
        self.cluster.put(self._made("Namespace", "kube-system", namespace=""))
        self._start()

    async def _register(self) -> None:
        with self.loop.working():
            await cluster_create(
                self.world.db,
                1,
                cluster_id=self.server.identity.cluster_id,
                name=f"cluster-{self.number}",
                credential_salt=b"salt",
                credential_hash=b"hash",
                now=self.loop.wall(),
            )

    def keep(self) -> None:
        path = Path(tempfile.gettempdir()) / f"history-{os.getpid()}.json"
        path.write_text(json.dumps(self.steps))
        print(f"WATCHBILL_HISTORY={path} python -m pytest {__file__} -k file", file=sys.stderr)

    # Objects

    def _made(self, kind: str, name: str, owner: Json | None = None, **more: Any) -> Json:
        self.objects += 1
        versions = {"Job": "batch/v1", "Deployment": "apps/v1", "ReplicaSet": "apps/v1"}
        metadata: Json = {
            "name": name,
            "namespace": more.pop("namespace", "team"),
            "uid": str(UUID(int=self.number << 32 | self.objects)),
            "creationTimestamp": self.loop.wall().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if owner is not None:
            metadata["ownerReferences"] = [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"],
                    "controller": True,
                }
            ]
        return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata, **more}

    def _pod(self, name: str, owner: Json | None = None) -> Json:
        return self._made(
            "Pod",
            name,
            owner,
            spec={"containers": [{"name": "main", "image": "i"}], "nodeName": "n1"},
            status={"phase": "Running"},
        )

    def _existing(self) -> list[Life]:
        return [life for life in self.lives.values() if self.cluster.exists(life.root)]

    def _picked(self, index: int) -> Life | None:
        existing = self._existing()
        return existing[index % len(existing)] if existing else None

    def _note_ends(self) -> None:
        for life in self.lives.values():
            objects = [life.root, *life.pods]
            if life.ended_at is None and not any(map(self.cluster.exists, objects)):
                life.ended_at = self.loop.wall()

    # What happens in the cluster

    @recorded
    def create(self, kind: str, name: int, lost: bool) -> None:
        if any(life.root["metadata"]["name"] == f"w{name}" for life in self._existing()):
            return
        template = {"spec": {"containers": [{"name": "main"}]}}
        life = (
            Life(self._pod(f"w{name}"))
            if kind == "Pod"
            else Life(self._made(kind, f"w{name}", spec={"template": template}, status={}))
        )
        self.lives[life.id] = life
        self.cluster.put(life.root, is_lost=lost)
        if kind == "Deployment":
            self.objects += 1
            life.link = self._made("ReplicaSet", f"w{name}-{self.objects}", life.root, spec={})
            self.others.add(UUID(life.link["metadata"]["uid"]))
            self.cluster.put(life.link)

    @recorded
    def add_pod(self, index: int, lost: bool) -> None:
        life = self._picked(index)
        if life is not None and life.root["kind"] != "Pod":
            self.objects += 1
            pod = self._pod(f"p{self.objects}", life.owner)
            self.others.add(UUID(pod["metadata"]["uid"]))
            life.pods.append(pod)
            self.cluster.put(pod, is_lost=lost)

    @recorded
    def change(self, index: int, phase: str, lost: bool) -> None:
        life = self._picked(index)
        if life is None:
            return
        obj = life.pods[-1] if life.pods else life.root
        if self.cluster.exists(obj) and obj["kind"] == "Pod":
            obj["status"] = {"phase": phase}
        else:
            obj["metadata"]["labels"] = {"phase": phase}
        if self.cluster.exists(obj):
            self.cluster.put(obj, is_lost=lost)

    @recorded
    def delete(self, index: int, pods_first: bool, lost: bool) -> None:
        life = self._picked(index)
        if life is None:
            return
        roots = [obj for obj in (life.root, life.link) if obj is not None]
        for obj in (*life.pods, *roots) if pods_first else (*roots, *life.pods):
            self.cluster.delete(obj, is_lost=lost)
        self._note_ends()

    @recorded
    def delete_pods(self, index: int) -> None:
        life = self._picked(index)
        if life is not None:
            for pod in life.pods:
                self.cluster.delete(pod)

    @recorded
    def delete_all(self) -> None:
        """As when a namespace goes: too many at once to be believed without a second look."""
        for life in self._existing():
            for obj in (life.root, life.link, *life.pods):
                if obj is not None:
                    self.cluster.delete(obj)
        self._note_ends()

    # What goes wrong on the way

    @recorded
    def end_watches(self, ending: str) -> None:
        self.cluster.end_watches(ending)

    @recorded
    def compact(self) -> None:
        self.cluster.compact()

    @recorded
    def stall(self, is_stalled: bool) -> None:
        """Half-open connections: they stay, and nothing comes."""
        self.cluster.is_stalled = is_stalled

    @recorded
    def api_server(self, is_down: bool) -> None:
        self.cluster.is_down = is_down
        if is_down:
            self.cluster.end_watches("cut")

    @recorded
    def rights(self, index: int, is_forbidden: bool) -> None:
        key = FORBIDDABLE[index % len(FORBIDDABLE)]
        self.cluster.forbid(key) if is_forbidden else self.cluster.forbidden.discard(key)

    @recorded
    def server_down(self, is_down: bool) -> None:
        self.server.is_down = is_down

    @recorded
    def lose(self, requests: int, replies: int, doubles: int) -> None:
        self.server.loses, self.server.loses_replies = requests, replies
        self.server.doubles = doubles

    @recorded
    def repeat_batch(self, index: int) -> None:
        before = self._rows()
        self.world.call(self._repeat(index))
        assert self._rows() == before, "a batch from before changed something"

    async def _repeat(self, index: int) -> None:
        with self.loop.working():
            await self.server.repeat_batch(index)

    @recorded
    def kill_agent(self) -> None:
        self._kill()
        self._start()

    @recorded
    def stop_agent(self, seconds: int) -> None:
        self._kill()
        self.loop.skip(seconds)
        self._start()

    @recorded
    def suspend_agent(self, seconds: int) -> None:
        self.loop.skip(seconds)
        self._wait(0.5)

    @recorded
    def second_agent(self, seconds: int) -> None:
        """Another one with the same credential, as while a rollout overlaps: they take turns."""
        first = self.agent, self.task
        self._start()
        self._wait(seconds)
        self._kill()
        self.agent, self.task = first

    @recorded
    def older_agent(self, is_older: bool) -> None:
        """The agent is replaced by a version that tells nothing of pods, or by the present one."""
        if is_older != self.server.hears_no_pods:
            self._kill()
            self.server.hears_no_pods = is_older
            self.world.reports_pods = not is_older
            self._start()

    @recorded
    def fill(self, is_full: bool) -> None:
        self.server.is_full = is_full

    @recorded
    def set_agent_clock(self, ahead_seconds: float) -> None:
        self.loop.agent_clock_ahead_seconds = ahead_seconds
        self.most_skew = max(self.most_skew, timedelta(seconds=abs(ahead_seconds)))

    @recorded
    def wait(self, seconds: float) -> None:
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self.world.call(asyncio.sleep(seconds))

    def _start(self) -> None:
        async def start() -> None:
            self.agent = Agent(
                AgentSettings(
                    server_url="",
                    credential="",
                    kubeconfig=None,
                    debounce_seconds=0.1,
                    resync_seconds=300.0,
                    scrape_seconds=0.0,
                ),
                self.world.definitions,
                cluster_id=self.server.identity.cluster_id,
                kube=self.cluster,  # type: ignore[arg-type]
                server=self.server,  # type: ignore[arg-type]
            )
            self.task = asyncio.create_task(self.agent.run(self.stop))

        with discovering(self.cluster):
            self.world.call(start())

    def _kill(self) -> None:
        """As SIGKILL: nothing is said before it ends."""
        task = self.task
        if task is None:
            return

        async def kill() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.world.call(kill())
        self.task = None

    # What must hold

    def _rows(self) -> dict[UUID, Any]:
        async def read() -> Any:
            with self.loop.working():
                async with self.world.db.acquire(1) as connection:
                    return await connection.fetch(
                        "SELECT id, deleted_at, revision, record_hash, phase FROM workload "
                        "WHERE tenant_id = 1 AND cluster_id = $1",
                        self.server.identity.cluster_id,
                    )

        return {row["id"]: row for row in self.world.call(read())}

    def check(self) -> None:
        if self.task is not None and self.task.done():
            self.task.result()
        rows = self._rows()
        for id_, row in rows.items():
            life = self.lives.get(id_)
            assert life is not None or id_ in self.others, f"phantom {id_}"
            if life is not None and row["deleted_at"] is not None:
                assert not self.cluster.exists(life.root), f"false delete of {life.root}"
        self.reported |= {id_ for id_ in rows if id_ in self.lives}
        assert self.agent is not None
        pending = self.agent.pending
        assert len(pending) <= 2 * (len(self.lives) + len(self.others)), "the backlog is unbounded"

    def heal(self) -> None:
        self.cluster.is_down = self.cluster.is_stalled = self.server.is_down = False
        self.server.is_full = False
        self.older_agent(is_older=False)
        self.cluster.forbidden.clear()
        self.server.loses = self.server.loses_replies = self.server.doubles = 0
        for life in self.lives.values():
            if not self.cluster.exists(life.root):
                for obj in (life.link, *life.pods):
                    if obj is not None:
                        self.cluster.delete(obj)
        self._note_ends()
        waited = 0.0
        while not self._is_right() and waited < HEAL_SECONDS:
            self._wait(15.0)
            waited += 15.0
            self.check()

    def _is_right(self) -> bool:
        live = {id_ for id_, row in self._rows().items() if row["deleted_at"] is None}
        is_right = live == {life.id for life in self._existing()}
        return is_right and self.world.call(self._live_pods()) == self._existing_pods()

    def _existing_pods(self) -> set[UUID]:
        pods = [pod for life in self._existing() for pod in (life.root, *life.pods)]
        return {
            UUID(pod["metadata"]["uid"])
            for pod in pods
            if pod["kind"] == "Pod" and self.cluster.exists(pod)
        }

    async def _live_pods(self) -> set[UUID]:
        with self.loop.working():
            async with self.world.db.acquire(1) as connection:
                rows = await connection.fetch(
                    "SELECT p.id FROM workload_pod p JOIN workload w "
                    "ON w.tenant_id = 1 AND w.id = p.workload_id "
                    "WHERE p.tenant_id = 1 AND p.deleted_at IS NULL AND w.cluster_id = $1",
                    self.server.identity.cluster_id,
                )
        return {row["id"] for row in rows}

    def check_end(self) -> None:
        rows = self._rows()
        live = {id_ for id_, row in rows.items() if row["deleted_at"] is None}
        existing = {life.id for life in self._existing()}
        assert live == existing, f"missing {existing - live}, beyond {live - existing}"
        assert self.world.call(self._live_pods()) == self._existing_pods()
        for id_ in self.reported - existing:
            assert id_ in rows, "a workload that was told is forgotten"
        histories, documents = self.world.call(self._histories())
        for id_, history in histories.items():
            numbers = [row["number"] for row in history]
            times = [row["at"] for row in history]
            assert numbers == list(range(len(numbers))), "a history has holes or doubles"
            assert times == sorted(times), "a history goes back in time"
            phases = [row["phase"] for row in history]
            doubled = any(a == b for a, b in pairwise(phases))
            assert not doubled or rows[id_]["deleted_at"] is None, phases
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

    async def _histories(self) -> tuple[dict[UUID, list[Any]], dict[UUID, Json]]:
        with self.loop.working():
            async with self.world.db.acquire(1) as connection:
                cluster = self.server.identity.cluster_id
                steps = await connection.fetch(
                    "SELECT t.workload_id, t.number, t.at, t.phase FROM phase_transition t "
                    "JOIN workload w ON w.tenant_id = 1 AND w.id = t.workload_id "
                    "WHERE t.tenant_id = 1 AND w.cluster_id = $1 ORDER BY t.workload_id, t.number",
                    cluster,
                )
                rows = await connection.fetch(
                    "SELECT id, document FROM workload WHERE tenant_id = 1 AND cluster_id = $1",
                    cluster,
                )
        histories: dict[UUID, list[Any]] = {}
        for step in steps:
            histories.setdefault(step["workload_id"], []).append(step)
        return histories, {row["id"]: json.loads(row["document"] + b"}") for row in rows}

    def teardown(self) -> None:
        try:
            self.heal()
            self.check_end()
        except BaseException:
            self.keep()
            raise
        finally:
            self._kill()


def _text(at: Any) -> str:
    return str(at.strftime("%Y-%m-%dT%H:%M:%S"))


@contextmanager
def discovering(cluster: ModelCluster) -> Iterator[None]:
    watch_manager.discover = cluster.discover  # type: ignore[assignment]
    yield

"""The steps of a random history and what must hold after each, for `test_model`."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.fixtures.kubernetes.model_cluster import ModelCluster
from tests.fixtures.makers import owner_reference
from tests.fixtures.model_server import ModelServer
from tests.fixtures.model_world import Json, Life, World
from tests.sync.validators import Validators
from watchbill.agent.cache import watch_manager
from watchbill.agent.kubernetes import steady_clock
from watchbill.agent.run import Agent
from watchbill.errors import Forbidden
from watchbill.identity import AgentIdentity
from watchbill.kinds.objects.objects import GroupKind
from watchbill.settings.agent import AgentSettings
from watchbill.store.fleet.clusters import cluster_create
from watchbill.store.workloads.deletion import workload_purge

HEAL_SECONDS = 1_500.0
NAMES = 6
TEAM, DELETED = "team", "deleted"
"""Namespaces: one that there is, and one that an API server no longer lists."""
ORPHANS_EVERY_SECONDS = 20
JOB = GroupKind("batch", "Job")
FORBIDDABLE = (GroupKind("", "Pod"), JOB, GroupKind("apps", "Deployment"))


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


class Histories(Validators):
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
        self.reported: set[UUID] = set()
        identity = AgentIdentity(1, UUID(int=0xC0 << 64 | self.number))
        self.server = ModelServer(self.loop, self.world.db, identity)
        self.agent: Agent | None = None
        self.task: asyncio.Task[None] | None = None
        self.orphans: list[Json] = []
        self.most_skew = timedelta(0)
        self.has_backup = False
        self.world.reports_pods = True
        self.loop.agent_clock_ahead_seconds = 0.0
        self.stop = asyncio.Event()
        self.world.call(self._register())
        for name in ("kube-system", TEAM):
            self.cluster.put(self._made("Namespace", name, namespace=""))
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
        versions = {"Job": "batch/v1", "Fleet": "example.com/v1"}
        versions |= dict.fromkeys(("Deployment", "ReplicaSet"), "apps/v1")
        metadata: Json = {
            "name": name,
            "namespace": more.pop("namespace", TEAM),
            "uid": str(UUID(int=self.number << 32 | self.objects)),
            "creationTimestamp": self.loop.wall().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if owner is not None:
            metadata["ownerReferences"] = [owner_reference(owner)]
        return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata, **more}

    def _pod(self, name: str, owner: Json | None = None, namespace: str = TEAM) -> Json:
        return self._made(
            "Pod",
            name,
            owner,
            namespace=namespace if owner is None else owner["metadata"]["namespace"],
            spec={"containers": [{"name": "main", "image": "i"}], "nodeName": "n1"},
            status={"phase": "Running"},
        )

    def _picked(self, index: int) -> Life | None:
        existing = self.existing()
        return existing[index % len(existing)] if existing else None

    def _note_ends(self) -> None:
        for life in self.lives.values():
            objects = [life.root, *life.pods]
            if life.ended_at is None and not any(map(self.cluster.exists, objects)):
                life.ended_at = self.loop.wall()

    # What happens in the cluster

    @recorded
    def create(self, kind: str, name: int, lost: bool) -> None:
        is_taken = any(life.root["metadata"]["name"] == f"w{name}" for life in self.existing())
        if is_taken or (kind == "Job" and JOB in self.cluster.unserved):
            return
        template = {"spec": {"containers": [{"name": "main"}]}}
        namespace = (TEAM, DELETED)[name % 2]
        life = (
            Life(self._pod(f"w{name}", namespace=namespace))
            if kind == "Pod"
            else Life(
                self._made(
                    kind,
                    f"w{name}",
                    namespace=namespace,
                    spec={"template": template},
                    status={},
                )
            )
        )
        self.lives[life.id] = life
        self.cluster.put(life.root, is_lost=lost)
        if kind == "Deployment":
            self.objects += 1
            life.link = self._made(
                "ReplicaSet", f"w{name}-{self.objects}", life.root, namespace=namespace, spec={}
            )
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
        for life in self.existing():
            for obj in (life.root, life.link, *life.pods):
                if obj is not None:
                    self.cluster.delete(obj)
        self._note_ends()

    @recorded
    def orphans_come(self, seconds: int) -> None:
        """Again and again a pod names an owner that nobody can be asked for: meanwhile nothing proves which
        workloads its namespace has."""
        self.cluster.is_fleets_down = True
        for _ in range(0, seconds, ORPHANS_EVERY_SECONDS):
            orphan = self._pod(f"o{self.objects}", self._made("Fleet", f"f{self.objects}"))
            self.orphans.append(orphan)
            self.others.add(UUID(orphan["metadata"]["uid"]))
            self.cluster.put(orphan)
            self._wait(ORPHANS_EVERY_SECONDS)

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
    def list_only(self, index: int, is_list_only: bool) -> None:
        key = FORBIDDABLE[index % len(FORBIDDABLE)]
        unwatchable = self.cluster.unwatchable
        self.cluster.make_unwatchable(key) if is_list_only else unwatchable.discard(key)

    @recorded
    def serve_jobs(self, is_served: bool) -> None:
        if is_served:
            self.cluster.unserved.discard(JOB)
        else:
            self.cluster.unserve(JOB)
            self._note_ends()

    @recorded
    def wrong_cluster(self, seconds: int) -> None:
        """The agent is started with another cluster's kubeconfig, and then with its own again."""
        pinned = self.world.fetch(
            "SELECT cluster_uid FROM cluster WHERE tenant_id = 1 AND id = $1",
            self.server.identity.cluster_id,
        )
        if pinned[0]["cluster_uid"] is None:
            return
        self._kill()
        before, own = self.rows(), self.cluster
        self.cluster = ModelCluster()
        self.cluster.put(self._made("Namespace", "kube-system", namespace=""))
        self._start()
        self._wait(seconds)
        assert self.task is not None
        assert not self.task.done() or isinstance(self.task.exception(), Forbidden)
        assert self.rows() == before, "an agent of another cluster changed something"
        self._kill()
        self.cluster = own
        self._start()

    @recorded
    def backup(self) -> None:
        self.world.call(self._apart(self.world.backup.write()))
        self.has_backup = True

    @recorded
    def restore(self) -> None:
        """The server's database is as it was at the last backup."""
        if self.has_backup:
            self.world.call(self._apart(self.world.backup.restore()))
            self.server.batches.clear()
            self.reported &= self.rows().keys()

    @recorded
    def purge(self) -> None:
        """The retention of all that is deleted ends."""
        purging = workload_purge(self.world.db, 1, keep=timedelta(0), now=self.loop.wall())
        self.world.call(self._apart(purging))
        self.reported &= self.rows().keys()

    async def _apart(self, work: Awaitable[Any]) -> None:
        """Outside of the model's time."""
        with self.loop.working():
            await work

    @recorded
    def server_down(self, is_down: bool) -> None:
        self.server.is_down = is_down

    @recorded
    def lose(self, requests: int, replies: int, doubles: int) -> None:
        self.server.loses, self.server.loses_replies = requests, replies
        self.server.doubles = doubles

    @recorded
    def repeat_batch(self, index: int) -> None:
        before, after = self.world.call(self._repeat(index))
        assert after == before, "a batch from before changed something"

    async def _repeat(self, index: int) -> tuple[dict[UUID, Any], dict[UUID, Any]]:
        """What was stored before and after it, while the agent itself sends nothing."""
        await self.loop.rest()
        with self.loop.working():
            before = await self.stored()
            await self.server.repeat_batch(index)
            return before, await self.stored()

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
        """The agent is replaced by a version that knows neither pods nor `all_but`, or by the present one."""
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
            steady_clock.CLOCK = steady_clock.SteadyClock()
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

    # How it ends

    def heal(self) -> None:
        self.cluster.is_down = self.cluster.is_stalled = self.server.is_down = False
        self.server.is_full = False
        self.older_agent(is_older=False)
        self.cluster.is_fleets_down = False
        for orphan in self.orphans:
            self.cluster.delete(orphan)
        for kinds in (self.cluster.forbidden, self.cluster.unwatchable, self.cluster.unserved):
            kinds.clear()
        self.server.loses = self.server.loses_replies = self.server.doubles = 0
        for life in self.lives.values():
            if not self.cluster.exists(life.root):
                for obj in (life.link, *life.pods):
                    if obj is not None:
                        self.cluster.delete(obj)
        self._note_ends()
        waited = 0.0
        while not self.is_right() and waited < HEAL_SECONDS:
            self._wait(15.0)
            waited += 15.0
            self.check()

    def teardown(self) -> None:
        try:
            self.heal()
            self.check_end()
        except BaseException:
            self.keep()
            raise
        finally:
            self._kill()


@contextmanager
def discovering(cluster: ModelCluster) -> Iterator[None]:
    watch_manager.discover = cluster.discover  # type: ignore[assignment]
    yield

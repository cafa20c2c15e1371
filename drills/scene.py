"""What faults are done to: agent, server and PostgreSQL as processes, and a simulated cluster that changes.

The scene remembers every life, so that it can say at the end whether the record is right: live is exactly what
exists, nobody has two histories, none that exists was ever shown as deleted, every end has its time or an
interval that holds it, and whatever nobody saw lies in a gap that is shown.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

from drills.link import Link
from drills.processes import (
    Child,
    Postgres,
    administrator,
    folder,
    free_port,
    postgres,
    until,
    until_ready,
)
from drills.traffic import Cluster
from simulator.resources import JOBS, NAMESPACES, PODS
from watchbill.client import Client, Selection
from watchbill.errors import WatchbillError
from watchbill.responses.fleet import Gap

CHANGES_PER_SECOND = 10.0
PODS_AT_FIRST = 60
JOBS_AT_FIRST = 3
RIGHT_SECONDS = 400.0
GAP_SECONDS = 60.0
LATE = timedelta(seconds=60)
"""An end without an interval may be late by so much where the machine is; a stop is longer."""
SAME = timedelta(seconds=5)
PROGRAM = Path(__file__).with_name("faulty_program.py")


@dataclass
class Life:
    """Of a workload of the cluster."""

    name: str
    began_at: datetime
    ended_at: datetime | None = None


class Scene:
    """All parts, and the workloads that exist."""

    def __init__(
        self,
        root: Path,
        database: Postgres,
        server: Child,
        agent: Child,
        cluster: Cluster,
        link: Link,
        client: Client,
        url: str,
        login: tuple[str, str],
    ) -> None:
        self.root = root
        self.database = database
        self.server = server
        self.agent = agent
        self.cluster = cluster
        self.link = link
        self.client = client
        self.url = url
        self.login = login
        self.live: dict[UUID, Life] = {}
        """Pods without an owner, the oldest first."""
        self.jobs: dict[UUID, str] = {}
        """Jobs by UID, each with the name of its only pod."""
        self.others: dict[UUID, str] = {}
        """Names of pods outside the namespace `team`."""
        self.ended: dict[UUID, Life] = {}
        self.false_deletions: set[UUID] = set()

    def create(self) -> None:
        name = f"pod-{len(self.cluster.pods)}"
        self.live[self.cluster.create_pod()] = Life(name, datetime.now(UTC))

    def delete_oldest(self) -> None:
        uid = next(uid for uid in self.live if uid not in self.others)
        life = self.live.pop(uid)
        self.cluster.api.store.delete(PODS, "team", life.name)
        life.ended_at = datetime.now(UTC)
        self.ended[uid] = life

    def create_job(self) -> None:
        uid, name = uuid4(), f"job-{len(self.jobs)}"
        template = {"spec": {"containers": [{"name": "main", "image": "drill"}]}}
        metadata = {"name": name, "namespace": "team", "uid": str(uid)}
        job = {"metadata": metadata, "spec": {"template": template}, "status": {}}
        self.cluster.api.store.put(JOBS, job)
        self.jobs[uid] = self.cluster.create_pod_of("batch/v1", "Job", name, uid)

    def create_namespace(self, name: str, pods: int) -> set[UUID]:
        """With so many pods."""
        began_at = datetime.now(UTC)
        self.others = self.cluster.create_pods_in(name, pods)
        self.live |= {uid: Life(pod, began_at) for uid, pod in self.others.items()}
        return set(self.others)

    def delete_namespace(self, name: str) -> None:
        ended_at = datetime.now(UTC)
        for uid, pod in self.others.items():
            life = self.live.pop(uid)
            self.cluster.api.store.delete(PODS, name, pod)
            life.ended_at = ended_at
            self.ended[uid] = life
        self.cluster.api.store.delete(NAMESPACES, None, name)

    async def are_shown(self, uids: set[UUID]) -> bool:
        with contextlib.suppress(WatchbillError):
            return uids <= {each.id for each in await self.client.workloads(Selection())}
        return False

    async def are_deletions_held(self) -> bool:
        (cluster,) = await self.client.clusters()
        return cluster.held_deletions is not None

    async def change(self) -> None:
        """Two come for each that goes, until cancelled."""
        for number in range(1_000_000):
            self.create() if number % 3 else self.delete_oldest()
            await asyncio.sleep(1 / CHANGES_PER_SECOND)

    async def watch_deletions(self) -> None:
        """Whoever exists and is shown as deleted, until cancelled."""
        while True:
            with contextlib.suppress(WatchbillError):
                deleted = await self.client.workloads(Selection(is_deleted=True))
                self.false_deletions |= {workload.id for workload in deleted} & self.existing()
            await asyncio.sleep(0.5)

    def existing(self) -> set[UUID]:
        return self.live.keys() | self.jobs.keys()

    def kill_at(self, point: str) -> None:
        """The next process that comes to the point is killed there."""
        (self.root / "kill").write_text(point)

    async def until_killed(self, child: Child) -> None:
        process = child.process
        assert process is not None
        await asyncio.wait_for(asyncio.to_thread(process.wait), 300)

    async def state(self) -> str:
        (cluster,) = await self.client.clusters()
        return f"{cluster.state}{': ' + cluster.reason if cluster.reason else ''}"

    async def doctor(self) -> str:
        """What `watchbill doctor` says."""
        environ = {
            "WATCHBILL_URL": self.url,
            "WATCHBILL_CLIENT_ID": self.login[0],
            "WATCHBILL_CLIENT_SECRET": self.login[1],
        }
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "watchbill", "doctor"],
            capture_output=True,
            text=True,
            env=os.environ | environ,
        )
        return done.stdout + done.stderr

    async def until_right(self) -> float:
        """Seconds. Raises TimeoutError."""

        async def is_right() -> bool:
            with contextlib.suppress(WatchbillError):
                listed = [workload.id for workload in await self.client.workloads(Selection())]
                return sorted(listed) == sorted(self.existing())
            return False

        return await until(is_right, seconds=RIGHT_SECONDS, what="the record is right")

    async def check(self) -> str:
        assert not self.false_deletions, f"shown as deleted, and there: {self.false_deletions}"
        for uid in self.live:
            phases = [interval.phase for interval in (await self.client.history(uid)).history]
            assert len(phases) == len(set(phases)), f"{uid}: {phases}"
        deleted = {
            workload.id: workload
            for workload in await self.client.workloads(Selection(is_deleted=True))
        }
        for uid, life in self.ended.items():
            if uid in deleted:
                self._check_end(life, deleted[uid].deleted_at, deleted[uid].additional_fields)
        unseen = [life for uid, life in self.ended.items() if uid not in deleted]
        summary = f"{len(self.existing())} live, {len(deleted)} ended"
        if not unseen:
            return summary
        outside = await self._outside_of_gaps(unseen)
        more = f", {len(outside)} of them in no gap" if outside else ""
        return f"{summary}, {len(unseen)} came and went unseen{more}"

    def _check_end(
        self, life: Life, deleted_at: datetime | None, fields: dict[str, object]
    ) -> None:
        assert deleted_at is not None
        assert life.ended_at is not None
        between = fields.get("deletedBetween")
        if not isinstance(between, dict):
            assert abs(deleted_at - life.ended_at) < LATE, (
                f"{deleted_at} instead of {life.ended_at}"
            )
            return
        since, until_at = (
            datetime.fromisoformat(str(between[name])) for name in ("notBefore", "notAfter")
        )
        assert since - SAME <= life.ended_at <= until_at + SAME, (between, life.ended_at)

    async def _outside_of_gaps(self, unseen: list[Life]) -> list[Life]:
        """Those that lie in none. A gap is told once all kinds were listed, later than what lives is right."""
        left = unseen

        async def is_covered() -> bool:
            nonlocal left
            (cluster,) = await self.client.clusters()
            left = [life for life in left if not _is_in_a_gap(life, cluster.gaps)]
            return not left

        with contextlib.suppress(TimeoutError):  # what is left is said
            await until(is_covered, seconds=GAP_SECONDS, what="gaps are told")
        return left


def _is_in_a_gap(life: Life, gaps: Iterable[Gap]) -> bool:
    assert life.ended_at is not None
    return any(
        gap.from_at - SAME <= life.began_at and life.ended_at <= gap.to_at + SAME for gap in gaps
    )


def clock_of(root: Path) -> Path:
    """The file that says by how many seconds the agent's clock is ahead."""
    return root / "clock"


def agent_process(root: Path, url: str, credential: str, kubeconfig: Path) -> Child:
    file = root / "credential"
    file.write_text(credential + "\n")
    file.chmod(0o600)
    clock_of(root).write_text("0")
    command = [sys.executable, str(PROGRAM), str(root), "agent", "--server", url]
    command += ["--credential", str(file), "--kubeconfig", str(kubeconfig)]
    return Child(command, root / "agent.log", {"WATCHBILL_AGENT_SCRAPE_SECONDS": "0"})


def server_process(root: Path, database_url: str, port: int) -> Child:
    command = [sys.executable, str(PROGRAM), str(root), "server", "--port", str(port)]
    environ = {"WATCHBILL_DATABASE_URL": database_url, "WATCHBILL_REQUESTS_BURST": "100000"}
    return Child([*command, "--log-level", "warning"], root / "server.log", environ)


@contextlib.asynccontextmanager
async def scene(*, data: Path | None = None) -> AsyncIterator[Scene]:
    """`data`: where the database's files are; else beside all others."""
    with folder() as root:
        async with contextlib.AsyncExitStack() as stack:
            database = await stack.enter_async_context(postgres(root, data=data))
            login = await administrator(database.url("watchbill"))
            port = free_port()
            server = server_process(root, database.url("watchbill"), port)
            await stack.enter_async_context(server.running())
            url = f"http://127.0.0.1:{port}"
            await until_ready(url)
            client = await stack.enter_async_context(Client(url, *login))
            link = await stack.enter_async_context(Link(port).running())
            cluster = Cluster()
            await cluster.api.start()
            stack.push_async_callback(cluster.api.stop)
            created = await client.cluster_create("faulty")
            kubeconfig = cluster.api.kubeconfig(root / "kubeconfig")
            agent = agent_process(root, link.url, created.credential, kubeconfig)
            made = Scene(root, database, server, agent, cluster, link, client, url, login)
            for _ in range(PODS_AT_FIRST):
                made.create()
            for _ in range(JOBS_AT_FIRST):
                made.create_job()
            await stack.enter_async_context(agent.running())
            await made.until_right()
            yield made

"""Random but legal lives of what changes its size: Jobs that Kueue admits in part, Spark's dynamic allocation,
groups of plain pods and schedules. After each step the record says what is so, whatever the objects' order.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from tests.unit.kinds.cases.reading import written_out
from watchbill.cli.kinds_input import collect_topmost
from watchbill.kinds.derive import derive
from watchbill.protocol import Record, record_hash
from watchbill.workload import TERMINAL_PHASES, Phase, Workload

JSON = dict[str, Any]
STEPS = 20
GPUS = 2
TEMPLATE = {
    "spec": {
        "containers": [
            {"name": "main", "image": "a:1", "resources": {"limits": {"nvidia.com/gpu": str(GPUS)}}}
        ]
    }
}
ENDED = frozenset({"succeeded", "failed"})
RUNNING = frozenset({"ready", "unready", "lost"})
NEXT = {
    "unscheduled": ("starting",),
    "starting": ("ready", "unready"),
    "unready": ("ready",),
    "ready": ("lost",),
    "lost": ("ready",),
}
"""What may become of a pod that nobody removes, but for its end."""


class Life:
    """`pods`: the states of those that there are, by name; `is_over`: nothing changes any more."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.pods: dict[str, str] = {}
        self.made = 0
        self.is_over = False
        self.now = datetime(2026, 6, 1, 8, tzinfo=UTC)

    def step(self) -> None:
        self.now += timedelta(minutes=5)
        choices = [*self.changes(), self.move, self.move]
        self.rng.choice(choices)()
        self.follow()

    def changes(self) -> list[Any]:
        raise NotImplementedError

    def follow(self) -> None:
        """What the controller does next."""

    def documents(self) -> Iterator[JSON]:
        raise NotImplementedError

    def check(self, workload: Workload) -> None:
        raise NotImplementedError

    def add(self, prefix: str) -> str:
        self.made += 1
        name = f"{prefix}-{self.made}"
        self.pods[name] = "unscheduled"
        return name

    def move(self) -> None:
        movable = [name for name, state in self.pods.items() if state in NEXT]
        if movable:
            name = self.rng.choice(movable)
            self.pods[name] = self.rng.choice(NEXT[self.pods[name]])

    def end(self, *states: str, of: str = "") -> None:
        """One pod that is ready ends."""
        ready = [name for name in self.having("ready") if name.startswith(of)]
        if ready:
            self.pods[self.rng.choice(ready)] = self.rng.choice(states)

    def leave(self, name: str) -> None:
        """Without a node it goes at once."""
        if self.pods[name] == "unscheduled":
            del self.pods[name]
        elif self.pods[name] not in ENDED:
            self.pods[name] = "leaving"

    def having(self, *states: str) -> list[str]:
        return [name for name, state in self.pods.items() if state in states]

    def active(self) -> list[str]:
        return [name for name, state in self.pods.items() if state not in ENDED | {"leaving"}]

    def stamp(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def go(self) -> None:
        """Those that were leaving are gone."""
        for name in self.having("leaving"):
            del self.pods[name]


class PartlyAdmitted(Life):
    """Kueue admits two to four pods at a time of six, and may take them back."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.parallelism = 4
        self.is_admitted = False

    def changes(self) -> list[Any]:
        if self.is_admitted:
            return [self.succeed, self.succeed, self.evict, self.go]
        return [self.go] if self.pods and self.having("leaving") else [self.admit]

    def admit(self) -> None:
        self.parallelism = self.rng.randint(2, 4)
        self.is_admitted = True

    def succeed(self) -> None:
        self.end("succeeded")

    def evict(self) -> None:
        self.is_admitted = False
        self.parallelism = 4
        for name in self.active():
            self.leave(name)

    def follow(self) -> None:
        done = len(self.having("succeeded"))
        if done >= 6:
            self.is_over = True
        elif self.is_admitted:
            while len(self.active()) < min(self.parallelism, 6 - done):
                self.add("j")

    def documents(self) -> Iterator[JSON]:
        finished = [{"type": "Complete", "status": "True", "lastTransitionTime": self.stamp()}]
        yield {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": "j",
            "labels": {"kueue.x-k8s.io/queue-name": "team"},
            "annotations": {"kueue.x-k8s.io/job-min-parallelism": "2"},
            "spec": {
                "suspend": not self.is_admitted,
                "parallelism": self.parallelism,
                "completions": 6,
                "template": TEMPLATE,
            },
            "status": {
                "active": len(self.active()),
                "ready": len(self.having("ready")),
                "succeeded": len(self.having("succeeded")),
                "conditions": finished if self.is_over else [],
                **({"completionTime": self.stamp()} if self.is_over else {}),
            },
        }
        says = (
            [("QuotaReserved", "True"), ("Admitted", "True")]
            if self.is_admitted
            else [("QuotaReserved", "False")]
        )
        yield {
            "apiVersion": "kueue.x-k8s.io/v1beta1",
            "kind": "Workload",
            "name": "job-j",
            "owner": "Job.batch/j",
            "spec": {"queueName": "team", "active": True},
            "status": {
                "conditions": [
                    {"type": kind, "status": status, "reason": "Pending", "message": "no quota"}
                    for kind, status in (*says, *([("Finished", "True")] if self.is_over else []))
                ]
            },
        }
        for name, state in self.pods.items():
            yield {"kind": "Pod", "name": name, "owner": "Job.batch/j", "gpu": GPUS, "state": state}

    def check(self, workload: Workload) -> None:
        assert workload.requested_pods.min == 2
        assert workload.requested_pods.number == self.parallelism
        if self.is_over:
            assert workload.phase is Phase.COMPLETED
        elif not self.is_admitted and not self.active():
            assert workload.phase is Phase.PENDING
        else:
            assert workload.phase not in TERMINAL_PHASES


class DynamicExecutors(Life):
    """Spark asks for one to four executors, as its stages need them."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.pods["driver"] = "unscheduled"
        self.state = "SUBMITTED"

    def changes(self) -> list[Any]:
        if self.pods["driver"] != "ready":
            return []
        return [self.grow, self.grow, self.shrink, self.lose, self.go, self.finish]

    def executors(self) -> list[str]:
        return [name for name in self.active() if name != "driver"]

    def move(self) -> None:
        before = self.pods["driver"]
        super().move()
        if before == "ready":
            self.pods["driver"] = "ready"

    def grow(self) -> None:
        if len(self.executors()) < 4:
            self.add("exec")

    def shrink(self) -> None:
        if len(self.executors()) > 1:
            self.leave(self.rng.choice(self.executors()))

    def lose(self) -> None:
        self.end("failed", of="exec")

    def finish(self) -> None:
        if self.made > 5:
            self.pods["driver"] = self.rng.choice(("succeeded", "failed"))

    def follow(self) -> None:
        driver = self.pods["driver"]
        if driver in ENDED:
            self.pods = {"driver": driver}
            self.state = "COMPLETED" if driver == "succeeded" else "FAILED"
            self.is_over = True
        elif driver == "ready":
            self.state = "RUNNING"
            while len(self.executors()) < 1:
                self.add("exec")

    def documents(self) -> Iterator[JSON]:
        yield {
            "apiVersion": "sparkoperator.k8s.io/v1beta2",
            "kind": "SparkApplication",
            "name": "s",
            "spec": {
                "type": "Scala",
                "dynamicAllocation": {"enabled": True, "minExecutors": 1, "maxExecutors": 4},
                "driver": {"cores": 1},
                "executor": {"cores": 1, "gpu": {"name": "nvidia.com/gpu", "quantity": GPUS}},
            },
            "status": {
                "applicationState": {"state": self.state},
                **({"terminationTime": self.stamp()} if self.is_over else {}),
            },
        }
        for name, state in self.pods.items():
            is_driver = name == "driver"
            owner = "SparkApplication.sparkoperator.k8s.io/s" if is_driver else "Pod/driver"
            labels = {"spark-role": "driver" if is_driver else "executor"}
            pod = {"kind": "Pod", "name": name, "owner": owner, "labels": labels, "state": state}
            yield pod | {"gpu": 0 if is_driver else GPUS}

    def check(self, workload: Workload) -> None:
        assert (workload.requested_pods.min, workload.requested_pods.max) == (2, 5)
        if self.is_over:
            ends = {"COMPLETED": Phase.COMPLETED, "FAILED": Phase.FAILED}
            assert workload.phase is ends[self.state]
            return
        assert workload.phase not in TERMINAL_PHASES
        if workload.phase is Phase.RUNNING:
            assert "driver" in self.having("ready")
            assert len(self.having("ready")) >= 2


class PlainGroup(Life):
    """Three pods that Kueue admits together; one that fails may be replaced by another."""

    def changes(self) -> list[Any]:
        missing = 3 - len(self.active()) - len(self.having("succeeded"))
        replace = [self.make, self.make] if missing > 0 else []
        return [*replace, self.finish, self.finish, self.fail]

    def make(self) -> None:
        self.add("g")

    def finish(self) -> None:
        self.end("succeeded")

    def fail(self) -> None:
        self.end("failed")

    def follow(self) -> None:
        if not self.pods:
            self.make()

    def documents(self) -> Iterator[JSON]:
        for number, (name, state) in enumerate(self.pods.items()):
            yield {
                "kind": "Pod",
                "name": name,
                "gpu": GPUS,
                "state": state,
                "metadata": {"creationTimestamp": f"2026-06-01T07:{number:02}:00Z"},
                "labels": {"kueue.x-k8s.io/pod-group-name": "g"},
                "annotations": {"kueue.x-k8s.io/pod-group-total-count": "3"},
            }

    def check(self, workload: Workload) -> None:
        assert workload.requested_pods.number == 3
        if self.active():
            assert workload.phase not in TERMINAL_PHASES
        elif len(self.having("succeeded")) >= 3:
            assert workload.phase is Phase.COMPLETED
        elif self.having("failed"):
            assert workload.phase is Phase.FAILED
        if workload.phase is Phase.RUNNING:
            assert len(self.having("ready", "succeeded")) >= 3


class Scheduled(Life):
    """A CronJob: runs start, one over another or instead of it, end, and are cleared away."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.policy = self.rng.choice(("Allow", "Forbid", "Replace"))
        self.runs: dict[str, JSON] = {}
        self.status: JSON = {}

    def changes(self) -> list[Any]:
        return [self.start, self.finish, self.finish, self.clear, self.go]

    def going(self) -> list[str]:
        return [run for run, job in self.runs.items() if not job["status"].get("conditions")]

    def start(self) -> None:
        going = self.going()
        if going and self.policy == "Forbid":
            return
        if self.policy == "Replace":
            for run in going:
                self.remove(run)
        run = self.add("c")
        self.status["lastScheduleTime"] = self.stamp()
        self.runs[run] = {
            "metadata": {"creationTimestamp": self.stamp()},
            "spec": {"template": TEMPLATE},
            "status": {"startTime": self.stamp()},
        }

    def finish(self) -> None:
        self.end("succeeded", "failed")

    def clear(self) -> None:
        """But for the newest, of which the CronJob does not remember how it failed."""
        for run in list(self.runs)[:-1]:
            if run not in self.going():
                self.remove(run)
                return

    def remove(self, run: str) -> None:
        """In the background: the Job goes at once, with a pod that has no node yet or has ended."""
        del self.runs[run]
        self.pods.pop(run, None)

    def follow(self) -> None:
        for run in self.going():
            state = self.pods[run]
            status = self.runs[run]["status"]
            status |= {"active": int(state not in ENDED), "ready": int(state == "ready")}
            if state == "succeeded":
                self.status["lastSuccessfulTime"] = self.stamp()
                status |= {"completionTime": self.stamp(), "succeeded": 1}
            if state in ENDED:
                kind = "Complete" if state == "succeeded" else "Failed"
                status["conditions"] = [
                    {"type": kind, "status": "True", "lastTransitionTime": self.stamp()}
                ]

    def documents(self) -> Iterator[JSON]:
        yield {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "name": "c",
            "spec": {
                "concurrencyPolicy": self.policy,
                "jobTemplate": {"spec": {"template": TEMPLATE}},
            },
            "status": self.status
            | {"active": [{"kind": "Job", "name": f"job-{run}"} for run in self.going()]},
        }
        for run, job in self.runs.items():
            name = f"job-{run}"
            yield {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": name,
                "owner": "CronJob.batch/c",
            } | job
            state = self.pods[run]
            owner = f"Job.batch/{name}"
            yield {"kind": "Pod", "name": run, "owner": owner, "gpu": GPUS, "state": state}

    def check(self, workload: Workload) -> None:
        going = self.going()
        asked = workload.workload_requested_resources.gpu
        assert (asked.request if asked else 0) == GPUS * len(going)
        if not self.runs:
            assert workload.phase is Phase.CREATING
        elif going:
            assert workload.phase not in TERMINAL_PHASES
            has_ready = any(self.pods[run] == "ready" for run in going)
            assert workload.phase is not Phase.RUNNING or has_ready
        else:
            last = self.pods[list(self.runs)[-1]]
            assert workload.phase is (Phase.COMPLETED if last == "succeeded" else Phase.FAILED)


def record_of(documents: list[JSON]) -> Record:
    read = msgspec.json.decode(msgspec.json.encode(documents))
    return derive(collect_topmost(read, definitions()), definitions(), SETTINGS).record


def check_sums(life: Life, workload: Workload) -> None:
    gpus = {name: 0 if name == "driver" else GPUS for name in life.pods}
    live = [name for name, state in life.pods.items() if state not in ENDED]
    active, placed = life.active(), set(live) - set(life.having("unscheduled"))
    asked = workload.workload_requested_resources.gpu
    existing = workload.pods_requested_resources.gpu
    assert (asked.request if asked else 0) >= sum(gpus[name] for name in active)
    assert (existing.request if existing else 0) == sum(gpus[name] for name in live)
    assert workload.allocated_resources.gpu == sum(gpus[name] for name in placed)
    assert workload.running_pods == sum(life.pods[name] in RUNNING for name in active)
    assert (workload.completed_at is not None) is (workload.phase in TERMINAL_PHASES)
    if workload.phase in TERMINAL_PHASES:
        assert not life.having("ready")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [PartlyAdmitted, DynamicExecutors, PlainGroup, Scheduled])
def test_the_record_follows_what_changes_its_size(kind: type[Life], seed: int) -> None:
    life = kind(seed)
    life.follow()
    for _ in range(STEPS):
        documents = [made for short in life.documents() for made in written_out(short)]
        record = record_of(documents)
        title = (record.workload.phase, record.workload.phase_message, life.pods)
        try:
            check_sums(life, record.workload)
            life.check(record.workload)
        except AssertionError as error:
            raise AssertionError(title) from error
        life.rng.shuffle(documents)
        assert record_hash(record_of(documents)) == record_hash(record)
        if life.is_over:
            return
        life.step()

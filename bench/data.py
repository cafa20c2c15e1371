"""The bench's database: workloads of four to five kilobytes, entered through the product's own ingest."""

import random
from datetime import timedelta
from uuid import UUID

import msgspec

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, random_transitions, random_workload, upsert
from watchbill.protocol import Delete, Upsert, record_hash
from watchbill.store.postgres.database import Database
from watchbill.workload import Condition, Phase, Workload

NOW = START + timedelta(days=2)
BATCH = 500


PROJECTS = 400
POOLS = ("a100", "h100", "l40s", "cpu", "mig", "spot")
PHASES = {
    Phase.RUNNING: 70,
    Phase.PENDING: 10,
    Phase.COMPLETED: 10,
    Phase.FAILED: 5,
    Phase.STOPPED: 3,
    Phase.DEGRADED: 2,
}


def bench_workload(rng: random.Random, number: int) -> Workload:
    """A workload whose document weighs what real ones weigh, in an organisation as real ones are: a project
    belongs to one department, keeps to its node pool and mostly runs."""
    made = random_workload(rng, number)
    project = min(rng.randrange(PROJECTS), rng.randrange(PROJECTS))
    pools = (POOLS[project % len(POOLS)],)
    words = [f"{rng.getrandbits(64):x}" for _ in range(40)]
    conditions = tuple(
        Condition(
            type=kind,
            status=rng.choice(("True", "False")),
            reason=f"{kind}Because{words[index]}",
            message=" ".join(words[index : index + 6]),
            last_transition_time=made.created_at,
        )
        for index, kind in enumerate(("Created", "Running", "Restarting", "Succeeded"))
    )
    return msgspec.structs.replace(
        made,
        project_name=f"project-{project}",
        department_name=f"department-{project % 20}",
        phase=rng.choices(list(PHASES), PHASES.values())[0],
        category=("Build", "Train", "Deploy")[project % 3],
        current_node_pools=pools,
        requested_node_pools=pools if project % 2 else (),
        conditions=conditions,
        additional_fields=made.additional_fields | idle_fields(made, number),
        environment_variables={f"SETTING_{word[:6].upper()}": word for word in words[:32]},
        command=" ".join(words[:10]),
        arguments=" ".join(f"--{word[:5]}={word}" for word in words[10:25]),
    )


def idle_fields(made: Workload, number: int) -> dict[str, str | float]:
    """What an agent tells of GPUs that idle now: the hours before, and since when these do on average."""
    if not made.idle_allocated_gpus:
        return {}
    since = START + timedelta(seconds=number % 170_000)
    return {
        "idleGpuHours": number % 4_000 / 100,
        "idleMeasuredSince": START.isoformat(),
        "idleMeanSince": since.isoformat(),
    }


async def fill(db: Database, *, total: int, live: int) -> tuple[Agent, list[Upsert]]:
    """`total` workloads, the newest `live` of them not deleted; returns what is live."""
    agent = await connected_agent(db, START)
    rng = random.Random(11)
    kept: list[Upsert] = []
    for start in range(0, total, BATCH):
        upserts = []
        for _ in range(min(BATCH, total - start)):
            made = bench_workload(rng, rng.getrandbits(128))
            upserts.append(upsert(made, *random_transitions(rng, made)))
        await agent.send(*upserts, now=NOW)
        gone = upserts[: max(0, total - live - start)]
        if gone:
            deletes = [Delete(id=u.record.workload.id, deleted_at=NOW) for u in gone]
            await agent.send(*deletes, now=NOW)
        kept += upserts[len(gone) :]
    return agent, kept


def changed(entry: Upsert, running_pods: int) -> Upsert:
    """The same workload after one more change."""
    made = msgspec.structs.replace(entry.record.workload, running_pods=running_pods)
    record = msgspec.structs.replace(entry.record, workload=made)
    return msgspec.structs.replace(entry, record=record, record_hash=record_hash(record))


def ids_of(entries: list[Upsert]) -> list[UUID]:
    return [entry.record.workload.id for entry in entries]

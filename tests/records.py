"""Makes records as an agent would send them, for tests of everything behind the agent."""

import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

from watchbill.sync import Record, Upsert, Witness, record_hash
from watchbill.workload import (
    ActionsSupport,
    AllocatedResources,
    Cores,
    Endpoint,
    Phase,
    Quantity,
    RequestedPods,
    RequestedResources,
    Transition,
    Usage,
    Workload,
    gpu_millionths,
)

START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


def workload(number: int = 1, **members: object) -> Workload:
    """A plain running workload; `members` replace what a test is about."""
    gpus = float(members.pop("gpus", 2.0))  # type: ignore[arg-type]
    resources = RequestedResources(
        extended_resources=(),
        gpu_request_type="portion" if gpus else None,
        gpu=Cores(request=gpus, limit=gpus) if gpus else None,
        cpu=Cores(request=4.0),
        cpu_memory=Quantity(request="16Gi"),
    )
    made: dict[str, object] = {
        "id": UUID(int=number),
        "name": f"llama-sft-{number}",
        "type": "PyTorchJob",
        "source": "Other",
        "namespace": "team-vision",
        "project_name": "vision",
        "department_name": "research",
        "category": "Train",
        "priority": 50,
        "priority_class_name": "train",
        "created_at": START,
        "phase": Phase.RUNNING,
        "k8s_phase": "Running",
        "conditions": (),
        "running_pods": 1,
        "workload_requested_resources": resources,
        "pods_requested_resources": resources,
        "allocated_resources": AllocatedResources(gpu=gpus, extended_resources=()),
        "idle_allocated_gpus": None if gpus else 0.0,
        "idle_gpus": None if gpus else 0,
        "requested_pods": RequestedPods(number=1),
        "requested_node_pools": ("a100",),
        "current_node_pools": ("a100",),
        "images": ("registry.example.com/train:1",),
        "urls": (),
        "datasources": (),
        "environments": (),
        "external_connections": (),
        "endpoints": (
            Endpoint(host="train.example.com", port=443, url="https://train.example.com"),
        ),
        "environment_variables": {"EPOCHS": "3"},
        "additional_fields": {},
        "actions_support": ActionsSupport(delete=False, suspend=False),
        "submitted_by": "ada@example.com",
    }
    return Workload(**(made | members))  # type: ignore[arg-type]


def record(made: Workload, **members: object) -> Record:
    gpus = gpu_millionths(made.allocated_resources.gpu)
    pools = made.current_node_pools
    shares = {pool: gpus // len(pools) for pool in pools}
    if pools:
        shares[pools[0]] += gpus - sum(shares.values())
    filled: dict[str, object] = {
        "workload": made,
        "witness": Witness(group="kubeflow.org", kind=made.type, namespace=made.namespace),
        "usage": Usage(
            pod_count=1,
            running_pod_count=made.running_pods,
            gpu_millionths=gpus,
            gpu_memory_request_bytes=0,
            cpu_request_cores=4.0,
        ),
        "pending_scheduling_messages": (),
        "elements": (),
        "elements_total": 0,
        "project_key": made.project_name,
        "department_key": made.department_name,
        "gpu_millionths_by_node_pool": shares,
    }
    return Record(**(filled | members))  # type: ignore[arg-type]


def upsert(
    made: Workload | Record,
    *transitions: tuple[Phase, datetime],
    observed_at: datetime | None = None,
) -> Upsert:
    """`transitions` default to one, into the present phase at creation."""
    entry = made if isinstance(made, Record) else record(made)
    told = transitions or ((entry.workload.phase, entry.workload.created_at),)
    return Upsert(
        record=entry,
        record_hash=record_hash(entry),
        transitions=tuple(Transition(phase=phase, at=at) for phase, at in told),
        observed_at=observed_at or told[-1][1],
    )


_NAMES = ("llama", "Mistral", "qwen_2", "a%b", "gemma\\x", "Ünï", "sdxl, v2", "resnet")
_POOLS = ("a100", "H100", "cpu_small", "default")
_PEOPLE = ("ada@example.com", "Grace@example.com", "alan@example.org", None, "")


def random_workload(rng: random.Random, number: int) -> Workload:
    """Varied in every field that can be asked for, with ties, gaps and characters that SQL reads."""
    gpus = rng.choice((0, 0.5, 1, 1, 2, 8, 16, 0.1, 1 / 3))
    pools = tuple(sorted(rng.sample(_POOLS, rng.choice((0, 1, 1, 2)))))
    created_at = START + timedelta(seconds=rng.choice((0, 1, 60, rng.randrange(86_400))))
    phase = rng.choice(list(Phase))
    idle = None if gpus == 0 or rng.random() < 0.5 else rng.choice((0.0, gpus, gpus / 2))
    return workload(
        number,
        gpus=gpus,
        name=f"{rng.choice(_NAMES)}-{rng.randrange(50)}",
        type=rng.choice(("PyTorchJob", "Deployment", "Job", "RayCluster", "pod")),
        project_name=rng.choice(("vision", "nlp", "Speech", "a_b")),
        department_name=rng.choice(("research", "Prod", "")),
        category=rng.choice(("Build", "Train", "Deploy", "")),
        priority=rng.choice((None, 25, 50, 100, 125)),
        priority_class_name=rng.choice(("train", "build", "")),
        created_at=created_at,
        phase=phase,
        idle_allocated_gpus=0.0 if gpus == 0 else idle,
        idle_gpus=0 if gpus == 0 else None if idle is None else int(idle),
        current_node_pools=pools,
        requested_node_pools=tuple(rng.sample(_POOLS, rng.choice((0, 1, 3)))),
        submitted_by=rng.choice(_PEOPLE),
        completed_at=rng.choice((None, created_at + timedelta(hours=1))),
        guaranteed_runtime_ends_at=rng.choice((None, created_at + timedelta(hours=2))),
        distributed_framework=rng.choice((None, "PyTorch", "MPI")),
        ai_application_id=rng.choice((None, "6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
        ai_application_name=rng.choice((None, "chat", "Chat-RAG")),
    )


def random_transitions(rng: random.Random, made: Workload) -> list[tuple[Phase, datetime]]:
    """A history that ends in the workload's phase, with spells of pending and running on the way."""
    at = made.created_at
    steps: list[tuple[Phase, datetime]] = []
    for phase in rng.sample((Phase.CREATING, Phase.PENDING, Phase.RUNNING), rng.randrange(4)):
        steps.append((phase, at))
        at += timedelta(milliseconds=rng.choice((0, 1500, 61_000, rng.randrange(10_000_000))))
    if not steps or steps[-1][0] is not made.phase:
        steps.append((made.phase, at))
    return steps

"""For every kind and whatever its status says: pods that are there are never contradicted."""

import random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from tests.unit.kinds.golden.reading import cases
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.objects import WorkloadObjects
from watchbill.kinds.objects.pod import ContainerProblem, Pod
from watchbill.kinds.objects.resources import Resources
from watchbill.workload import TERMINAL_PHASES, Phase

WITH_PODS = [case.objects for case in cases() if case.objects.pods]
STUCK = ContainerProblem("main", "ImagePullBackOff", "", None, is_waiting=True)


def _varied(pod: Pod, draw: random.Random) -> Pod:
    """The pod with more than its template asks for, or one that cannot start."""
    match draw.randrange(4):
        case 0:
            extended = (("nvidia.com/gpu", draw.randrange(1, 16)),)
            return msgspec.structs.replace(
                pod, resources=Resources(cpu_request=64, extended=extended)
            )
        case 1 if not pod.is_terminal:
            return msgspec.structs.replace(pod, problem=STUCK, ready=None, phase="Pending")
    return pod


def _number(amount: Any) -> float:
    return 0 if amount is None else amount.request or 0


def _mixed(draw: random.Random) -> WorkloadObjects:
    """The objects of one moment of a kind's life with the status of another of the same kind."""
    objects = draw.choice(WITH_PODS)
    kind = objects.root["kind"]
    statuses = [c.objects.root.get("status") for c in cases() if c.objects.root["kind"] == kind]
    root = {**objects.root, "status": draw.choice(statuses) or {}}
    return msgspec.structs.replace(
        objects, root=root, pods=[_varied(pod, draw) for pod in objects.pods]
    )


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_pods_are_never_contradicted(seed: int) -> None:
    objects = _mixed(random.Random(seed))
    workload = derive(objects, definitions(), SETTINGS).record.workload
    active = [pod for pod in objects.pods if not (pod.is_terminal or pod.is_terminating)]
    if len(active) == sum(not pod.is_terminal for pod in objects.pods):
        asked, present = workload.workload_requested_resources, workload.pods_requested_resources
        assert _number(asked.gpu) >= _number(present.gpu)
        assert _number(asked.cpu) >= _number(present.cpu)
    ready = [pod for pod in active if pod.is_ready and pod.node]
    if ready:
        assert workload.phase not in TERMINAL_PHASES
    if active and all(pod.problem is STUCK for pod in active):
        assert workload.phase is not Phase.RUNNING
    assert workload.completed_at is None or workload.phase in TERMINAL_PHASES

"""Whatever happens to pods and whatever is acknowledged, the server ends with the pods that there are."""

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.records import pod
from watchbill.agent.stream.object_changes import PodHashes, pod_changes
from watchbill.workload_pod import WorkloadPod

PODS = st.dictionaries(st.integers(1, 6), st.sampled_from(["Pending", "Running", "Failed"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(PODS, st.sampled_from(["applied", "refused", "lost"]))))
def test_differences_add_up(steps: list[tuple[dict[int, str], str]]) -> None:
    server: dict[UUID, WorkloadPod] = {}
    held: str | None = None
    acknowledged: PodHashes | None = None
    for number, (phases, outcome) in enumerate(steps):
        pods = [pod(number, k8s_phase=phase) for number, phase in phases.items()]
        changes, hashes = pod_changes(pods, f"hash-{number}", held, acknowledged)
        if outcome == "lost":  # the inventory then tells that the server holds something else
            held = None
            continue
        if outcome == "refused":
            continue
        if changes.since is None:
            server = {}
        else:
            assert changes.since == held
            assert all(server.get(pod_.id) != pod_ for pod_ in changes.changed)
        server |= {pod_.id: pod_ for pod_ in changes.changed}
        for pod_id in changes.removed:
            del server[pod_id]
        held, acknowledged = f"hash-{number}", hashes
        assert server == {pod.id: pod for pod in pods}


def test_what_is_remembered_of_a_pod_is_small() -> None:
    _, hashes = pod_changes([pod(number) for number in range(2_000)], "h", None, None)
    assert len(hashes.packed) == 2_000 * 24

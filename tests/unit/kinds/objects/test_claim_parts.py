"""Claims that pods of several workloads share: each has its part of what exists once."""

from fractions import Fraction
from typing import Any

import pytest

from tests.fixtures.makers import JSON, deployment, derived, root, template, workload
from tests.unit.kinds.objects.test_claims import NODES, claim, request, using
from watchbill.kinds.objects.objects import ClusterObjects
from watchbill.workload import Cores


def shared_claim(number: int, *pods: str, held: bool = True, **consumer: str) -> JSON:
    """Of so many GPUs, reserved for the pods of these UIDs."""
    made = claim("shared", request(number), held=number if held else 0)
    made["status"]["reservedFor"] = [{"resource": "pods", "uid": uid} | consumer for uid in pods]
    return made


class Users:
    """An agent that knows how many pods of all workloads share a claim, and the claims of the namespace."""

    def __init__(self, users: int | None, *claims: JSON) -> None:
        self._users, self._claims = users, {each["metadata"]["name"]: each for each in claims}

    def named(self, names: Any) -> dict[str, JSON]:
        return {name: self._claims[name] for name in names if name in self._claims}

    def users(self, name: str) -> int | None:
        return self._users


@pytest.mark.parametrize(
    ("reserved", "users", "own", "held"),
    [
        # Two GPUs, two pods in two workloads: one each.
        (["w-1", "other"], 0, [1], Fraction(1, 2)),
        # Three of four pods: three quarters.
        (["w-1", "w-2", "w-3", "other"], 0, [1, 2, 3], Fraction(3, 4)),
        # One of those that it is reserved for is gone; only an agent knows.
        (["w-1", "other", "gone"], 2, [1], Fraction(1, 2)),
        # The second pod may not use it: it is not among those that it is reserved for.
        (["w-1"], 1, [1, 2], Fraction(1)),
        (["other", "another"], 2, [1], Fraction(0)),
        # Reserved for nobody, as far as this agent has read: those that name it.
        ([], 3, [1], Fraction(1, 3)),
        ([], 0, [1, 2], Fraction(1)),
        ([], None, [1], None),
    ],
)
def test_workloads_that_share_a_claim_have_their_parts_of_it(
    reserved: list[str], users: int | None, own: list[int], held: Fraction | None
) -> None:
    names = {f"w-{number}": using(number, "shared")["metadata"]["uid"] for number in (1, 2, 3)}
    shared = shared_claim(2, *(names.get(each, each) for each in reserved))
    record = derived(
        deployment(len(own)),
        [using(number, "shared") for number in own],
        claims=[shared],
        cluster=NODES,
        claim_lookup=Users(users),
    ).record
    result = record.workload
    gpus = None if held is None else float(2 * held)
    assert result.allocated_resources.gpu == pytest.approx(gpus, abs=1e-6)
    asked = result.pods_requested_resources.gpu
    assert (asked.request if asked else None) == (pytest.approx(gpus, abs=1e-6) if gpus else None)
    pools = {"h100": round(2_000_000 * held)} if held else {}
    assert record.gpu_millionths_by_node_pool == pools


def test_sums_over_workloads_that_share_a_claim_are_what_it_was_given() -> None:
    """Whichever pods have ended or are gone: never more, and all of it where the agent knows them."""
    live = {number: using(number, "shared") for number in range(1, 6)}
    uids = [each["metadata"]["uid"] for each in live.values()]
    shared = shared_claim(4, *uids)
    parts = [[1], [2, 3], [4, 5]]
    for lookup, total in ((Users(5), 4.0), (Users(0), 4.0)):
        held = [
            workload(
                deployment(1),
                [live[number] for number in part],
                claims=[shared],
                claim_lookup=lookup,
            ).allocated_resources.gpu
            for part in parts
        ]
        assert held == pytest.approx([0.8, 1.6, 1.6])
        assert sum(filter(None, held)) == pytest.approx(total)
    ended = using(1, "shared", state="succeeded")
    alone = workload(deployment(1), [ended, live[2]], claims=[shared_claim(4, *uids[:2])])
    assert alone.allocated_resources.gpu == 4


def test_pods_that_share_a_claim_hold_their_parts_where_they_are() -> None:
    pods = [using(1, "shared"), using(2, "shared")]
    pods[1]["spec"]["nodeName"] = "node-2"
    uids = [each["metadata"]["uid"] for each in pods]
    nodes = {"node-1": {"kai.scheduler/node-pool": "a"}, "node-2": {"kai.scheduler/node-pool": "b"}}
    result = derived(
        deployment(2),
        pods,
        claims=[shared_claim(3, *uids)],
        cluster=ClusterObjects(node_labels=nodes),
    )
    assert result.record.gpu_millionths_by_node_pool == {"a": 1_500_000, "b": 1_500_000}
    held = [each.allocated_resources for each in result.pods]
    assert [each.gpu for each in held if each is not None] == [1.5, 1.5]


def test_a_part_of_an_accelerator_of_others_is_told_in_thousandths() -> None:
    shared = claim("shared", request(1, "gpu.amd.com"), held=1, driver="gpu.amd.com")
    shared["status"]["reservedFor"] = [{"uid": using(1)["metadata"]["uid"]}, {"uid": "other"}]
    result = workload(deployment(1), [using(1, "shared")], claims=[shared])
    for each in (result.allocated_resources, result.pods_requested_resources):
        assert [part.quantity for part in each.extended_resources] == ["500m"]


def test_a_claim_that_is_reserved_for_pod_groups_is_shared_by_the_pods_that_name_it() -> None:
    shared = shared_claim(2, "group", apiGroup="scheduling.k8s.io", resource="podgroups")
    pods = [using(1, "shared"), using(2, "shared")]
    result = workload(deployment(2), pods, claims=[shared], claim_lookup=Users(4))
    assert result.allocated_resources.gpu == 1


@pytest.mark.parametrize(
    ("lookup", "asked"),
    [
        (Users(0, claim("shared", request(2))), 2),
        (Users(0), None),
        (Users(2, shared_claim(2, "other", "another")), 0),
        (Users(0, claim("shared", request(2, "nics.example.com"))), 0),
    ],
)
def test_a_claim_that_a_template_names_is_asked_for_before_pods_are_there(
    lookup: Users, asked: int | None
) -> None:
    named = [{"name": "gpu", "resourceClaimName": "shared"}]
    spec = {"replicas": 4, "template": {"spec": template()["spec"] | {"resourceClaims": named}}}
    deploy = root("apps/v1", "Deployment", spec=spec)
    record = derived(deploy, [], claim_lookup=lookup).record.workload
    gpus = record.workload_requested_resources.gpu
    assert gpus == (Cores(request=asked, limit=asked) if asked else None)
    is_ai = asked != 0 or lookup.users("shared") != 0
    assert record.additional_fields["workloadClass"] == ("AI" if is_ai else "General")
    many = [{"name": f"gpu-{n}", "resourceClaimName": f"c-{n}"} for n in range(300)]
    spec["template"]["spec"]["resourceClaims"] = many
    lots = Users(0, *(claim(f"c-{n}") for n in range(300)))
    result = workload(root("apps/v1", "Deployment", spec=spec), [], claim_lookup=lots)
    assert result.workload_requested_resources.gpu is None

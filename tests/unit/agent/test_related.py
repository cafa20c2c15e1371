"""What stands beside workloads: kept sparingly, found again, and whom a change of it concerns."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.fixtures.kubernetes.agent_objects import chain, made
from tests.fixtures.work import Calls
from tests.unit.agent.test_cache import WANTED, Filled, root_uid
from tests.unit.agent.test_pending_changes import derived
from watchbill.agent.cache import related
from watchbill.agent.stream.pending_changes import PendingChanges
from watchbill.agent.stream.tracker import Tracker
from watchbill.kinds.derive import Derived
from watchbill.kinds.objects.objects import GroupKind
from watchbill.workload import Phase

Json = dict[str, Any]


def changed(obj: Json, **more: Any) -> Json:
    return json.loads(json.dumps(obj)) | more


def event(about: Json, reason: str, message: str = "said", **more: Any) -> Json:
    result = made("Event", reason.lower(), type="Warning", reason=reason, message=message, **more)
    return result | {
        "involvedObject": {"uid": root_uid(about)},
        "eventTime": "2026-11-23T12:00:05.000000Z",
    }


@pytest.fixture
def filled() -> Filled:
    return Filled()


@pytest.fixture
def objs(filled: Filled) -> tuple[Json, Json, Json]:
    made_chain = chain()
    filled.put(*made_chain)
    return made_chain


def test_the_newest_telling_event_of_each_object_is_kept(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    root, middle, member = objs
    assert filled.touched_by(event(middle, "FailedCreate")) == {root_uid(root)}
    assert filled.touched_by(event(member, "FailedMount", "no such secret")) == {root_uid(root)}
    assert filled.touched_by(event(member, "Scheduled")) == set()
    assert filled.touched_by(event(member, "Killing")) == set()
    result = filled.cache.gather(root_uid(root)).scheduling_events
    assert {related["reason"] for related in result} == {"FailedCreate", "FailedMount"}
    newer = event(member, "FailedScheduling", "x" * 10_000)
    filled.put(newer)
    result = filled.cache.gather(root_uid(root)).scheduling_events
    assert {related["reason"]: len(related["message"]) for related in result} == {
        "FailedCreate": 4,
        "FailedScheduling": 2_048,
    }
    assert all(related["eventTime"] for related in result)
    filled.remove(newer)
    [left] = filled.cache.gather(root_uid(root)).scheduling_events
    assert left["reason"] == "FailedCreate"


def test_the_same_event_counted_up_is_no_news(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    first = event(objs[1], "FailedCreate")
    filled.put(first)
    assert filled.touched_by(changed(first, count=2)) == set()
    assert filled.touched_by(changed(first, message="another")) == {root_uid(objs[0])}


def test_events_are_bounded(
    filled: Filled, objs: tuple[Json, Json, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(related, "KEPT_EVENTS", 3)
    for number in range(10):
        stray = made("Pod", f"stray-{number}")
        filled.put(event(stray, "FailedScheduling"))
    filled.put(event(objs[1], "FailedCreate"))
    kept = filled.cache.related
    assert len(kept._events) == 3
    assert len(filled.cache.gather(root_uid(objs[0])).scheduling_events) == 1


def test_a_flood_of_events_sheds_the_flood(
    filled: Filled, objs: tuple[Json, Json, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(related, "KEPT_EVENTS", 3)
    filled.put(event(objs[1], "FailedCreate"))
    for number in range(10):
        stray = made("Pod", f"stray-{number}", namespace="other")
        filled.put(event(stray, "FailedScheduling", namespace="other"))
    assert len(filled.cache.related._events) == 3
    assert len(filled.cache.gather(root_uid(objs[0])).scheduling_events) == 1


def test_all_events_are_asked_for_and_few_explain_why_it_waits(filled: Filled) -> None:
    assert WANTED[GroupKind("", "Event")].field_selector == ""
    filled.put(event(made("Pod", "w", namespace="vision"), "Pulled", namespace="vision"))
    assert len(filled.cache.related._events) == 0


def test_claims_are_found_by_the_pods_that_name_them(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    root, _, member = objs
    using = changed(member)
    using["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "shared"}]
    filled.put(using)
    shared = made("ResourceClaim", "shared", group="resource.k8s.io/v1", spec={})
    assert filled.touched_by(shared) == {root_uid(root)}, "made, or read, after the pod that waits"
    assert filled.touched_by(changed(shared, status={"conditions": []})) == set()
    given = {"devices": {"results": [{"request": "gpu", "device": "gpu-0"}]}}
    assert filled.touched_by(changed(shared, status={"allocation": given})) == {root_uid(root)}
    held = changed(shared, status={"reservedFor": [{"uid": root_uid(member)}]})
    assert filled.touched_by(held) == {root_uid(root)}
    owned = made("ResourceClaim", "own", using, group="resource.k8s.io/v1", spec={})
    assert filled.touched_by(owned) == {root_uid(root)}
    [result] = filled.cache.gather(root_uid(root)).claims
    assert result["metadata"]["name"] == "shared"
    filled.put(changed(shared, status={}))
    filled.listener.changed.clear()
    filled.remove(shared)
    assert filled.listener.changed == {root_uid(root)}
    assert not filled.cache.gather(root_uid(root)).claims


def test_a_claim_that_stays_the_same_derives_none_of_those_who_share_it(filled: Filled) -> None:
    pods = [claiming(f"p{number}", "shared") for number in range(200)]
    claim = resource_claim("shared", *pods)
    filled.put(*pods, claim)
    noted = changed(claim)
    noted["metadata"]["annotations"] = {"note": "2"}
    noted["status"]["devices"] = [{"conditions": []}]
    assert filled.touched_by(noted) == set()
    left = resource_claim("shared", *pods[1:])
    assert filled.touched_by(left) == {root_uid(pod) for pod in pods}


def test_a_claim_of_the_same_name_elsewhere_is_another(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    using = changed(objs[2])
    using["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": "shared"}]
    filled.put(using)
    filled.put(
        made("ResourceClaim", "shared", group="resource.k8s.io/v1", namespace="other", spec={})
    )
    assert not filled.cache.gather(root_uid(objs[0])).claims


def claiming(name: str, *claims: str, **more: Any) -> Json:
    entries = [{"name": f"c{n}", "resourceClaimName": claim} for n, claim in enumerate(claims)]
    return made("Pod", name, spec={"containers": [], "resourceClaims": entries}, **more)


def resource_claim(name: str, *pods: Json, **more: Any) -> Json:
    status = {"reservedFor": [{"resource": "pods", "uid": root_uid(pod)} for pod in pods]}
    result = made("ResourceClaim", name, group="resource.k8s.io/v1", spec={}, status=status, **more)
    result["metadata"]["uid"] = f"{result['metadata']['namespace']}/{name}"
    return result


def test_who_shares_a_claim_is_derived_anew_when_others_come_and_go(filled: Filled) -> None:
    first, second, third = (claiming(name, "shared") for name in ("a", "b", "c"))
    elsewhere = claiming("elsewhere", "shared", namespace="other")
    uid = {pod["metadata"]["name"]: root_uid(pod) for pod in (first, second, third)}

    def users() -> int | None:
        return filled.cache.gather(uid["a"]).claim_lookup.users("shared")

    filled.put(first, elsewhere)
    assert users() == 1
    assert filled.touched_by(second) == {uid["a"], uid["b"]}, "both name it"
    assert filled.touched_by(resource_claim("shared", first, second)) == {uid["a"], uid["b"]}
    assert users() == 2
    assert filled.touched_by(third) == {uid["c"]}, "it is not reserved for that one"
    assert users() == 2
    everybody = resource_claim("shared", first, second, third)
    assert filled.touched_by(everybody) == set(uid.values())
    assert users() == 3
    ended = changed(second, status={"phase": "Succeeded"})
    assert filled.touched_by(ended) == set(uid.values())
    assert users() == 2, "of those that live, though it is reserved for three still"
    left = resource_claim("shared", first, third)
    assert filled.touched_by(left) == set(uid.values())
    filled.listener.changed.clear()
    filled.remove(first)
    assert filled.listener.changed == {uid["c"]}
    filled.put(*(claiming(f"many-{n}", "shared") for n in range(300)), resource_claim("shared"))
    assert filled.cache.gather(uid["c"]).claim_lookup.users("shared") is None


async def test_a_claim_deleted_and_made_again_takes_the_turns_of_its_own_namespace(
    filled: Filled,
) -> None:
    """Each derivation of theirs takes a second, of a clock that nothing else moves."""
    elsewhere, taken = made("Pod", "elsewhere", namespace="other"), [0.0]
    order: list[str] = []
    pods, claim = (
        [claiming(f"p{number}", "shared") for number in range(256)],
        resource_claim("shared"),
    )
    filled.put(*pods, elsewhere, claim)

    def derive(gathered: Any) -> Derived:
        order.append(str(gathered.root["metadata"]["namespace"]))
        taken[0] += 0.001 if order[-1] == "other" else 1.0
        return derived(Phase.RUNNING)

    tracker = Tracker(
        PendingChanges(), derive, debounce_seconds=0.0, processor_seconds=lambda: taken[0]
    )
    tracker.set_source(filled.cache)
    tracker.open()
    for number in range(5):
        filled.listener.changed.clear()
        filled.remove(claim)
        filled.put(claim)
        assert len(filled.listener.changed) == 256
        for root in (*filled.listener.changed, root_uid(elsewhere)):
            tracker.on_change(root)
        for _ in range(2):
            await tracker._derive_due()
        assert order.count("other") == number + 1, "within a round, however many of them wait"
    assert len(order) - order.count("other") <= 5, "a second's pause follows each of theirs"


def test_a_claim_that_a_template_names_is_looked_up_and_tells_when_it_changes(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    root = root_uid(objs[0])
    shared = resource_claim("shared")
    assert filled.touched_by(shared) == set()
    lookup = filled.cache.gather(root).claim_lookup
    assert list(lookup.named({"shared", "later"})) == ["shared"]
    assert filled.touched_by(changed(shared, spec={"devices": {}})) == {root}
    assert filled.touched_by(resource_claim("later")) == {root}
    assert filled.touched_by(resource_claim("later", namespace="other")) == set()
    assert filled.touched_by(claiming("one", "later")) >= {root}, "somebody uses it now"
    filled.cache.gather(root)
    assert filled.touched_by(changed(shared, spec={"devices": None})) == set()
    lookup.named({"shared"})
    for obj in reversed(objs):
        filled.remove(obj)
    assert not filled.cache.related._template_claims.referrers


def test_a_gateway_s_counters_concern_nobody(filled: Filled, objs: tuple[Json, Json, Json]) -> None:
    gateway = made(
        "Gateway",
        "gate",
        group="gateway.networking.k8s.io/v1",
        namespace="infra",
        spec={"listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        status={"addresses": [], "listeners": [{"attachedRoutes": 1}]},
    )
    through = route("infra", "team")
    through["spec"]["parentRefs"] = [{"name": "gate"}]
    serve(filled, objs)
    filled.put(grant(), through)
    assert filled.touched_by(gateway) == {root_uid(objs[0])}
    counted = changed(gateway, status={"addresses": [], "listeners": [{"attachedRoutes": 2}]})
    assert filled.touched_by(counted) == set()
    moved = changed(gateway, status={"addresses": [{"value": "192.0.2.1"}]})
    assert filled.touched_by(moved) == {root_uid(objs[0])}
    held = filled.cache.gather(root_uid(objs[0])).cluster.gateways
    assert held[("infra", "gate")]["status"]["addresses"] == [{"value": "192.0.2.1"}]
    filled.remove(gateway)
    assert not filled.cache.gather(root_uid(objs[0])).cluster.gateways


def test_gateways_of_istio_and_queues_of_volcano_are_their_own(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    filled.put(
        made("Gateway", "gw", group="networking.istio.io/v1", spec={}),
        made("Queue", "research", group="scheduling.volcano.sh/v1beta1", spec={"weight": 1}),
        made("Queue", "research", group="scheduling.run.ai/v2", spec={"displayName": "R"}),
        made("ResourceClaimTemplate", "one", group="resource.k8s.io/v1", spec={}),
    )
    cluster = filled.cache.gather(root_uid(objs[0])).cluster
    assert list(cluster.istio_gateways) == [("team", "gw")]
    assert not cluster.gateways
    assert cluster.volcano_queues["research"]["spec"] == {"weight": 1}
    assert cluster.queues["research"]["spec"] == {"displayName": "R"}
    assert list(cluster.claim_templates) == [("team", "one")]


def route(namespace: str, backend_namespace: str) -> Json:
    reference = {"name": "web", "namespace": backend_namespace}
    return made(
        "HTTPRoute",
        "r",
        group="gateway.networking.k8s.io/v1",
        namespace=namespace,
        spec={"rules": [{"backendRefs": [reference]}]},
    )


def serve(filled: Filled, objs: tuple[Json, Json, Json]) -> None:
    """The workload has a service `web`, to which routes may lead."""
    filled.put(made("Service", "web", objs[0], spec={"ports": [{"port": 80}]}))
    assert routes(filled, objs) == []


def routes(filled: Filled, objs: tuple[Json, Json, Json]) -> list[Json]:
    services = filled.cache.gather(root_uid(objs[0])).services
    return [obj for obj in services if obj["kind"] != "Service"]


def grant(namespace: str = "team", **source: str) -> Json:
    """A ReferenceGrant for HTTPRoutes of the namespace infra."""
    permitted = {
        "group": "gateway.networking.k8s.io",
        "kind": "HTTPRoute",
        "namespace": "infra",
    } | source
    return made(
        "ReferenceGrant",
        "routes",
        group="gateway.networking.k8s.io/v1beta1",
        namespace=namespace,
        spec={"from": [permitted], "to": [{"group": "", "kind": "Service"}]},
    )


@pytest.mark.parametrize(
    "others",
    [(), (grant("infra"),), (grant(namespace="team", kind="GRPCRoute"),)],
    ids=["no grant", "the route's own", "another kind"],
)
def test_a_route_that_nobody_permitted_concerns_its_own_namespace_alone(
    filled: Filled, objs: tuple[Json, Json, Json], others: tuple[Json, ...]
) -> None:
    serve(filled, objs)
    filled.put(*others)
    away = route("infra", "team")
    away["spec"]["parentRefs"] = [{"name": "gate"}]
    gateway = made(
        "Gateway", "gate", group="gateway.networking.k8s.io/v1", namespace="infra", spec={}
    )
    assert (
        filled.touched_by(away, gateway, changed(gateway, spec={"listeners": [{"port": 1}]}))
        == set()
    )
    assert not routes(filled, objs)
    filled.remove(away)
    assert len(filled.cache.related._routing) == 1


def test_a_grant_that_comes_or_goes_decides_anew(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    own, permitting = {root_uid(objs[0])}, grant()
    serve(filled, objs)
    away = route("infra", "team")
    filled.put(away)
    assert filled.touched_by(grant("other")) == set()
    assert filled.touched_by(permitting) == own
    assert len(routes(filled, objs)) == 1
    assert filled.touched_by(permitting) == set(), "the same again is no news"
    filled.listener.changed.clear()
    filled.remove(permitting)
    assert set(filled.listener.changed) == own
    assert not routes(filled, objs)


def test_a_route_concerns_the_namespaces_that_permit_it(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    serve(filled, objs)
    filled.put(grant())
    away = route("infra", "team")
    assert filled.touched_by(away) == {root_uid(objs[0])}
    assert len(routes(filled, objs)) == 1
    assert filled.touched_by(away) == set(), "the same again is no news"
    moved = changed(away)
    moved["spec"]["rules"][0]["backendRefs"][0]["namespace"] = "elsewhere"
    assert filled.touched_by(moved) == {root_uid(objs[0])}, "it does not lead here any more"
    assert not routes(filled, objs)
    filled.remove(moved)
    assert len(filled.cache.related._routing) == 1


@pytest.mark.parametrize(
    ("addresses", "address"),
    [
        ([("InternalIP", "10.0.0.1"), ("ExternalIP", "192.0.2.1")], "192.0.2.1"),
        ([("Hostname", "n"), ("InternalIP", "10.0.0.1")], "10.0.0.1"),
        ([("ExternalIP", ""), ("InternalIP", "10.0.0.1")], "10.0.0.1"),
        ([], ""),
        (None, ""),
    ],
)
def test_one_address_of_a_node_is_kept(
    filled: Filled,
    objs: tuple[Json, Json, Json],
    addresses: list[tuple[str, str]] | None,
    address: str,
) -> None:
    listed = None if addresses is None else [{"type": k, "address": a} for k, a in addresses]
    node = made("Node", "node-1", namespace="", status={"addresses": listed})
    assert filled.touched_by(node) == {root_uid(objs[0])}
    held = filled.cache.gather(root_uid(objs[0])).cluster.node_addresses
    assert held == {"node-1": address}
    assert filled.touched_by(node) == set()
    filled.remove(node)
    assert not filled.cache.cluster.node_addresses


def test_autoscalers_of_other_targets_are_left_out(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    for number, name in enumerate(("web", "other")):
        filled.put(
            made(
                "ScaledObject",
                f"s{number}",
                group="keda.sh/v1alpha1",
                spec={"scaleTargetRef": {"name": name}, "maxReplicaCount": 4},
            )
        )
    [result] = filled.cache.gather(root_uid(objs[0])).autoscalers
    assert result["spec"]["scaleTargetRef"] == {"name": "web"}


@pytest.mark.parametrize("group", ["gateway.networking.k8s.io/v1", "networking.istio.io/v1"])
def test_a_gateway_concerns_only_those_whose_routes_refer_to_it(
    filled: Filled, objs: tuple[Json, Json, Json], group: str
) -> None:
    serve(filled, objs)
    gateway = made("Gateway", "gate", group=group, namespace="infra", spec={"listeners": []})
    assert filled.touched_by(gateway) == set()
    through = made(
        "VirtualService",
        "v",
        group="networking.istio.io/v1",
        spec={
            "gateways": ["infra/gate"],
            "http": [{"route": [{"destination": {"host": "web"}}]}],
        },
    )
    assert filled.touched_by(through) == {root_uid(objs[0])}
    moved = changed(gateway, spec={"listeners": [{"port": 80}]})
    assert filled.touched_by(moved) == {root_uid(objs[0])}
    filled.remove(through)
    assert filled.touched_by(gateway) == set()
    assert not filled.cache.related._gateway_routes.referrers


def calls(work: Callable[[], object]) -> int:
    with Calls() as made_calls:
        work()
    return made_calls.count


def test_a_pod_group_costs_as_much_as_the_pods_that_name_it() -> None:
    filled = Filled()
    names = [f"p{number}" for number in range(200)]
    pods = [made("Pod", name, spec={"containers": []}) for name in names]
    pods[0]["metadata"]["annotations"] = {"pod-group-name": "gang"}
    gang = made("PodGroup", "gang", group="scheduling.run.ai/v2alpha2", spec={})
    filled.put(*pods[:10], gang)
    few = calls(lambda: filled.put(gang))
    filled.put(*pods[10:])
    assert calls(lambda: filled.put(gang)) <= few
    assert filled.touched_by(gang) == {root_uid(pods[0])}
    filled.remove(pods[0])
    assert filled.touched_by(gang) == set()
    assert not filled.cache.related._group_pods.referrers


def test_of_an_event_only_bounded_texts_are_kept(
    filled: Filled, objs: tuple[Json, Json, Json]
) -> None:
    large = event(objs[1], "FailedCreate", "x" * 100_000, related={"name": "y" * 100_000})
    large["lastTimestamp"] = "z" * 100_000
    large["involvedObject"] |= dict.fromkeys(("name", "fieldPath", "else"), "w" * 100000)
    filled.put(large)
    [kept] = filled.cache.gather(root_uid(objs[0])).scheduling_events
    assert len(json.dumps(kept)) < 4_096
    assert set(kept["involvedObject"]) == {"uid", "name", "fieldPath"}

"""Services and routes by what leads to them: a workload gets all that lead to it, and a change
concerns those alone that it is about."""

import random
import tracemalloc
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import msgspec
import pytest

from tests.fixtures.kubernetes import agent_objects
from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.work import Calls
from tests.unit.agent.test_cache import DEFINITIONS, Filled
from watchbill.agent.cache.routing_index import MAX_OF_WORKLOAD, RoutingIndex
from watchbill.kinds.derivation.route_backends import selecting
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.pod import read_pod
from watchbill.protocol import canonical_bytes

Json = dict[str, Any]
NAMESPACES = ("team", "infra")
LABELS = [{"app": a, "tier": b} for a in ("web", "db") for b in ("one", "two")]
NAMES = ("s0", "s1", "s2")
GATEWAY = "gateway.networking.k8s.io"


def made(kind: str, name: str, **more: Any) -> Json:
    """One of the same kind, namespace and name is the same object."""
    return _named(agent_objects.made(kind, name, **more))


def _named(obj: Json) -> Json:
    meta = obj["metadata"]
    key = f"{obj['kind']}/{meta['namespace']}/{meta['name']}"
    meta["uid"] = str(uuid5(NAMESPACE_OID, key))
    return obj


def _workload(name: str, labels: Json, namespace: str = "team") -> list[Json]:
    deployment = made(
        "Deployment", name, group="apps", namespace=namespace, spec={"replicas": 1, "template": {}}
    )
    member = _named(agent_objects.pod(f"{name}-a", deployment, namespace=namespace))
    member["metadata"]["labels"] = labels
    return [deployment, member]


def _service(name: str, selector: Json, namespace: str = "team", **more: Any) -> Json:
    spec = {"selector": selector, "ports": [{"port": 80}]}
    return made("Service", name, namespace=namespace, spec=spec, **more)


def _route(name: str, *backends: str, namespace: str = "team", path: str = "/") -> Json:
    rules = [
        {
            "matches": [{"path": {"value": path}}],
            "backendRefs": [{"name": backend, "namespace": "team"} for backend in backends],
        }
    ]
    accepted = [{"type": "Accepted", "status": "True"}]
    return made(
        "HTTPRoute",
        name,
        group=f"{GATEWAY}/v1",
        namespace=namespace,
        spec={"parentRefs": [{"name": "gw"}], "hostnames": [f"{name}.example.com"], "rules": rules},
        status={"parents": [{"parentRef": {"name": "gw"}, "conditions": accepted}]},
    )


def _drawn(draw: random.Random, deployments: list[Json]) -> Json:
    """Any service, pool or route, of a few names, so that they replace and lead to one another."""
    namespace, name = draw.choice(NAMESPACES), draw.choice(NAMES)
    owner = draw.choice([None, None, *deployments])
    backends = draw.sample(NAMES, draw.randint(0, 2))
    kind = draw.randrange(6)
    if kind == 0:
        labels = draw.choice(LABELS)
        selector = dict(draw.sample(sorted(labels.items()), draw.randint(0, 2)))
        obj = _service(name, selector, namespace)
    elif kind == 1:
        pool = {"selector": {"matchLabels": draw.choice(LABELS)}, "targetPorts": [{"number": 1}]}
        group = "inference.networking.k8s.io/v1"
        obj = made("InferencePool", name, group=group, namespace=namespace, spec=pool)
    elif kind == 2:
        paths = [{"path": f"/{b}", "backend": {"service": {"name": b}}} for b in backends]
        rules = [{"host": "i.example.com", "http": {"paths": paths}}]
        obj = made(
            "Ingress",
            name,
            group="networking.k8s.io/v1",
            namespace=namespace,
            spec={"rules": rules},
        )
    elif kind == 3:
        to = [{"kind": "Service", "name": b} for b in backends]
        spec = {"host": "o.example.com", "to": to[:1], "alternateBackends": to}
        spec["to"] = to[0] if to else {}
        obj = made("Route", name, group="route.openshift.io/v1", namespace=namespace, spec=spec)
    elif kind == 4:
        destinations = [{"destination": {"host": f"{b}.team.svc.cluster.local"}} for b in backends]
        mesh = {"hosts": ["v.example.com"], "gateways": ["gw"], "http": [{"route": destinations}]}
        obj = made(
            "VirtualService",
            name,
            group="networking.istio.io/v1",
            namespace=namespace,
            spec=mesh,
        )
    else:
        obj = _route(name, *backends, namespace=namespace, path=f"/{draw.randrange(3)}")
    if owner is not None:
        reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
        obj["metadata"]["ownerReferences"] = [reference | {"uid": owner["metadata"]["uid"]}]
    return obj


def _grant(name: str, service: str | None) -> Json:
    to: Json = {"group": "", "kind": "Service"} | ({"name": service} if service else {})
    source = {"group": GATEWAY, "kind": "HTTPRoute", "namespace": "infra"}
    return made(
        "ReferenceGrant",
        name,
        group=f"{GATEWAY}/v1beta1",
        namespace="team",
        spec={"from": [source], "to": [to]},
    )


def _records(filled: Filled, *, sees_all: bool = False) -> dict[str, bytes]:
    """With `sees_all` as if each workload got every object that concerns its namespace."""
    records = {}
    for namespace in NAMESPACES:
        for root in filled.cache.owner_tree.in_namespace(namespace):
            gathered = filled.cache.gather(root)
            if sees_all:
                placed = filled.cache.related._routing._placed.values()
                concerning = [each.obj for each in placed if namespace in each.namespaces]
                gathered = msgspec.structs.replace(gathered, services=concerning)
            records[root] = canonical_bytes(derive(gathered, DEFINITIONS, SETTINGS).record)
    return records


@pytest.mark.parametrize("seed", range(2))
def test_whatever_comes_and_goes_whom_it_concerns_gets_it(seed: int) -> None:
    draw = random.Random(seed)
    filled = Filled()
    workloads = [
        each
        for number, labels in enumerate(LABELS)
        for each in _workload(f"w{number}", labels, NAMESPACES[number % 2])
    ]
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    gateway = made(
        "Gateway", "gw", group=f"{GATEWAY}/v1", namespace="team", spec={"listeners": [listener]}
    )
    filled.put(*workloads, gateway)
    before = _records(filled)
    there: dict[tuple[str, str, str], Json] = {}
    changes = 0
    for _ in range(40):
        obj = (
            _grant("g", draw.choice([None, *NAMES]))
            if draw.random() < 0.1
            else _drawn(draw, workloads[::2])
        )
        key = (obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
        filled.listener.changed.clear()
        if key in there and draw.random() < 0.4:
            filled.remove(there.pop(key))
        else:
            there[key] = obj
            filled.put(obj)
        after = _records(filled)
        assert after == _records(filled, sees_all=True)
        changed = {root for root in after if after[root] != before[root]}
        assert changed <= set(filled.listener.changed)
        changes += len(changed)
        before = after
    assert changes > 8, "some of it led somewhere"


def _team(count: int) -> Filled:
    """So many workloads, each with a service and a route of its own, all with one label in common."""
    filled = Filled()
    for number in range(count):
        labels = {"app": f"w{number}", "component": "server"}
        filled.put(
            *_workload(f"w{number}", labels),
            _service(f"w{number}", labels),
            _route(f"w{number}", f"w{number}"),
        )
    for root in filled.cache.owner_tree.in_namespace("team"):
        filled.cache.gather(root)
    filled.listener.changed.clear()
    return filled


def _change_of_a_route(count: int) -> tuple[int, int]:
    """Calls of functions for taking it in and deriving what it concerns, and how many workloads that is."""
    filled = _team(count)
    with Calls() as calls:
        filled.put(_route("w3", "w3", path="/new"))
        for root in set(filled.listener.changed):
            derive(filled.cache.gather(root), DEFINITIONS, SETTINGS)
    return calls.count, len(set(filled.listener.changed))


def test_a_change_of_a_route_costs_what_it_touches() -> None:
    """Every workload of the namespace was looked for in all of its services and routes."""
    few, many = _change_of_a_route(5), _change_of_a_route(80)
    assert (few[1], many[1]) == (1, 1)
    assert many[0] <= 1.1 * few[0] + 50


def test_a_workload_gets_so_many_of_each() -> None:
    filled = Filled()
    filled.put(*_workload("w", {"app": "w"}))
    for number in range(MAX_OF_WORKLOAD + 20):
        filled.put(_service(f"s{number}", {"app": "w"}), _route(f"r{number}", f"s{number}"))
    (root,) = filled.cache.owner_tree.in_namespace("team")
    kinds = [each["kind"] for each in filled.cache.gather(root).services]
    assert kinds.count("Service") == MAX_OF_WORKLOAD
    assert 0 < kinds.count("HTTPRoute") <= MAX_OF_WORKLOAD


def test_what_is_gone_leaves_nothing() -> None:
    filled = _team(30)
    index = filled.cache.related._routing
    for number in range(30):
        name = f"w{number}"
        for obj in (_service(name, {}), _route(name), *_workload(name, {})[::-1]):
            filled.remove(obj)
    index.prune((), -1_000)
    assert not (index._placed)
    assert not (index._uids)
    assert not (index._uses)
    assert not (index._users)


class _CountedLabels(dict[str, str]):
    looks = 0

    def items(self) -> Any:
        _CountedLabels.looks += 1
        return super().items()

    def get(self, *arguments: Any) -> Any:
        _CountedLabels.looks += 1
        return super().get(*arguments)


def test_services_that_select_nothing_are_not_compared_with_every_pod() -> None:
    """Whoever may make services and pods would else stop the agent for seconds: 4,000 times 2,000."""
    index = RoutingIndex()
    for number in range(100):
        service = _service(f"s{number}", {"app": "web", "tier": "none"})
        index.put(service["metadata"]["uid"], service, frozenset({"team"}))
    wanted = _service("wanted", {"app": "web", "number": "99"})
    index.put(wanted["metadata"]["uid"], wanted, frozenset({"team"}))
    _, member = _workload("w", {})
    pods = [
        msgspec.structs.replace(
            read_pod(member), labels=_CountedLabels(app="web", number=str(number))
        )
        for number in range(100)
    ]
    _CountedLabels.looks = 0
    assert index.of_workload("w", [], pods) == [wanted]
    assert _CountedLabels.looks <= 3 * len(pods)


def test_labels_that_no_service_selects_take_no_memory() -> None:
    """A pod may have a hundred labels that no other has: of 4,000 such pods 160 MB were made ready."""
    pods = [
        {"app": "web"} | {f"label-{number}-{each}": "x" for each in range(100)}
        for number in range(500)
    ]
    tracemalloc.start()
    try:
        is_selecting = selecting(pods, [{"app": "web"}, {"app": "db"}])
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert is_selecting({"app": "web"})
    assert not is_selecting({"app": "db"})
    assert peak_bytes < 1_000_000

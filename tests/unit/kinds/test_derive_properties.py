"""Whatever objects say, derivation answers; and the order of objects never matters."""

import random
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.kubernetes.lives import SETTINGS, all_lives, moments, workloads
from tests.fixtures.makers import at, condition, gather, job, meta, pod, uid
from tests.fixtures.work import Calls
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.definition.program import Program
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.objects import ClusterObjects, WorkloadObjects
from watchbill.kinds.objects.pod import read_pod
from watchbill.protocol import Record, canonical_bytes
from watchbill.workload import Phase

EVERY = [
    (objects, moment.of_kind("Pod"))
    for version, life in all_lives()
    for moment in moments(version, life).values()
    for objects in workloads(moment)
]
_DEFINITIONS = load_definitions()
_OTHER_DEFINITIONS = load_definitions()
_DEFINITIONS_OF_MUTATED = load_definitions()
"""They remember what mutated objects state, under the uids of those that are as they should be."""
STRANGE: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**30,
    1e308,
    float("nan"),
    "",
    "x" * 5_000,
    "\0",
    "\ud800",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "2026-02-30T00:00:00Z",
    [],
    {},
    [None],
    [[]],
    [{"name": []}],
    {"": None},
    {"a": {"b": {"c": []}}},
    [{"type": "Failed", "status": "True", "message": 7}],
]

NAMING = ("name", "groupName", "path", "host", "url", "component", "queueName", "role")


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    result = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        result += paths(item, (*path, key))
    return result


def mutated(value: Any, chance: random.Random) -> Any:
    """The value with up to four places replaced, removed or repeated."""
    value = deepcopy(value)
    for _ in range(chance.randint(1, 4)):
        places = paths(value)
        if not places:
            return value
        *way, last = chance.choice(places)
        inner = value
        for step in way:
            inner = inner[step]
        if isinstance(inner, list) and chance.random() < 0.3:
            inner.append(deepcopy(inner[last]))
        elif chance.random() < 0.3:
            del inner[last]
        else:
            inner[last] = deepcopy(chance.choice(STRANGE))
    return value


def keeps_uid(root: dict[str, Any], original: dict[str, Any]) -> dict[str, Any]:
    meta = root.get("metadata")
    root["metadata"] = (meta if isinstance(meta, dict) else {}) | {
        "uid": original["metadata"]["uid"],
        "resourceVersion": "",
    }
    return root


@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.integers(0, 2**32))
def test_mutated_objects_still_give_a_record(seed: int) -> None:
    chance = random.Random(seed)
    objects, pods = chance.choice(EVERY)
    cluster = objects.cluster

    def some(value: Any) -> list[Any]:
        return [mutated(item, chance) if chance.random() < 0.5 else item for item in value]

    hostile = msgspec.structs.replace(
        objects,
        root=keeps_uid(mutated(objects.root, chance), dict(objects.root)),
        pods=[
            read_pod(mutated(pod, chance) if chance.random() < 0.5 else pod) for pod in pods[:10]
        ],
        children=some(objects.children),
        services=some(objects.services),
        pod_groups=some(objects.pod_groups),
        queue_workloads=some(objects.queue_workloads),
        scheduling_events=some(objects.scheduling_events),
        autoscalers=some(objects.autoscalers),
        cluster=ClusterObjects(
            queues={name: mutated(value, chance) for name, value in cluster.queues.items()},
            topologies={name: mutated(value, chance) for name, value in cluster.topologies.items()},
            priority_classes=cluster.priority_classes,
            local_queues=cluster.local_queues,
            node_labels={
                name: mutated(dict(value), chance) for name, value in cluster.node_labels.items()
            },
        ),
    )
    result = derive(hostile, _DEFINITIONS_OF_MUTATED, SETTINGS)
    encoded = canonical_bytes(result.record)
    assert msgspec.json.decode(encoded, type=Record)
    assert len(encoded) < 64 * 1024 + 400 * len(result.record.elements)
    assert b"\\u0000" not in encoded
    assert result.record.workload.phase in Phase
    times = [entry.at for entry in result.transitions]
    assert times == sorted(times)


def shuffled(objects: WorkloadObjects, chance: random.Random) -> WorkloadObjects:
    def mixed(items: Any) -> list[Any]:
        result = list(items)
        chance.shuffle(result)
        return result

    return msgspec.structs.replace(
        objects,
        pods=mixed(objects.pods),
        children=mixed(objects.children),
        services=mixed(objects.services),
        pod_groups=mixed(objects.pod_groups),
        queue_workloads=mixed(objects.queue_workloads),
        scheduling_events=mixed(objects.scheduling_events),
        autoscalers=mixed(objects.autoscalers),
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_the_order_of_objects_never_matters(seed: int) -> None:
    chance = random.Random(seed)
    objects, _ = chance.choice(EVERY)
    # Two sets of definitions: no cache may make the two agree.
    first = derive(objects, _DEFINITIONS, SETTINGS)
    second = derive(shuffled(objects, chance), _OTHER_DEFINITIONS, SETTINGS)
    assert canonical_bytes(first.record) == canonical_bytes(second.record)
    assert first.transitions == second.transitions


def poisoned(value: Any, poison: str, key: str = "") -> Any:
    """The value with the poison at the end of every text that names something."""
    if isinstance(value, dict):
        return {name: poisoned(member, poison, name) for name, member in value.items()}
    if isinstance(value, list):
        return [poisoned(item, poison, key) for item in value]
    return value + poison if isinstance(value, str) and key in NAMING else value


@pytest.mark.parametrize("poison", ["\0", "\ud800"])
def test_texts_that_a_database_refuses_are_not_kept(poison: str) -> None:
    for objects, _ in EVERY[::7]:
        root = keeps_uid(poisoned(objects.root, poison), dict(objects.root))
        hostile = msgspec.structs.replace(
            objects,
            root=root,
            children=poisoned(list(objects.children), poison),
            services=poisoned(list(objects.services), poison),
        )
        encoded = canonical_bytes(derive(hostile, _DEFINITIONS, SETTINGS).record)
        assert b"\\u0000" not in encoded
        assert msgspec.json.decode(encoded, type=Record)


def _beside(number: int, kind: str) -> dict[str, Any]:
    """What somebody may write as often as pods, of the kinds that derivation looks at pods for."""
    about = {"kind": "Pod", "uid": uid(100 + number)}
    waits = condition("Unschedulable", reason=f"R{number}", message=f"m {number}")
    pool = waits | {
        "nodePool": f"pool-{number}",
        "reasons": [{"reason": "X", "message": f"{number}"}],
    }
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "w", "uid": uid(1)}
    owned = {"metadata": meta(f"g-{number}", 5_000 + number, ownerReferences=[owner])}
    devices = {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}
    made: dict[str, dict[str, Any]] = {
        "kai": {
            "apiVersion": "scheduling.run.ai/v2alpha2",
            "status": {"schedulingConditions": [pool]},
        },
        "volcano": {
            "apiVersion": "scheduling.volcano.sh/v1beta1",
            "status": {"conditions": [waits]},
        },
        "events": {
            "involvedObject": about,
            "reason": "FailedScheduling",
            "message": f"m {number}",
            "lastTimestamp": at(9),
        },
        "mounts": {"involvedObject": {"uid": uid(90_000 + number)}, "reason": "FailedMount"},
        "claims": {"spec": {"devices": devices}},
    }
    return owned | made[kind]


@pytest.mark.parametrize(
    ("kind", "member", "state"),
    [
        ("kai", "pod_groups", "waiting"),
        ("volcano", "pod_groups", "waiting"),
        ("events", "scheduling_events", "waiting"),
        ("mounts", "scheduling_events", "pulling"),
        ("claims", "claims", "waiting"),
    ],
)
def test_twice_the_pods_beside_twice_the_objects_are_twice_the_work(
    kind: str, member: str, state: str
) -> None:
    def work(count: int) -> int:
        pods = [
            pod(
                number,
                state,
                spec_resourceClaims=[{"name": "x", "resourceClaimName": f"g-{number}"}],
            )
            for number in range(count)
        ]
        for each in pods:
            each["status"] = {"phase": "Pending"}
            each["metadata"]["annotations"] = {
                "pod-group-name": each["metadata"]["name"].replace("w", "g")
            }
        objects = gather(
            job(), pods, **{member: [_beside(number, kind) for number in range(count)]}
        )
        derive(objects, _DEFINITIONS, SETTINGS)
        with Calls() as calls:
            derive(objects, _DEFINITIONS, SETTINGS)
        return calls.count

    assert work(160) < 2.2 * work(80)


def test_a_template_is_read_where_it_stands_as_jq_hands_it_over() -> None:
    through_jq: dict[str, Program] = {}
    compared = set()
    for objects, _ in EVERY:
        definition = _DEFINITIONS.for_object(objects.root)
        program = definition.program("")
        if not any(path is not None for path in program._template_paths):
            continue
        if definition.file not in through_jq:
            roles = tuple(
                msgspec.structs.replace(role, template=f"({role.template})")
                for role in program.source.roles
            )
            source = msgspec.structs.replace(program.source, roles=roles)
            through_jq[definition.file] = Program(source)
        assert program.facts(objects.root) == through_jq[definition.file].facts(objects.root)
        compared.add(definition.key.kind)
    assert compared >= {"Pod", "Deployment", "Job", "StatefulSet"}

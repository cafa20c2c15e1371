"""What is decoded of a pod is all that anybody reads of it, whatever its author wrote."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchbill.agent.cache import stored_objects
from watchbill.agent.cache.stored_objects import decode_pod
from watchbill.agent.cache.targets import ScrapeTargets
from watchbill.agent.kubernetes.bounded_json import decode_object
from watchbill.agent.kubernetes.watch_stream import ObjectMeta
from watchbill.kinds.objects import pod_spec
from watchbill.kinds.objects.json_access import mapping
from watchbill.kinds.objects.pod import Pod, is_reservation, read_pod

TIME = "2026-11-20T08:00:00Z"
AMOUNTS = {"requests": {"cpu": "2", "nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": "1"}}
EXPRESSION = {"key": "zone", "operator": "In", "values": ["a", "b"]}


def status_of(name: str) -> dict[str, Any]:
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": TIME, "finishedAt": TIME}
    return {
        "name": name,
        "restartCount": 3,
        "state": {"running": {"startedAt": TIME}},
        "lastState": {"terminated": ended},
        "image": "registry.example.com/x",
        "ready": True,
    }


def container(name: str, **members: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": "registry.example.com/vllm/vllm-openai:1",
        "resources": AMOUNTS,
        "ports": [{"name": "http", "containerPort": 8000}],
        "env": [{"name": "A", "value": "b"}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        **members,
    }


POD: dict[str, Any] = {
    "metadata": {
        "name": "train-0",
        "namespace": "team",
        "uid": "u-1",
        "resourceVersion": "7",
        "labels": {"app": "nvidia-dcgm-exporter", "runai-gpu-group": "g"},
        "annotations": {"pod-group-name": "pg", "gpu-fraction": "0.5", "prometheus.io/port": "80"},
        "ownerReferences": [
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": "train",
                "uid": "j",
                "controller": True,
            }
        ],
        "creationTimestamp": TIME,
        "deletionTimestamp": "2026-11-20T09:00:00Z",
        "deletionGracePeriodSeconds": 30,
        "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {"f:phase": {}}}}],
    },
    "spec": {
        "containers": [container("main"), container("other")],
        "initContainers": [container("side", restartPolicy="Always")],
        "schedulerName": "kai-scheduler",
        "nodeName": "n1",
        "priority": 5,
        "priorityClassName": "train",
        "nodeSelector": {"pool": "a"},
        "overhead": {"cpu": "100m"},
        "resources": AMOUNTS,
        "resourceClaims": [
            {"name": "a", "resourceClaimName": "claim"},
            {"name": "b", "resourceClaimTemplateName": "template"},
        ],
        "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [EXPRESSION]}]
                }
            }
        },
        "schedulingGroup": {"podGroupName": "gang"},
        "volumes": [{"name": "v", "emptyDir": {}}],
    },
    "status": {
        "phase": "Running",
        "reason": "Evicted",
        "message": "evicted",
        "podIP": "10.0.0.7",
        "startTime": TIME,
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "reason": "r",
                "message": "m",
                "lastTransitionTime": TIME,
            }
            for kind in ("PodScheduled", "Ready", "DisruptionTarget")
        ],
        "containerStatuses": [status_of("main"), status_of("other")],
        "initContainerStatuses": [status_of("side")],
        "resourceClaimStatuses": [{"name": "b", "resourceClaimName": "made"}],
    },
}


def read(obj: dict[str, Any]) -> tuple[Pod, ScrapeTargets, bool]:
    targets = ScrapeTargets(trusted=frozenset({"team"}))
    targets.put(obj)
    return read_pod(obj), targets, is_reservation(obj, frozenset({"team"}))


META = ObjectMeta(uid="u-1")


def assert_read_alike(obj: dict[str, Any]) -> None:
    body = json.dumps(obj).encode()
    decoded = decode_object(body)
    assert read(decode_pod(META, body)) == read(decoded)
    spec = mapping(decoded.get("spec"))
    assert pod_spec.read_spec(spec) == pod_spec.read_afresh(spec), (
        "as if no other pod had the same spec"
    )


class Watched(dict[str, Any]):
    """Notes which of its members are asked for."""

    def __init__(self, members: dict[str, Any]) -> None:
        super().__init__(members)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


ITEMS = {
    "containers": stored_objects._Container,
    "initContainers": stored_objects._Container,
    "containerStatuses": stored_objects._ContainerStatus,
    "initContainerStatuses": stored_objects._ContainerStatus,
}


@pytest.mark.parametrize("labels", [{"app": "nvidia-dcgm-exporter"}, {}])
def test_what_is_read_is_decoded(labels: dict[str, str]) -> None:
    """Of an exporter and of an inference server."""
    obj = copy.deepcopy(POD)
    obj["metadata"]["labels"] = labels
    watched: list[tuple[type[msgspec.Struct], Watched]] = []
    kinds = {
        "metadata": stored_objects._Metadata,
        "spec": stored_objects._Spec,
        "status": stored_objects._Status,
    }
    for name, kind in kinds.items():
        obj[name] = part = Watched(obj[name])
        watched.append((kind, part))
        for member in ITEMS.keys() & part.keys():
            part[member] = [Watched(item) for item in part[member]]
            watched += [(ITEMS[member], item) for item in part[member]]
    read(obj)
    pod_spec.read_afresh(obj["spec"])
    for kind, part in watched:
        assert part.asked
        assert part.asked <= set(kind.__struct_encode_fields__)


def test_what_is_not_read_is_not_decoded() -> None:
    body = json.dumps(POD).encode()
    text = json.dumps(decode_pod(META, body))
    for name in ("managedFields", "env", "volumeMounts", "volumes"):
        assert f'"{name}"' not in text


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield from paths(child, (*path, key))


WRONG = st.sampled_from(
    [None, 0, -1.5, True, "", "text", [], [None], ["x"], {}, {"a": None}, [[{}]]]
)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(sorted(paths(POD), key=str)), WRONG), max_size=4))
def test_whatever_stands_in_a_pod_is_read_as_if_all_were_decoded(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    obj = copy.deepcopy(POD)
    for path, value in changes:
        holder: Any = obj
        for key in path[:-1]:
            try:
                holder = holder[key]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if isinstance(holder, dict) or (isinstance(holder, list) and len(holder) > path[-1]):
                holder[path[-1]] = value
    assert_read_alike(obj)


def test_what_is_nested_without_end_is_read_as_if_all_were_decoded() -> None:
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    for member in ("labels", "annotations"):
        obj = copy.deepcopy(POD)
        obj["metadata"][member]["deep"] = deep
        assert_read_alike(obj)

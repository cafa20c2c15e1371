"""Golden lives: folders of Kubernetes objects and what their records must say, read into test cases."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import msgspec
import yaml

from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.objects import WorkloadObjects
from watchbill.kinds.objects.pod import read_pod
from watchbill.protocol import Record

JSON = dict[str, Any]
FOLDER = Path(__file__).parent
CREATED_AT = "2026-06-01T08:00:00Z"
_UIDS = UUID("3f1c5a52-9a0e-4b34-8e61-7a4d0c1b2e90")
_APART = {
    "Service": "services",
    "Ingress": "services",
    "HTTPRoute": "services",
    "Workload": "queue_workloads",
    "PodGroup": "pod_groups",
    "HorizontalPodAutoscaler": "autoscalers",
}
_MORE = " …"
_MEMBERS = (
    "type",
    "phase",
    "k8sPhase",
    "phaseMessage",
    "category",
    "requestedPods",
    "runningPods",
    "requestedGpu",
    "allocatedGpu",
    "elements",
    "endpoints",
    "distributedFramework",
    "completedAt",
)


@dataclass(frozen=True)
class Case:
    folder: str
    name: str
    objects: WorkloadObjects
    expected: JSON

    @property
    def id(self) -> str:
        return f"{self.folder}-{self.name}"


class Loader(yaml.SafeLoader):
    """YAML's core without instants: Kubernetes objects hold them as text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@cache
def cases() -> tuple[Case, ...]:
    return tuple(
        case for folder in sorted(FOLDER.iterdir()) if folder.is_dir() for case in _life(folder)
    )


def seen(case: Case, known: Definitions | None = None) -> JSON:
    """The essential members of the case's record."""
    record = derive(case.objects, known or definitions(), SETTINGS).record
    workload = msgspec.to_builtins(record.workload)
    requested = record.workload.workload_requested_resources.gpu
    members = {member: workload.get(member) for member in _MEMBERS}
    members |= {
        "requestedGpu": requested.request if requested else 0,
        "allocatedGpu": record.workload.allocated_resources.gpu,
        "requestedPods": _present(workload["requestedPods"]),
        "endpoints": [_present(endpoint) for endpoint in workload["endpoints"]],
        "elements": _tree(record),
    }
    return _present(members)


def agrees(members: JSON, case: Case) -> bool:
    """Whether a record says what is expected; a message that ends in … may say more."""
    expected = case.expected
    message = expected.get("phaseMessage", "")
    if message.endswith(_MORE) and members.get("phaseMessage", "").startswith(
        message[: -len(_MORE)]
    ):
        return members | {"phaseMessage": message} == expected
    return members == expected


def _present(members: JSON) -> JSON:
    return {key: value for key, value in members.items() if value is not None}


def _tree(record: Record) -> list[Any]:
    """Elements by name, those below in a list: `a`, or `{a: [b, c]}`."""

    def below(parent: UUID | None) -> list[Any]:
        children: list[Any] = []
        for element in record.elements:
            if element.parent_id == parent:
                ref = element.kubernetes_ref
                name = f"{ref.gvk.kind}/{element.name}" if ref else element.name
                inner = below(element.id)
                children.append({name: inner} if inner else name)
        return children

    return below(None)


def _life(folder: Path) -> Iterator[Case]:
    if not (folder / "moments.yaml").exists():
        return
    documents = list(yaml.load_all((folder / "objects.yaml").read_text(), Loader=Loader))
    life = yaml.load((folder / "moments.yaml").read_text(), Loader=Loader)
    for name, moment in life["moments"].items():
        objects = _objects(documents, moment)
        running = sum(pod.phase == "Running" and not pod.is_terminating for pod in objects.pods)
        expected = {"runningPods": running, "requestedGpu": 0, "allocatedGpu": 0}
        expected |= {"elements": [], "endpoints": []} | life.get("always", {})
        expected |= moment["expected"]
        expected.setdefault("k8sPhase", expected["phase"])
        yield Case(folder.name, name, objects, _present(expected))


def _objects(documents: list[JSON], moment: JSON) -> WorkloadObjects:
    known = {_title(document): document for document in documents}
    changes = moment.get("root", {}) | ({"status": moment["status"]} if "status" in moment else {})
    root = filled(documents[0], changes)
    places: dict[str, Any] = {name: [] for name in {*_APART.values(), "children", "pods"}}
    for title, change in moment.get("objects", {}).items():
        obj = filled(known[title], change or {})
        is_knative = obj["apiVersion"].startswith("serving.knative.dev/")
        place = "children" if is_knative else _APART.get(obj["kind"], "children")
        places[place].append(obj)
    for names, given in moment.get("pods", {}).items():
        state, change = given if isinstance(given, list) else (given, {})
        for name in expanded(names):
            places["pods"].append(read_pod(_pod(known, name, state, change)))
    if root["kind"] == "Pod":
        places["pods"].append(read_pod(root))
    return WorkloadObjects(root=root, is_chain_truncated=False, is_root_listed=True, **places)


def uid_of(title: str) -> str:
    """The uid of an object named as `Kind/name`."""
    return str(uuid5(_UIDS, title))


def _title(obj: JSON) -> str:
    return f"{obj['kind']}/{obj['metadata']['name']}"


def expanded(names: str) -> Iterator[str]:
    """`a-0,1` = a-0 and a-1."""
    first, *others = names.split(",")
    yield first
    stem = first.rstrip("0123456789")
    yield from (stem + other for other in others)


def filled(document: JSON, changes: JSON) -> JSON:
    """A copy with what changed, uids and times."""
    obj = merged(copy.deepcopy(document), changes)
    meta = obj["metadata"]
    meta.setdefault("namespace", "vision")
    meta.setdefault("uid", uid_of(_title(obj)))
    meta.setdefault("creationTimestamp", CREATED_AT)
    for owner in meta.get("ownerReferences", []):
        owner.setdefault("uid", uid_of(f"{owner['kind']}/{owner['name']}"))
        owner.setdefault("controller", True)
    return obj


def merged(obj: Any, changes: Any) -> Any:
    """A JSON merge patch: null takes away."""
    if not isinstance(changes, dict) or not isinstance(obj, dict):
        return copy.deepcopy(changes)
    for key, value in changes.items():
        if value is None:
            obj.pop(key, None)
        else:
            obj[key] = merged(obj.get(key), value)
    return obj


def _pod(known: dict[str, JSON], name: str, state: str, change: JSON) -> JSON:
    base = known.get(f"Pod/{name}") or known[f"Pod/{re.sub('-[0-9]+$', '', name)}"]
    pod = copy.deepcopy(base)
    pod["metadata"]["name"] = name
    pod = merged(pod, POD_STATES[state](pod))
    return filled(pod, change)


def _condition(kind: str, status: str, at: str, **more: Any) -> JSON:
    return {"type": kind, "status": status, "lastTransitionTime": f"2026-06-01T{at}Z", **more}


def _unscheduled(pod: JSON) -> JSON:
    missing = "nvidia.com/gpu" if "nvidia.com/gpu" in str(pod["spec"]) else "cpu"
    message = f"0/8 nodes are available: 8 Insufficient {missing}."
    condition = _condition("PodScheduled", "False", "08:01:00", reason="Unschedulable")
    return {"status": {"phase": "Pending", "conditions": [condition | {"message": message}]}}


def _placed(pod: JSON, phase: str, ready: JSON, state: JSON, **container: Any) -> JSON:
    containers = [
        {"name": each["name"], "state": state, "ready": ready["status"] == "True"}
        | {"restartCount": 0}
        | container
        for each in pod["spec"]["containers"]
    ]
    return {
        "spec": {"nodeName": "gpu-1"},
        "status": {
            "phase": phase,
            "startTime": "2026-06-01T08:01:00Z",
            "conditions": [_condition("PodScheduled", "True", "08:01:00"), ready],
            "containerStatuses": containers,
        },
    }


_RUNNING = {"running": {"startedAt": "2026-06-01T08:02:00Z"}}


def _starting(pod: JSON) -> JSON:
    waiting = {"waiting": {"reason": "ContainerCreating"}}
    return _placed(pod, "Pending", _condition("Ready", "False", "08:01:00"), waiting)


def _ready(pod: JSON) -> JSON:
    return _placed(pod, "Running", _condition("Ready", "True", "08:02:10"), _RUNNING)


def _unready(pod: JSON) -> JSON:
    """Its containers run and were never ready."""
    return _placed(pod, "Running", _condition("Ready", "False", "08:01:00"), _RUNNING)


def _lost(pod: JSON) -> JSON:
    """Ready for long, and no more."""
    return _placed(pod, "Running", _condition("Ready", "False", "09:30:00"), _RUNNING)


def _leaving(pod: JSON) -> JSON:
    gone = {"deletionTimestamp": "2026-06-01T10:00:30Z", "deletionGracePeriodSeconds": 30}
    return _ready(pod) | {"metadata": gone}


def _ended(pod: JSON, phase: str, code: int, reason: str) -> JSON:
    times = {"startedAt": "2026-06-01T08:02:00Z", "finishedAt": "2026-06-01T09:59:50Z"}
    state = {"terminated": {"exitCode": code, "reason": reason} | times}
    return _placed(pod, phase, _condition("Ready", "False", "09:59:51"), state)


POD_STATES = {
    "unscheduled": _unscheduled,
    "starting": _starting,
    "ready": _ready,
    "unready": _unready,
    "lost": _lost,
    "leaving": _leaving,
    "succeeded": lambda pod: _ended(pod, "Succeeded", 0, "Completed"),
    "failed": lambda pod: _ended(pod, "Failed", 1, "Error"),
}

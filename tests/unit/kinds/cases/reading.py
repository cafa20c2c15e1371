"""Cases: a workload's objects in short, and members of its record that are sure. README.md tells the form."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from tests.unit.kinds.golden.reading import POD_STATES, Loader, expanded, filled, merged, uid_of
from watchbill.cli.kinds_input import collect_topmost
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.objects import WorkloadObjects

JSON = dict[str, Any]
FOLDER = Path(__file__).parent
_OF_A_POD = ("state", "containers", "gpu")


@dataclass(frozen=True)
class Case:
    id: str
    documents: list[JSON]
    expected: JSON


@cache
def cases() -> tuple[Case, ...]:
    return tuple(case for file in sorted(FOLDER.glob("*.yaml")) for case in _of_file(file))


def _of_file(file: Path) -> Iterator[Case]:
    for name, case in yaml.load(file.read_text(), Loader=Loader)["cases"].items():
        documents = [made for short in case["objects"] for made in written_out(short)]
        yield Case(f"{file.stem}-{name}", documents, case["expected"])


def objects_of(case: Case, known: Definitions) -> WorkloadObjects:
    documents = msgspec.json.decode(msgspec.json.encode(case.documents))
    return collect_topmost(documents, known)


def seen(case: Case, known: Definitions) -> JSON:
    """What the record says of the members that the case names."""
    workload = derive(objects_of(case, known), known, SETTINGS).record.workload
    wire = msgspec.to_builtins(workload)

    def asked(member: str, resource: str) -> float | None:
        amounts = wire.get(member) or {}
        return amounts[resource]["request"] if amounts.get(resource) else None

    wire |= {
        "requestedGpu": asked("workloadRequestedResources", "gpu"),
        "podsGpu": asked("podsRequestedResources", "gpu"),
        "requestedCpu": asked("workloadRequestedResources", "cpu"),
        "podsCpu": asked("podsRequestedResources", "cpu"),
        "allocatedGpu": wire["allocatedResources"].get("gpu"),
        "number": workload.requested_pods.number,
        "min": workload.requested_pods.min,
        "max": workload.requested_pods.max,
        "hasEnded": workload.completed_at is not None,
        "images": sorted(workload.images),
    }
    return {member: wire.get(member) for member in case.expected}


def agrees(expected: Any, value: Any) -> bool:
    """A list of phases: any of them; a message is a part of the whole; numbers to the millionth."""
    if isinstance(expected, float) and isinstance(value, float):
        return abs(expected - value) < 2e-6
    return bool(expected == value)


def differences(case: Case, known: Definitions | None = None) -> JSON:
    """What the record says and should not, by member, with what it should. `known` None = as they are."""
    actual = seen(case, known or definitions())
    wrong = {}
    for member, expected in case.expected.items():
        value = actual[member]
        if member == "phaseMessage" and expected:
            is_right = expected in (value or "")
        elif member == "phase" and isinstance(expected, list):
            is_right = value in expected
        else:
            is_right = agrees(expected, value)
        if not is_right:
            wrong[member] = {"expected": expected, "is": value}
    return wrong


def written_out(short: JSON) -> Iterator[JSON]:
    """The objects that one entry of a case stands for."""
    short = dict(short)
    owner, about = short.pop("owner", None), short.pop("about", None)
    labels, annotations = short.pop("labels", None), short.pop("annotations", None)
    names = short.pop("name")
    short.setdefault("apiVersion", "v1")
    particulars = {member: short.pop(member) for member in _OF_A_POD if member in short}
    for name in expanded(names):
        meta: JSON = {"name": name, **short.get("metadata", {})}
        if owner:
            kind, _, owner_name = owner.partition("/")
            meta["ownerReferences"] = [{"kind": kind.partition(".")[0], "name": owner_name}]
            meta["ownerReferences"][0]["apiVersion"] = f"{kind.partition('.')[2]}/v1"
        if labels:
            meta["labels"] = labels
        if annotations:
            meta["annotations"] = annotations
        made = short | {"metadata": meta}
        if about:
            made["involvedObject"] = {"kind": about.partition("/")[0], "uid": uid_of(about)}
        if short["kind"] == "Pod":
            made = _pod(made, **particulars)
        yield filled(made, {})


def _pod(
    pod: JSON, state: str = "ready", containers: list[JSON] | None = None, gpu: int = 0
) -> JSON:
    """A pod in a state of the golden lives; what its own spec and status say is merged into it."""
    limits = {"resources": {"limits": {"nvidia.com/gpu": str(gpu)}}} if gpu else {}
    written = containers or [{"name": "main", "image": "registry.example.com/train:1", **limits}]
    own = {"kind": "Pod", "apiVersion": "v1", "metadata": pod["metadata"]}
    base = own | {"spec": {"containers": written} | pod.get("spec", {})}
    made = merged(base, POD_STATES[state](base))
    return dict(merged(made, {part: pod[part] for part in ("spec", "status") if part in pod}))

"""A workload that is played from a file: its state as the file's expression sees it, and its objects."""

from collections.abc import Iterator, Mapping
from typing import Any

from simulator.apiserver.resources import ResourceType
from simulator.manifests.objects import (
    Document,
    child_metadata,
    owner_reference,
    pod_template,
    root_metadata,
    stamp,
)
from simulator.manifests.parts import Parts, reference, tally
from simulator.model.framework import FRAMEWORKS, Framework, FrameworkRole, resource_of
from simulator.model.framework_slots import words_of
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload

_BY_A_POD = "pod:"


def framework_parts(workload: SimulatedWorkload) -> Parts:
    framework = FRAMEWORKS[workload.kind]
    found = framework.program.input_value(_view(workload, framework)).all()
    head = root_metadata(workload, found[0].get("labels"), found[0].get("annotations"))
    document = {"metadata": head} | {
        part: found[0][part] for part in ("spec", "status") if found[0].get(part) is not None
    }
    references = {"": reference(framework.root, head)}
    owners: list[tuple[ResourceType, Document]] = [(framework.root, document)]
    for child in found[1:] if workload.stage != "creating" else ():
        resource, document = _child(workload, child, references)
        references[child["key"]] = reference(resource, document["metadata"])
        owners.append((resource, document))
    references |= _owning_pods(workload, framework)
    roles = {role.name: role for role in framework.roles}
    return Parts(
        owners=owners,
        references=references,
        labels=lambda pod: _labels(workload, framework, roles[pod.role], pod),
        restart=framework.restart,
    )


def _child(
    workload: SimulatedWorkload, child: Mapping[str, Any], references: Mapping[str, Document]
) -> tuple[ResourceType, Document]:
    """An object between the workload and its pods; `kind` is Kind.group."""
    resource = resource_of(child["kind"])
    head = child_metadata(
        workload,
        child["key"],
        child["name"],
        {"app": workload.name} | child.get("labels", {}),
        references[child.get("owner", "")],
    )
    if "created" in child:
        head |= {"creationTimestamp": child["created"]}
    parts = {part: child[part] for part in ("spec", "status") if child.get(part) is not None}
    return resource, {"metadata": head} | parts


def _owning_pods(workload: SimulatedWorkload, framework: Framework) -> dict[str, Document]:
    """Pods that own others, as a driver owns its executors."""
    roles = {role.owner for role in framework.roles if role.owner.startswith(_BY_A_POD)}
    return {
        f"{_BY_A_POD}{pod.role}": owner_reference("v1", "Pod", pod.name, pod.uid)
        for pod in workload.pods
        if f"{_BY_A_POD}{pod.role}" in roles
    }


def _labels(
    workload: SimulatedWorkload, framework: Framework, role: FrameworkRole, pod: SimulatedPod
) -> dict[str, str]:
    words = words_of(workload, role.name, pod.index)
    return {key: value.format(**words) for key, value in (framework.labels | role.labels).items()}


def _view(workload: SimulatedWorkload, framework: Framework) -> Document:
    """What the file's expression works on; README.md in `frameworks` lists it."""
    return {
        **words_of(workload),
        "namespace": workload.namespace,
        "project": workload.project,
        "stage": workload.stage,
        "suspended": workload.is_suspended,
        "at": _times(workload),
        "roles": {role.name: _role(workload, framework, role) for role in framework.roles},
        "runs": dict(_runs(workload)),
    }


def _times(workload: SimulatedWorkload) -> dict[str, str | None]:
    return {
        "created": stamp(workload.created_at),
        "since": stamp(workload.since or workload.created_at),
        "ready": _stamp(workload.first_ready_at),
        "finished": _stamp(workload.finished_at or workload.since),
        "suspended": _stamp(workload.suspended_at or workload.since),
        "resumed": _stamp(workload.resumed_at),
    }


def _stamp(moment: Seconds) -> str | None:
    return stamp(moment) if moment else None


def _role(workload: SimulatedWorkload, framework: Framework, role: FrameworkRole) -> Document:
    found = tally(pod for pod in workload.pods if pod.role == role.name)
    return {
        "replicas": workload.replicas(role.name),
        "template": pod_template(workload, role.name, restart=framework.restart),
        "present": found.present,
        "active": found.active,
        "ready": found.ready,
        "succeeded": found.succeeded,
        "failed": found.failed,
    }


def _runs(workload: SimulatedWorkload) -> Iterator[tuple[str, Document]]:
    """Runs of a schedule by number: when each began and how it ended."""
    for key, created_at in workload.children.items():
        if key.startswith("run-"):
            pods = [pod for pod in workload.pods if pod.owner == key]
            is_over = all(pod.is_over for pod in pods)
            ended_at = max((pod.finished_at for pod in pods), default=created_at + 60)
            finished = stamp(ended_at) if is_over else None
            is_started = any(pod.started_at for pod in pods)
            yield (
                key[4:],
                {"created": stamp(created_at), "finished": finished, "started": is_started},
            )

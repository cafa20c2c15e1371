"""The objects beside a workload's pods: what is above them, as the workload's file makes it, and services in
front.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from simulator.manifests.objects import (
    Document,
    child_metadata,
    metadata,
    owner_reference,
    pod_template,
    root_metadata,
    stamp,
)
from simulator.model.framework import (
    FRAMEWORKS,
    Framework,
    FrameworkRole,
    FrameworkService,
    resource_of,
)
from simulator.model.model import Seconds, SimulatedPod, SimulatedWorkload
from simulator.model.pod_layout import Words, child_uid, run_minute, template_hash, words_of
from simulator.resources import INGRESSES, SERVICES, ResourceType


def services_of(workload: SimulatedWorkload, root: Document) -> list[tuple[ResourceType, Document]]:
    """Service and, where exposed so, Ingress in front of a served workload."""
    service = FRAMEWORKS[workload.kind].service
    if service is None:
        return []
    documents = [_service(workload, root, service)]
    if workload.exposure == "ingress" and len(service.ports) == 1:
        (port,) = service.ports.values()
        documents.append((INGRESSES, _ingress(workload, root, port)))
    return documents


def _service(
    workload: SimulatedWorkload,
    root: Document,
    service: FrameworkService,
) -> tuple[ResourceType, Document]:
    is_balanced = workload.exposure == "balancer"
    name = service.name.format(name=workload.name)
    selector = {key: value.format(name=workload.name) for key, value in service.selector.items()}
    address = child_uid(workload, f"service-{name}")
    cluster_ip = f"10.96.{int(address[:2], 16)}.{int(address[2:4], 16)}"
    document = {
        "metadata": metadata(
            name=name,
            namespace=workload.namespace,
            uid=address,
            created_at=workload.created_at,
            labels={"app": workload.name},
            owner=root,
        ),
        "spec": {
            "type": "LoadBalancer" if is_balanced else "ClusterIP",
            "selector": selector,
            "ports": [
                {"name": label, "protocol": "TCP", "port": port, "targetPort": port}
                for label, port in service.ports.items()
            ],
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "sessionAffinity": "None",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
        },
        "status": {
            "loadBalancer": {"ingress": [{"hostname": f"{name}.lb.example.com"}]}
            if is_balanced
            else {}
        },
    }
    return SERVICES, document


def _ingress(workload: SimulatedWorkload, root: Document, port: int) -> Document:
    host = f"{workload.name}.{workload.project}.example.com"
    backend = {"service": {"name": workload.name, "port": {"number": port}}}
    path = {"path": "/v1", "pathType": "Prefix", "backend": backend}
    return {
        "metadata": metadata(
            name=workload.name,
            namespace=workload.namespace,
            uid=child_uid(workload, "ingress"),
            created_at=workload.created_at,
            labels={"app": workload.name},
            owner=root,
        ),
        "spec": {
            "ingressClassName": "public",
            "tls": [{"hosts": [host], "secretName": f"{workload.name}-tls"}],
            "rules": [{"host": host, "http": {"paths": [path]}}],
        },
        "status": {"loadBalancer": {}},
    }


_POD: str = "pod:"
"""Begins the key of a pod that owns other objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """`documents` starts with the root (none where a pod is its own); `references` are by key, "" = root."""

    documents: list[tuple[ResourceType, Document]]
    references: dict[str, Document]
    labels: Callable[[SimulatedPod], dict[str, str]]
    restart: str


def owners_of(workload: SimulatedWorkload) -> Owners:
    """The workload's own object and those between it and its pods, owners first."""
    framework = FRAMEWORKS[workload.kind]
    view = msgspec.json.encode(_view(workload, framework)).decode()
    results = framework.program.input_text(view).all()
    documents: list[tuple[ResourceType, Document]] = []
    references = _owning_pods(workload)
    if results:
        root = results[0]
        head = root_metadata(workload, root.get("labels"), root.get("annotations"))
        documents.append((framework.root, {"metadata": head} | _body(root)))
        references[""] = _reference(framework.root, head)
    for child in results[1:] if workload.stage != "creating" else ():
        if child.get("owner", "") in references:
            resource, document = _child(workload, child, references)
            references[child["key"]] = _reference(resource, document["metadata"])
            documents.append((resource, document))
    roles = {role.name: role for role in framework.roles}
    return Owners(
        documents=documents,
        references=references,
        labels=lambda pod: _labels(workload, framework, roles[pod.role], pod, references),
        restart=framework.restart,
    )


def _reference(resource: ResourceType, head: Document) -> Document:
    return owner_reference(resource.api_version, resource.kind, head["name"], head["uid"])


def _body(result: Mapping[str, Any]) -> Document:
    return {part: result[part] for part in ("spec", "status") if result.get(part) is not None}


def _child(
    workload: SimulatedWorkload, child: Mapping[str, Any], references: Mapping[str, Document]
) -> tuple[ResourceType, Document]:
    """An object between the workload and its pods; `kind` is Kind.group."""
    resource = resource_of(child["kind"])
    owner = references[child.get("owner", "")]
    labels = child.get("labels", {"app": workload.name})
    head = child_metadata(workload, child["key"], child["name"], labels, owner)
    if "annotations" in child:
        head["annotations"] = child["annotations"]
    if "created" in child:
        head["creationTimestamp"] = child["created"]
    if child.get("owner", "").startswith(_POD):
        # It is made anew with the pod that owns it.
        head["uid"] = child_uid(workload, f"{child['key']}/{owner['uid']}")
    return resource, {"metadata": head} | _body(child)


def _owning_pods(workload: SimulatedWorkload) -> dict[str, Document]:
    """Pods can own others, as a driver its executors: `pod:ROLE`, or `pod:ROLE-INDEX` among several."""
    references = {}
    for pod in workload.pods:
        itself = owner_reference("v1", "Pod", pod.name, pod.uid)
        references[f"{_POD}{pod.role}"] = references[f"{_POD}{pod.role}-{pod.index}"] = itself
    return references


def _labels(
    workload: SimulatedWorkload,
    framework: Framework,
    role: FrameworkRole,
    pod: SimulatedPod,
    references: Mapping[str, Document],
) -> dict[str, str]:
    words = _pod_words(workload, pod, references.get(pod.owner))
    return {key: value.format(**words) for key, value in (framework.labels | role.labels).items()}


def _pod_words(workload: SimulatedWorkload, pod: SimulatedPod, owner: Document | None) -> Words:
    key, _, number = pod.owner.rpartition("-")
    group = int(number) if number.isdigit() else 0
    return {
        **words_of(workload),
        "hash": template_hash(workload, pod.revision),
        "revision": pod.revision,
        "run": group if key == "run" else workload.runs,
        "group": group,
        "role": pod.role,
        "replicas": workload.replicas(pod.role),
        "index": pod.index,
        "pod": pod.name,
        "owner": owner["name"] if owner else "",
        "owner_uid": owner["uid"] if owner else "",
    }


def _view(workload: SimulatedWorkload, framework: Framework) -> Document:
    """What the file's expression works on; README.md in `frameworks` lists it."""
    gangs: dict[str, list[SimulatedPod]] = {}
    for pod in workload.pods:
        gangs.setdefault(pod.gang, []).append(pod)
    return {
        **words_of(workload),
        "namespace": workload.namespace,
        "project": workload.project,
        "stage": workload.stage,
        "suspended": workload.is_suspended,
        "at": _times(workload),
        "hashes": [template_hash(workload, number + 1) for number in range(workload.revision)],
        "roles": {role.name: _role(workload, framework, role) for role in framework.roles},
        "children": {key: _child_state(workload, key) for key in workload.children},
        "gangs": {name: _counts(workload, pods) for name, pods in gangs.items()},
        "runs": dict(_runs(workload)),
    }


def _times(workload: SimulatedWorkload) -> dict[str, str | None]:
    return {
        "created": stamp(workload.created_at),
        "since": stamp(workload.since or workload.created_at),
        "ready": _stamp(workload.first_ready_at),
        "finished": _stamp(workload.finished_at or workload.since),
        "succeeded": _stamp(workload.finished_at),
        "suspended": _stamp(workload.suspended_at or workload.since),
        "resumed": _stamp(workload.resumed_at),
    }


def _stamp(moment: Seconds) -> str | None:
    return stamp(moment) if moment else None


def _role(workload: SimulatedWorkload, framework: Framework, role: FrameworkRole) -> Document:
    return {
        "replicas": workload.replicas(role.name),
        "template": pod_template(workload, role.name, restart=framework.restart),
        **_counts(workload, (pod for pod in workload.pods if pod.role == role.name)),
    }


def _child_state(workload: SimulatedWorkload, key: str) -> Document:
    """Of an object that owns pods, or that was made together with them."""
    prefix, _, number = key.rpartition("-")
    return {
        "created": stamp(workload.children[key]),
        "uid": child_uid(workload, key),
        "number": number,
        "hash": template_hash(workload, int(number)) if prefix == "rs" else None,
        **_counts(workload, (pod for pod in workload.pods if pod.owner == key)),
    }


def _counts(workload: SimulatedWorkload, pods: Iterable[SimulatedPod]) -> dict[str, int]:
    """How many of some pods are in which state."""
    counted = list(pods)
    staying = [pod for pod in counted if not pod.deleted_at]
    return {
        "pods": len(counted),
        "present": sum(not pod.is_over for pod in staying),
        "updated": sum(not pod.is_over and pod.revision == workload.revision for pod in staying),
        "unplaced": sum(not pod.node for pod in counted),
        "ready": sum(pod.stage == "running" for pod in staying),
        "succeeded": sum(pod.stage == "succeeded" for pod in counted),
        "failed": sum(pod.stage == "failed" for pod in counted),
        "leaving": sum(bool(pod.deleted_at) for pod in counted),
    }


def _runs(workload: SimulatedWorkload) -> Iterator[tuple[str, Document]]:
    """Runs of a schedule by number: when each began and how it ended."""
    for key, created_at in workload.children.items():
        if key.startswith("run-"):
            pods = [pod for pod in workload.pods if pod.owner == key]
            is_over = all(pod.is_over for pod in pods)
            ended_at = max((pod.finished_at for pod in pods), default=created_at + 60)
            yield (
                key[4:],
                {
                    "minute": run_minute(workload, int(key[4:])),
                    "created": stamp(created_at),
                    "finished": stamp(ended_at) if is_over else None,
                    "started": any(pod.started_at for pod in pods),
                },
            )

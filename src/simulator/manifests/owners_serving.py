"""Owners that serve: LeaderWorkerSet, Knative Service, NIMService; and the services in front of them.

The five owners above a serverless pod: ReplicaSet, Deployment, Revision, Configuration, Service.
"""

from simulator.apiserver.resources import (
    DEPLOYMENTS,
    KNATIVE_CONFIGURATIONS,
    KNATIVE_REVISIONS,
    KNATIVE_SERVICES,
    LEADER_WORKER_SETS,
    NIM_SERVICES,
    REPLICA_SETS,
    STATEFUL_SETS,
    ResourceType,
)
from simulator.manifests.objects import (
    POOL_LABEL,
    Document,
    child_metadata,
    container,
    owner_reference,
    pod_annotations,
    pod_template,
    resources,
    root_metadata,
    scheduling_labels,
)
from simulator.manifests.owners_replicas import (
    deployment_document,
    replica_set_pod_labels,
    replica_sets,
    stateful_set_document,
    stateful_set_pod_labels,
)
from simulator.manifests.parts import Parts, condition, moment, reference, some, tally
from simulator.model.model import SimulatedPod, SimulatedWorkload
from simulator.model.pod_layout import deployment_name, revision_name
from simulator.model.slot import child_uid

_LWS = "leaderworkerset.sigs.k8s.io"


def leader_worker_set_parts(workload: SimulatedWorkload) -> Parts:
    """Pod → StatefulSet → leader Pod → StatefulSet → LeaderWorkerSet."""
    head = root_metadata(workload)
    root = reference(LEADER_WORKER_SETS, head)
    groups, workers = workload.replicas("leader"), workload.replicas("worker")
    document: Document = {
        "metadata": head,
        "spec": {
            "replicas": groups,
            "leaderWorkerTemplate": {
                "size": workers + 1,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": pod_template(workload, "leader"),
                "workerTemplate": pod_template(workload, "worker"),
            },
            "startupPolicy": "LeaderCreated",
        },
        "status": _group_status(workload, groups, workers + 1),
    }
    owners: list[tuple[ResourceType, Document]] = [(LEADER_WORKER_SETS, document)]
    references = {"": root}
    if "leaders" in workload.children:
        leaders = _leaders(workload, root, groups)
        owners.append((STATEFUL_SETS, leaders))
        references["leaders"] = reference(STATEFUL_SETS, leaders["metadata"])
    for leader in [pod for pod in workload.pods if pod.role == "leader"]:
        found = _group(workload, leader, workers)
        if found is not None:
            owners.append((STATEFUL_SETS, found))
            references[f"group-{leader.index}"] = reference(STATEFUL_SETS, found["metadata"])
    return Parts(
        owners=owners, references=references, labels=lambda pod: _group_labels(workload, pod)
    )


def _group_labels(workload: SimulatedWorkload, pod: SimulatedPod) -> dict[str, str]:
    group = pod.index if pod.role == "leader" else int(pod.owner[6:])
    ordinal = 0 if pod.role == "leader" else pod.index
    name = workload.name if pod.role == "leader" else f"{workload.name}-{group}"
    return {
        f"{_LWS}/name": workload.name,
        f"{_LWS}/group-index": str(group),
        f"{_LWS}/worker-index": str(ordinal),
        **stateful_set_pod_labels(pod, name, group if pod.role == "leader" else ordinal),
    }


def _leaders(workload: SimulatedWorkload, root: Document, groups: int) -> Document:
    labels = {f"{_LWS}/name": workload.name, f"{_LWS}/worker-index": "0"}
    return stateful_set_document(
        workload,
        child_metadata(workload, "leaders", workload.name, labels, root),
        role="leader",
        pods=[pod for pod in workload.pods if pod.role == "leader"],
        replicas=groups,
        labels=labels,
    )


def _group(workload: SimulatedWorkload, leader: SimulatedPod, workers: int) -> Document | None:
    """A group's StatefulSet, owned by its leader; its uid follows the leader's."""
    key = f"group-{leader.index}"
    if key not in workload.children:
        return None
    labels = {f"{_LWS}/name": workload.name, f"{_LWS}/group-index": str(leader.index)}
    owner = owner_reference("v1", "Pod", leader.name, leader.uid)
    head = child_metadata(workload, key, leader.name, labels, owner)
    head["uid"] = child_uid(workload, f"{key}/{leader.uid}")
    return stateful_set_document(
        workload,
        head,
        role="worker",
        pods=[pod for pod in workload.pods if pod.owner == key],
        replicas=workers,
        labels=labels,
        first_ordinal=1,
    )


def _group_status(workload: SimulatedWorkload, groups: int, size: int) -> Document:
    ready = sum(
        1
        for group in range(groups)
        if tally(p for p in workload.pods if p.gang == f"group-{group}").ready == size
    )
    since = moment(workload, workload.since)
    is_available = ready == groups
    conditions = [
        condition(
            "Available",
            is_available,
            moment(workload, workload.first_ready_at) if is_available else since,
            "AllGroupsReady" if is_available else "GroupsNotReady",
            "All replicas are ready" if is_available else "Replicas are not ready",
        ),
        condition(
            "Progressing", not is_available, since, "GroupsProgressing", "Replicas are progressing"
        ),
    ]
    if workload.stage == "updating":
        message = "Rolling Upgrade is in progress"
        conditions.append(condition("UpdateInProgress", True, since, "GroupsUpdating", message))
    found = tally(pod for pod in workload.pods if pod.role == "leader")
    updated = sum(
        1
        for pod in workload.pods
        if pod.role == "leader" and pod.revision == workload.revision and not pod.deleted_at
    )
    return {
        "conditions": conditions,
        "hpaPodSelector": f"{_LWS}/name={workload.name},{_LWS}/worker-index=0",
        "replicas": found.present,
        **some(readyReplicas=ready, updatedReplicas=updated),
    }


def nim_service_parts(workload: SimulatedWorkload) -> Parts:
    """Pod → ReplicaSet → Deployment → NIMService."""
    head = root_metadata(workload)
    root = reference(NIM_SERVICES, head)
    replicas = 0 if workload.is_suspended else workload.replicas("main")
    document: Document = {"metadata": head, "spec": _nim_spec(workload, replicas)}
    labels = {
        "app": workload.name,
        "app.kubernetes.io/name": workload.name,
        "app.kubernetes.io/part-of": "nim-service",
        "app.kubernetes.io/managed-by": "k8s-nim-operator",
    }
    owners: list[tuple[ResourceType, Document]] = [(NIM_SERVICES, document)]
    references = {"": root}
    if workload.children:
        document["status"] = _nim_status(workload, replicas)
        deployment = deployment_document(
            workload,
            child_metadata(workload, "deployment", workload.name, labels, root),
            workload.revision,
            replicas=replicas,
            labels=labels,
        )
        owners.append((DEPLOYMENTS, deployment))
        parent = reference(DEPLOYMENTS, deployment["metadata"])
        for key, found in replica_sets(workload, parent, labels):
            owners.append((REPLICA_SETS, found))
            references[key] = reference(REPLICA_SETS, found["metadata"])
    return Parts(
        owners=owners,
        references=references,
        labels=lambda pod: replica_set_pod_labels(workload, labels, pod),
    )


def _nim_spec(workload: SimulatedWorkload, replicas: int) -> Document:
    """Its pods' template is spread over the whole of it."""
    shape = workload.shape("main")
    repository, _, tag = container(workload, shape, workload.revision)["image"].rpartition(":")
    return {
        "image": {
            "repository": repository,
            "tag": tag,
            "pullPolicy": "IfNotPresent",
            "pullSecrets": ["registry"],
        },
        "authSecret": "model-hub",
        "replicas": replicas,
        "schedulerName": workload.scheduler,
        "nodeSelector": {POOL_LABEL: workload.pool},
        "annotations": pod_annotations(workload, shape),
        "resources": resources(shape),
        "storage": {"pvc": {"create": False, "name": "model-store"}},
        "expose": {"service": {"port": 8000, "type": "ClusterIP"}},
    }


def _nim_status(workload: SimulatedWorkload, replicas: int) -> Document:
    found = tally(workload.pods)
    since = moment(workload, workload.since)
    is_failed = workload.stage == "failed"
    is_ready = found.ready >= replicas and not is_failed
    state = "Ready" if is_ready else "Failed" if is_failed else "NotReady"
    if not workload.first_ready_at and not is_failed:
        state = "Pending" if any(not pod.node for pod in workload.pods) else "NotReady"
    message = ""
    if not is_ready:
        message = (
            f'deployment "{workload.name}" not ready: '
            f"{found.ready} of {replicas} updated replicas are available"
        )
    status: Document = {
        "state": state,
        "conditions": [
            condition("NIM_SERVICE_READY", is_ready, since, state, message),
            condition("NIM_SERVICE_FAILED", is_failed, since, state, message if is_failed else ""),
        ],
        **some(availableReplicas=found.ready),
    }
    if is_ready and replicas:
        endpoint = f"{workload.name}.{workload.namespace}.svc.cluster.local:8000"
        status["model"] = {
            "name": f"models/{workload.name}",
            "clusterEndpoint": endpoint,
            "externalEndpoint": "",
        }
    return status


_KNATIVE = "serving.knative.dev"


def knative_parts(workload: SimulatedWorkload) -> Parts:
    """Pod → ReplicaSet → Deployment → Revision → Configuration → Service."""
    head = root_metadata(workload)
    root = reference(KNATIVE_SERVICES, head)
    template = _template(workload)
    name = revision_name(workload, workload.revision)
    document: Document = {
        "metadata": head,
        "spec": {"template": template, "traffic": [{"latestRevision": True, "percent": 100}]},
    }
    owners: list[tuple[ResourceType, Document]] = [(KNATIVE_SERVICES, document)]
    references = {"": root}
    labels = {
        f"{_KNATIVE}/service": workload.name,
        f"{_KNATIVE}/configuration": workload.name,
        f"{_KNATIVE}/revision": name,
    }
    if workload.children:
        document["status"] = _knative_status(workload, name)
        owners += _middle(workload, root, template, labels)
        parent = reference(DEPLOYMENTS, owners[-1][1]["metadata"])
        for key, found in replica_sets(workload, parent, labels, revision=workload.revision):
            owners.append((REPLICA_SETS, found))
            references[key] = reference(REPLICA_SETS, found["metadata"])
    return Parts(
        owners=owners,
        references=references,
        labels=lambda pod: replica_set_pod_labels(workload, labels, pod),
    )


def _template(workload: SimulatedWorkload) -> Document:
    shape = workload.shape("main")
    scaling = {
        "autoscaling.knative.dev/min-scale": "0",
        "autoscaling.knative.dev/max-scale": "4",
    }
    return {
        "metadata": {
            "labels": scheduling_labels(workload),
            "annotations": pod_annotations(workload, shape) | scaling,
        },
        "spec": {
            "containerConcurrency": 0,
            "timeoutSeconds": 300,
            "containers": [container(workload, shape, workload.revision)],
        },
    }


def _middle(
    workload: SimulatedWorkload, root: Document, template: Document, labels: dict[str, str]
) -> list[tuple[ResourceType, Document]]:
    """Configuration, Revision and Deployment, each owned by the one before."""
    name = revision_name(workload, workload.revision)
    of_service = {f"{_KNATIVE}/service": workload.name}
    configuration: Document = {
        "metadata": child_metadata(workload, "configuration", workload.name, of_service, root),
        "spec": {"template": template},
        "status": {"latestCreatedRevisionName": name, "observedGeneration": 0},
    }
    above = reference(KNATIVE_CONFIGURATIONS, configuration["metadata"])
    revision: Document = {
        "metadata": child_metadata(workload, "revision", name, labels, above),
        "spec": template["spec"],
        "status": _revision_status(workload),
    }
    above = reference(KNATIVE_REVISIONS, revision["metadata"])
    deployed_as = deployment_name(workload, workload.revision)
    deployment = deployment_document(
        workload,
        child_metadata(workload, "deployment", deployed_as, labels, above),
        workload.revision,
        replicas=_wanted(workload),
        labels=labels,
    )
    return [
        (KNATIVE_CONFIGURATIONS, configuration),
        (KNATIVE_REVISIONS, revision),
        (DEPLOYMENTS, deployment),
    ]


def _wanted(workload: SimulatedWorkload) -> int:
    return 0 if workload.stage in ("idle", "sleeping") else workload.replicas("main")


def _knative_status(workload: SimulatedWorkload, revision: str) -> Document:
    is_ready = bool(workload.first_ready_at)
    since = moment(workload, workload.first_ready_at)
    status = "True" if is_ready else "Unknown"
    reason = {} if is_ready else {"reason": "RevisionMissing"}
    document: Document = {
        "conditions": [
            {"type": kind, "status": status, **reason}
            | {"lastTransitionTime": condition(kind, True, since)["lastTransitionTime"]}
            for kind in ("ConfigurationsReady", "Ready", "RoutesReady")
        ],
        "latestCreatedRevisionName": revision,
        "observedGeneration": 0,
    }
    if is_ready:
        host = f"{workload.name}.{workload.namespace}"
        document |= {
            "latestReadyRevisionName": revision,
            "traffic": [{"latestRevision": True, "percent": 100, "revisionName": revision}],
            "url": f"https://{host}.apps.example.com",
            "address": {"url": f"http://{host}.svc.cluster.local"},
        }
    return document


def _revision_status(workload: SimulatedWorkload) -> Document:
    found = tally(workload.pods)
    since = moment(workload, workload.since)
    is_ready = bool(workload.first_ready_at)
    has_traffic = workload.stage not in ("idle", "sleeping")
    conditions = [
        condition("Active", has_traffic, since, "" if has_traffic else "NoTraffic"),
        condition("ContainerHealthy", is_ready, since),
        condition("Ready", is_ready, since),
        condition("ResourcesAvailable", is_ready, since),
    ]
    return {
        "actualReplicas": found.ready,
        "desiredReplicas": _wanted(workload),
        "conditions": conditions,
        "observedGeneration": 0,
    }

"""Owners that serve: LeaderWorkerSet, Knative Service, NIMService; and the services in front of them."""

from watchbill.demo.anatomy import child_uid, deployment_name, revision_name
from watchbill.demo.hardware import POOLS_BY_NAME
from watchbill.demo.model import Pod, Workload
from watchbill.demo.names import IMAGES
from watchbill.demo.objects import (
    POOL_LABEL,
    Document,
    child_metadata,
    container,
    metadata,
    owner_reference,
    pod_annotations,
    pod_template,
    resources,
    root_metadata,
    scheduling_labels,
)
from watchbill.demo.owners_plain import (
    deployment_document,
    replica_set_pod_labels,
    replica_sets,
    stateful_set_document,
    stateful_set_pod_labels,
)
from watchbill.demo.parts import Parts, condition, moment, reference, some, tally
from watchbill.demo.resources import (
    DEPLOYMENTS,
    INGRESSES,
    KNATIVE_CONFIGURATIONS,
    KNATIVE_REVISIONS,
    KNATIVE_SERVICES,
    LEADER_WORKER_SETS,
    NIM_SERVICES,
    PODS,
    REPLICA_SETS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

_LWS = "leaderworkerset.sigs.k8s.io"
_KNATIVE = "serving.knative.dev"


def leader_worker_set_parts(workload: Workload) -> Parts:
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
    owners: list[tuple[Resource, Document]] = [(LEADER_WORKER_SETS, document)]
    references = {"": root}
    if "leaders" in workload.children:
        labels = {f"{_LWS}/name": workload.name, f"{_LWS}/worker-index": "0"}
        leaders = stateful_set_document(
            workload,
            child_metadata(workload, "leaders", workload.name, labels, root),
            role="leader",
            pods=[pod for pod in workload.pods if pod.role == "leader"],
            replicas=groups,
            labels=labels,
        )
        owners.append((STATEFUL_SETS, leaders))
        references["leaders"] = reference(STATEFUL_SETS, leaders["metadata"])
    for leader in [pod for pod in workload.pods if pod.role == "leader" and not pod.deleted_at]:
        found = _group(workload, leader, workers)
        if found is not None:
            owners.append((STATEFUL_SETS, found))
            references[f"group-{leader.index}"] = reference(STATEFUL_SETS, found["metadata"])

    def labels_of(pod: Pod) -> dict[str, str]:
        group = pod.index if pod.role == "leader" else int(pod.owner[6:])
        ordinal = 0 if pod.role == "leader" else pod.index
        name = workload.name if pod.role == "leader" else f"{workload.name}-{group}"
        return {
            f"{_LWS}/name": workload.name,
            f"{_LWS}/group-index": str(group),
            f"{_LWS}/worker-index": str(ordinal),
            **stateful_set_pod_labels(pod, name, group if pod.role == "leader" else ordinal),
        }

    return Parts(owners=owners, references=references, labels=labels_of)


def _group(workload: Workload, leader: Pod, workers: int) -> Document | None:
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


def _group_status(workload: Workload, groups: int, size: int) -> Document:
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


def knative_parts(workload: Workload) -> Parts:
    """Pod → ReplicaSet → Deployment → Revision → Configuration → Service."""
    head = root_metadata(workload)
    root = reference(KNATIVE_SERVICES, head)
    shape = workload.shape("main")
    template = {
        "metadata": {
            "labels": scheduling_labels(workload),
            "annotations": pod_annotations(workload, shape)
            | {
                "autoscaling.knative.dev/min-scale": "0",
                "autoscaling.knative.dev/max-scale": "4",
            },
        },
        "spec": {
            "containerConcurrency": 0,
            "timeoutSeconds": 300,
            "containers": [container(workload, shape, workload.revision)],
        },
    }
    name = revision_name(workload, workload.revision)
    document: Document = {
        "metadata": head,
        "spec": {"template": template, "traffic": [{"latestRevision": True, "percent": 100}]},
    }
    owners: list[tuple[Resource, Document]] = [(KNATIVE_SERVICES, document)]
    references = {"": root}
    labels = {
        f"{_KNATIVE}/service": workload.name,
        f"{_KNATIVE}/configuration": workload.name,
        f"{_KNATIVE}/revision": name,
    }
    if workload.children:
        document["status"] = _knative_status(workload, name)
        configuration: Document = {
            "metadata": child_metadata(
                workload,
                "configuration",
                workload.name,
                {f"{_KNATIVE}/service": workload.name},
                root,
            ),
            "spec": {"template": template},
            "status": {"latestCreatedRevisionName": name, "observedGeneration": 0},
        }
        middle = reference(KNATIVE_CONFIGURATIONS, configuration["metadata"])
        revision: Document = {
            "metadata": child_metadata(workload, "revision", name, labels, middle),
            "spec": template["spec"],
            "status": _revision_status(workload),
        }
        above = reference(KNATIVE_REVISIONS, revision["metadata"])
        deployment = deployment_document(
            workload,
            child_metadata(
                workload, "deployment", deployment_name(workload, workload.revision), labels, above
            ),
            workload.revision,
            replicas=_wanted(workload),
            labels=labels,
        )
        owners += [
            (KNATIVE_CONFIGURATIONS, configuration),
            (KNATIVE_REVISIONS, revision),
            (DEPLOYMENTS, deployment),
        ]
        parent = reference(DEPLOYMENTS, deployment["metadata"])
        for key, found in replica_sets(workload, parent, labels, revision=workload.revision):
            owners.append((REPLICA_SETS, found))
            references[key] = reference(REPLICA_SETS, found["metadata"])
    return Parts(
        owners=owners,
        references=references,
        labels=lambda pod: replica_set_pod_labels(workload, labels, pod),
    )


def _wanted(workload: Workload) -> int:
    return 0 if workload.stage in ("idle", "sleeping") else workload.replicas("main")


def _knative_status(workload: Workload, revision: str) -> Document:
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


def _revision_status(workload: Workload) -> Document:
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


def nim_service_parts(workload: Workload) -> Parts:
    """Pod → ReplicaSet → Deployment → NIMService."""
    head = root_metadata(workload)
    root = reference(NIM_SERVICES, head)
    shape = workload.shape("main")
    replicas = 0 if workload.is_suspended else workload.replicas("main")
    repository, _, tag = container(workload, shape, workload.revision)["image"].rpartition(":")
    pool = workload.pool if workload.pool in POOLS_BY_NAME else "cpu"
    document: Document = {
        "metadata": head,
        "spec": {
            "image": {
                "repository": repository or IMAGES["nim"],
                "tag": tag,
                "pullPolicy": "IfNotPresent",
                "pullSecrets": ["registry"],
            },
            "authSecret": "model-hub",
            "replicas": replicas,
            "schedulerName": workload.scheduler,
            "nodeSelector": {POOL_LABEL: pool},
            "annotations": pod_annotations(workload, shape),
            "resources": resources(shape),
            "storage": {"pvc": {"create": False, "name": "model-store"}},
            "expose": {"service": {"port": 8000, "type": "ClusterIP"}},
        },
    }
    labels = {
        "app": workload.name,
        "app.kubernetes.io/name": workload.name,
        "app.kubernetes.io/part-of": "nim-service",
        "app.kubernetes.io/managed-by": "k8s-nim-operator",
    }
    owners: list[tuple[Resource, Document]] = [(NIM_SERVICES, document)]
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


def _nim_status(workload: Workload, replicas: int) -> Document:
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


_FRONTS = {
    "Deployment": "app",
    "StatefulSet": "app",
    "LeaderWorkerSet": f"{_LWS}/name",
    "NIMService": "app",
}


def fronts(workload: Workload, root: Document) -> list[tuple[Resource, Document]]:
    """Service and, where exposed so, Ingress in front of a served workload."""
    if workload.kind == "RayCluster":
        selector = {"ray.io/cluster": workload.name, "ray.io/node-type": "head"}
        ports = [("dashboard", 8265), ("client", 10001), ("metrics", 8080)]
        return [_service(workload, root, f"{workload.name}-head-svc", selector, ports)]
    label = _FRONTS.get(workload.kind)
    if label is None:
        return []
    port = ("http", 8000 if workload.family == "serving" else 80)
    service = _service(workload, root, workload.name, {label: workload.name}, [port])
    if workload.exposure != "ingress":
        return [service]
    return [service, (INGRESSES, _ingress(workload, root, port[1]))]


def _service(
    workload: Workload,
    root: Document,
    name: str,
    selector: dict[str, str],
    ports: list[tuple[str, int]],
) -> tuple[Resource, Document]:
    is_balanced = workload.exposure == "balancer"
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
                for label, port in ports
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


def _ingress(workload: Workload, root: Document, port: int) -> Document:
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


POD_REFERENCE = (PODS.api_version, PODS.kind)

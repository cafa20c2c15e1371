"""The five owners above a serverless pod: ReplicaSet, Deployment, Revision, Configuration, Service."""

from watchbill.demo.anatomy import deployment_name, revision_name
from watchbill.demo.model import Workload
from watchbill.demo.objects import (
    Document,
    child_metadata,
    container,
    pod_annotations,
    root_metadata,
    scheduling_labels,
)
from watchbill.demo.owners_replicas import deployment_document, replica_set_pod_labels, replica_sets
from watchbill.demo.parts import Parts, condition, moment, reference, tally
from watchbill.demo.resources import (
    DEPLOYMENTS,
    KNATIVE_CONFIGURATIONS,
    KNATIVE_REVISIONS,
    KNATIVE_SERVICES,
    REPLICA_SETS,
    Resource,
)

_KNATIVE = "serving.knative.dev"


def knative_parts(workload: Workload) -> Parts:
    """Pod → ReplicaSet → Deployment → Revision → Configuration → Service."""
    head = root_metadata(workload)
    root = reference(KNATIVE_SERVICES, head)
    template = _template(workload)
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


def _template(workload: Workload) -> Document:
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
    workload: Workload, root: Document, template: Document, labels: dict[str, str]
) -> list[tuple[Resource, Document]]:
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

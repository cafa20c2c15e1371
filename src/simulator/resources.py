"""Which kinds a simulated cluster serves, as data. It knows neither objects nor HTTP."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceType:
    """One served kind; `also_served` are older versions under which the same objects can be read."""

    group: str
    version: str
    kind: str
    plural: str
    is_namespaced: bool = True
    is_custom: bool = False
    has_generation: bool = True
    is_cached: bool = True
    """False for kinds whose watches bypass the watch cache (events): no bookmarks there."""
    short_names: tuple[str, ...] = ()
    also_served: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return self.api_version_of(self.version)

    @property
    def full_name(self) -> str:
        """`pods`, `deployments.apps`: how messages name a kind."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def versions(self) -> tuple[str, ...]:
        return (self.version, *self.also_served)

    def api_version_of(self, version: str) -> str:
        return f"{self.group}/{version}" if self.group else version


def _built_in(
    group: str,
    version: str,
    kind: str,
    plural: str,
    *short_names: str,
    is_namespaced: bool = True,
    has_generation: bool = False,
    is_cached: bool = True,
) -> ResourceType:
    return ResourceType(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        is_namespaced=is_namespaced,
        has_generation=has_generation,
        is_cached=is_cached,
        short_names=short_names,
    )


def custom(
    group: str, version: str, kind: str, plural: str, *short_names: str, is_namespaced: bool = True
) -> ResourceType:
    return ResourceType(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        is_namespaced=is_namespaced,
        is_custom=True,
        short_names=short_names,
    )


PODS = _built_in("", "v1", "Pod", "pods", "po", has_generation=True)
NODES = _built_in("", "v1", "Node", "nodes", "no", is_namespaced=False)
NAMESPACES = _built_in("", "v1", "Namespace", "namespaces", "ns", is_namespaced=False)
SERVICES = _built_in("", "v1", "Service", "services", "svc")
EVENTS = _built_in("", "v1", "Event", "events", "ev", is_cached=False)
DEPLOYMENTS = _built_in("apps", "v1", "Deployment", "deployments", "deploy", has_generation=True)
REPLICA_SETS = _built_in("apps", "v1", "ReplicaSet", "replicasets", "rs", has_generation=True)
STATEFUL_SETS = _built_in("apps", "v1", "StatefulSet", "statefulsets", "sts", has_generation=True)
DAEMON_SETS = _built_in("apps", "v1", "DaemonSet", "daemonsets", "ds", has_generation=True)
JOBS = _built_in("batch", "v1", "Job", "jobs", has_generation=True)
CRON_JOBS = _built_in("batch", "v1", "CronJob", "cronjobs", "cj", has_generation=True)
INGRESSES = _built_in("networking.k8s.io", "v1", "Ingress", "ingresses", "ing", has_generation=True)
PRIORITY_CLASSES = _built_in(
    "scheduling.k8s.io",
    "v1",
    "PriorityClass",
    "priorityclasses",
    "pc",
    is_namespaced=False,
    has_generation=True,
)
CUSTOM_RESOURCE_DEFINITIONS = _built_in(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    "crd",
    is_namespaced=False,
    has_generation=True,
)

BUILT_IN = (
    PODS,
    NODES,
    NAMESPACES,
    SERVICES,
    EVENTS,
    _built_in("", "v1", "ConfigMap", "configmaps", "cm"),
    _built_in("", "v1", "Secret", "secrets"),
    _built_in("", "v1", "ServiceAccount", "serviceaccounts", "sa"),
    _built_in("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc"),
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    DAEMON_SETS,
    JOBS,
    CRON_JOBS,
    INGRESSES,
    PRIORITY_CLASSES,
    _built_in(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "hpa",
        has_generation=True,
    ),
    _built_in("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", has_generation=True),
    CUSTOM_RESOURCE_DEFINITIONS,
)

QUEUES = custom("scheduling.run.ai", "v2", "Queue", "queues", is_namespaced=False)
POD_GROUPS = custom("scheduling.run.ai", "v2alpha2", "PodGroup", "podgroups", "pg")
TOPOLOGIES = custom("kai.scheduler", "v1alpha1", "Topology", "topologies", is_namespaced=False)
PYTORCH_JOBS = custom("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs")
RAY_CLUSTERS = custom("ray.io", "v1", "RayCluster", "rayclusters")
JOB_SETS = custom("jobset.x-k8s.io", "v1alpha2", "JobSet", "jobsets")
LEADER_WORKER_SETS = custom(
    "leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets", "lws"
)
KNATIVE_SERVICES = custom("serving.knative.dev", "v1", "Service", "services", "ksvc")
KNATIVE_CONFIGURATIONS = custom("serving.knative.dev", "v1", "Configuration", "configurations")
KNATIVE_REVISIONS = custom("serving.knative.dev", "v1", "Revision", "revisions", "rev")
NIM_SERVICES = custom("apps.nvidia.com", "v1alpha1", "NIMService", "nimservices")
QUEUE_ORDERS = ResourceType(
    group="visibility.kueue.x-k8s.io",
    version="v1beta2",
    kind="ClusterQueue",
    plural="clusterqueues",
    is_namespaced=False,
    also_served=("v1beta1",),
)
"""What Kueue's own API server serves; `pendingWorkloadsSummary` holds what waits. No mixture has it."""
TUNING_STUDIES = custom("research.example.com", "v1alpha1", "TuningStudy", "tuningstudies")
"""A kind that no catalogue knows: its workloads have to be understood from their pods."""

CUSTOM = (
    QUEUES,
    POD_GROUPS,
    TOPOLOGIES,
    PYTORCH_JOBS,
    RAY_CLUSTERS,
    JOB_SETS,
    LEADER_WORKER_SETS,
    KNATIVE_SERVICES,
    KNATIVE_CONFIGURATIONS,
    KNATIVE_REVISIONS,
    NIM_SERVICES,
    TUNING_STUDIES,
)

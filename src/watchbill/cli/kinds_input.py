"""Objects on standard input, for `kinds try`: what belongs to the workload, as an agent would gather it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from watchbill.cli.connection.errors import print_message
from watchbill.errors import Invalid

if TYPE_CHECKING:
    from watchbill.kinds.definition.definition import Definition, Definitions
    from watchbill.kinds.objects.objects import WorkloadObjects
    from watchbill.kinds.objects.pod import PlainGroup

JSON = dict[str, Any]
_OWNED = frozenset({"pods", "children", "queue_workloads"})
_PLACES = {
    "Pod": "pods",
    "Service": "services",
    "Ingress": "services",
    "HTTPRoute": "services",
    "GRPCRoute": "services",
    "Route": "services",
    "VirtualService": "services",
    "InferencePool": "services",
    "ResourceClaim": "claims",
    "PodGroup": "pod_groups",
    "Workload": "queue_workloads",
    "Event": "scheduling_events",
    "HorizontalPodAutoscaler": "autoscalers",
    "ScaledObject": "autoscalers",
}
"""Where an object of a kind stands among those of a workload; any other is a child."""
_SHARED = {
    "Queue.scheduling.run.ai": "queues",
    "Queue.scheduling.volcano.sh": "volcano_queues",
    "SchedulingShard.kai.scheduler": "shards",
    "Topology.kai.scheduler": "topologies",
    "LocalQueue.kueue.x-k8s.io": "local_queues",
    "ClusterQueue.kueue.x-k8s.io": "cluster_queues",
    "ResourceClaimTemplate.resource.k8s.io": "claim_templates",
    "DeviceClass.resource.k8s.io": "device_classes",
    "ResourceSlice.resource.k8s.io": "device_profiles",
    "PriorityClass.scheduling.k8s.io": "priority_classes",
    "Gateway.gateway.networking.k8s.io": "gateways",
    "Gateway.networking.istio.io": "istio_gateways",
    "ReferenceGrant.gateway.networking.k8s.io": "reference_grants",
    "Namespace": "namespaces",
    "Node": "node_labels",
}
"""What all workloads of a cluster share, by `Kind.group`."""
_IN_NAMESPACES = frozenset({"local_queues", "claim_templates", "gateways", "istio_gateways"})


def read_documents(text: str, source: str = "stdin") -> Iterator[JSON]:
    """The objects of a stream of YAML or JSON documents, lists taken apart. Raises Invalid."""
    import yaml

    try:
        documents = list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except yaml.YAMLError as error:
        raise Invalid(f"{source} is neither YAML nor JSON: {error}") from error
    for document in documents:
        is_object = isinstance(document, dict)
        items = document.get("items") if is_object else None
        for item in items if isinstance(items, list) else [document]:
            if isinstance(item, dict):
                yield _with_texts(item)


def _with_texts(value: Any) -> Any:
    """YAML reads instants as such; Kubernetes objects hold them as text."""
    if isinstance(value, dict):
        return {str(key): _with_texts(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_texts(item) for item in value]
    if hasattr(value, "isoformat"):
        text: str = value.isoformat()
        return text.replace("+00:00", "Z")
    return value


def collect_objects(documents: list[JSON], definition: "Definition") -> "WorkloadObjects":
    """The first object of the definition's kind, and what belongs to it: what it owns, down to its pods.

    What is left out is noted on standard error. Raises Invalid where none is of the definition's kind.
    """
    root = next((document for document in documents if _is_of(document, definition)), None)
    if root is not None and _plain_group(root) is not None:
        root = _oldest_of_group(root, documents)
    if root is None:
        raise Invalid(
            f"stdin holds no {definition.key.kind} of the API group "
            f"'{definition.key.group or 'core'}'.",
            details="pipe the object itself into this command, and its pods after it",
        )
    return _belonging_to(root, documents)


def collect_topmost(documents: list[JSON], definitions: "Definitions") -> "WorkloadObjects":
    """The object above all others, as an agent sees it: without a definition, its metadata alone.

    The first object without a definition leads to it, else the first that may be a workload. Raises Invalid
    where there is none.
    """
    from watchbill.kinds.objects.objects import GroupKind

    def is_known(document: JSON) -> bool:
        group, kind = _full_kind(document).partition(".")[2], str(document.get("kind"))
        return definitions.for_kind(GroupKind(group, kind)) is not None

    candidates = [
        document
        for document in documents
        if _place(document) == "children" and _full_kind(document) not in _SHARED
    ]
    # A pod that nothing owns is a workload itself.
    candidates = candidates or [document for document in documents if _is_plain_pod(document)]
    if not candidates:
        raise Invalid(
            "stdin holds no object that may be a workload.",
            details="pipe the object above the pods into this command, and its pods after it",
        )
    for document in documents:
        _complete(document)
    known = {document["metadata"]["uid"]: document for document in documents}
    root = _topmost(
        next((candidate for candidate in candidates if not is_known(candidate)), candidates[0]),
        known,
    )
    if _plain_group(root) is not None:
        root = _oldest_of_group(root, documents)
    if is_known(root):
        print_message("note", f"{root.get('kind')} has a definition, which is used")
    for document in candidates:
        if not is_known(document):
            for member in document.keys() - {"apiVersion", "kind", "metadata"}:
                del document[member]
    return _belonging_to(root, documents)


def _is_plain_pod(document: JSON) -> bool:
    return document.get("kind") == "Pod" and not (document.get("metadata") or {}).get(
        "ownerReferences"
    )


def _topmost(document: JSON, known: dict[str, JSON]) -> JSON:
    for _ in range(16):
        owner = _owner(document)
        above = known.get(owner["uid"]) if owner is not None else None
        if above is None:
            break
        document = above
    return document


def _belonging_to(root: JSON, documents: list[JSON]) -> "WorkloadObjects":
    from watchbill.kinds.objects.objects import ClusterObjects, WorkloadObjects
    from watchbill.kinds.objects.pod import read_pod

    for document in documents:
        _complete(document)
    known = {document["metadata"]["uid"]: document for document in documents}
    places: dict[str, Any] = {name: [] for name in {*_PLACES.values(), "children"}}
    shared: dict[str, Any] = {name: {} for name in _SHARED.values()}
    left_out = []
    for document in documents:
        place = _place(document)
        if _full_kind(document) in _SHARED:
            _share(document, shared)
        elif document is root:
            places["pods"] += [document] if document.get("kind") == "Pod" else []
        elif place not in _OWNED or _leads_to(document, root, known):
            places[place].append(document)
        else:
            left_out.append(document)
    for document in left_out:
        print_message("note", f"{_title(document)} is left out: {_why(document, known)}")
    places["pods"] = [read_pod(pod) for pod in places["pods"]]
    _apply_device_slices(shared)
    return WorkloadObjects(
        root=root,
        is_chain_truncated=False,
        is_root_listed=True,
        cluster=ClusterObjects(**shared),
        **places,
    )


def _full_kind(document: JSON) -> str:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    return f"{document.get('kind')}.{group}".rstrip(".")


def _share(document: JSON, shared: dict[str, Any]) -> None:
    place, meta = _SHARED[_full_kind(document)], document["metadata"]
    if place == "reference_grants":
        shared[place].setdefault(meta["namespace"], {})[meta["name"]] = document
        return
    key = (meta["namespace"], meta["name"]) if place in _IN_NAMESPACES else meta["name"]
    shared[place][key] = _node_labels(meta) if place == "node_labels" else document


def _apply_device_slices(shared: dict[str, Any]) -> None:
    """What the slices say of their nodes, and of devices whose names do not tell what they are."""
    from watchbill.kinds.objects.device_slices import SlicePools, device_labels, read_slice

    pools = SlicePools()
    for name, document in shared["device_profiles"].items():
        pools.put(name, read_slice(document))
    shared["device_profiles"] = {key: pools.unnamed_profiles(key) for key in pools.keys}
    for node, labels in shared["node_labels"].items():
        shared["node_labels"][node] = device_labels(labels, pools.node_devices(node))


def _node_labels(meta: JSON) -> Mapping[str, str]:
    from watchbill.kinds.objects.virtual_gpus import registered_labels

    return registered_labels(meta.get("labels") or {}, meta.get("annotations") or {})


def _owner(document: JSON) -> JSON | None:
    """The owner that counts: the controller, else the first."""
    owners = document["metadata"].get("ownerReferences") or []
    return next(
        (reference for reference in owners if reference.get("controller")),
        owners[0] if owners else None,
    )


def _plain_group(document: JSON) -> "PlainGroup | None":
    from watchbill.kinds.objects.pod import plain_group, read_pod

    if document.get("kind") != "Pod":
        return None
    _complete(document)
    return plain_group(read_pod(document))


def _oldest_of_group(pod: JSON, documents: list[JSON]) -> JSON:
    return min(
        (document for document in documents if _plain_group(document) == _plain_group(pod)),
        key=_age,
    )


def _age(document: JSON) -> tuple[str, str]:
    return document["metadata"]["creationTimestamp"], document["metadata"]["name"]


def _leads_to(document: JSON, root: JSON, known: dict[str, JSON]) -> bool:
    """An owner counts in its own namespace alone; pods of one group without owners belong together."""
    group = _plain_group(document)
    if group is not None and group == _plain_group(root):
        return True
    namespace = root["metadata"]["namespace"]
    current: JSON | None = document
    for _ in range(16):
        is_near = current is not None and current["metadata"]["namespace"] == namespace
        owner = _owner(current) if current is not None and is_near else None
        if owner is None:
            return False
        if owner["uid"] == root["metadata"]["uid"]:
            return True
        current = known.get(owner["uid"])
    return False


def _why(document: JSON, known: dict[str, JSON]) -> str:
    current: JSON = document
    for _ in range(16):
        owner = _owner(current)
        if owner is None:
            return "nothing owns it" if current is document else f"it belongs to {_title(current)}"
        above = known.get(owner["uid"])
        if above is None:
            return f"{owner.get('kind')}/{owner.get('name')} owns it and is not given"
        current = above
    return "its owners own one another"


def _title(document: JSON) -> str:
    return f"{document.get('kind')}/{document['metadata']['name']}"


def _complete(document: JSON) -> None:
    """Fill what the API server gives to an object, so that a manifest nobody applied yet can be tried too."""
    meta = document.setdefault("metadata", {})
    if not isinstance(meta, dict):
        raise Invalid(f"the metadata of a {document.get('kind')} is not a mapping")
    namespace = meta.setdefault("namespace", "default")
    meta.setdefault("name", meta.get("generateName", "unnamed"))
    meta.setdefault("uid", _uid(document.get("kind"), namespace, meta["name"]))
    meta.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    for owner in meta.get("ownerReferences") or []:
        owner.setdefault("uid", _uid(owner.get("kind"), namespace, owner.get("name")))
        owner.setdefault("controller", True)


def _uid(*parts: object) -> str:
    return str(uuid5(NAMESPACE_URL, "/".join(map(str, parts))))


def _place(document: JSON) -> str:
    """Knative has a Service of its own, which is no way in but what makes the pods."""
    if str(document.get("apiVersion")).startswith("serving.knative.dev/"):
        return "children"
    return _PLACES.get(str(document.get("kind")), "children")


def _is_of(document: JSON, definition: "Definition") -> bool:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    return (group, document.get("kind")) == (definition.key.group, definition.key.kind)

"""The Kubernetes objects that an agent needs in its cluster, with permissions for the kinds that it watches."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from string import Template
from urllib.parse import urlsplit

import yaml

from watchbill.agent.cache.watched_kinds import watched_kinds
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.objects.objects import GroupKind

OWNERS_ABOVE = (
    GroupKind("batch.volcano.sh", "CronJob"),
    GroupKind("controller.devfile.io", "DevWorkspaceRouting"),
    GroupKind("kubevirt.io", "VirtualMachineInstanceReplicaSet"),
    GroupKind("nvidia.com", "DynamoGraphDeploymentRequest"),
    GroupKind("serving.kserve.io", "InferenceGraph"),
)
"""Owners of workloads that have no definition of their own; they are looked up by name."""
ALLOWED_PORTS = frozenset({53, 443, 6443})
"""Of the network policy, whatever the server's address is."""
SERVER_PORT = 8600
"""Of a server's pod: behind a Service of the cluster a network policy sees the port of the pod."""
NAME = "watchbill-agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDeployment:
    """What differs from cluster to cluster. `credential` None = a base without namespace and Secret;
    `ca`: PEM of the authorities to trust for the server; `kinds`: further definitions by file name."""

    server_url: str
    image: str
    namespace: str = "watchbill"
    credential: str | None = None
    ca: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)


def agent_manifest(deployment: AgentDeployment, definitions: Definitions) -> str:
    """YAML documents for `kubectl apply -f -`; those of the credential come first."""
    template = Template((files("watchbill.agent") / "manifest.yaml").read_text(encoding="utf-8"))
    body = template.substitute(
        namespace=deployment.namespace,
        image=json.dumps(deployment.image) if ":" in deployment.image else deployment.image,
        arguments=json.dumps(list(_arguments(deployment))),
        rules="".join((*_rule_lines(permitted_resources(definitions)), QUEUE_ORDER)),
        mounts=_KINDS_MOUNT if deployment.kinds else "",
        volumes=_KINDS_VOLUME if deployment.kinds else "",
        server_port="".join(
            f"        - {{protocol: TCP, port: {port}}}\n"
            for port in sorted(_server_ports(deployment.server_url) - ALLOWED_PORTS)
        ),
    )
    return "---\n".join([*_before(deployment), body])


def permitted_resources(definitions: Definitions) -> dict[str, list[str]]:
    """API group → resources that the agent reads: the kinds that it watches, and owners above them."""
    resources = defaultdict(set)
    for key in (*(kind.key for kind in watched_kinds(definitions)), *OWNERS_ABOVE):
        resources[key.group].add(resource_name(key.kind))
    return {group: sorted(resources[group]) for group in sorted(resources)}


QUEUE_ORDER = """\
  - apiGroups: [visibility.kueue.x-k8s.io] # the order of Kueue's queues; else places are estimates
    resources: [clusterqueues/pendingworkloads]
    verbs: [get]
"""
"""Of the role: what is asked of one queue at a time."""


def resource_name(kind: str) -> str:
    """The plural in lower case, as Kubernetes and its operators form it."""
    word = kind.lower()
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "sh", "ch", "x")) else f"{word}s"


def _rule_lines(resources: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for group, names in resources.items():
        yield f"  - apiGroups: [{group or json.dumps(group)}]\n"
        yield f"    resources: [{', '.join(names)}]\n"
        yield "    verbs: [get, list, watch]\n"


def _server_ports(url: str) -> set[int]:
    parts = urlsplit(url)
    ports = {parts.port or (80 if parts.scheme == "http" else 443)}
    host = (parts.hostname or "").removesuffix(".").removesuffix(".cluster.local")
    is_service = host.endswith(".svc") or ("." not in host and ":" not in host)
    return ports | {SERVER_PORT} if is_service else ports


def _arguments(deployment: AgentDeployment) -> Iterator[str]:
    yield from ("agent", "--server", deployment.server_url)
    yield from ("--credential", "/credential/credential")
    if deployment.ca is not None:
        yield from ("--ca-file", "/credential/ca.crt")
    if deployment.kinds:
        yield from ("--kinds", "/kinds")


def _before(deployment: AgentDeployment) -> Iterator[str]:
    """What a base leaves to whoever uses it."""
    if deployment.credential is None:
        return
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    secret = {"credential": deployment.credential} | (
        {"ca.crt": deployment.ca} if deployment.ca is not None else {}
    )
    yield _object(
        {"kind": "Namespace", "metadata": {"name": deployment.namespace, "labels": labels}}
    )
    metadata = {"name": NAME, "namespace": deployment.namespace}
    yield _object({"kind": "Secret", "metadata": metadata, "stringData": secret})
    if deployment.kinds:
        metadata = {"name": f"{NAME}-kinds", "namespace": deployment.namespace}
        yield _object({"kind": "ConfigMap", "metadata": metadata, "data": dict(deployment.kinds)})


def _object(members: Mapping[str, object]) -> str:
    return yaml.safe_dump({"apiVersion": "v1", **members}, sort_keys=False)


_KINDS_MOUNT = "            - {name: kinds, mountPath: /kinds, readOnly: true}\n"
_KINDS_VOLUME = f"        - name: kinds\n          configMap: {{name: {NAME}-kinds}}\n"

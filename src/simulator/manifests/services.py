"""What stands in front of served workloads: Services, and an Ingress where it is exposed so."""

from simulator.apiserver.resources import INGRESSES, SERVICES, ResourceType
from simulator.manifests.objects import Document, metadata
from simulator.model.model import SimulatedWorkload
from simulator.model.slot import child_uid

_FRONTS = {
    "Deployment": "app",
    "StatefulSet": "app",
    "LeaderWorkerSet": "leaderworkerset.sigs.k8s.io/name",
    "NIMService": "app",
}


def services_of(workload: SimulatedWorkload, root: Document) -> list[tuple[ResourceType, Document]]:
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
    workload: SimulatedWorkload,
    root: Document,
    name: str,
    selector: dict[str, str],
    ports: list[tuple[str, int]],
) -> tuple[ResourceType, Document]:
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

"""Services in front of served workloads, and an Ingress where one is exposed so."""

from simulator.manifests.objects import Document, metadata
from simulator.model.framework import FRAMEWORKS, FrameworkService
from simulator.model.model import SimulatedWorkload
from simulator.model.slot import child_uid
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

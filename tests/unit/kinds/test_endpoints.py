"""Where a workload answers: services, ingresses, routes of gateways, and its URLs."""

from typing import Any

import pytest

from tests.fixtures.makers import (
    JSON,
    SETTINGS,
    condition,
    definitions,
    deployment,
    gather,
    pod,
    root,
    template,
    uid,
    workload,
)
from tests.fixtures.work import Calls
from watchbill.kinds.derive import derive


def service(name: str = "web", **spec: Any) -> JSON:
    status = spec.pop("status", {})
    owners = spec.pop("owners", [])
    labels = spec.pop("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "vision",
            "ownerReferences": owners,
            "labels": labels,
        },
        "spec": {"selector": {"app": "w"}, "ports": [{"name": "http", "port": 8000}]} | spec,
        "status": status,
    }


SERVED = [pod(1, meta_labels={"app": "w"})]


INNER = ("web.vision.svc.cluster.local", 8000, "http://web.vision.svc.cluster.local:8000")


def endpoints(*services: JSON, pods: list[JSON] = SERVED) -> list[tuple[Any, ...]]:
    result = workload(deployment(1), pods, services=services).endpoints
    return [(endpoint.host, endpoint.port, endpoint.url) for endpoint in result]


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (service(), [INNER]),
        (service(selector={}), []),
        (service(selector={"app": "other"}), []),
        (service(selector=None, owners=[{"uid": uid(1)}]), [INNER]),
        (service(type="ExternalName"), []),
        (service(labels={"networking.internal.knative.dev/serviceType": "Private"}), []),
        (
            service(
                type="LoadBalancer", status={"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
            ),
            [("192.0.2.7", 8000, "http://192.0.2.7:8000"), INNER],
        ),
        (
            service(type="NodePort", ports=[{"name": "http", "port": 8000, "nodePort": 30080}]),
            [(None, 30080, None), INNER],
        ),
        (
            service(ports=[{"port": 5432, "protocol": "TCP"}]),
            [("web.vision.svc.cluster.local", 5432, None)],
        ),
        (
            service(ports=[{"port": 443, "appProtocol": "https"}]),
            [("web.vision.svc.cluster.local", 443, "https://web.vision.svc.cluster.local")],
        ),
    ],
)
def test_endpoints_of_a_service(obj: JSON, expected: list[tuple[Any, ...]]) -> None:
    assert endpoints(obj) == expected


def ingress(backend: JSON, **spec: Any) -> JSON:
    path = {"path": "/chat(/|$)(.*)", "backend": backend}
    rules = [{"host": "chat.example.com", "http": {"paths": [path]}}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "web", "namespace": "vision"},
        "spec": {"rules": rules} | spec,
    }


def test_endpoints_of_an_ingress() -> None:
    result = ingress({"service": {"name": "web"}}, tls=[{"hosts": ["chat.example.com"]}])
    assert endpoints(service(), result) == [
        ("chat.example.com", 443, "https://chat.example.com/chat"),
        INNER,
    ]
    old = ingress({"serviceName": "web"})
    assert endpoints(service(), old)[0] == ("chat.example.com", 80, "http://chat.example.com/chat")
    elsewhere = ingress({"service": {"name": "other"}})
    assert endpoints(service(), elsewhere) == [INNER]


def test_endpoints_of_a_route_that_a_gateway_accepted() -> None:
    route = {
        "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "vision"},
        "spec": {"hostnames": ["m.example.com"], "rules": [{"backendRefs": [{"name": "web"}]}]},
        "status": {"parents": [{"conditions": [condition("Accepted")]}]},
    }
    assert ("m.example.com", None, None) in endpoints(service(), route)
    route["status"] = {}
    assert endpoints(service(), route) == [INNER]


def test_urls_are_the_endpoints_urls_without_their_secrets() -> None:
    root_object = root(
        "serving.knative.dev/v1",
        "Service",
        spec={"template": template()},
        status={
            "url": "https://ada:pw@m.example.com/v1?token=abc",
            "conditions": [condition("Ready")],
        },
    )
    derived_workload = workload(root_object)
    assert derived_workload.urls == ("https://***@m.example.com/v1?token=***",)
    [endpoint] = derived_workload.endpoints
    assert (endpoint.host, endpoint.port, endpoint.tls_enabled) == ("m.example.com", 443, True)


def test_services_and_pods_are_not_compared_pair_by_pair() -> None:
    """Each service's labels are half of the pods' each, and no pod has both."""

    def work(count: int) -> int:
        pods = [
            pod(n, meta_labels={"app": "w", "half" if n % 2 else "other": "x", "own": str(n)})
            for n in range(count)
        ]
        services = [service(f"s{n}", selector={"half": "x", "other": "x"}) for n in range(count)]
        objects = gather(deployment(1), pods, services=services)
        with Calls() as calls:
            endpoints_of_it = derive(objects, definitions(), SETTINGS).record.workload.endpoints
        assert endpoints_of_it == ()
        return calls.count

    few, many = work(50), work(200)
    assert many <= 4.4 * few

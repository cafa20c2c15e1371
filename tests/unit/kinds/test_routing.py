"""Where a workload answers: services, gateways and routes of every kind, and values that are none."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.makers import JSON, condition, deployment, pod, root, template, uid, workload
from tests.unit.kinds.test_endpoints import INNER, SERVED, ingress, service
from watchbill.kinds.derivation import routing
from watchbill.kinds.derivation.route_backends import backend_namespaces
from watchbill.kinds.derivation.routing import HostPatterns, clean_path, covers, valid_host
from watchbill.kinds.objects.objects import ClusterObjects

Endpoints = list[tuple[Any, ...]]


def endpoints(*services: JSON, cluster: ClusterObjects | None = None, **more: Any) -> Endpoints:
    result = workload(
        deployment(1), SERVED, services=services, cluster=cluster or ClusterObjects(), **more
    )
    return [(endpoint.host, endpoint.port, endpoint.url) for endpoint in result.endpoints]


def route(kind: str = "HTTPRoute", *, namespace: str = "vision", **spec: Any) -> JSON:
    parent = {"name": "gate", "namespace": "infra"} | spec.pop("parent", {})
    accepted = condition("Accepted", spec.pop("accepted", "True"))
    rules = [{"backendRefs": [{"name": "web"}], "matches": [{"path": {"value": "/chat"}}]}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": "r", "namespace": namespace},
        "spec": {"hostnames": ["m.example.com"], "parentRefs": [parent], "rules": rules} | spec,
        "status": {"parents": [{"parentRef": parent, "conditions": [accepted]}]},
    }


def gateway(*listeners: JSON, addresses: tuple[str, ...] = ()) -> ClusterObjects:
    result = {
        "spec": {"listeners": list(listeners)},
        "status": {"addresses": [{"value": value} for value in addresses]},
    }
    return ClusterObjects(gateways={("infra", "gate"): result})


HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
HTTPS = {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com"}
ODD = {"name": "odd", "port": 8443, "protocol": "HTTPS"}
TCP = {"name": "tcp", "port": 5432, "protocol": "TCP"}


@pytest.mark.parametrize(
    ("obj", "cluster", "expected"),
    [
        (
            route(),
            gateway(HTTPS, TCP),
            [("m.example.com", 443, "https://m.example.com/chat")],
        ),
        (
            route(),
            gateway(HTTP, ODD),
            [
                ("m.example.com", 80, "http://m.example.com/chat"),
                ("m.example.com", 8443, "https://m.example.com:8443/chat"),
            ],
        ),
        (
            route(parent={"sectionName": "odd"}),
            gateway(HTTP, ODD),
            [("m.example.com", 8443, "https://m.example.com:8443/chat")],
        ),
        (
            route(parent={"port": 80}),
            gateway(HTTP, ODD),
            [("m.example.com", 80, "http://m.example.com/chat")],
        ),
        (route(hostnames=["m.elsewhere.net"]), gateway(HTTPS), []),
        (route(hostnames=[]), gateway(HTTPS), [("*.example.com", 443, None)]),
        (
            route(hostnames=[]),
            gateway(HTTP, addresses=("192.0.2.9",)),
            [("192.0.2.9", 80, "http://192.0.2.9/chat")],
        ),
        (route(accepted="False"), gateway(HTTP), []),
        (route(), ClusterObjects(), [("m.example.com", None, None)]),
        (route("GRPCRoute"), gateway(HTTPS), [("m.example.com", 443, None)]),
    ],
)
def test_routes_of_the_gateway_api(obj: JSON, cluster: ClusterObjects, expected: Endpoints) -> None:
    assert endpoints(service(), obj, cluster=cluster) == [*expected, INNER]


def granted(where: str = "vision", *, to: JSON | None = None, **source: str) -> ClusterObjects:
    """A gateway, and a ReferenceGrant for HTTPRoutes of the namespace infra."""
    source = {
        "group": "gateway.networking.k8s.io",
        "kind": "HTTPRoute",
        "namespace": "infra",
    } | source
    spec = {"from": [source], "to": [{"group": "", "kind": "Service"} | (to or {})]}
    return msgspec.structs.replace(
        gateway(HTTPS), reference_grants={where: {"routes": {"spec": spec}}}
    )


def test_a_route_of_another_namespace_counts_where_the_service_s_namespace_permits_it() -> None:
    rules = [{"backendRefs": [{"name": "web", "namespace": "vision"}]}]
    away = route(namespace="infra", rules=rules)
    assert backend_namespaces(away) == {"vision"}
    for cluster in (granted(), granted(to={"name": "web"})):
        assert endpoints(service(), away, cluster=cluster)[0][2] == "https://m.example.com"
    for cluster in (
        gateway(HTTPS),
        granted("infra"),
        granted(to={"name": "other"}),
        granted(to={"kind": "InferencePool"}),
        granted(kind="GRPCRoute"),
        granted(group=""),
        granted(namespace="other"),
    ):
        assert endpoints(service(), away, cluster=cluster) == [INNER]


def test_a_route_elsewhere_that_names_the_workload_as_its_owner_is_not_its() -> None:
    rules = [{"backendRefs": [{"name": "web", "namespace": "vision"}]}]
    away = route(namespace="infra", rules=rules)
    away["metadata"]["ownerReferences"] = [{"kind": "X", "name": "w", "uid": uid(1)}]
    assert endpoints(service(), away, cluster=gateway(HTTPS)) == [INNER]


def test_a_route_leads_to_services_that_it_names() -> None:
    homonym = route(namespace="infra")
    assert endpoints(service(), homonym, cluster=gateway(HTTPS)) == [INNER]
    other = route(rules=[{"backendRefs": [{"name": "web", "namespace": "speech"}]}])
    assert endpoints(service(), other, cluster=gateway(HTTPS)) == [INNER]


@pytest.mark.parametrize("selector", [{"app": "w"}, {"matchLabels": {"app": "w"}}])
def test_an_inference_pool_is_a_backend(selector: JSON) -> None:
    pool = {
        "kind": "InferencePool",
        "metadata": {"name": "pool", "namespace": "vision"},
        "spec": {"selector": selector},
    }
    rules = [{"backendRefs": [{"kind": "InferencePool", "name": "pool"}]}]
    result = endpoints(pool, route(rules=rules), cluster=gateway(HTTPS))
    assert result == [("m.example.com", 443, "https://m.example.com")]
    rules = [{"backendRefs": [{"name": "pool"}]}]
    assert endpoints(pool, route(rules=rules), cluster=gateway(HTTPS)) == []


def openshift(**more: Any) -> JSON:
    status = more.pop("status", {})
    return {
        "kind": "Route",
        "metadata": {"name": "r", "namespace": "vision"},
        "spec": {"host": "m.apps.example.com", "to": {"kind": "Service", "name": "web"}} | more,
        "status": status,
    }


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        (openshift(), [("m.apps.example.com", 80, "http://m.apps.example.com")]),
        (
            openshift(tls={"termination": "edge"}, path="/v1"),
            [("m.apps.example.com", 443, "https://m.apps.example.com/v1")],
        ),
        (
            openshift(
                status={
                    "ingress": [
                        {"host": "a.example.com", "conditions": [condition("Admitted")]},
                        {"host": "b.example.com", "conditions": [condition("Admitted", "False")]},
                    ]
                }
            ),
            [("a.example.com", 80, "http://a.example.com")],
        ),
        (openshift(to={"name": "other"}), []),
        (
            openshift(to={"name": "other"}, alternateBackends=[{"name": "web"}]),
            [("m.apps.example.com", 80, "http://m.apps.example.com")],
        ),
    ],
)
def test_routes_of_openshift(obj: JSON, expected: Endpoints) -> None:
    assert endpoints(service(), obj) == [*expected, INNER]


def virtual(destination: str = "web", **spec: Any) -> JSON:
    http = [
        {
            "match": [{"uri": {"prefix": "/notebook/vision/web/"}}, {"uri": {"regex": "/x.*"}}],
            "route": [{"destination": {"host": destination}}],
        }
    ]
    return {
        "kind": "VirtualService",
        "metadata": {"name": "v", "namespace": "vision"},
        "spec": {"hosts": ["kf.example.com"], "gateways": ["kubeflow/gw", "mesh"], "http": http}
        | spec,
    }


def istio(**server: Any) -> ClusterObjects:
    result = {"port": {"number": 443, "protocol": "HTTPS"}, "hosts": ["*/kf.example.com"]} | server
    return ClusterObjects(istio_gateways={("kubeflow", "gw"): {"spec": {"servers": [result]}}})


NOTEBOOK = "kf.example.com", 443, "https://kf.example.com/notebook/vision/web/"


@pytest.mark.parametrize(
    ("obj", "cluster", "expected"),
    [
        (virtual(), istio(), [NOTEBOOK]),
        (virtual("web.vision.svc.cluster.local"), istio(), [NOTEBOOK]),
        (virtual("web.speech.svc.cluster.local"), istio(), []),
        (virtual("other"), istio(), []),
        (virtual(hosts=["*"]), istio(), [NOTEBOOK]),
        (virtual(hosts=["*"]), istio(hosts=["*"]), []),
        (virtual(), istio(hosts=["other.example.com"]), []),
        (virtual(gateways=["mesh"]), istio(), []),
        (virtual(), ClusterObjects(), [("kf.example.com", None, None)]),
        (
            virtual(),
            istio(port={"number": 80, "protocol": "HTTP"}, tls={"httpsRedirect": True}),
            [("kf.example.com", 80, "http://kf.example.com/notebook/vision/web/")],
        ),
    ],
)
def test_virtual_services(obj: JSON, cluster: ClusterObjects, expected: Endpoints) -> None:
    assert endpoints(service(), obj, cluster=cluster) == [*expected, INNER]


def test_a_node_port_is_reached_on_a_node_that_holds_a_pod() -> None:
    ports = [{"name": "http", "port": 8000, "nodePort": 30080}]
    cluster = ClusterObjects(node_addresses={"node-0": "192.0.2.1", "node-1": "192.0.2.2"})
    assert endpoints(service(type="NodePort", ports=ports), cluster=cluster) == [
        ("192.0.2.2", 30080, "http://192.0.2.2:30080"),
        INNER,
    ]


def test_external_addresses_of_a_service() -> None:
    assert endpoints(service(externalIPs=["2001:db8::7"])) == [
        ("2001:db8::7", 8000, "http://[2001:db8::7]:8000"),
        INNER,
    ]


def test_an_ingress_s_default_backend_and_wildcard_certificate() -> None:
    result = ingress({"service": {"name": "web"}}, tls=[{"hosts": ["*.example.com"]}])
    result["spec"]["defaultBackend"] = {"service": {"name": "web"}}
    result["status"] = {"loadBalancer": {"ingress": [{"hostname": "lb.example.net"}]}}
    assert endpoints(service(), result) == [
        ("chat.example.com", 443, "https://chat.example.com/chat"),
        ("lb.example.net", 80, "http://lb.example.net"),
        INNER,
    ]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://M.Example.com:443/v1", "https://m.example.com/v1"),
        ("http://m.example.com:8080", "http://m.example.com:8080"),
        ("http://[2001:db8::1]:80/x", "http://[2001:db8::1]/x"),
        ("https://m.example.com/a b\"<i>'", "https://m.example.com/a%20b%22%3Ci%3E'"),
        ("javascript:alert(1)", None),
        ("javascript://m.example.com/%0aalert(1)", None),
        ("data:text/html,<script>alert(1)</script>", None),
        ("file:///etc/passwd", None),
        ("https://", None),
        ("https://m.example.com:99999/", None),
        ("https://[broken", None),
        ("https://m.exa mple.com/", None),
        ('https://m.example.com" onclick="x', None),
        ("//m.example.com", None),
        ("not a url", None),
    ],
)
def test_a_stated_url_is_normalised_or_left_out(url: str, shown: str | None) -> None:
    root_object = root(
        "serving.knative.dev/v1",
        "Service",
        spec={"template": template()},
        status={"url": url, "conditions": [condition("Ready")]},
    )
    assert workload(root_object).urls == ((shown,) if shown else ())


@pytest.mark.parametrize(
    "host",
    ["<script>", "a b", "a\nb", "a/b", "a?b", "a#b", "a@b", "é.example.com", "..", "a..b",
     "x" * 64, "javascript:alert(1)", "a" * 60 + "!" * 200],
)  # fmt: skip
def test_what_is_no_host_is_left_out(host: str) -> None:
    assert valid_host(host) == ""
    result = ingress({"service": {"name": "web"}})
    result["spec"]["rules"][0]["host"] = host
    assert all(
        endpoint[0] == INNER[0] or endpoint[0] is None for endpoint in endpoints(service(), result)
    )


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("/", ""),
        ("", ""),
        ("v1", "/v1"),
        ("/chat(/|$)(.*)", "/chat"),
        ("/a.*", "/a."),
        ('/a" onclick="x', "/a%22%20onclick=%22x"),
        ("/a\r\nX: y", "/a%0D%0AX:%20y"),
        ("/<b>", "/%3Cb%3E"),
        ("/" + "x" * 5_000, "/" + "x" * 1_023),
    ],
)
def test_paths(path: str, clean: str) -> None:
    assert clean_path(path) == clean


@pytest.mark.parametrize(
    ("pattern", "host", "does"),
    [
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "aexample.com", False),
        ("", "any", True),
        ("a.example.com", "a.example.com", True),
        ("a.example.com", "b.example.com", False),
    ],
)
def test_wildcards(pattern: str, host: str, does: bool) -> None:
    assert covers(pattern, host) is does


def test_ports_that_are_none_are_left_out() -> None:
    for port in (0, -1, 65_536, 2**40, "80", True):
        [result] = endpoints(service(ports=[{"port": port}]))
        assert result == (INNER[0], None, None)


def test_objects_of_any_shape_do_no_harm() -> None:
    odd: list[Any] = [None, 1, "x", [], {}, [None], {"a": []}]
    for kind in ("Ingress", "HTTPRoute", "GRPCRoute", "Route", "VirtualService", "InferencePool"):
        for value in odd:
            for part in ("spec", "status", "metadata"):
                shaped = {"kind": kind, "metadata": {}, "spec": {"rules": [{}]}} | {part: value}
                assert endpoints(service(), shaped) == [INNER]
            for member in ("rules", "http", "hosts", "gateways", "tls", "to", "hostnames"):
                shaped = {
                    "kind": kind,
                    "metadata": {"namespace": "vision"},
                    "spec": {member: value},
                }
                assert endpoints(service(), shaped) == [INNER]
                backend_namespaces(shaped)


def test_a_route_that_the_workload_owns_needs_no_backend() -> None:
    owned = openshift(to={"name": "other"})
    owned["metadata"]["ownerReferences"] = [{"uid": uid(1)}]
    assert endpoints(owned) == [("m.apps.example.com", 80, "http://m.apps.example.com")]


def test_a_service_of_another_namespace_is_another_service() -> None:
    away = service()
    away["metadata"]["namespace"] = "speech"
    assert workload(deployment(1), [pod(1, meta_labels={"app": "w"})], services=[away]).urls == ()


@given(
    st.lists(st.from_regex(r"(\*\.|\*)?[ab](\.[ab]){0,3}|\*?", fullmatch=True), max_size=4),
    st.from_regex(r"(\*\.)?[ab](\.[ab]){0,3}|", fullmatch=True),
)
def test_many_patterns_cover_what_one_of_them_does(patterns: list[str], host: str) -> None:
    assert HostPatterns(patterns).cover(host) == any(covers(pattern, host) for pattern in patterns)


def test_what_a_route_multiplies_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts, gateways, listeners and paths of half a megabyte took minutes, though none of them fitted."""
    asked = 0

    def counted(pattern: str, host: str) -> bool:
        nonlocal asked
        asked += 1
        return covers(pattern, host)

    monkeypatch.setattr(routing, "covers", counted)
    many = range(2_000)
    listeners = [
        {"name": f"l{n}", "port": n + 1, "protocol": "HTTP", "hostname": f"*.x{n}.com"}
        for n in many
    ]
    away = route(hostnames=[f"h{n}.example.com" for n in many])
    away["status"] = {
        "parents": [
            {"parentRef": {"name": "gate"}, "conditions": [{"type": "Accepted", "status": "True"}]}
        ]
        * 500
    }
    gateways = {("vision", "gate"): {"spec": {"listeners": listeners}}}
    endpoints(service(), away, cluster=ClusterObjects(gateways=gateways))
    assert 0 < asked <= 4 * routing.MAX_LISTED**2

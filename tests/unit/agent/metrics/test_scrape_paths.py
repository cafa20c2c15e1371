"""Whatever an object says, the agent's credential goes to that object's own page and nowhere else."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st

from watchbill.agent.cache.targets import ScrapeTarget, ScrapeTargets
from watchbill.agent.kubernetes.client import CountBytes, ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure
from watchbill.agent.metrics.exposition import WORKLOADS, ParsedSample
from watchbill.agent.metrics.scrape_pool import (
    ScrapeJob,
    ScrapePool,
    node_proxy_path,
    pod_proxy_path,
    pod_url,
)

HOSTILE_PATHS = (
    "/../../../../other-ns/pods/other-pod/proxy/metrics",
    "/..%2f..%2f../other/proxy/metrics",
    "/%2e%2e/%2e%2e/nodes/n/proxy/metrics",
    "/%252e%252e/metrics",
    "//evil.example.com/metrics",
    "http://evil.example.com/metrics",
    "/metrics/..",
    "/.",
    "/metrics?x=/../..",
    "/metrics#/..",
    "\\..\\..",
    "/metrics;/../..",
    "/./metrics",
    "/a//b",
    "/metrics\r\nHost: evil",
)
TEXT = st.text(max_size=30) | st.sampled_from(
    ["..", ".", "%2e%2e", "a/b", "a:1", "https:pod:443", "a@b", "", "a%2fb", "\ud800"]
)
PATHS = st.sampled_from(HOSTILE_PATHS) | st.lists(
    TEXT | st.sampled_from(["metrics", "v1"]), max_size=6
).map(lambda parts: "/" + "/".join(parts))
PORTS = st.sampled_from(
    ["8000", "0", "65536", "-1", "1e3", "８０", "9" * 5000, "1/..", "80:90", ""]
)


def decoded(path: str) -> str:
    """As the most eager of parsers reads it: decoded until nothing changes."""
    while (further := unquote(path)) != path:
        path = further
    return path


def assert_below(path: str, root: str) -> None:
    assert path == decoded(path), "nothing is left to decode"
    assert path.startswith(root)
    segments = path.split("/")[1:]
    assert all(segments), "no empty segment"
    assert not any(segment.strip(".") == "" for segment in segments), "no dot segment"
    assert path.isascii()
    assert urlsplit(path).path == path, "no host, no query"


def pod(port: object, path: str, **annotations: str) -> dict[str, Any]:
    notes = {"prometheus.io/path": path} | annotations
    return {
        "metadata": {"uid": "u", "name": "pod-1", "namespace": "team", "annotations": notes},
        "spec": {
            "nodeName": "n1",
            "containers": [{"image": "x/vllm:1", "ports": [{"containerPort": port}]}],
        },
        "status": {"podIP": "10.0.0.7", "phase": "Running"},
    }


@given(path=PATHS, port=PORTS, container_port=st.integers() | st.booleans() | st.text())
@example(path=HOSTILE_PATHS[0], port="8000", container_port=8000)
def test_annotations_never_lead_away_from_their_pod(
    path: str, port: str, container_port: object
) -> None:
    targets = ScrapeTargets(frozenset())
    targets.put(pod(container_port, path, **{"prometheus.io/port": port}))
    (target,) = targets.inference.values()
    assert 0 < target.port < 65536
    assert target.paths[-2:] == ("/v1/metrics", "/metrics") or len(target.paths) == 2
    for candidate in target.paths:
        made = pod_proxy_path(target.namespace, target.pod, target.port, candidate)
        assert_below(made, f"/api/v1/namespaces/team/pods/pod-1:{target.port}/proxy/")


@given(namespace=TEXT, name=TEXT, port=st.integers(-2, 70_000), path=PATHS)
def test_a_proxy_path_stays_below_its_pod_or_is_refused(
    namespace: str, name: str, port: int, path: str
) -> None:
    try:
        made = pod_proxy_path(namespace, name, port, path)
    except ApiFailure:
        return
    assert 0 < port < 65536
    assert_below(made, f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/")
    assert made.split("/")[5:9] == ["pods", f"{name}:{port}", "proxy", made.split("/")[8]]


@given(name=TEXT, path=PATHS)
def test_a_node_path_stays_below_its_node_or_is_refused(name: str, path: str) -> None:
    try:
        made = node_proxy_path(name, path)
    except ApiFailure:
        return
    assert_below(made, f"/api/v1/nodes/{name}/proxy/")


@given(namespace=TEXT, name=TEXT)
def test_an_owner_is_looked_up_at_its_own_path_or_nowhere(namespace: str, name: str) -> None:
    try:
        made = ServedResource("batch", "v1", "Job", "jobs").path(namespace=namespace, name=name)
    except ApiFailure:
        return
    root = "/apis/batch/v1/namespaces/" + namespace if namespace else "/apis/batch/v1"
    assert_below(made, f"{root}/jobs")


@pytest.mark.parametrize("path", HOSTILE_PATHS)
@pytest.mark.parametrize(
    "make", [pod_proxy_path, lambda _a, _b, port, p: pod_url("10.0.0.7", port, p)]
)
def test_hostile_paths_are_refused_even_if_they_get_as_far(path: str, make: Any) -> None:
    with pytest.raises(ApiFailure):
        make("team", "pod-1", 8000, path)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "224.0.0.1",
        *("255.255.255.255", "100.100.100.200", "fd00:ec2::254", "fe80::1%eth0"),
        *("::ffff:169.254.169.254", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::a9fe:a9fe"),
        *("2002:7f00:1::", "::ffff:0:127.0.0.1", "2130706433", "127.1"),
        "evil.example.com",
        "10.0.0.7/x",
        "",
    ],
)
def test_an_address_that_no_pod_has_is_not_asked(address: str) -> None:
    with pytest.raises(ApiFailure):
        pod_url(address, 8000, "/metrics")


def test_addresses_of_pods_are_asked() -> None:
    assert str(pod_url("10.0.0.7", 8000, "/v1/metrics")) == "http://10.0.0.7:8000/v1/metrics"
    assert str(pod_url("fd00::7", 9, "/metrics")) == "http://[fd00::7]:9/metrics"
    assert str(pod_url("64:ff9b::a00:7", 9, "/x")) == "http://[64:ff9b::a00:7]:9/x"


def test_a_path_of_ones_own_is_kept() -> None:
    targets = ScrapeTargets(frozenset())
    targets.put(pod(8000, "/custom/v2/metrics"))
    target: ScrapeTarget = targets.inference["u"]
    assert target.paths == ("/custom/v2/metrics", "/v1/metrics", "/metrics")


async def test_of_pages_that_cannot_be_read_one_a_round_is_in_the_log() -> None:
    """Whoever makes pods would fill the log with tracebacks otherwise; all of them count as failed."""

    def read(samples: Sequence[ParsedSample]) -> None:
        raise ZeroDivisionError

    async def page(count: CountBytes) -> bytes:
        return b"# TYPE x gauge\nx 1\n"

    pool = ScrapePool("x", ["x"], read, limits=WORKLOADS, concurrency=4)
    jobs = {f"pod-{number}": ScrapeJob(page, "team") for number in range(20)}
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            results = await pool.scrape(jobs, seconds=60)
            assert len(results.failures) == 20
    assert [entry["event"] for entry in logs] == ["page cannot be read"] * 2

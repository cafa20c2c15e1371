"""What `watchbill agent manifest` prints: for kubectl as it is, and the same that deploy/ has."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import require
from tests.fixtures.command_line import FakeServer, watchbill
from tests.unit.test_deploy import AGENT
from tests.unit.test_deploy_manifests import model_of, unknown_fields

CREDENTIAL = "wba.00000000-0000-0000-0000-0000000000c0.c2VjcmV0"
SERVER = ("--server", "https://watchbill.example.com")


def by_kind(text: str) -> dict[str, dict[str, Any]]:
    """Objects by kind and name; the cluster has one of each."""
    documents = list(yaml.safe_load_all(text))
    return {
        f"{document['kind']}/{document['metadata']['name']}": document for document in documents
    }


async def test_the_base_in_deploy_is_what_is_printed() -> None:
    outcome = await watchbill("agent", "manifest", "--base", *SERVER, "--image", "watchbill")
    assert outcome.out == AGENT.read_text(encoding="utf-8")


async def test_a_cluster_is_registered_and_its_credential_kept(tmp_path: Path) -> None:
    file = tmp_path / "east.credential"
    command = ("agent", "manifest", *SERVER, "--name", "east", "--credential", str(file))
    async with FakeServer().running() as fake:
        first, second = await fake(*command), await fake(*command)
        registered = [request for request in fake.requests if request.method == "POST"]
    assert (first.code, second.code) == (0, 0)
    assert first.out == second.out, "what is kept is taken the next time"
    assert [request.path for request in registered] == ["/api/v2/token", "/api/v1/clusters"]
    assert file.stat().st_mode & 0o777 == 0o600
    objects = by_kind(first.out)
    assert objects["Secret/watchbill-agent"]["stringData"] == {
        "credential": file.read_text().strip()
    }
    [container] = objects["Deployment/watchbill-agent"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][:3] == ["agent", *SERVER]
    labels = objects["Namespace/watchbill"]["metadata"]["labels"]
    assert labels == {"pod-security.kubernetes.io/enforce": "restricted"}


async def test_kubernetes_takes_every_object(tmp_path: Path) -> None:
    """By its types' fields, and by kubectl's own decoder, which asks no API server here."""
    (tmp_path / "credential").write_text(CREDENTIAL)
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "own.yaml").write_text("group: example.com\nkind: Mesh\n")
    outcome = await watchbill(
        *(
            "agent",
            "manifest",
            "--server",
            "https://[2001:db8::1]:8600",
            "--namespace",
            "gpu-fleet",
        ),
        *(
            "--image",
            "registry.example.com:5000/watchbill:1",
            "--ca-file",
            str(tmp_path / "ca.pem"),
        ),
        *("--credential", str(tmp_path / "credential"), "--kinds", str(tmp_path / "kinds")),
    )
    assert outcome.code == 0, outcome.err
    objects = by_kind(outcome.out)
    for document in objects.values():
        assert unknown_fields(document, model_of(document)) == []
        assert document["metadata"].get("namespace", "gpu-fleet") == "gpu-fleet"
    done = subprocess.run(
        [require("kubectl"), "label", "--local", "-f", "-", "-o", "name", "checked=yes"],
        input=outcome.out,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, len(objects)), done.stderr
    rules = objects["ClusterRole/watchbill-agent"]["rules"]
    assert ["meshes"] in [
        rule["resources"] for rule in rules if rule["apiGroups"] == ["example.com"]
    ]
    ports = objects["NetworkPolicy/watchbill-agent"]["spec"]["egress"][1]["ports"]
    assert {port["port"] for port in ports} == {443, 6443, 8600}
    pod = objects["Deployment/watchbill-agent"]["spec"]["template"]["spec"]
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]} == {"credential", "kinds"}
    assert pod["containers"][0]["args"][-4:] == [
        "--ca-file",
        "/credential/ca.crt",
        "--kinds",
        "/kinds",
    ]


@pytest.mark.parametrize(
    ("server", "further"),
    [
        ("https://watchbill.example.com", set()),
        ("http://watchbill.example.com", {80}),
        ("https://watchbill.example.com:8443", {8443}),
        ("http://watchbill-server.watchbill.svc", {80, 8600}),
        ("http://watchbill-server.watchbill.svc.cluster.local:80", {80, 8600}),
        ("http://watchbill-server", {80, 8600}),
        ("http://[2001:db8::1]:8600", {8600}),
    ],
)
async def test_the_policy_lets_the_agent_reach_its_server(server: str, further: set[int]) -> None:
    """Behind a Service the policy sees the port of the pod."""
    outcome = await watchbill("agent", "manifest", "--base", "--server", server)
    egress = by_kind(outcome.out)["NetworkPolicy/watchbill-agent"]["spec"]["egress"]
    assert {port["port"] for rule in egress for port in rule["ports"]} == {53, 443, 6443} | further


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: The cluster is not named."),
        (("--credential", "/nonexistent", *SERVER), "error: There is no file /nonexistent."),
        (("--base",), "error: The server's address is not given."),
        (("--base", "--server", "east"), "error: --server must be the URL of a server"),
        (("--base", *SERVER, "--namespace", "a b"), "error: --namespace must be the name"),
    ],
)
async def test_what_is_missing_is_named(arguments: tuple[str, ...], message: str) -> None:
    outcome = await watchbill("agent", "manifest", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(message)


async def test_nothing_is_registered_for_definitions_that_cannot_be_used(tmp_path: Path) -> None:
    """The credential is shown once: a cluster that is registered and not printed has its name for nothing."""
    (tmp_path / "own.yaml").write_text("group: example.com\n")
    command = ("agent", "manifest", *SERVER, "--name", "east", "--kinds", str(tmp_path))
    async with FakeServer().running() as fake:
        outcome = await fake(*command)
        registered = [request for request in fake.requests if request.path == "/api/v1/clusters"]
    assert (outcome.code, outcome.out, registered) == (2, "", [])
    assert "own.yaml" in outcome.err

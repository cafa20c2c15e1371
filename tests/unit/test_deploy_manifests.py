"""What runs Watchbill elsewhere: rendered by kubectl, and held to the field names of Kubernetes' own types."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_asyncio.client import models

from tests.conftest import require
from watchbill.cli.app import run
from watchbill.settings.table import settings_table
from watchbill.store.postgres.engine import SYSTEM_USER

DEPLOY = Path(__file__).parents[2] / "deploy"
FIXTURES = Path(__file__).parents[1] / "fixtures"
KUSTOMIZATIONS = sorted(path.parent for path in DEPLOY.rglob("kustomization.yaml"))
OPERATOR_KINDS = {"HTTPRoute", "ServiceMonitor"}
"""Kinds of others, whose types Kubernetes' client does not have."""


def rendered(folder: Path) -> list[dict[str, Any]]:
    kubectl = require("kubectl")
    done = subprocess.run(
        [kubectl, "kustomize", folder], check=True, capture_output=True, text=True
    )
    return list(yaml.safe_load_all(done.stdout))


def model_of(document: dict[str, Any]) -> str:
    """`apps/v1` `Deployment` is V1Deployment; only the version is part of the name."""
    version = document["apiVersion"].rpartition("/")[2]
    return f"{version[0].upper()}{version[1:]}{document['kind']}"


def unknown_fields(value: Any, model: str, at: str = "") -> list[str]:
    """Members that the type does not have, each by its path."""
    if match := re.fullmatch(r"list\[(.+)\]", model):
        return [
            name
            for number, item in enumerate(value)
            for name in unknown_fields(item, match[1], f"{at}[{number}]")
        ]
    kind = getattr(models, model, None)
    if kind is None:
        return []  # text, numbers, maps
    types = {kind.attribute_map[name]: type_ for name, type_ in kind.openapi_types.items()}
    result = [f"{at}.{name}" for name in value if name not in types]
    for name in value.keys() & types.keys():
        result += unknown_fields(value[name], types[name], f"{at}.{name}")
    return result


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_every_object_has_only_fields_that_kubernetes_knows(folder: Path) -> None:
    documents = rendered(folder)
    assert documents
    for document in documents:
        if document["kind"] not in OPERATOR_KINDS:
            assert hasattr(models, model_of(document)), model_of(document)
            assert unknown_fields(document, model_of(document)) == []


def test_a_route_of_the_gateway_has_only_members_of_its_published_type() -> None:
    """As KServe publishes it, which embeds the specification of HTTPRoute."""
    (route,) = [
        document
        for document in rendered(DEPLOY / "kubernetes" / "overlays" / "gateway")
        if document["kind"] == "HTTPRoute"
    ]
    published = json.loads((FIXTURES / "published_types.json").read_text(encoding="utf-8"))
    types = published["LLMInferenceService.serving.kserve.io"]["v1alpha2"]["types"]
    type_ = types["spec"]["router"]["route"]["http"]["spec"]
    assert unpublished(route["spec"], type_) == []
    assert unpublished({"rules": [{"timeout": "0s"}]}, type_) == [".rules[].timeout"]


def unpublished(value: Any, type_: Any, at: str = "") -> list[str]:
    """Members that the type does not have, each by its path."""
    if isinstance(value, list):
        return [name for item in value for name in unpublished(item, type_["[]"], f"{at}[]")]
    if not isinstance(value, dict):
        return []
    result = [f"{at}.{name}" for name in value if name not in type_]
    for name in value.keys() & type_.keys():
        result += unpublished(value[name], type_[name], f"{at}.{name}")
    return result


def test_no_probe_ends_a_long_migration_and_no_probe_an_agent_that_measures_nothing() -> None:
    """A migration answers nothing and, ended, begins anew; the agent's port answers whatever it scrapes."""
    pods = {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]["containers"][0]
        for folder in ("server", "agent")
        for document in rendered(DEPLOY / "kubernetes" / folder)
        if document["kind"] == "Deployment"
    }
    startup = pods["watchbill-server"]["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600
    agent = pods["watchbill-agent"]
    assert agent["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
    assert "WATCHBILL_AGENT_METRICS_PORT" in {entry["name"] for entry in agent["env"]}


def test_a_misspelt_field_would_be_found() -> None:
    document = {"spec": {"template": {"spec": {"containers": [{"name": "x", "imagee": "y"}]}}}}
    assert unknown_fields(document, "V1Deployment") == [".spec.template.spec.containers[0].imagee"]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda path: path.name)
def test_selectors_select_and_references_lead_somewhere(folder: Path) -> None:
    """Within what is rendered together: a service or policy that selects nothing is a misprint."""
    documents = rendered(folder)
    pods = [
        document["spec"]["template"] for document in documents if document["kind"] == "Deployment"
    ]
    for document in documents:
        spec = document.get("spec", {})
        selector = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
        }.get(document["kind"])
        if selector is not None:
            wanted = selector(spec).items()
            assert any(wanted <= pod["metadata"]["labels"].items() for pod in pods), document
    for pod in pods:
        for container in pod["spec"]["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


@pytest.mark.parametrize("name", ["server", "agent", "production", "gateway"])
def test_pods_keep_to_the_restricted_standard(name: str) -> None:
    (folder,) = [path for path in KUSTOMIZATIONS if path.name == name]
    for document in rendered(folder):
        if document["kind"] != "Deployment":
            continue
        pod = document["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"].keys() == {"memory"}


def test_manifests_and_units_name_settings_that_exist() -> None:
    known = {row[0] for row in settings_table()}
    for file in (path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".json"):
        for name in re.findall(r"WATCHBILL_[A-Z_]*[A-Z]", file.read_text(encoding="utf-8")):
            assert name in known, f"{file.name}: {name}"


def test_the_servers_unit_runs_as_a_user_that_lasts() -> None:
    """`watchbill backup` works as that user; the folder of a dynamic one is closed to all but root."""
    unit = (DEPLOY / "systemd" / "watchbill-server.service").read_text(encoding="utf-8")
    page = (DEPLOY.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    assert re.findall(r"^(?:DynamicUser|User)=.*", unit, re.MULTILINE) == [f"User={SYSTEM_USER}"]
    created = (
        f"useradd --system --home-dir /var/lib/watchbill --shell /usr/sbin/nologin {SYSTEM_USER}"
    )
    assert created in unit
    assert created in page


def test_the_image_is_built_by_the_book() -> None:
    file = DEPLOY / "image" / "Dockerfile"
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), file],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")
    stages = re.findall(r"^FROM \S+ AS (\S+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert stages[-1] == "server", "the last stage is what a build without --target makes"


def test_compose_builds_stages_that_exist_and_publishes_to_this_machine_alone() -> None:
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    stages = re.findall(r"AS (\S+)$", (DEPLOY / "image" / "Dockerfile").read_text(), re.MULTILINE)
    for service in compose["services"].values():
        assert service.get("build", {}).get("target", "server") in stages
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        named = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert {name for name in named if not name.startswith(".")} <= compose["volumes"].keys()
        assert set(service.get("secrets", ())) <= compose["secrets"].keys()


def test_every_alert_has_an_entry_in_the_runbook_and_none_is_left_over() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
    alerts = {
        rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule
    }
    runbook = (DEPLOY.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE)) == alerts


def test_the_operators_rule_has_the_alerts_as_they_are() -> None:
    page = (DEPLOY.parent / "docs" / "operations.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\$ (.*PrometheusRule.*)$", page, re.MULTILINE)
    done = subprocess.run(
        ["bash", "-c", f"kubectl() {{ cat; }}; {command}"],
        check=True, capture_output=True, text=True, cwd=DEPLOY.parent,
    )  # fmt: skip
    rule = yaml.safe_load(done.stdout)
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == rules


def test_every_command_of_the_runbook_exists() -> None:
    runbook = (DEPLOY.parent / "docs" / "runbook.md").read_text(encoding="utf-8")
    lines = set(re.findall(r"`watchbill ([a-z ]+?)(?: [A-Z-].*?)?`", runbook))
    assert lines >= {"doctor", "idle", "why", "get", "admin cluster create"}
    for line in lines:
        assert run([*line.split(), "--help"]) == 0, line

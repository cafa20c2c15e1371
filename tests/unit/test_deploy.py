"""What the agent's manifests allow: every kind that it wants to watch, and nothing that holds secrets."""

from pathlib import Path
from typing import Any

import yaml

import simulator
from simulator.model.mixture import UNKNOWN
from watchbill.agent.cache.watched_kinds import watched_kinds
from watchbill.agent.manifest import resource_name
from watchbill.kinds.definition.loader import load_definitions

AGENT = Path(__file__).parents[2] / "deploy" / "kubernetes" / "agent" / "agent.yaml"


def documents(kind: str) -> dict[str, dict[str, Any]]:
    documents_ = yaml.safe_load_all(AGENT.read_text(encoding="utf-8"))
    return {
        document["metadata"]["name"]: document
        for document in documents_
        if document["kind"] == kind
    }


def rules(role: str = "watchbill-agent") -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = documents("ClusterRole")[role]["rules"]
    return result


def allowed() -> dict[str, set[str]]:
    collected: dict[str, set[str]] = {}
    for rule in rules():
        for group in rule["apiGroups"]:
            collected.setdefault(group, set()).update(rule["resources"])
    return collected


def test_every_kind_that_is_wanted_may_be_read() -> None:
    may = allowed()
    refused = {
        f"{wanted.key.kind}.{wanted.key.group}"
        for wanted in watched_kinds(load_definitions())
        if resource_name(wanted.key.kind) not in may.get(wanted.key.group, set())
    }
    assert refused == set()


def test_every_kind_that_the_demo_plays_may_be_read() -> None:
    """As real API servers spell them; but for the kind that no catalogue knows, which only its pods reveal."""
    may = allowed()
    played = list((Path(simulator.__file__).parent / "frameworks").rglob("*.yaml"))
    assert len(played) > 20
    for file in played:
        for kind in yaml.safe_load(file.read_text(encoding="utf-8"))["kinds"]:
            if kind["kind"] != UNKNOWN:
                assert kind["plural"] in may[kind["group"]], kind


def test_it_reads_a_closed_list_and_no_secrets() -> None:
    *kinds, order = rules()
    assert order == {
        "apiGroups": ["visibility.kueue.x-k8s.io"],
        "resources": ["clusterqueues/pendingworkloads"],
        "verbs": ["get"],
    }
    for rule in kinds:
        assert set(rule["verbs"]) == {"get", "list", "watch"}
        assert rule.keys() == {"apiGroups", "resources", "verbs"}
        for resource in rule["resources"]:
            assert resource.isalpha(), "no wildcard, and no subresource"
        assert not {"secrets", "configmaps", "serviceaccounts"} & set(rule["resources"])
    assert "*" not in allowed()


def test_what_reaches_further_stands_apart() -> None:
    measuring = rules("watchbill-agent-measuring")
    assert [rule["resources"] for rule in measuring] == [["nodes/proxy"], ["pods/proxy"]]
    assert [rule["verbs"] for rule in measuring] == [["get"], ["get"]]
    bindings = documents("ClusterRoleBinding")
    assert {name: binding["roleRef"]["name"] for name, binding in bindings.items()} == {
        "watchbill-agent": "watchbill-agent",
        "watchbill-agent-measuring": "watchbill-agent-measuring",
    }
    assert documents("ClusterRole").keys() == bindings.keys()


def test_it_runs_with_nothing_that_it_does_not_need() -> None:
    """What the restricted Pod Security Standard asks for, and a root that cannot be written."""
    template = documents("Deployment")["watchbill-agent"]["spec"]["template"]["spec"]
    [container] = template["containers"]
    assert template["securityContext"]["runAsNonRoot"] is True
    assert template["securityContext"]["runAsUser"] > 0
    assert template["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True
    assert context["allowPrivilegeEscalation"] is False
    assert context["privileged"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & template.keys()
    [volume] = template["volumes"]
    assert volume["secret"] == {"secretName": "watchbill-agent", "defaultMode": 0o440}
    assert container["volumeMounts"][0]["readOnly"] is True
    assert "memory" in container["resources"]["limits"]


def test_only_prometheus_comes_in() -> None:
    policy = documents("NetworkPolicy")["watchbill-agent"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    [ingress] = policy["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": 9464}]
    assert ingress["from"]
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert out == {53, 443, 6443}
    deployment = documents("Deployment")["watchbill-agent"]["spec"]["template"]
    assert policy["podSelector"]["matchLabels"] == deployment["metadata"]["labels"]

"""What the agent's ClusterRole allows: every kind that it wants to watch, and nothing that holds secrets."""

from pathlib import Path
from typing import Any

import yaml

from watchbill.agent.roles import wanted_kinds
from watchbill.kinds.definition import load_definitions

AGENT = Path(__file__).parents[2] / "deploy" / "agent.yaml"


def rules() -> list[dict[str, Any]]:
    documents = yaml.safe_load_all(AGENT.read_text(encoding="utf-8"))
    [role] = [one for one in documents if one["kind"] == "ClusterRole"]
    found: list[dict[str, Any]] = role["rules"]
    return found


def test_every_kind_that_is_wanted_may_be_read() -> None:
    allowed: dict[str, set[str]] = {}
    for rule in rules():
        for group in rule["apiGroups"]:
            allowed.setdefault(group, set()).update(rule["resources"])
    refused = {
        f"{wanted.key.kind}.{wanted.key.group}"
        for wanted in wanted_kinds(load_definitions())
        if "*" not in (plurals := allowed.get(wanted.key.group, set()))
        and not any(plural.startswith(wanted.key.kind.lower()[:-1]) for plural in plurals)
    }
    assert refused == set()


def test_it_reads_only_and_no_secrets() -> None:
    for rule in rules():
        assert set(rule["verbs"]) <= {"get", "list", "watch"}
        assert not {"secrets", "configmaps"} & set(rule["resources"])
        if "" in rule["apiGroups"]:
            assert "*" not in rule["resources"]

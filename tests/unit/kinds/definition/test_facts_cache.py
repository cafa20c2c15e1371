"""What an object says is read once for each of its versions, and forgotten in good order."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.fixtures.kubernetes.lives import definitions
from tests.unit.kinds.golden.reading import cases
from watchbill.kinds.definition.facts import Facts, FactsCache
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.definition.program import Program

ROOTS = 3_000


def root(number: int, *, replicas: int = 1, version: str = "1") -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"d-{number}", "uid": f"u-{number}", "resourceVersion": version},
        "spec": {
            "replicas": replicas,
            "template": {
                "spec": {"containers": [{"name": "main", "image": "registry.example/a:1"}]}
            },
        },
    }


def test_all_objects_of_a_large_cluster_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = load_definitions()
    read: list[str] = []
    facts_of = Program.facts

    def counted(self: Program, obj: Mapping[str, Any]) -> Facts:
        read.append(obj["metadata"]["uid"])
        return facts_of(self, obj)

    monkeypatch.setattr(Program, "facts", counted)
    first = [known.facts(root(number)) for number in range(ROOTS)]
    again = [known.facts(root(number)) for number in range(ROOTS)]
    assert len(read) == ROOTS
    assert again == first
    assert known.facts(root(5, replicas=7, version="2")).number == 7
    assert known.facts(root(5, replicas=7, version="2")).number == 7
    assert len(read) == ROOTS + 1


def test_facts_survive_compression() -> None:
    packed = FactsCache(recent=0)
    for case in cases():
        facts = definitions().facts(case.objects.root)
        packed.put(("u", "k"), case.id, facts)
        assert packed.get(("u", "k"), case.id) == facts, case.id


def test_the_cache_stays_within_its_bytes_and_drops_the_oldest_first() -> None:
    facts = Facts(predicates={"running": "x"})
    probe = FactsCache(recent=0)
    probe.put(("u", "k"), "1", facts)
    cache = FactsCache(max_bytes=10 * probe._packed_bytes, recent=0)
    for number in range(500):
        cache.put((f"u-{number}", "k"), "1", facts)
        assert cache._packed_bytes <= 10 * probe._packed_bytes
    result = [number for number in range(500) if cache.get((f"u-{number}", "k"), "1")]
    assert result == list(range(490, 500))
    cache.put(("u-499", "k"), "2", facts)
    assert cache.get(("u-499", "k"), "1") is None
    assert sum(len(kept[1]) for kept in cache._packed.values()) == cache._packed_bytes

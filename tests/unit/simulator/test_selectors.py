"""Label and field selectors of the simulated API."""

from typing import Any

import pytest

from simulator.apiserver.listing import BadSelector, parse
from simulator.apiserver.store import Store, StoredObject
from simulator.resources import JOBS, PODS, RAY_CLUSTERS


def stored(**labels: str) -> StoredObject:
    document: dict[str, Any] = {
        "metadata": {"name": "p", "namespace": "a", "uid": "u", "labels": labels},
        "spec": {"nodeName": "n1", "hostNetwork": True},
        "status": {"phase": "Running"},
    }
    return Store().put(PODS, document)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("tier=gold", True),
        ("tier==gold", True),
        ("tier=silver", False),
        ("tier!=silver", True),
        ("tier!=gold", False),
        ("missing!=x", True),
        ("tier in (gold,silver)", True),
        ("tier in (silver)", False),
        ("tier notin (silver)", True),
        ("tier notin (gold)", False),
        ("tier", True),
        ("!tier", False),
        ("!missing", True),
        ("tier=", False),
        ("tier=gold,app=web", True),
        ("tier=gold,app=db", False),
        ("tier in (gold,silver),app", True),
        ("example.com/x-y=1", True),
    ],
)
def test_label_selectors(text: str, matches: bool) -> None:
    token = stored(tier="gold", app="web", **{"example.com/x-y": "1"})
    assert parse(PODS, labels=text, fields="").matches(token) is matches


def test_a_broken_label_selector_is_refused() -> None:
    with pytest.raises(BadSelector, match="found 'foo'"):
        parse(PODS, labels="tier foo gold", fields="")


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("status.phase=Running", True),
        ("status.phase!=Running", False),
        ("spec.nodeName=", False),
        ("spec.nodeName=n1,status.phase==Running", True),
        ("metadata.name=p,metadata.namespace=a", True),
        ("spec.hostNetwork=true", True),
        ("status.nominatedNodeName=", True),
    ],
)
def test_field_selectors(text: str, matches: bool) -> None:
    assert parse(PODS, labels="", fields=text).matches(stored()) is matches


@pytest.mark.parametrize(
    ("resource", "text"),
    [(PODS, "spec.nosuch=x"), (RAY_CLUSTERS, "spec.x=1"), (JOBS, "metadata.labels=x")],
)
def test_fields_that_the_kind_does_not_offer_are_refused(resource: Any, text: str) -> None:
    with pytest.raises(BadSelector, match="field label not supported"):
        parse(resource, labels="", fields=text)


def test_no_selector_is_false() -> None:
    assert not parse(PODS, labels="", fields="")
    assert parse(PODS, labels="a", fields="")

"""What a process of its own reads ahead is what deriving would read, and nothing depends on it."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fixtures.agents import until
from tests.fixtures.kubernetes.lives import definitions
from tests.unit.kinds.golden.reading import cases
from watchbill.agent.cache import facts_ahead
from watchbill.agent.cache.facts_ahead import UnreadOwner, _batch, read_ahead
from watchbill.agent.cache.stored_objects import compress
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.definition.program import Program
from watchbill.kinds.objects.json_access import group_version
from watchbill.kinds.objects.objects import GroupKind


class Owners:
    unread_owners: deque[UnreadOwner] | None = None


@pytest.fixture(autouse=True)
def worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_ahead, "WORTH_A_PROCESS", 1)
    monkeypatch.setattr(facts_ahead, "_processors", lambda: 2)


def roots() -> list[dict[str, Any]]:
    """One of every kind and state that we have, each with a UID and version of its own."""
    objects = []
    for number, case in enumerate(cases()):
        root = dict(case.objects.root)
        identity = {"uid": f"u-{number}", "resourceVersion": str(number)}
        objects.append(root | {"metadata": root["metadata"] | identity})
    return [obj for obj in objects if "spec" in obj or "status" in obj]


def unread(root: dict[str, Any]) -> UnreadOwner:
    group, _ = group_version(root)
    return GroupKind(group, root["kind"]), root["metadata"]["uid"], compress(root)


async def test_facts_of_every_kind_are_read_ahead_as_they_would_be_read_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, owners, expected = load_definitions(), Owners(), roots()
    task = asyncio.create_task(read_ahead(owners, known, None))
    await until(lambda: owners.unread_owners is not None)
    assert owners.unread_owners is not None
    owners.unread_owners.append((GroupKind("", "Pod"), "u", b"nobody's object"))
    owners.unread_owners.extend(map(unread, expected))
    await until(lambda: len(known._facts_cache._packed) == len(expected))
    task.cancel()
    await asyncio.wait([task])
    assert owners.unread_owners is None
    facts = [definitions().facts(root) for root in expected]

    def never(self: Program, obj: Mapping[str, Any]) -> Facts:
        raise AssertionError(f"{obj['kind']} is read again")

    monkeypatch.setattr(Program, "facts", never)
    assert [known.facts(root) for root in expected] == facts
    assert len({root["kind"] for root in expected}) > 50


async def test_a_process_that_ends_is_told_of_and_nobody_waits_for_it(tmp_path: Path) -> None:
    owners = Owners()
    with capture_logs() as logs:
        task = asyncio.create_task(read_ahead(owners, load_definitions(), tmp_path / "none"))
        await until(lambda: owners.unread_owners is not None)
        assert owners.unread_owners is not None
        owners.unread_owners.extend(map(unread, roots()))
        await task
    assert owners.unread_owners is None
    assert [log["log_level"] for log in logs] == ["warning"]


async def test_a_process_that_cannot_start_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    async with facts_ahead._child(None) as child:
        assert os.getsid(child.pid) == child.pid, "Ctrl-C does not reach it"
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    owners = Owners()
    with capture_logs() as logs:
        task = asyncio.create_task(read_ahead(owners, load_definitions(), None))
        await until(lambda: owners.unread_owners is not None)
        assert owners.unread_owners is not None
        owners.unread_owners.append(b"")
        await task
    assert owners.unread_owners is None
    assert [log["log_level"] for log in logs] == ["warning"]


async def test_facts_take_nobody_elses_place_and_never_that_of_a_newer_version() -> None:
    known, child = load_definitions(), load_definitions()
    old, new = (root | {"status": {"phase": "x"}} for root in roots()[:1] * 2)
    new = new | {"metadata": old["metadata"] | {"resourceVersion": "newer"}}
    read = child.read_packed(old)
    assert read is not None
    newer = known.facts(new)
    known.keep_packed(read)
    assert known.facts(new) is newer
    known._facts_cache._max_bytes = 0
    other = child.read_packed(old | {"metadata": old["metadata"] | {"uid": "another"}})
    assert other is not None
    known.keep_packed(other)
    assert not known._facts_cache._packed


def test_what_deriving_has_read_is_not_read_again() -> None:
    known, every = load_definitions(), roots()
    for root in every[::2]:
        known.facts(root)
    waiting = deque(map(unread, every))
    batches = list(iter(lambda: list(_batch(waiting, known)), []))
    assert [payload for batch in batches for payload in batch] == list(map(compress, every[1::2]))
    assert not waiting

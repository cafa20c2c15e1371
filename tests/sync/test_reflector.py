"""List and watch of one kind against an API server that misbehaves in every known way."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.fixtures.agents import until
from tests.fixtures.kubernetes.replay import exchange_with, recorded, replay
from tests.sync.reflecting import keeping, pod
from watchbill.agent.kubernetes import pauses as pauses_module
from watchbill.agent.kubernetes import reflector as watch_module
from watchbill.protocol import MAX_UNOBSERVED


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(watch_module, "FORBIDDEN_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(watch_module, "MISSED_EVENT_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(watch_module, "SHORT_WATCH_SECONDS", 0.02)


async def test_a_list_and_then_events(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.holds("a", "b"))
        await until(kept.api.watches)
        kept.api.put(pod("c"))
        kept.api.delete(pod("a"))
        await until(kept.holds("b", "c"))
        assert kept.seen.removed == ["a"]
        assert kept.reflector.lists == 1
        assert kept.reflector.state.state == "complete"


async def test_no_request_selects_anything(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a",), resync_seconds=0.05) as kept:
        await until(lambda: len(kept.api.requests) > 4)
        for request in kept.api.requests:
            assert not {"labelSelector", "fieldSelector"} & set(request.query)


async def test_the_watch_starts_at_the_lists_version(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.api.watches)
        watches = [request for request in kept.api.requests if "watch" in request.query]
        assert watches[0].query["resourceVersion"] == str(kept.api.revision)


async def test_pages_are_one_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchbill.agent.kubernetes.client.PAGE_OBJECTS", 2)
    names = tuple("abcdefg")
    async with keeping(tmp_path, names=names) as kept:
        await until(kept.holds(*names))
        assert kept.seen.removed == []


@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_watch_that_ends_goes_on_where_it_was(tmp_path: Path, is_cut: bool) -> None:
    async with keeping(tmp_path, names=("a",)) as kept:
        for number in range(3):
            await until(lambda n=number: kept.api.watches() > n)
            kept.api.end_watches(is_cut=is_cut)
            kept.api.put(pod(f"new{number}"))
            kept.api.delete(pod(f"new{number}"))
        kept.api.put(pod("b"))
        await until(kept.holds("a", "b"))
        assert kept.reflector.lists == 1
        assert kept.seen.removed == ["new0", "new1", "new2"]


@pytest.mark.parametrize(("long_seconds", "lists"), [(0.0, 1), (3600.0, 2)])
async def test_a_quiet_watch_that_stood_for_long_is_resumed_however_often_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_seconds: float, lists: int
) -> None:
    monkeypatch.setattr(watch_module, "LONG_WATCH_SECONDS", long_seconds)
    async with keeping(tmp_path, names=("a",)) as kept:
        for number in range(watch_module.FAILURES_UNTIL_READY + 1):
            await until(lambda n=number: kept.api.watches() > n)
            await until(lambda: kept.reflector.seconds_behind == 0.0)
            kept.api.end_watches(is_cut=True)
        kept.api.put(pod("b"))
        await until(kept.holds("a", "b"))
        assert kept.reflector.lists == lists


@pytest.mark.parametrize(("unseen_seconds", "is_broken"), [(1e-9, True), (3600.0, False)])
async def test_what_was_not_watched_for_long_is_not_reported_to_have_been_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unseen_seconds: float, is_broken: bool
) -> None:
    monkeypatch.setattr(watch_module, "UNSEEN_SECONDS", unseen_seconds)
    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        await until(lambda: kept.reflector.unbroken_since)
        before = kept.reflector.unbroken_since
        kept.api.fault = lambda _: web.Response(status=500)
        kept.api.end_watches(is_cut=True)
        await until(lambda: kept.reflector.seconds_behind)
        assert (kept.reflector.unbroken_since is None) is is_broken
        kept.api.fault = lambda _: None
        await until(lambda: kept.reflector.seconds_behind == 0.0)
        assert (kept.reflector.unbroken_since != before) is is_broken


async def test_too_old_as_an_event_leads_to_a_new_list(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.api.watches)
        kept.api.delete(pod("a"), is_lost=True)
        kept.api.put(pod("c"), is_lost=True)
        kept.api.forget_past()
        await until(kept.holds("b", "c"))
        assert kept.seen.removed == ["a"], "the list's difference is the same as a DELETED event"
        assert kept.reflector.lists == 2
        assert kept.reflector.counts["expired"] == 1


async def test_too_old_as_a_status_on_a_watch_leads_to_a_new_list(tmp_path: Path) -> None:
    gone = exchange_with(recorded("1.20", "list-expired-continue"), "continue, at once")
    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        refused = []

        def once(request: web.Request) -> web.StreamResponse | None:
            if "watch" in request.query and not refused:
                refused.append(request)
                return web.Response(status=gone.status, body=gone.body.encode())
            return None

        kept.api.fault = once
        kept.api.delete(pod("a"), is_lost=True)
        kept.api.end_watches()
        await until(kept.holds())
        assert kept.reflector.lists == 2


async def test_an_aborted_continue_deletes_nothing_and_is_not_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("watchbill.agent.kubernetes.client.PAGE_OBJECTS", 2)
    gone = exchange_with(recorded("1.20", "list-expired-continue"), "continue, at once")
    async with keeping(tmp_path, names=tuple("abcdef")) as kept:
        await until(kept.api.watches)
        aborted = []
        removed: list[str] = []

        def abort(request: web.Request) -> web.StreamResponse | None:
            if "continue" not in request.query or len(aborted) >= 3:
                return None
            aborted.append(request.query["continue"])
            removed.extend(kept.seen.removed)
            return web.Response(status=gone.status, body=gone.body.encode())

        kept.api.fault = abort
        kept.api.delete(pod("f"), is_lost=True)
        kept.api.forget_past()
        await until(kept.holds(*"abcde"))
        assert len(aborted) == 3
        assert removed == []
        assert kept.seen.removed == ["f"]
        token = json.loads(gone.body)["metadata"]["continue"]
        asked = [request.query.get("continue") for request in kept.api.requests]
        assert token not in asked, "the inconsistent token is never used"


@pytest.mark.parametrize(
    ("status", "state"), [(403, "forbidden"), (404, "absent"), (405, "absent"), (500, "failing")]
)
async def test_refusals_delete_nothing_and_pass(tmp_path: Path, status: int, state: str) -> None:
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.api.watches)
        kept.api.fault = lambda _: web.Response(status=status, text="404 page not found\n")
        kept.api.delete(pod("a"), is_lost=True)
        kept.api.forget_past()
        await until(lambda: kept.reflector.state.state == state)
        await kept.stays("a", "b")
        assert kept.reflector.state.message
        kept.api.fault = lambda _: None
        await until(kept.holds("b"))
        assert kept.reflector.state.state == "complete"


async def test_one_refusal_after_a_start_is_no_verdict(tmp_path: Path) -> None:
    refusals = []

    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        kept.states.clear()

        def twice(request: web.Request) -> web.StreamResponse | None:
            if len(refusals) < 2:
                refusals.append(request)
                return web.Response(status=403, text="forbidden")
            return None

        kept.api.fault = twice
        kept.api.forget_past()
        await until(lambda: kept.reflector.lists == 2)
        assert "forbidden" not in kept.states


async def test_a_lost_delete_is_found_by_the_second_look(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a", "b"), resync_seconds=0.1) as kept:
        await until(kept.api.watches)
        kept.api.delete(pod("a"), is_lost=True)
        await until(kept.holds("b"))
        assert kept.reflector.counts["missed"] == 1


@pytest.mark.parametrize("lost", [pod("new"), pod("a", annotations={"x": "y"})])
async def test_a_lost_change_is_found_by_the_second_look(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    async with keeping(tmp_path, names=("a",), resync_seconds=0.1) as kept:
        await until(kept.api.watches)
        puts = kept.seen.puts
        kept.api.put(json.loads(json.dumps(lost)), is_lost=True)
        await until(lambda: kept.seen.puts > puts)
        assert kept.reflector.counts["missed"] == 1


async def test_the_second_look_reads_metadata_and_believes_a_healthy_watch(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a",), resync_seconds=0.05) as kept:
        for number in range(30):
            kept.api.put(pod(f"p{number}"))
            await asyncio.sleep(0.02)
        await until(lambda: len(kept.seen.names) == 31)
        assert kept.reflector.lists == 1
        assert kept.reflector.counts["missed"] == 0
        lists = [request for request in kept.api.requests if "watch" not in request.query][1:]
        assert len(lists) > 3
        assert all("PartialObjectMetadataList" in exchange.headers["Accept"] for exchange in lists)


async def test_a_second_look_that_fails_proves_nothing(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a",), resync_seconds=0.05) as kept:
        await until(kept.api.watches)
        kept.api.fault = lambda request: (
            None
            if "watch" in request.query
            else web.Response(status=404, text="404 page not found")
        )
        await kept.stays("a")
        assert kept.reflector.state.state == "complete"


async def test_unknown_event_types_are_counted(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        kept.api.send("SHRUNK", pod("a"))
        await until(lambda: kept.reflector.counts["unknown"] == 1)
        await kept.stays("a")


async def test_an_unreadable_object_is_not_taken_for_an_absent_one(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.api.watches)
        kept.seen.unreadable.add("b")
        kept.api.put(pod("b", annotations={"x": "y"}))
        await until(lambda: kept.reflector.state.state == "failing")
        kept.api.forget_past()
        await until(lambda: kept.reflector.lists == 2)
        await kept.stays("a", "b")
        assert kept.reflector.state.state == "failing", "so nothing is inferred for this kind"
        kept.seen.unreadable.clear()
        kept.api.put(pod("b"))
        await until(lambda: kept.reflector.state.state == "complete")


async def test_a_name_used_again_at_once(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        kept.api.end_watches()
        kept.api.delete(pod("a"))
        kept.api.put(pod("a", uid="another"))
        await until(lambda: kept.seen.names == {"another": "a"})
        assert kept.seen.removed == ["a"]


async def test_the_recorded_restart_of_an_api_server(tmp_path: Path) -> None:
    """Killed under open watches; then nobody's resource version counts any more, and 403 at first."""
    exchanges = recorded("1.36", "watch-apiserver-sigterm")
    forbidden = next(exchange for exchange in exchanges if exchange.status == 403)
    too_old = exchange_with(exchanges, "watch of pods from the RV of the list before")
    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        answers = [too_old, forbidden]

        async def restarted(request: web.Request) -> web.StreamResponse | None:
            return await replay(request, answers.pop(0)) if answers else None

        kept.api.cluster.intercept = restarted
        kept.api.end_watches(is_cut=True)
        await until(lambda: kept.reflector.lists == 2)
        await kept.stays("a")
        assert kept.reflector.counts["forbidden"] == 1
        assert kept.reflector.counts["unreachable"] == 1


async def test_a_deletion_that_was_watched_has_no_interval(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.api.watches)
        kept.api.delete(pod("a"))
        await until(kept.holds("b"))
        assert kept.seen.intervals == [None]


@pytest.mark.parametrize("is_found_by_list", [True, False])
async def test_a_deletion_that_nobody_watched_has_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_found_by_list: bool
) -> None:
    """A new list no longer shows it, or the next watch tells late what happened after the last one broke."""
    monkeypatch.setattr(watch_module, "PAUSE_SECONDS", 0.0)
    async with keeping(tmp_path, names=("a", "b")) as kept:
        await until(kept.api.watches)
        kept.cut_off()
        before = datetime.now(UTC)
        kept.api.delete(pod("a"))
        if is_found_by_list:
            kept.api.forget_past()
        await until(lambda: kept.reflector.counts["busy"] or kept.reflector.counts["unreachable"])
        kept.api.fault = lambda _: None
        await until(kept.holds("b"))
        (since,) = kept.seen.intervals
        assert since is not None
        assert since <= before
        assert (kept.reflector.lists > 1) is is_found_by_list


async def test_what_a_list_has_seen_is_late_and_what_comes_after_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the backlog takes to read: here it counts as read at once where nothing else tells."""
    monkeypatch.setattr(watch_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(pauses_module, "CATCH_UP_SECONDS", 0.0)
    monkeypatch.setattr(pauses_module, "BACKLOG_SHARE", 0.0)
    async with keeping(tmp_path, names=("a", "b", "c")) as kept:
        await until(kept.api.watches)
        kept.cut_off()
        before = datetime.now(UTC)
        kept.api.delete(pod("a"))
        await until(lambda: kept.reflector.counts["busy"])
        kept.api.fault = lambda _: None
        await until(kept.holds("b", "c"))
        await until(lambda: kept.reflector._backlog._newest is not None)
        kept.api.delete(pod("b"))
        await until(kept.holds("c"))
        late, seen = kept.seen.intervals
        assert late is not None
        assert late <= before
        assert seen is None


async def test_what_may_have_come_and_gone_between_a_watch_and_a_list_is_reported(
    tmp_path: Path,
) -> None:
    """However short the time between them was."""
    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        assert kept.reflector.unobserved == [], "the first list follows nothing"
        before = datetime.now(UTC)
        kept.api.end_watches(is_cut=True)
        kept.api.put(pod("b"))
        kept.api.delete(pod("b"))
        kept.api.forget_past()
        await until(lambda: kept.reflector.lists > 1)
        ((since, listed),) = kept.reflector.unobserved
        assert since <= before <= listed


async def test_of_too_many_unobserved_times_the_longest_are_reported(tmp_path: Path) -> None:
    """An hour was forgotten where a watch broke off a hundred times after it, before the server was back."""
    first = datetime(2026, 11, 1, tzinfo=UTC)
    hour = (first, first + timedelta(hours=1))
    minute = (first, first + timedelta(minutes=1))
    async with keeping(tmp_path, names=("a",)) as kept:
        await until(kept.api.watches)
        kept.reflector.unobserved[:] = [hour] + [minute] * (MAX_UNOBSERVED - 2) + [(first, first)]
        kept.api.end_watches(is_cut=True)
        kept.api.forget_past()
        await until(lambda: kept.reflector.lists > 1)
        kept_hour, *minutes, _ = kept.reflector.unobserved
        assert (kept_hour, minutes) == (hour, [minute] * (MAX_UNOBSERVED - 2))


async def test_a_deletion_that_the_watch_missed_may_be_as_old_as_the_last_list(
    tmp_path: Path,
) -> None:
    async with keeping(tmp_path, names=("a", "b"), resync_seconds=0.2) as kept:
        await until(kept.api.watches)
        listed = datetime.now(UTC)
        kept.api.delete(pod("a"), is_lost=True)
        kept.api.put(pod("c"))
        await until(kept.holds("b", "c"))
        (since,) = kept.seen.intervals
        assert since is not None
        assert since <= listed

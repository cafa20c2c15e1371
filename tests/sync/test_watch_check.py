"""Watches that go on, bookmarks and all, without what happens in between."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from tests.fixtures.agents import until
from tests.sync.reflecting import keeping, pod
from watchbill.agent.kubernetes import client as client_module
from watchbill.agent.kubernetes import reflector as reflector_module
from watchbill.agent.kubernetes import watch_check as check_module
from watchbill.agent.kubernetes.client import KubeClient, ListPage, ServedResource
from watchbill.agent.kubernetes.watch_check import (
    BookmarkProgress,
    ListCount,
    WatchCheck,
    WatchChecks,
)

NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector_module, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(reflector_module, "CHECK_LATE_SECONDS", 0.05)
    monkeypatch.setattr(reflector_module, "MISSED_EVENT_GRACE_SECONDS", 0.1)


def page(version: int | str, remaining: Any = None, **objects: int) -> ListPage:
    """The first of a list at `version`; without `remaining` it is all of it."""
    more = {} if remaining is None else {"continue": "more", "remainingItemCount": remaining}
    items = [
        {"metadata": {"uid": uid, "resourceVersion": str(number)}}
        for uid, number in objects.items()
    ]
    document = {"metadata": {"resourceVersion": str(version)} | more, "items": items}
    return msgspec.json.decode(msgspec.json.encode(document), type=ListPage)


class Watched:
    """What a watch told, and a check beside it."""

    def __init__(self, position: int, **objects: int) -> None:
        self.versions = {uid: str(number) for uid, number in objects.items()}
        self.position = str(position)
        self.check = WatchCheck(self.versions, self.position)

    def tell(self, uid: str, version: int, *, is_deleted: bool = False) -> None:
        self.position = str(version)
        self.check.reach(self.position, is_bookmark=False)
        self.versions[uid] = self.position
        if is_deleted:
            del self.versions[uid]
        self.check.note_event(uid)

    def bookmark(self, version: int | str) -> None:
        self.position = str(version)
        self.check.reach(self.position, is_bookmark=True)

    def compare(self, listed: ListPage, *, is_count_exact: bool = True, **options: Any) -> None:
        unreadable = options.get("unreadable", ())
        self.check.compare(
            listed, self.position, is_count_exact=is_count_exact, unreadable=unreadable
        )

    @property
    def verdict(self) -> bool | None:
        """Whether something was missed; None while that is open."""
        return self.check.has_missed if self.check._settled.is_set() else None


def whole_list_agrees() -> Iterator[bool | None]:
    watched = Watched(9, a=1, b=9)
    watched.compare(page(12, a=1, b=9))
    yield watched.verdict


def event_on_its_way() -> Iterator[bool | None]:
    """The list shows a change that the watch tells a moment later."""
    watched = Watched(9, a=1)
    watched.compare(page(12, a=1, b=11))
    yield watched.verdict
    watched.tell("b", 11)
    yield watched.verdict


def creation_swallowed() -> Iterator[bool | None]:
    watched = Watched(9, a=1)
    watched.compare(page(12, a=1, b=11))
    yield watched.verdict
    watched.bookmark(12)
    yield watched.verdict


def change_swallowed_before_another() -> Iterator[bool | None]:
    watched = Watched(9, a=1)
    watched.compare(page(12, a=11))
    watched.bookmark(11)
    yield watched.verdict
    watched.tell("c", 13)
    yield watched.verdict


def deletion_swallowed() -> Iterator[bool | None]:
    watched = Watched(9, a=1, b=2)
    watched.compare(page(12, b=2))
    watched.bookmark(15)
    yield watched.verdict


def ahead_of_the_page() -> Iterator[bool | None]:
    """What came, changed and went while the page was on its way is no difference."""
    watched = Watched(9, a=1, b=2)
    watched.tell("a", 13)
    watched.tell("b", 14, is_deleted=True)
    watched.compare(page(12, a=1, b=2))
    yield watched.verdict


def ahead_of_the_page_with_a_creation_swallowed() -> Iterator[bool | None]:
    watched = Watched(9, a=1, b=2)
    watched.tell("a", 13)
    watched.compare(page(12, a=1, b=2, c=10))
    yield watched.verdict


def counts_at_the_version() -> Iterator[bool | None]:
    """Of 13 objects one is listed; what is made after the list does not count."""
    watched = Watched(9, **{f"o{number}": 1 for number in range(13)})
    watched.tell("new", 13)
    watched.compare(page(12, 12, o0=1))
    yield watched.verdict


def count_is_short() -> Iterator[bool | None]:
    watched = Watched(9, **{f"o{number}": 1 for number in range(13)})
    watched.compare(page(12, 13, o0=1))
    yield watched.verdict
    watched.tell("new", 13)
    yield watched.verdict


def count_balanced_by_a_later_event() -> Iterator[bool | None]:
    """14 at the list's version, 13 told; another is made later, so the numbers agree by chance."""
    watched = Watched(9, **{f"o{number}": 1 for number in range(13)})
    watched.tell("new", 13)
    watched.compare(page(12, 14, o0=1))
    yield watched.verdict


def estimated_count() -> Iterator[bool | None]:
    watched = Watched(9, **{f"o{number}": 1 for number in range(13)})
    watched.compare(page(12, 1000, o0=1), is_count_exact=False)
    yield watched.verdict


def no_count() -> Iterator[bool | None]:
    """As beside a selector, or of an old server."""
    watched = Watched(9, **{f"o{number}": 1 for number in range(13)})
    watched.compare(page(12, "many", o0=1))
    yield watched.verdict


def unreadable_object() -> Iterator[bool | None]:
    """It is known to exist, and in no version."""
    watched = Watched(9, a=1)
    watched.versions["b"] = ""
    watched.compare(page(12, a=1, b=2), unreadable={"b"})
    yield watched.verdict


def list_of_an_old_cache() -> Iterator[bool | None]:
    watched = Watched(9, a=1, b=8)
    watched.compare(page(7, a=1, b=2))
    yield watched.verdict


def versions_that_are_no_numbers() -> Iterator[bool | None]:
    """Of these only an event of the object ends the doubt; bookmarks do not."""
    watched = Watched(9, a=1)
    watched.position = "v9"
    watched.compare(page("v12", a=1, b=2))
    watched.bookmark("v99")
    yield watched.verdict
    watched.tell("b", 2)
    yield watched.verdict


@pytest.mark.parametrize(
    ("history", "verdicts"),
    [
        (whole_list_agrees, [False]),
        (event_on_its_way, [None, False]),
        (creation_swallowed, [None, True]),
        (change_swallowed_before_another, [None, True]),
        (deletion_swallowed, [True]),
        (ahead_of_the_page, [False]),
        (ahead_of_the_page_with_a_creation_swallowed, [True]),
        (counts_at_the_version, [False]),
        (count_is_short, [None, True]),
        (count_balanced_by_a_later_event, [True]),
        (estimated_count, [False]),
        (no_count, [False]),
        (unreadable_object, [False]),
        (list_of_an_old_cache, [False]),
        (versions_that_are_no_numbers, [None, False]),
    ],
)
async def test_what_a_page_and_a_watch_prove(history: Any, verdicts: list[bool | None]) -> None:
    assert list(history()) == verdicts


@pytest.mark.parametrize(
    ("pages", "is_exact"),
    [
        ([page(1, 3, a=1, b=1), page(1, 1, c=1, d=1), page(1, e=1)], True),
        ([page(1, 900, a=1, b=1), page(1, c=1)], False),
        ([page(1, "2", a=1, b=1), page(1, c=1, d=1)], False),
        ([page(1, a=1)], False),
    ],
)
async def test_a_list_tells_whether_its_counts_are_exact(
    pages: list[ListPage], is_exact: bool
) -> None:
    count = ListCount()
    for each in pages:
        count.add(each)
    assert count.is_exact is is_exact


LATE = check_module.BOOKMARKS_BEHIND_SECONDS + 1


@pytest.mark.parametrize(
    ("seconds", "is_bookmark", "is_behind"),
    [
        ([30, 60, 10], True, True),
        # Some servers' bookmarks stay at the kind's last change.
        ([], True, False),
        ([30, 60, 10, 5], False, False),
        # etcd tells of its progress every ten minutes: one may come soon, the next do not.
        ([30, 540, 560], True, False),
        ([30, 60, 540], True, False),
        ([540, 30, 60, 10], True, True),
    ],
)
async def test_bookmarks_that_followed_and_stand_still_are_behind(
    seconds: list[float], is_bookmark: bool, is_behind: bool
) -> None:
    """`seconds`: how long after each list the watch came to its version."""
    progress, now, version = BookmarkProgress(), 0.0, 10
    for late in seconds:
        progress.note_list(str(version), now)
        progress.reach(str(version - 1), now + 1, is_bookmark=True)
        progress.reach(str(version), now + late, is_bookmark=is_bookmark)
        assert not progress.is_behind(now + LATE), "it has come"
        now, version = now + late + 60, version + 10
    progress.note_list(str(version), now)
    progress.note_list(str(version + 5), now + 60)
    assert not progress.is_behind(now + LATE - 2)
    assert progress.is_behind(now + LATE) is is_behind


@pytest.mark.parametrize("objects", [500, 1])
async def test_what_a_watch_swallows_is_listed_a_minute_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: int
) -> None:
    """Not a quarter of an hour. Where there are more objects than a page holds, by their number."""
    monkeypatch.setattr(client_module, "PAGE_OBJECTS", objects)
    monkeypatch.setattr(check_module, "PAGE_OBJECTS", objects)
    async with keeping(tmp_path, names=NAMES) as kept:
        await until(kept.api.watches)
        opened = kept.api.watches()
        kept.api.cluster.faults.loses_events = lambda resource: resource.kind == "Pod"
        kept.api.put(pod("d"))
        await until(kept.holds("a", "b", "c", "d"))
        await until(lambda: kept.api.watches() > opened)
        kept.api.delete(pod("a"))
        await until(kept.holds("b", "c", "d"))
        assert "failing" in kept.states, "meanwhile the kind counts as late"
        (since,) = kept.seen.intervals
        assert since is not None, "nobody saw when it went"
        await until(lambda: kept.reflector.state.state == "complete")


async def test_a_healthy_watch_is_not_listed_anew(tmp_path: Path) -> None:
    async with keeping(tmp_path, names=NAMES) as kept:
        for number in range(60):
            kept.api.put(pod(f"p{number % 7}", annotations={"n": str(number)}))
            if number % 3 == 0:
                kept.api.delete(pod(f"p{number % 7}"))
            await until(lambda n=number: len(kept.api.requests) > n // 3)
        assert kept.reflector.lists == 1
        assert kept.reflector.counts["missed"] == 0


async def test_a_server_that_knows_no_pages_is_not_asked_for_all_each_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An aggregated API may ignore how many objects were asked for, and have any number."""
    monkeypatch.setattr(check_module, "PAGE_OBJECTS", 2)

    class Client:
        async def first_page(self, resource: ServedResource, *, objects: int) -> ListPage:
            return page(12, a=1, b=2, c=3)

    checks = WatchChecks(cast("KubeClient", Client()), {})
    checks.begin("9", is_count_exact=False)
    check = await checks.ask(ServedResource("", "v1", "Pod", "pods"), ())
    assert await check.is_settled_within(1)
    assert not check.has_missed
    assert not checks.is_possible
    checks.begin("12", is_count_exact=False)
    assert checks.is_possible, "another server may answer by now"


@pytest.mark.parametrize(
    ("objects", "page_objects", "seconds"),
    [(500, 500, 900), (501, 500, 300), (5_000, 500, 600), (50_000, 500, 900), (40, 1, 300)],
)
async def test_changes_of_many_objects_are_looked_for_a_page_a_minute(
    objects: int, page_objects: int, seconds: float
) -> None:
    """Of more than the minute's page the rest waits for a list of all, which takes as long as it is long."""
    versions = {f"o{number}": "1" for number in range(objects)}
    checks = WatchChecks(cast("KubeClient", None), versions)
    checks.begin("9", is_count_exact=True)
    checks._objects = page_objects
    assert checks.resync_seconds(900.0) == seconds
    assert checks.resync_seconds(60.0) == 60.0, "as it is set"

"""Whether a watch tells all that happens, held against lists: their first page, and now and then all of it.

Watches have been seen to go on, bookmarks and all, without the changes in between. A list says at which version
it was read, how many objects there were and which versions the first of them had; a watch that has come past
that version has told everything before it, or has missed something.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping

import msgspec

from watchbill.agent.kubernetes.client import PAGE_OBJECTS, KubeClient, ListPage, ServedResource
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.kubernetes.pauses import version_number
from watchbill.agent.kubernetes.watch_stream import read_head
from watchbill.background import TimeSlice

MAX_COUNTS = 10_000
"""Changes that a watch may tell while one page is asked for; beyond them its count is not compared."""
PAGE_BYTES = 1024 * 1024
"""Where a page of metadata is larger, only one object and the number of all are asked for."""
BOOKMARKS_BEHIND_SECONDS = 300.0
"""A bookmark comes about once a minute."""
LEAST_RESYNC_SECONDS = 300.0
FOLLOWING_BOOKMARKS = 3
"""In a row, each in time, before they count as following: those of a kind that rests get on when etcd tells of
its progress, every ten minutes unless an API server asks for more, and one may come soon by chance."""


class ListCount:
    """Whether an API server says exactly how many objects a list has left: it need not. Lists of several pages
    show it."""

    def __init__(self) -> None:
        self._stated: int | None = None
        self._listed = self._pages = 0

    def add(self, page: ListPage) -> None:
        """The next page of the list."""
        if not self._pages:
            self._stated = stated_count(page)
        self._pages += 1
        self._listed += len(page.items or ())

    @property
    def is_exact(self) -> bool:
        return self._pages > 1 and self._stated == self._listed


def stated_count(page: ListPage) -> int | None:
    """Of all objects, by the first page of a list; None where it does not say."""
    count = len(page.items or ())
    if not page.metadata.continue_:
        return count
    remaining = page.metadata.remaining_item_count
    return count + remaining if isinstance(remaining, int) else None


class WatchCheck:
    """One page, and what the watch has told since the page was asked for.

    `versions` are those of the objects that the watch has told of, as they are at any time; `position` is how
    far it has come.
    """

    def __init__(self, versions: Mapping[str, str], position: str) -> None:
        self.has_missed = False
        """Of use once it is settled."""
        self._versions = versions
        self._began_at = version_number(position)
        self._mentioned: set[str] = set()
        self._suspects: set[str] = set()
        """Listed in another version than the watch has told, or not at all."""
        self._count: int | None = None
        self._version: int | None = None
        self._is_listed = False
        self._counts: list[tuple[int, int]] = []
        """Versions to which the watch came while the page was on its way, with the objects before each."""
        self._settled = asyncio.Event()

    def compare(
        self, page: ListPage, position: str, *, is_count_exact: bool, unreadable: Collection[str]
    ) -> None:
        """The page has come, and the watch to `position`. Raises msgspec.DecodeError."""
        self._is_listed = True
        self._version = version_number(page.metadata.resource_version)
        if self._version is not None and self._version < (self._began_at or 0):
            self._settle(
                has_missed=False
            )  # from a cache that is older than what the watch told before
            return
        listed = {meta.uid: meta.resource_version for meta in map(read_head, page.items or ())}
        is_whole = not page.metadata.continue_
        self._suspects = {
            uid for uid, version in listed.items() if self._versions.get(uid) != version
        }
        if is_whole:
            self._suspects |= self._versions.keys() - listed.keys()
        self._suspects.difference_update(self._mentioned, unreadable)
        if (is_whole or is_count_exact) and not unreadable and self._version is not None:
            self._count = stated_count(page)
        if not self._differs(len(self._versions)):
            self._settle(has_missed=False)
        elif self._is_past(position, is_inclusive=True):
            self._settle(has_missed=self._differs(self._count_at_version()))

    def reach(self, version: str, *, is_bookmark: bool) -> None:
        """The watch has come to a version; what it tells there is not yet applied."""
        if self._settled.is_set():
            return
        if self._is_listed:
            if self._is_past(version, is_inclusive=is_bookmark):
                self._settle(has_missed=self._differs(len(self._versions)))
            return
        number = version_number(version)
        if number is not None and len(self._counts) <= MAX_COUNTS:
            self._counts.append((number, len(self._versions)))

    def note_event(self, uid: str) -> None:
        """The watch has told of an object, and that is applied."""
        if self._settled.is_set():
            return
        self._mentioned.add(uid)
        self._suspects.discard(uid)
        if self._is_listed and not self._differs(len(self._versions)):
            self._settle(has_missed=False)

    async def settle(self, position: Callable[[], str], grace_seconds: float) -> None:
        """Wait as long as the watch comes nearer; where it does not, it has missed what is open."""
        before = position()
        while not await self.is_settled_within(grace_seconds):
            if position() == before:
                self.give_up()
            before = position()

    def give_up(self) -> None:
        """The watch does not come as far as lists do."""
        self._settle(has_missed=True)

    def pass_over(self) -> None:
        """Nothing is compared."""
        self._settle(has_missed=False)

    async def is_settled_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            return False
        return True

    def _differs(self, count: int | None) -> bool:
        is_count_other = None not in (count, self._count) and count != self._count
        return bool(self._suspects) or is_count_other

    def _is_past(self, version: str, *, is_inclusive: bool) -> bool:
        number = version_number(version)
        if number is None or self._version is None:
            return False
        return number > self._version or (is_inclusive and number == self._version)

    def _count_at_version(self) -> int | None:
        """How many objects there were when the watch, which is past it, came to the list's version."""
        if len(self._counts) > MAX_COUNTS:
            return None
        assert self._version is not None
        later = (count for number, count in self._counts if number > self._version)
        return next(later, len(self._versions))

    def _settle(self, *, has_missed: bool) -> None:
        self.has_missed = has_missed
        self._settled.set()


class BookmarkProgress:
    """Whether bookmarks come as far as lists do, where they are known to: some servers' stay at the last change
    of their kind."""

    def __init__(self) -> None:
        self._awaited: int | None = None
        """The version of a list that the watch has not come to."""
        self._awaited_since = 0.0
        self._followed = 0
        """Bookmarks in a row that came as far as a list in time."""

    def note_list(self, version: str, now: float) -> None:
        if self._awaited is None:
            self._awaited, self._awaited_since = version_number(version), now

    def reach(self, version: str, now: float, *, is_bookmark: bool) -> None:
        """The watch has come to a version."""
        if self._awaited is None:
            return
        number = version_number(version)
        if number is None or number < self._awaited:
            return
        if self._is_overdue(now):
            self._followed = 0
        elif is_bookmark:
            self._followed += 1
        self._awaited = None

    def is_behind(self, now: float) -> bool:
        is_following = self._followed >= FOLLOWING_BOOKMARKS
        return is_following and self._awaited is not None and self._is_overdue(now)

    def _is_overdue(self, now: float) -> bool:
        return now - self._awaited_since > BOOKMARKS_BEHIND_SECONDS


class WatchChecks:
    """The checks of one kind. `versions`: see `WatchCheck`."""

    def __init__(self, client: KubeClient, versions: Mapping[str, str]) -> None:
        self._client = client
        self._versions = versions
        self._position = ""
        self._check: WatchCheck | None = None
        self._mentioned: set[str] | None = None
        """Of what the watch has told since a complete list began."""
        self._progress = BookmarkProgress()
        self._is_count_exact = False
        self._objects = PAGE_OBJECTS
        self._now = asyncio.get_running_loop().time
        self.is_possible = True
        """Not with a server that answers with all objects whatever is asked for: a list a minute."""

    def begin(self, position: str, *, is_count_exact: bool) -> None:
        """All was listed, and a watch goes on from there."""
        self._position, self._is_count_exact = position, is_count_exact
        self._check, self._progress, self._objects = None, BookmarkProgress(), PAGE_OBJECTS
        self.is_possible = True

    def reach(self, version: str, *, is_bookmark: bool) -> None:
        """The watch has come to a version; what it tells there is not yet applied."""
        self._progress.reach(version, self._now(), is_bookmark=is_bookmark)
        if self._check is not None:
            self._check.reach(version, is_bookmark=is_bookmark)
        self._position = version or self._position

    def note_event(self, uid: str) -> None:
        """The watch has told of an object, and that is applied."""
        if self._check is not None:
            self._check.note_event(uid)
        if self._mentioned is not None:
            self._mentioned.add(uid)

    def resync_seconds(self, most: float) -> float:
        """Until all of a list is compared: sooner where a minute's page does not show all objects, and so
        that no more of them are listed than a page a minute."""
        if not self.is_possible or len(self._versions) <= self._objects:
            return most
        return min(most, max(LEAST_RESYNC_SECONDS, 60 * len(self._versions) / PAGE_OBJECTS))

    async def find_missed(
        self, resource: ServedResource, slots: asyncio.Semaphore, *, grace_seconds: float
    ) -> set[str]:
        """UIDs whose version in a complete list differs from ours although the watch never mentioned them.
        Raises ApiFailure."""
        mentioned = self._mentioned = set[str]()
        try:
            work, count = TimeSlice(), ListCount()
            suspects = set(self._versions)
            async with slots:
                async for page in self._client.list_pages(resource, is_metadata=True):
                    count.add(page)
                    for body in page.items or ():
                        meta = read_head(body)
                        if self._versions.get(meta.uid) == meta.resource_version:
                            suspects.discard(meta.uid)
                        else:
                            suspects.add(meta.uid)
                        await work.rest()
            self._is_count_exact = count.is_exact
            suspects -= mentioned
            if suspects:
                await asyncio.sleep(grace_seconds)
            return suspects - mentioned
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiFailure(ErrorKind.BUSY, f"the list is garbled: {error}") from error
        finally:
            self._mentioned = None

    async def ask(self, resource: ServedResource, unreadable: Collection[str]) -> WatchCheck:
        """A check whose page has come. Raises ApiFailure."""
        check = self._check = WatchCheck(self._versions, self._position)
        asked = self._objects if len(self._versions) <= self._objects else 1
        page = await self._client.first_page(resource, objects=asked)
        self.is_possible = len(page.items or ()) <= asked
        if not self.is_possible:
            check.pass_over()
            return check
        if sum(len(bytes(body)) for body in page.items or ()) > PAGE_BYTES:
            self._objects = 1
        try:
            check.compare(
                page,
                self._position,
                is_count_exact=self._is_count_exact,
                unreadable=unreadable,
            )
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiFailure(ErrorKind.BUSY, f"the list is garbled: {error}") from error
        if self._progress.is_behind(self._now()):
            check.give_up()
        self._progress.note_list(page.metadata.resource_version, self._now())
        return check

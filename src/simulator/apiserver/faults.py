"""Things that can be made to go wrong with a simulated cluster, from within the process.

Switches act on the next requests; `cut_watches` and its like act on what is open now.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from simulator.apiserver.store import Ending, Store
from simulator.resources import NAMESPACES, ResourceType

_SYSTEM: Final = "kube-system"
"""The namespace whose UID stands for the cluster."""

READ_VERBS: Final = ("get", "list", "watch")


@dataclass(slots=True)
class Faults:
    """`store` is whose subscriptions are ended."""

    store: Store
    forbidden: set[tuple[str, str, str]] = field(default_factory=set)
    """(group, plural, verb) of requests that are answered 403."""
    hanging: set[tuple[str, str]] = field(default_factory=set)
    """(group, plural) of kinds whose requests are not answered until they leave the set."""
    revokes_tokens: bool = False
    """Every token is answered 401; open watches go on."""
    delay_seconds: float = 0.0
    """Every answer waits this long first."""
    too_many_requests: int = 0
    """So many of the next requests are answered 429."""
    unavailable_requests: int = 0
    """So many of the next requests are answered 503."""
    page_breaks: int = 0
    """So many of the next `continue` tokens are answered 410, as if history had been compacted."""
    stalls_watches: bool = False
    """Watches stay open and deliver nothing until this ends: a half-open connection."""
    loses_events: Callable[[ResourceType], bool] | None = None
    """Watches of these kinds lose their events for good, while bookmarks go on."""

    holds_requests: bool = False
    """Requests are taken and not answered until this ends, as by a server that hangs."""
    truncated_answers: int = 0
    """So many of the next answers break off in the middle."""
    clock_skew_seconds: float = 0.0
    """How far the API server's clock, as its Date headers tell it, is ahead."""
    torn_bytes: int = 0
    """Lines of watches are torn into pieces of this size; 0 = they are not."""

    def forbid(self, resource: ResourceType, *verbs: str) -> None:
        """These verbs, else all that read, are answered 403 from now on; open watches end with theirs."""
        forbidden = verbs or READ_VERBS
        self.forbidden |= {(resource.group, resource.plural, verb) for verb in forbidden}
        if "watch" in forbidden:
            self._end(Ending.CLEAN, resource)

    def allow(self, resource: ResourceType) -> None:
        self.forbidden -= {(resource.group, resource.plural, verb) for verb in READ_VERBS}

    def hang(self, resource: ResourceType) -> None:
        """New requests for the kind get no answer, as from an aggregated API server that is down."""
        self.hanging.add((resource.group, resource.plural))

    def resume(self, resource: ResourceType) -> None:
        self.hanging.discard((resource.group, resource.plural))

    async def until_answered(self, group: str, plural: str) -> None:
        while (group, plural) in self.hanging:
            await asyncio.sleep(0.05)

    def replace_cluster(self) -> None:
        """Another cluster answers under the same address: its kube-system has another UID."""
        stored = self.store.get(NAMESPACES, None, _SYSTEM)
        document = stored.decode() if stored is not None else {"metadata": {"name": _SYSTEM}}
        document["metadata"]["uid"] = str(uuid.uuid4())
        self.store.delete(NAMESPACES, None, _SYSTEM)
        self.store.put(NAMESPACES, document)

    def cut_watches(self, resource: ResourceType | None = None) -> None:
        """Connections end without the protocol's end of stream, as when a server is killed."""
        self._end(Ending.CUT, resource)

    def end_watches(self, resource: ResourceType | None = None) -> None:
        """A clean end, as after timeoutSeconds."""
        self._end(Ending.CLEAN, resource)

    def expire_watches(self, resource: ResourceType | None = None) -> None:
        """An ERROR event with code 410, then the end."""
        self._end(Ending.EXPIRED, resource)

    def compact(self) -> None:
        """History is forgotten and every connection lost: old revisions have expired."""
        self.store.compact()
        self.cut_watches()

    @contextmanager
    def losing_changes(self) -> Iterator[None]:
        """Changes meanwhile are seen by lists alone: their events are lost."""
        tables = self.store.tables()
        try:
            for table in tables:
                table.loses_changes = True
            yield
        finally:
            for table in tables:
                table.loses_changes = False

    def _end(self, ending: Ending, resource: ResourceType | None) -> None:
        for table in self.store.tables():
            if resource is None or table.resource == resource:
                for subscription in table.subscriptions:
                    subscription.end(ending)

"""Subscriptions: the changes of one kind from now on, in order, until something ends them."""

import asyncio
from collections import deque
from enum import Enum

from watchbill.demo.stored import Change

_BACKLOG = 20_000
"""A subscriber that lags this far behind is ended, as an API server ends a slow watch."""


class Ending(Enum):
    """How a subscription ends: with a proper end of stream, in mid-air, or with an ERROR event (410)."""

    CLEAN = "clean"
    CUT = "cut"
    EXPIRED = "expired"


class Subscription:
    """Changes of one kind from now on, in order."""

    __slots__ = ("changes", "ending", "signal")

    def __init__(self) -> None:
        self.changes: deque[Change] = deque()
        self.ending: Ending | None = None
        self.signal = asyncio.Event()

    def push(self, change: Change) -> None:
        if len(self.changes) >= _BACKLOG:
            self.changes.clear()
            self.end(Ending.CLEAN)
            return
        self.changes.append(change)
        self.signal.set()

    def end(self, ending: Ending) -> None:
        self.ending = self.ending or ending
        self.signal.set()

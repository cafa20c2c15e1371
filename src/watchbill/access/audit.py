"""The audit log on its way to the database: gathered in memory, written together, off the path of any request.

Equal reads of one subject become one event with a count; everything that changes something stays an event of
its own. What cannot be written is kept and tried again; beyond a bound it is counted as lost, never silently.
"""

import asyncio
from collections.abc import Hashable, Iterator
from dataclasses import replace
from itertools import count

import structlog

from watchbill.store.identity.audit import AuditEvent, audit_write
from watchbill.store.postgres.database import Database

FLUSH_SECONDS = 5.0
MAX_QUEUED_EVENTS = 20_000
EVENTS_PER_WRITE = 1_000
MAX_ANONYMOUS_ADDRESSES = 100
MANY_ADDRESSES = "many addresses"

log = structlog.get_logger(__name__)


class Audit:
    """`note` never waits; `flush` writes what was noted, every FLUSH_SECONDS."""

    def __init__(self, db: Database, *, most_waiting: int = MAX_QUEUED_EVENTS) -> None:
        self._db = db
        self._most_waiting = most_waiting
        self._waiting: dict[Hashable, AuditEvent] = {}
        self._numbers: Iterator[int] = count()
        self._addresses: set[str] = set()
        self._writing = asyncio.Lock()
        self.lost = 0

    def note(self, event: AuditEvent, *, is_read: bool, is_unauthenticated: bool = False) -> None:
        """Only so many unauthenticated callers are distinguished, so that they cannot crowd out others."""
        if is_unauthenticated:
            if (
                event.address not in self._addresses
                and len(self._addresses) >= MAX_ANONYMOUS_ADDRESSES
            ):
                event = replace(event, address=MANY_ADDRESSES)
            self._addresses.add(event.address)
        key: Hashable = next(self._numbers)
        if is_read:
            key = (
                *(event.tenant_id, event.subject_kind, event.subject, event.operation),
                *(event.target, event.rules, event.address, event.outcome, event.details),
            )
        known = self._waiting.get(key)
        if known is not None:
            known.last_at = event.last_at
            known.count += event.count
        elif len(self._waiting) >= self._most_waiting:
            self.lost += event.count
        else:
            self._waiting[key] = event

    async def flush(self) -> None:
        """Write everything that waits. Raises Unavailable, and then keeps what was not written."""
        async with self._writing:
            taken, self._waiting = self._waiting, {}
            self._addresses.clear()
            try:
                await self._write(taken)
            finally:
                for key, event in taken.items():
                    self._put_back(key, event)
        if self.lost:
            lost, self.lost = self.lost, 0
            log.error("audit events were lost: more than can wait", count=lost)

    async def _write(self, taken: dict[Hashable, AuditEvent]) -> None:
        """What is written leaves `taken`."""
        while taken:
            first = next(iter(taken.values()))
            keys = [key for key, event in taken.items() if event.tenant_id == first.tenant_id]
            keys = keys[:EVENTS_PER_WRITE]
            await audit_write(self._db, first.tenant_id, [taken[key] for key in keys])
            for key in keys:
                del taken[key]

    def _put_back(self, key: Hashable, event: AuditEvent) -> None:
        newer = self._waiting.get(key)
        if newer is not None:
            self._waiting[key] = replace(
                event, last_at=newer.last_at, count=event.count + newer.count
            )
        elif len(self._waiting) < self._most_waiting:
            self._waiting[key] = event
        else:
            self.lost += event.count

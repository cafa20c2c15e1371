"""The audit log as it is kept: who asked what, by which rules, from where, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from watchbill.store.postgres.database import Connection, Database

PURGED_AT_ONCE = 10_000


@dataclass(slots=True, kw_only=True)
class AuditEvent:
    """`count` equal requests between `at` and `last_at`, which grow until it is written. `outcome` is the
    status that was answered."""

    tenant_id: int
    at: datetime
    last_at: datetime
    count: int
    subject_kind: str
    subject: str
    operation: str
    target: str
    rules: tuple[str, ...]
    address: str
    outcome: int
    request_id: str
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    since: datetime | None = None
    until: datetime | None = None
    subject: str | None = None
    operation: str | None = None
    limit: int = 100


_COLUMNS = tuple(AuditEvent.__dataclass_fields__)
_TYPES = {"at": "timestamptz", "last_at": "timestamptz", "count": "int", "outcome": "int"}


async def audit_write(db: Database, tenant_id: int, events: Sequence[AuditEvent]) -> None:
    async with db.acquire(tenant_id) as connection:
        await audit_insert(connection, tenant_id, events)


async def audit_insert(
    connection: Connection, tenant_id: int, events: Sequence[AuditEvent]
) -> None:
    """One statement for all of them. `rules` travel joined: an array of arrays must be rectangular."""
    rows = [
        [
            "\x1f".join(event.rules) if name == "rules" else getattr(event, name)
            for name in _COLUMNS[1:]
        ]
        for event in events
    ]
    casts = ", ".join(
        f"${number}::{_TYPES.get(name, 'text')}[]" for number, name in enumerate(_COLUMNS[1:], 3)
    )
    fields = ", ".join(
        "string_to_array(n.rules, E'\\x1f')" if name == "rules" else f"n.{name}"
        for name in _COLUMNS[1:]
    )
    names = ", ".join(_COLUMNS[1:])
    await connection.execute(
        f"INSERT INTO audit_event (tenant_id, id, {names}) SELECT $1, n.id, {fields} "
        f"FROM unnest($2::uuid[], {casts}) AS n(id, {names})",
        tenant_id,
        [uuid4() for _ in events],
        *(list(column) for column in zip(*rows, strict=True)),
    )


async def audit_list(
    db: Database, tenant_id: int, query: AuditQuery
) -> list[tuple[UUID, AuditEvent]]:
    """The tenant's events, latest first."""
    if "\0" in f"{query.subject}{query.operation}":
        return []  # no text holds it
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            f"SELECT id, {', '.join(_COLUMNS)} FROM audit_event WHERE tenant_id = $1 "
            "AND ($2::timestamptz IS NULL OR last_at >= $2) "
            "AND ($3::timestamptz IS NULL OR at < $3) "
            "AND ($4::text IS NULL OR subject = $4) AND ($5::text IS NULL OR operation = $5) "
            "ORDER BY at DESC, id LIMIT $6",
            tenant_id,
            query.since,
            query.until,
            query.subject,
            query.operation,
            query.limit,
        )
    return [
        (
            row["id"],
            AuditEvent(
                **{name: row[name] for name in _COLUMNS if name != "rules"},
                rules=tuple(row["rules"]),
            ),
        )
        for row in rows
    ]


async def audit_purge(db: Database, tenant_id: int, *, keep: timedelta, now: datetime) -> int:
    """Forget events older than `keep`, some at a time. Returns how many went."""
    purged = 0
    while True:
        async with db.acquire(tenant_id) as connection:
            status: str = await connection.execute(
                "DELETE FROM audit_event WHERE (tenant_id, at, id) IN (SELECT tenant_id, at, id "
                "FROM audit_event WHERE tenant_id = $1 AND at < $2 LIMIT $3)",
                tenant_id,
                now - keep,
                PURGED_AT_ONCE,
            )
        gone = int(status.rpartition(" ")[2])
        purged += gone
        if gone < PURGED_AT_ONCE:
            return purged

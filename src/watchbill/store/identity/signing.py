"""The keys that tokens are signed with, shared by all servers. Knows nothing of what they sign."""

from dataclasses import dataclass
from datetime import datetime

from watchbill.identity import FIRST_TENANT_ID
from watchbill.store.postgres.database import Database

_LOCK = 0x77617402


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """Signs from `active_at` to `retired_at`; verifies before and for a while after."""

    kid: str
    private_jwk: str
    """Sealed, where the server was given a secret for it."""
    created_at: datetime
    active_at: datetime
    retired_at: datetime | None


async def signing_key_list(db: Database) -> list[SigningKey]:
    """All keys, newest first."""
    async with db.acquire(FIRST_TENANT_ID) as connection:
        rows = await connection.fetch(
            "SELECT kid, private_jwk, created_at, coalesce(active_at, created_at) AS active_at, "
            "retired_at FROM signing_key ORDER BY created_at DESC, kid"
        )
    return [SigningKey(**row) for row in rows]


async def signing_key_add_first(db: Database, key: SigningKey) -> None:
    """Keep `key` unless a key is in use already, so that all servers sign with the same one."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            "INSERT INTO signing_key (kid, private_jwk, created_at) SELECT $1, $2, $3 "
            "WHERE NOT EXISTS (SELECT FROM signing_key WHERE retired_at IS NULL)",
            key.kid,
            key.private_jwk,
            key.created_at,
        )


async def signing_key_encrypt(db: Database, kid: str, sealed: str) -> None:
    """Keep the same key in a form that only its opener reads."""
    async with db.acquire(FIRST_TENANT_ID) as connection:
        await connection.execute(
            "UPDATE signing_key SET private_jwk = $2 WHERE kid = $1", kid, sealed
        )


async def signing_key_rotate(db: Database, key: SigningKey, *, retire_others_at: datetime) -> None:
    """Add `key` and let every other one in use end at the given time."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(
            "UPDATE signing_key SET retired_at = $1 WHERE retired_at IS NULL OR retired_at > $1",
            retire_others_at,
        )
        await connection.execute(
            "INSERT INTO signing_key (kid, private_jwk, created_at, active_at) "
            "VALUES ($1, $2, $3, $4)",
            key.kid,
            key.private_jwk,
            key.created_at,
            key.active_at,
        )

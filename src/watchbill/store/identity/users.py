"""Users of identity providers, identified by issuer and the issuer's own id."""

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from watchbill.identity import ExternalLogin, User
from watchbill.store.postgres.database import Database

SEEN_EVERY = timedelta(hours=1)
"""How exactly it is kept when somebody was last seen: not every request needs a write."""


async def user_upsert(db: Database, login: ExternalLogin, *, now: datetime) -> UUID:
    """The person's id. Somebody new is made, without any rule; what changed is kept."""
    async with db.transaction(login.tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT id, name, email, groups, seen_at, told_at FROM person "
            "WHERE tenant_id = $1 AND issuer = $2 AND external_id = $3",
            login.tenant_id,
            login.issuer,
            login.external_id,
        )
        stated = (login.name, login.email, list(login.groups))
        if row is not None:
            is_new = (row["name"], row["email"], row["groups"]) != stated
            if row["told_at"] > login.stated_at or not (
                is_new or now - row["seen_at"] >= SEEN_EVERY
            ):
                known: UUID = row["id"]
                return known
        user_id: UUID = await connection.fetchval(
            "INSERT INTO person (tenant_id, id, issuer, external_id, name, email, groups, "
            "created_at, seen_at, told_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9) "
            "ON CONFLICT (tenant_id, issuer, external_id) DO UPDATE "
            "SET name = $5, email = $6, groups = $7, seen_at = $8, told_at = $9 RETURNING id",
            login.tenant_id,
            uuid4(),
            login.issuer,
            login.external_id,
            *stated,
            now,
            login.stated_at,
        )
    return user_id


async def user_list(db: Database, tenant_id: int) -> list[User]:
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT id, issuer, name, email, groups, created_at, seen_at, disabled_at FROM person "
            "WHERE tenant_id = $1 ORDER BY name, issuer",
            tenant_id,
        )
    return [User(**{**row, "groups": tuple(row["groups"])}) for row in rows]


async def user_set_disabled(
    db: Database, tenant_id: int, person_id: UUID, *, at: datetime | None
) -> bool:
    """Disable a user, or (`at` None) enable again. False where there is no user of that id."""
    async with db.acquire(tenant_id) as connection:
        user_id = await connection.fetchval(
            "UPDATE person SET disabled_at = $3 WHERE tenant_id = $1 AND id = $2 RETURNING id",
            tenant_id,
            person_id,
            at,
        )
    return user_id is not None

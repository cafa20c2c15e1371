"""The page's sessions, logins with refresh tokens, and logins of devices, kept as hashes only.

A device's login is begun by a program and confirmed elsewhere: kept for minutes, used once. Knows no cookie
and no token.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.identity import FIRST_TENANT_ID, Principal
from watchbill.store.postgres.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    principal: Principal
    expires_at: datetime


async def session_create(
    db: Database, session: StoredSession, *, token_hash: bytes, now: datetime
) -> None:
    """Also forgets the tenant's sessions that are over."""
    principal = session.principal
    async with db.transaction(principal.tenant_id) as connection:
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND expires_at <= $2",
            principal.tenant_id,
            now,
        )
        await connection.execute(
            "INSERT INTO session (token_hash, tenant_id, holder, account_id, created_at, "
            "expires_at) VALUES ($1, $2, $3, $4, $5, $6)",
            token_hash,
            principal.tenant_id,
            principal.kind,
            principal.id,
            now,
            session.expires_at,
        )


async def session_get(db: Database, token_hash: bytes, *, now: datetime) -> StoredSession | None:
    async with db.by_handle("session", token_hash.hex()) as connection:
        row = await connection.fetchrow(
            "SELECT tenant_id, holder, account_id, expires_at FROM session "
            "WHERE token_hash = $1 AND expires_at > $2",
            token_hash,
            now,
        )
    if row is None:
        return None
    principal = Principal(tenant_id=row["tenant_id"], kind=row["holder"], id=row["account_id"])
    return StoredSession(principal=principal, expires_at=row["expires_at"])


async def session_delete(db: Database, tenant_id: int, token_hash: bytes) -> None:
    async with db.transaction(tenant_id) as connection:
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND token_hash = $2", tenant_id, token_hash
        )


async def refresh_family_create(
    db: Database, principal: Principal, *, token_hash: bytes, expires_at: datetime, now: datetime
) -> None:
    """A login (`principal.family`) with its first refresh token. Forgets the tenant's that are over."""
    async with db.transaction(principal.tenant_id) as connection:
        await connection.execute(
            "WITH over AS (DELETE FROM refresh_family WHERE tenant_id = $1 AND expires_at <= $2 "
            "RETURNING id) DELETE FROM refresh_token t USING over "
            "WHERE t.tenant_id = $1 AND t.family_id = over.id",
            principal.tenant_id,
            now,
        )
        await connection.execute(
            "INSERT INTO refresh_family (tenant_id, id, holder, holder_id, created_at, expires_at) "
            "VALUES ($1, $2, $3, $4, $5, $6)",
            principal.tenant_id,
            principal.family,
            principal.kind,
            principal.id,
            now,
            expires_at,
        )
        await connection.execute(
            "INSERT INTO refresh_token (tenant_id, token_hash, family_id, created_at) "
            "VALUES ($1, $2, $3, $4)",
            principal.tenant_id,
            token_hash,
            principal.family,
            now,
        )


async def refresh_family_get(db: Database, token_hash: bytes) -> tuple[int, UUID] | None:
    """Tenant and family of a refresh token, used or not."""
    async with db.by_handle("refresh_token", token_hash.hex()) as connection:
        row = await connection.fetchrow(
            "SELECT tenant_id, family_id FROM refresh_token WHERE token_hash = $1", token_hash
        )
    return None if row is None else (row["tenant_id"], row["family_id"])


async def refresh_family_rotate(
    db: Database, tenant_id: int, *, old_hash: bytes, new_hash: bytes, now: datetime
) -> Principal | None:
    """Exchange a refresh token for the next one. One that was used before ends its family: None then, and
    where the family is over. Two at once: the second is such a reuse."""
    async with db.transaction(tenant_id) as connection:
        row = await connection.fetchrow(
            "SELECT f.id, f.holder, f.holder_id, f.revoked_at, f.expires_at, t.used_at "
            "FROM refresh_token t JOIN refresh_family f "
            "ON f.tenant_id = t.tenant_id AND f.id = t.family_id "
            "WHERE t.tenant_id = $1 AND t.token_hash = $2 FOR UPDATE",
            tenant_id,
            old_hash,
        )
        if row is None or row["revoked_at"] is not None or row["expires_at"] <= now:
            return None
        if row["used_at"] is not None:
            await connection.execute(
                "UPDATE refresh_family SET revoked_at = $3 WHERE tenant_id = $1 AND id = $2",
                tenant_id,
                row["id"],
                now,
            )
            return None
        await connection.execute(
            "UPDATE refresh_token SET used_at = $3 WHERE tenant_id = $1 AND token_hash = $2",
            tenant_id,
            old_hash,
            now,
        )
        await connection.execute(
            "INSERT INTO refresh_token (tenant_id, token_hash, family_id, created_at) "
            "VALUES ($1, $2, $3, $4)",
            tenant_id,
            new_hash,
            row["id"],
            now,
        )
    return Principal(tenant_id=tenant_id, kind=row["holder"], id=row["holder_id"], family=row["id"])


async def refresh_family_revoke(
    db: Database, tenant_id: int, family_id: UUID, *, now: datetime
) -> None:
    async with db.acquire(tenant_id) as connection:
        await connection.execute(
            "UPDATE refresh_family SET revoked_at = coalesce(revoked_at, $3) "
            "WHERE tenant_id = $1 AND id = $2",
            tenant_id,
            family_id,
            now,
        )


async def principal_end_logins(db: Database, principal: Principal, *, now: datetime) -> None:
    """All sessions and refresh tokens of one principal."""
    async with db.transaction(principal.tenant_id) as connection:
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND holder = $2 AND account_id = $3",
            principal.tenant_id,
            principal.kind,
            principal.id,
        )
        await connection.execute(
            "UPDATE refresh_family SET revoked_at = coalesce(revoked_at, $4) "
            "WHERE tenant_id = $1 AND holder = $2 AND holder_id = $3",
            principal.tenant_id,
            principal.kind,
            principal.id,
            now,
        )


MAX_OPEN = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLogin:
    user_code: str
    address: str
    created_at: datetime
    expires_at: datetime
    polled_at: datetime | None
    denied_at: datetime | None
    for_tenant: int | None
    holder: str | None
    holder_id: UUID | None

    @property
    def approved(self) -> Principal | None:
        if self.for_tenant is None or self.holder is None or self.holder_id is None:
            return None
        return Principal(tenant_id=self.for_tenant, kind=self.holder, id=self.holder_id)


_COLUMNS = ", ".join(DeviceLogin.__dataclass_fields__)


async def device_login_create(
    db: Database,
    *,
    device_hash: bytes,
    user_code: str,
    address: str,
    expires_at: datetime,
    now: datetime,
) -> bool:
    """False where too many are open."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        await connection.execute("DELETE FROM device_login WHERE expires_at <= $1", now)
        made = await connection.fetchval(
            "INSERT INTO device_login (device_hash, user_code, address, created_at, expires_at) "
            "SELECT $1, $2, $3, $4, $5 WHERE (SELECT count(*) FROM device_login) < $6 "
            "RETURNING true",
            device_hash,
            user_code,
            address,
            now,
            expires_at,
            MAX_OPEN,
        )
    return made is not None


async def device_login_get(db: Database, user_code: str, *, now: datetime) -> DeviceLogin | None:
    """An open one, neither approved nor denied."""
    async with db.acquire(FIRST_TENANT_ID) as connection:
        row = await connection.fetchrow(
            f"SELECT {_COLUMNS} FROM device_login WHERE user_code = $1 AND expires_at > $2 "
            "AND holder IS NULL AND denied_at IS NULL",
            user_code,
            now,
        )
    return None if row is None else DeviceLogin(**row)


async def device_login_decide(
    db: Database, user_code: str, principal: Principal | None, *, now: datetime
) -> bool:
    """Approve for `principal`, or deny. False where there is no such open login."""
    async with db.acquire(FIRST_TENANT_ID) as connection:
        decided = await connection.fetchval(
            "UPDATE device_login SET for_tenant = $2, holder = $3, holder_id = $4, "
            "denied_at = CASE WHEN $3::text IS NULL THEN $5::timestamptz END "
            "WHERE user_code = $1 AND expires_at > $5 AND holder IS NULL AND denied_at IS NULL "
            "RETURNING true",
            user_code,
            principal.tenant_id if principal else None,
            principal.kind if principal else None,
            principal.id if principal else None,
            now,
        )
    return decided is not None


async def device_login_poll(
    db: Database, device_hash: bytes, *, now: datetime
) -> DeviceLogin | None:
    """The login as it stands; one that was decided is taken out: it is answered once."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        row = await connection.fetchrow(
            f"SELECT {_COLUMNS} FROM device_login WHERE device_hash = $1 FOR UPDATE", device_hash
        )
        if row is None:
            return None
        login = DeviceLogin(**row)
        if login.approved or login.denied_at or login.expires_at <= now:
            await connection.execute("DELETE FROM device_login WHERE device_hash = $1", device_hash)
        else:
            await connection.execute(
                "UPDATE device_login SET polled_at = $2 WHERE device_hash = $1", device_hash, now
            )
    return login

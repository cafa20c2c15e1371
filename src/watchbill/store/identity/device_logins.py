"""Logins that a program began and a person confirms elsewhere: kept for minutes, used once."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.identity import FIRST_TENANT_ID, Principal
from watchbill.store.postgres.database import Database

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

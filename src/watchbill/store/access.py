"""Who may come in: accounts, access rules, sessions, signing keys and the agents' credentials.

Knows how they are kept, not what a token is nor what a rule grants.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from watchbill.store.credential import Stored, new_secret, store_account_secret
from watchbill.store.database import Connection, Database

FIRST_TENANT_ID = 1
ADMINISTRATOR = "administrator"
SERVICE_ACCOUNT = "service-account"
_FIRST_ACCOUNT_LOCK = 0x77617401
_SIGNING_KEY_LOCK = 0x77617402


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    tenant_id: int
    id: UUID
    client_id: str
    name: str
    secret: Stored
    is_disabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    role: str
    scope_kind: str
    scope_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An account with everything that was granted to it."""

    tenant_id: int
    account_id: UUID
    client_id: str
    name: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    kid: str
    private_jwk: str
    created_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    tenant_id: int
    account_id: UUID
    expires_at: datetime


async def account_by_client_id(db: Database, client_id: str) -> Account | None:
    if "\0" in client_id:
        return None
    async with db.by_handle("client_id", client_id) as connection:
        row = await connection.fetchrow(
            "SELECT tenant_id, id, client_id, name, secret_salt, secret_hash, disabled_at "
            "FROM account WHERE client_id = $1",
            client_id,
        )
    if row is None:
        return None
    return Account(
        tenant_id=row["tenant_id"],
        id=row["id"],
        client_id=row["client_id"],
        name=row["name"],
        secret=Stored(row["secret_salt"], row["secret_hash"]),
        is_disabled=row["disabled_at"] is not None,
    )


async def subject_by_account(db: Database, tenant_id: int, account_id: UUID) -> Subject | None:
    """None where the account is gone or disabled."""
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            "SELECT a.client_id, a.name, r.role, r.scope_kind, r.scope_id FROM account a "
            "LEFT JOIN access_rule r ON r.tenant_id = a.tenant_id "
            "AND r.subject_kind = $3 AND r.subject = a.client_id "
            "WHERE a.tenant_id = $1 AND a.id = $2 AND a.disabled_at IS NULL",
            tenant_id,
            account_id,
            SERVICE_ACCOUNT,
        )
    if not rows:
        return None
    return Subject(
        tenant_id=tenant_id,
        account_id=account_id,
        client_id=rows[0]["client_id"],
        name=rows[0]["name"],
        rules=tuple(
            Rule(role=row["role"], scope_kind=row["scope_kind"], scope_id=row["scope_id"])
            for row in rows
            if row["role"] is not None
        ),
    )


async def account_create(
    db: Database, tenant_id: int, name: str, rules: tuple[Rule, ...], *, now: datetime
) -> tuple[str, str]:
    """A service account with its rules: client id and secret, which is nowhere readable again."""
    async with db.transaction(tenant_id) as connection:
        return await _insert_account(connection, tenant_id, name, rules, now)


async def account_disable(db: Database, tenant_id: int, client_id: str, *, now: datetime) -> bool:
    """False where there is no such account. Sessions end with it; tokens within a minute."""
    async with db.transaction(tenant_id) as connection:
        account_id = await connection.fetchval(
            "UPDATE account SET disabled_at = coalesce(disabled_at, $3) "
            "WHERE tenant_id = $1 AND client_id = $2 RETURNING id",
            tenant_id,
            client_id,
            now,
        )
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND account_id = $2", tenant_id, account_id
        )
    return account_id is not None


async def first_account(db: Database, *, now: datetime) -> tuple[str, str] | None:
    """The administrator's id and secret, made by whichever server is first; None ever after."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _FIRST_ACCOUNT_LOCK)
        if await connection.fetchval("SELECT EXISTS (SELECT FROM account)"):
            return None
        rule = Rule(role=ADMINISTRATOR, scope_kind="tenant", scope_id=str(FIRST_TENANT_ID))
        return await _insert_account(
            connection, FIRST_TENANT_ID, "first administrator", (rule,), now
        )


async def _insert_account(
    connection: Connection, tenant_id: int, name: str, rules: tuple[Rule, ...], now: datetime
) -> tuple[str, str]:
    client_id, secret = f"wbc-{secrets.token_hex(8)}", new_secret()
    stored = store_account_secret(secret)
    await connection.execute(
        "INSERT INTO account "
        "(tenant_id, id, client_id, name, secret_salt, secret_hash, created_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7)",
        tenant_id,
        uuid4(),
        client_id,
        name,
        stored.salt,
        stored.hash,
        now,
    )
    await connection.executemany(
        "INSERT INTO access_rule "
        "(tenant_id, id, subject_kind, subject, role, scope_kind, scope_id) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7)",
        [
            (tenant_id, uuid4(), SERVICE_ACCOUNT, client_id, r.role, r.scope_kind, r.scope_id)
            for r in rules
        ],
    )
    return client_id, secret


async def signing_keys(db: Database) -> list[SigningKey]:
    """All keys, newest first."""
    async with db.acquire(FIRST_TENANT_ID) as connection:
        rows = await connection.fetch(
            "SELECT kid, private_jwk, created_at, retired_at FROM signing_key "
            "ORDER BY created_at DESC, kid"
        )
    return [SigningKey(**row) for row in rows]


async def add_first_signing_key(db: Database, key: SigningKey) -> None:
    """Keep `key` unless a key is in use already, so that all servers sign with the same one."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SIGNING_KEY_LOCK)
        await connection.execute(
            "INSERT INTO signing_key (kid, private_jwk, created_at) SELECT $1, $2, $3 "
            "WHERE NOT EXISTS (SELECT FROM signing_key WHERE retired_at IS NULL)",
            key.kid,
            key.private_jwk,
            key.created_at,
        )


async def session_create(
    db: Database, session: Session, *, token_hash: bytes, now: datetime
) -> None:
    """Also forgets the tenant's sessions that are over."""
    async with db.transaction(session.tenant_id) as connection:
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND expires_at <= $2", session.tenant_id, now
        )
        await connection.execute(
            "INSERT INTO session (token_hash, tenant_id, account_id, created_at, expires_at) "
            "VALUES ($1, $2, $3, $4, $5)",
            token_hash,
            session.tenant_id,
            session.account_id,
            now,
            session.expires_at,
        )


async def session_by_hash(db: Database, token_hash: bytes, *, now: datetime) -> Session | None:
    async with db.by_handle("session", token_hash.hex()) as connection:
        row = await connection.fetchrow(
            "SELECT tenant_id, account_id, expires_at FROM session "
            "WHERE token_hash = $1 AND expires_at > $2",
            token_hash,
            now,
        )
    return None if row is None else Session(**row)


async def session_delete(db: Database, tenant_id: int, token_hash: bytes) -> None:
    async with db.transaction(tenant_id) as connection:
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND token_hash = $2", tenant_id, token_hash
        )


async def cluster_credential(db: Database, cluster_id: UUID) -> tuple[int, Stored] | None:
    """Tenant and stored secret of a cluster that has not been removed."""
    async with db.by_handle("cluster_id", str(cluster_id)) as connection:
        row = await connection.fetchrow(
            "SELECT tenant_id, credential_salt, credential_hash FROM cluster "
            "WHERE id = $1 AND removed_at IS NULL",
            cluster_id,
        )
    if row is None:
        return None
    return row["tenant_id"], Stored(row["credential_salt"], row["credential_hash"])

"""Accounts, users and their access keys, the rules granted to them, and the agents' credentials.

Knows how they are stored, not what a token is nor what a rule grants. Secrets are kept as salted hashes. All
of them are made here, from 256 random bits, so one round of SHA-256 is sound: a slow hash is for what people
choose, and would let anybody who sends wrong secrets keep the processor busy and others waiting.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from watchbill.errors import Unauthenticated
from watchbill.identity import (
    FIRST_TENANT_ID,
    SERVICE_ACCOUNT,
    USER,
    USER_PRINCIPAL,
    Account,
    ExternalLogin,
    Principal,
    Rule,
    StoredSecret,
    Subject,
    SubjectNames,
    User,
    administrator_rule,
)
from watchbill.store.identity.rules import rule_insert, rules_for
from watchbill.store.postgres.database import Connection, Database, Row

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


SALT_BYTES = 16
SECRET_BYTES = 32
_AGENT_CREDENTIAL = re.compile(
    r"wba\.([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.([A-Za-z0-9_-]{20,100})"
)


def new_secret() -> str:
    """URL-safe text that no one can guess."""
    return secrets.token_urlsafe(SECRET_BYTES)


def store_secret(secret: str) -> StoredSecret:
    salt = secrets.token_bytes(SALT_BYTES)
    return StoredSecret(salt, _hash(secret, salt))


def is_secret(secret: str, stored: StoredSecret) -> bool:
    return hmac.compare_digest(_hash(secret, stored.salt), stored.hash)


def new_agent_credential(cluster_id: UUID) -> tuple[str, StoredSecret]:
    """The line to hand out, once, and what to keep of it."""
    secret = new_secret()
    return f"wba.{cluster_id}.{secret}", store_secret(secret)


def read_agent_credential(text: str) -> tuple[UUID, str]:
    """Cluster id and secret. Raises Unauthenticated."""
    match = _AGENT_CREDENTIAL.fullmatch(text)
    if match is None:
        raise Unauthenticated("This is not an agent credential.")
    return UUID(match[1]), match[2]


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()


_CLIENT_ID = re.compile(r"wbc-[0-9a-f]{16}", re.ASCII)
_FIRST_ACCOUNT_LOCK = 0x77617401


_ACCOUNT = (
    "SELECT tenant_id, id, client_id, name, secret_salt, secret_hash, created_at, created_by, "
    "expires_at, person_id AS user_id, disabled_at FROM account"
)


def _account(row: Row) -> Account:
    values = dict(row)
    secret = StoredSecret(values.pop("secret_salt"), values.pop("secret_hash"))
    is_disabled = values.pop("disabled_at") is not None
    return Account(**values, secret=secret, is_disabled=is_disabled)


def is_client_id(text: str) -> bool:
    """Whether it could be one: others need not be looked for, and some could not be."""
    return _CLIENT_ID.fullmatch(text) is not None


async def account_get(db: Database, client_id: str) -> Account | None:
    if not is_client_id(client_id):
        return None
    async with db.by_handle("client_id", client_id) as connection:
        row = await connection.fetchrow(f"{_ACCOUNT} WHERE client_id = $1", client_id)
    return None if row is None else _account(row)


async def account_list(
    db: Database, tenant_id: int, *, user_id: UUID | None = None, keys: bool = False
) -> list[Account]:
    """The service accounts; with `keys` users' access keys instead, of one user where named."""
    async with db.acquire(tenant_id) as connection:
        rows = await connection.fetch(
            f"{_ACCOUNT} WHERE tenant_id = $1 AND (person_id IS NOT NULL) = $3 "
            "AND ($2::uuid IS NULL OR person_id = $2) ORDER BY name, client_id",
            tenant_id,
            user_id,
            keys or user_id is not None,
        )
    return [_account(row) for row in rows]


async def subject_get(
    db: Database, principal: Principal, *, now: datetime, groups_since: datetime
) -> Subject | None:
    """None where the principal, or its login, is gone, disabled or expired. Groups that an identity provider
    stated before `groups_since` do not count."""
    async with db.acquire(principal.tenant_id) as connection:
        if principal.family is not None and not await _is_open(connection, principal, now):
            return None
        find = _user_subject if principal.kind == USER_PRINCIPAL else _account_subject
        subject = await find(connection, principal, now, groups_since)
        if subject is None:
            return None
        subjects = SubjectNames(kind=subject.kind, subject=subject.subject, groups=subject.groups)
        rules = await rules_for(connection, principal.tenant_id, subjects)
    return Subject(
        principal=principal,
        kind=subject.kind,
        subject=subject.subject,
        name=subject.name,
        groups=subject.groups,
        rules=rules,
    )


async def _is_open(connection: Connection, principal: Principal, now: datetime) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM refresh_family WHERE tenant_id = $1 AND id = $2 "
            "AND holder = $3 AND holder_id = $4 AND revoked_at IS NULL AND expires_at > $5)",
            principal.tenant_id,
            principal.family,
            principal.kind,
            principal.id,
            now,
        )
    )


async def _account_subject(
    connection: Connection, principal: Principal, now: datetime, groups_since: datetime
) -> Subject | None:
    row = await connection.fetchrow(
        "SELECT a.client_id, a.name, a.person_id, p.name AS person, "
        "CASE WHEN p.told_at >= $4 THEN p.groups ELSE '{}' END AS groups FROM account a "
        "LEFT JOIN person p ON p.tenant_id = a.tenant_id AND p.id = a.person_id "
        "AND p.disabled_at IS NULL "
        "WHERE a.tenant_id = $1 AND a.id = $2 AND a.disabled_at IS NULL "
        "AND (a.expires_at IS NULL OR a.expires_at > $3)",
        principal.tenant_id,
        principal.id,
        now,
        groups_since,
    )
    if row is None or (row["person_id"] is not None and row["person"] is None):
        return None
    if row["person_id"] is None:
        return Subject(
            principal=principal, kind=SERVICE_ACCOUNT, subject=row["client_id"], name=row["name"]
        )
    return Subject(
        principal=principal,
        kind=USER,
        subject=row["person"],
        name=row["person"],
        groups=tuple(row["groups"]),
    )


async def _user_subject(
    connection: Connection, principal: Principal, _: datetime, groups_since: datetime
) -> Subject | None:
    row = await connection.fetchrow(
        "SELECT name, CASE WHEN told_at >= $3 THEN groups ELSE '{}' END AS groups FROM person "
        "WHERE tenant_id = $1 AND id = $2 AND disabled_at IS NULL",
        principal.tenant_id,
        principal.id,
        groups_since,
    )
    if row is None:
        return None
    return Subject(
        principal=principal,
        kind=USER,
        subject=row["name"],
        name=row["name"],
        groups=tuple(row["groups"]),
    )


async def account_create(
    db: Database,
    tenant_id: int,
    name: str,
    rules: tuple[Rule, ...],
    *,
    now: datetime,
    created_by: str | None = None,
    expires_at: datetime | None = None,
    user_id: UUID | None = None,
) -> tuple[str, str]:
    """A service account with its rules: client id and secret, which is nowhere readable again."""
    async with db.transaction(tenant_id) as connection:
        account = NewAccount(tenant_id, name, created_by, expires_at, user_id)
        return await account_insert(connection, account, rules, now)


async def account_rotate(db: Database, tenant_id: int, client_id: str) -> str | None:
    """A new secret in place of the old one, whose sessions end; None where there is no such account."""
    secret = new_secret()
    stored = store_secret(secret)
    async with db.transaction(tenant_id) as connection:
        account_id = await connection.fetchval(
            "UPDATE account SET secret_salt = $3, secret_hash = $4 "
            "WHERE tenant_id = $1 AND client_id = $2 AND disabled_at IS NULL RETURNING id",
            tenant_id,
            client_id,
            stored.salt,
            stored.hash,
        )
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND account_id = $2", tenant_id, account_id
        )
    return secret if account_id else None


async def account_disable(
    db: Database, tenant_id: int, client_id: str, *, now: datetime, user_id: UUID | None = None
) -> bool:
    """False where there is no such account (of that user). Sessions end with it; tokens in a minute."""
    async with db.transaction(tenant_id) as connection:
        account_id = await connection.fetchval(
            "UPDATE account SET disabled_at = coalesce(disabled_at, $3) WHERE tenant_id = $1 "
            "AND client_id = $2 AND ($4::uuid IS NULL OR person_id = $4) RETURNING id",
            tenant_id,
            client_id,
            now,
            user_id,
        )
        await connection.execute(
            "DELETE FROM session WHERE tenant_id = $1 AND account_id = $2", tenant_id, account_id
        )
    return account_id is not None


async def account_create_first(db: Database, *, now: datetime) -> tuple[str, str] | None:
    """The administrator's id and secret, made by whichever server is first; None ever after."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _FIRST_ACCOUNT_LOCK)
        if await connection.fetchval(
            "SELECT EXISTS (SELECT FROM account WHERE tenant_id = $1)", FIRST_TENANT_ID
        ):
            return None
        account = NewAccount(FIRST_TENANT_ID, "first administrator")
        return await account_insert(
            connection, account, (administrator_rule(FIRST_TENANT_ID),), now
        )


@dataclass(frozen=True, slots=True)
class NewAccount:
    tenant_id: int
    name: str
    created_by: str | None = None
    expires_at: datetime | None = None
    user_id: UUID | None = None


async def account_insert(
    connection: Connection, account: NewAccount, rules: tuple[Rule, ...], now: datetime
) -> tuple[str, str]:
    """Client id and secret."""
    client_id, secret = f"wbc-{secrets.token_hex(8)}", new_secret()
    stored = store_secret(secret)
    await connection.execute(
        "INSERT INTO account (tenant_id, id, client_id, name, secret_salt, secret_hash, "
        "created_at, created_by, expires_at, person_id) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        account.tenant_id,
        uuid4(),
        client_id,
        account.name,
        stored.salt,
        stored.hash,
        now,
        account.created_by,
        account.expires_at,
        account.user_id,
    )
    await rule_insert(
        connection,
        account.tenant_id,
        [(SERVICE_ACCOUNT, client_id, rule) for rule in rules],
        created_by=account.created_by,
        managed_by=None,
        now=now,
    )
    return client_id, secret


async def cluster_credential_get(db: Database, cluster_id: UUID) -> tuple[int, StoredSecret] | None:
    """Tenant and stored secret of a cluster that has not been removed."""
    async with db.by_handle("cluster_id", str(cluster_id)) as connection:
        row = await connection.fetchrow(
            "SELECT tenant_id, credential_salt, credential_hash FROM cluster "
            "WHERE id = $1 AND removed_at IS NULL",
            cluster_id,
        )
    if row is None:
        return None
    return row["tenant_id"], StoredSecret(row["credential_salt"], row["credential_hash"])

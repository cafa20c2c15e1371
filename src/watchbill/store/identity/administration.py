"""Changes to who may do what, each in one transaction that never leaves a tenant without an administrator."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from watchbill.errors import Conflict, Invalid
from watchbill.identity import (
    ADMINISTRATOR,
    FIRST_TENANT_ID,
    SERVICE_ACCOUNT,
    USER_PRINCIPAL,
    Grant,
    NewGrant,
    Principal,
    administrator_rule,
)
from watchbill.store.identity.accounts import (
    NewAccount,
    account_create,
    account_disable,
    account_insert,
    user_set_disabled,
)
from watchbill.store.identity.audit import AuditEvent, audit_insert
from watchbill.store.identity.rules import rule_delete, rule_insert, scope_names_in
from watchbill.store.identity.sessions import principal_end_logins
from watchbill.store.postgres.database import Connection, Database

_LOCK = 0x77617403


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleChange:
    """Rules to add and rules to remove."""

    added: Sequence[NewGrant]
    removed: Sequence[Grant]
    managed_by: str | None = None


async def administrator_recover(
    db: Database,
    name: str,
    *,
    subject: str,
    now: datetime,
    keep: Callable[[str, str], object],
) -> None:
    """A new administrator and the audit event that tells of it, both or neither.

    `keep` is given client id and secret before they count, and raises where it cannot keep them.
    """
    async with db.transaction(FIRST_TENANT_ID) as connection:
        account = NewAccount(FIRST_TENANT_ID, name, created_by="recover")
        rules = (administrator_rule(FIRST_TENANT_ID),)
        client_id, secret = await account_insert(connection, account, rules, now)
        event = AuditEvent(
            tenant_id=FIRST_TENANT_ID,
            at=now,
            last_at=now,
            count=1,
            subject_kind="machine",
            subject=subject,
            operation="recover_administrator",
            target=client_id,
            rules=(),
            address="",
            outcome=200,
            request_id="",
            details=name[:100],
        )
        await audit_insert(connection, FIRST_TENANT_ID, [event])
        keep(client_id, secret)


async def rule_change(
    db: Database, tenant_id: int, change: RuleChange, *, changed_by: str, now: datetime
) -> list[UUID]:
    """Ids of what was added. Raises Conflict where nobody could administer the tenant afterwards."""
    async with db.transaction(tenant_id) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _LOCK, tenant_id)
        ids = await rule_insert(
            connection,
            tenant_id,
            change.added,
            created_by=changed_by,
            managed_by=change.managed_by,
            now=now,
        )
        await rule_delete(connection, tenant_id, [grant.id for grant in change.removed])
        if change.removed:
            await _check_administrator(connection, tenant_id, now)
    return ids


async def service_account_disable(
    db: Database, tenant_id: int, client_id: str, *, now: datetime
) -> bool:
    """False where there is no such account. Raises Conflict for the last administrator's."""
    async with db.transaction(tenant_id) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1, $2)", _LOCK, tenant_id)
        await connection.execute(
            "UPDATE account SET disabled_at = coalesce(disabled_at, $3) "
            "WHERE tenant_id = $1 AND client_id = $2",
            tenant_id,
            client_id,
            now,
        )
        await _check_administrator(connection, tenant_id, now)
    return await account_disable(db, tenant_id, client_id, now=now)


async def user_disable(db: Database, tenant_id: int, person_id: UUID, *, now: datetime) -> bool:
    """Also ends the person's sessions and logins. False where there is nobody of that id."""
    if not await user_set_disabled(db, tenant_id, person_id, at=now):
        return False
    principal = Principal(tenant_id=tenant_id, kind=USER_PRINCIPAL, id=person_id)
    await principal_end_logins(db, principal, now=now)
    return True


async def _check_administrator(connection: Connection, tenant_id: int, now: datetime) -> None:
    """A user or a group counts: whether somebody of that name exists only the issuer knows."""
    if not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM access_rule r WHERE r.tenant_id = $1 AND r.role = ANY($2) "
        "AND r.scope_kind = 'tenant' AND r.scope_id = $3 AND (r.subject_kind <> $4 OR EXISTS "
        "(SELECT FROM account a WHERE a.tenant_id = $1 AND a.client_id = r.subject "
        "AND a.disabled_at IS NULL AND (a.expires_at IS NULL OR a.expires_at > $5))))",
        tenant_id,
        [ADMINISTRATOR, f"system-{ADMINISTRATOR}"],
        str(tenant_id),
        SERVICE_ACCOUNT,
        now,
    ):
        raise Conflict("This would leave the tenant without an administrator.")


async def scope_list(db: Database, tenant_id: int) -> dict[str, list[tuple[str, str, str]]]:
    """What a scope can name, by kind: name, id, name of the cluster."""
    async with db.acquire(tenant_id) as connection:
        return await scope_names_in(connection, tenant_id)


async def tenant_create(db: Database, name: str, *, now: datetime) -> tuple[int, str, str]:
    """A tenant with its first administrator: number, client id, secret. Raises Invalid where the name is
    taken. Who made it is in the maker's audit log: the new tenant learns no name of another."""
    async with db.transaction(FIRST_TENANT_ID) as connection:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        tenant_id: int | None = await connection.fetchval(
            "INSERT INTO tenant (id, name) SELECT max(id) + 1, $1 FROM tenant "
            "WHERE NOT EXISTS (SELECT FROM tenant WHERE name = $1) HAVING max(id) IS NOT NULL "
            "RETURNING id",
            name,
        )
    if tenant_id is None:
        raise Invalid(f"A tenant named '{name}' exists already.")
    client_id, secret = await account_create(
        db,
        tenant_id,
        "first administrator",
        (administrator_rule(tenant_id),),
        now=now,
    )
    return tenant_id, client_id, secret

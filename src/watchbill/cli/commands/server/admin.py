"""`admin account|user|rule|role|keys|tenant|apply|audit`: who may do what, and who did what."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.options import parse_moment
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import rfc3339
from watchbill.cli.output.terminal import credential_document, json_document, table_lines

if TYPE_CHECKING:
    from watchbill.responses.access import RuleEntry

ADMIN = "/api/v1/admin"

AsJson = Annotated[bool, typer.Option("--json", help="The server's answer as JSON.")]
ClientId = Annotated[
    str, typer.Argument(metavar="CLIENT-ID", help="Client id of the account.", show_default=False)
]
ScopeCluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="NAME|ID",
        help="The scope: a cluster; with --department or --project, the cluster it is in.",
    ),
]
ScopeProject = Annotated[
    str | None, typer.Option("--project", "-p", help="The scope: a project.", show_default=False)
]
"""Never from the environment: what narrows a view must not widen or move a grant."""


@server_command
async def create_account(
    session: CommandContext,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the account is for.")],
    role: Annotated[
        str | None,
        typer.Option(help="A role to begin with; see `admin role list`.  [default: none]"),
    ] = None,
    cluster: ScopeCluster = None,
    department: Annotated[str | None, typer.Option(help="The scope: a department.")] = None,
    project: ScopeProject = None,
    output: options.CredentialFile = None,
) -> None:
    """Create a service account and print its credentials as JSON, shown only once.

    Without --cluster, --department or --project its role holds in the whole tenant.
    """
    from watchbill.responses.access import Credential

    scope = _scope(cluster=cluster, department=department, project=project)
    body = {"name": name} if role is None else {"name": name, "role": role, "scope": scope}
    with session.terminal.secret(output) as write:
        credential = await session.client.post(f"{ADMIN}/accounts", Credential, body=body)
        write(credential_document(session.client.url, credential))


@server_command
async def list_accounts(session: CommandContext, as_json: AsJson = False) -> None:
    """List service accounts and users' access keys."""
    from watchbill.responses.access import AccountList

    answer = await session.client.get(f"{ADMIN}/accounts", AccountList)
    rows = [
        [
            account.client_id,
            account.name,
            kind,
            "disabled" if account.is_disabled else "active",
            "" if account.expires_at is None else rfc3339(account.expires_at),
            rfc3339(account.created_at),
        ]
        for kind, accounts in (
            ("service account", answer.accounts),
            ("access key", answer.access_keys),
        )
        for account in accounts
    ]
    columns = ("clientId", "name", "kind", "state", "expiresAt", "createdAt")
    _print(session, answer, columns, rows, as_json)


@server_command
async def disable_account(session: CommandContext, account: ClientId) -> None:
    """Disable a service account or an access key permanently."""
    await session.client.delete(f"{ADMIN}/accounts/{quote(account, safe='')}")
    session.terminal.note("Access ends within one minute.")


@server_command
async def rotate_account(
    session: CommandContext, account: ClientId, output: options.CredentialFile = None
) -> None:
    """Give a service account a new secret and print its credentials as JSON, shown only once."""
    from watchbill.responses.access import Credential

    path = f"{ADMIN}/accounts/{quote(account, safe='')}/rotate"
    with session.terminal.secret(output) as write:
        credential = await session.client.post(path, Credential)
        write(credential_document(session.client.url, credential))


@server_command
async def list_users(session: CommandContext, as_json: AsJson = False) -> None:
    """List users from identity providers."""
    from watchbill.responses.access import UserList

    answer = await session.client.get(f"{ADMIN}/users", UserList)
    rows = [
        [
            user.name,
            ", ".join(user.groups),
            "disabled" if user.is_disabled else "active",
            rfc3339(user.last_seen_at),
            user.issuer,
            str(user.id),
        ]
        for user in answer.users
    ]
    columns = ("name", "groups", "state", "lastSeenAt", "identityProvider", "id")
    _print(session, answer, columns, rows, as_json)


@server_command
async def disable_user(
    session: CommandContext,
    user_id: Annotated[str, typer.Argument(metavar="ID", help="As `admin user list` shows it.")],
) -> None:
    """Disable a user."""
    await session.client.post_without_answer(f"{ADMIN}/users/{quote(user_id, safe='')}/disable")
    session.terminal.note("Access ends within one minute.")


@server_command
async def enable_user(
    session: CommandContext,
    user_id: Annotated[str, typer.Argument(metavar="ID", help="As `admin user list` shows it.")],
) -> None:
    """Enable a user again."""
    await session.client.post_without_answer(f"{ADMIN}/users/{quote(user_id, safe='')}/enable")


@server_command
async def add_rule(
    session: CommandContext,
    role: Annotated[str, typer.Option(help="Name of the role; see `admin role list`.")],
    user: Annotated[
        str | None, typer.Option(help="The subject: a user, as in ada@example.com.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="The subject: a group of the identity provider.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="The subject: a service account, by name or client id.")
    ] = None,
    cluster: ScopeCluster = None,
    department: Annotated[str | None, typer.Option(help="The scope: a department.")] = None,
    project: ScopeProject = None,
) -> None:
    """Grant a role to one subject, in a project, a department or a cluster.

    Without --cluster, --department or --project the role holds in the whole tenant.
    """
    from watchbill.responses.access import RuleEntry

    named = {"user": user, "group": group, "serviceAccount": account}
    subject = {kind: value for kind, value in named.items() if value}
    if len(subject) != 1:
        usage_error("Give exactly one subject.", hint="pass --user, --group or --account")
    scope = _scope(cluster=cluster, department=department, project=project)
    body = {"subject": subject, "role": role, "scope": scope}
    rule = await session.client.post(f"{ADMIN}/rules", RuleEntry, body=body)
    session.terminal.print(str(rule.id))


@server_command
async def list_rules(session: CommandContext, as_json: AsJson = False) -> None:
    """List the access rules."""
    from watchbill.responses.access import RuleList

    answer = await session.client.get(f"{ADMIN}/rules", RuleList)
    rows = [[*_rule(rule), rule.managed_by or "", str(rule.id)] for rule in answer.rules]
    _print(session, answer, ("subject", "role", "scope", "managedBy", "id"), rows, as_json)


@server_command
async def remove_rule(
    session: CommandContext,
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="As `admin rule list` shows it.")],
) -> None:
    """Remove an access rule."""
    await session.client.delete(f"{ADMIN}/rules/{quote(rule_id, safe='')}")
    session.terminal.note("Access ends within one minute.")


@server_command
async def list_roles(session: CommandContext, as_json: AsJson = False) -> None:
    """List the roles and what they allow."""
    from watchbill.responses.access import RoleList

    answer = await session.client.get(f"{ADMIN}/roles", RoleList)
    rows = [
        [role.name, role.title, ", ".join(role.permissions), role.description]
        for role in answer.roles
    ]
    _print(session, answer, ("name", "title", "permissions", "description"), rows, as_json)


@server_command
async def apply(
    session: CommandContext,
    file: Annotated[
        Path,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="YAML document of access rules, as in docs/access.md.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the changes without making them.")
    ] = False,
) -> None:
    """Make the access rules match a file. Idempotent."""
    from watchbill.responses.access import AccessDifference

    body = {"document": _document(file), "dryRun": dry_run}
    changes = await session.client.post(f"{ADMIN}/apply", AccessDifference, body=body)
    note = session.terminal.note
    for name in changes.new_service_accounts:
        note(f"+ service account {name}")
    for sign, rules in (("+", changes.added), ("-", changes.removed)):
        for rule in rules:
            note(f"{sign} {' '.join(_rule(rule))}")
    count = len(changes.new_service_accounts) + len(changes.added) + len(changes.removed)
    note(
        f"{count} {'would change' if dry_run else 'changed'}, {changes.unchanged} unchanged, "
        f"{changes.left_alone} not managed by this document."
    )
    if changes.credentials:
        note("Credentials of the new accounts, shown only once:")
        session.terminal.write(json_document(changes.credentials))


@server_command
async def rotate_keys(
    session: CommandContext,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Revoke every token that was issued so far.")
    ] = False,
) -> None:
    """Change the key that tokens are signed with."""
    from watchbill.responses.access import RotatedKey

    body = {"atOnce": at_once}
    key = await session.client.post(f"{ADMIN}/keys/rotate", RotatedKey, body=body)
    session.terminal.note(f"The key {key.kid} signs tokens from {rfc3339(key.active_at)} on.")


@server_command
async def create_tenant(
    session: CommandContext,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the tenant.")],
    output: options.CredentialFile = None,
) -> None:
    """Create a tenant and print its first administrator's credentials as JSON, shown only once."""
    from watchbill.responses.access import Credential

    with session.terminal.secret(output) as write:
        credential = await session.client.post(f"{ADMIN}/tenants", Credential, body={"name": name})
        write(credential_document(session.client.url, credential))


@server_command
async def audit(
    session: CommandContext,
    subject: Annotated[str | None, typer.Option(help="Only what this subject did.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only this operation.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="AGO|DATE", help="From then on: 30m, 12h, 7d or 2026-11-01T08:00:00Z."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="AGO|DATE", help="Before then, as in --since.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most this many events.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the audit log: who did what, by which rules, from where, with which outcome; latest first."""
    from watchbill.responses.access import AuditEvents

    wanted = {"subject": subject, "operation": operation}
    now = datetime.now(UTC)
    for name, moment in (("since", since), ("until", until)):
        if moment is not None:
            wanted[name] = rfc3339(parse_moment(f"--{name}", moment, now))
    parameters = [(name, value) for name, value in wanted.items() if value]
    answer = await session.client.get(
        f"{ADMIN}/audit", AuditEvents, [*parameters, ("limit", str(limit))]
    )
    rows = [
        [
            *(rfc3339(event.last_at), event.subject, event.operation, str(event.outcome)),
            *(str(event.count), event.address, ", ".join(event.rules)),
            " ".join(part for part in (event.target, event.details) if part),
        ]
        for event in answer.events
    ]
    columns = (*("at", "subject", "operation", "outcome", "count", "address", "rules", "target"),)
    _print(session, answer, columns, rows, as_json)


def _print(
    session: CommandContext,
    answer: object,
    columns: Sequence[str],
    rows: list[list[str]],
    as_json: bool,
) -> None:
    if as_json:
        session.terminal.write(json_document(answer))
        return
    for line in table_lines(header_row(*columns), rows, session.terminal):
        session.terminal.print(line)


def _scope(**parts: str | None) -> dict[str, Any]:
    named: dict[str, Any] = {kind: value for kind, value in parts.items() if value}
    return named or {"tenant": True}


def _rule(rule: "RuleEntry") -> list[str]:
    return [
        f"{rule.subject_kind}:{rule.subject}",
        rule.role,
        f"{rule.scope_kind}:{rule.scope_id}",
    ]


def _document(file: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        usage_error(f"Cannot read {file}: {error.strerror}.", hint="check the path")
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        usage_error(f"{file} is not YAML: {error}.", hint="docs/access.md shows such a document")
    if not isinstance(document, dict):
        usage_error(
            f"{file} is not a valid document of access rules.",
            hint="it has serviceAccounts and rules",
        )
    return document

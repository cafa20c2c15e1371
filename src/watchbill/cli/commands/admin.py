"""`admin account|user|rule|role|keys|tenant|apply|audit`: who may do what, and who did what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.session import CommandContext, server_command
from watchbill.cli.output.columns import JSON
from watchbill.cli.output.terminal import json_document, table_lines

ADMIN = "/api/v1/admin"

AsJson = Annotated[bool, typer.Option("--json", help="The server's answer as JSON.")]
ClientId = Annotated[str, typer.Argument(metavar="CLIENT-ID")]


@server_command
async def create_account(
    session: CommandContext,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    role: Annotated[str | None, typer.Option(help="A role to begin with.")] = None,
    cluster: options.ClusterOption = None,
    department: Annotated[str | None, typer.Option(help="The role's scope.")] = None,
    project: options.Project = None,
) -> None:
    """Create a service account and print its credentials as JSON, shown only once."""
    scope = _scope(cluster=cluster, department=department, project=project)
    made = await session.client.request("POST", f"{ADMIN}/accounts", body={"name": name})
    session.terminal.write(json_document({"url": session.client.url} | made))
    if role is not None:
        rule = {"subject": {"serviceAccount": made["clientId"]}, "role": role, "scope": scope}
        await session.client.request("POST", f"{ADMIN}/rules", body=rule)


@server_command
async def list_accounts(session: CommandContext, as_json: AsJson = False) -> None:
    """List service accounts and users' access keys."""
    found = await session.client.request("GET", f"{ADMIN}/accounts")
    rows = [
        [
            one["clientId"],
            one["name"],
            kind,
            _state(one),
            one.get("expiresAt", ""),
            one["createdAt"],
        ]
        for member, kind in (("accounts", "service account"), ("accessKeys", "access key"))
        for one in found[member]
    ]
    _print(
        session, found, ("CLIENT-ID", "NAME", "KIND", "STATE", "EXPIRES", "CREATED"), rows, as_json
    )


@server_command
async def disable_account(session: CommandContext, account: ClientId) -> None:
    """Disable a service account or an access key permanently."""
    await session.client.request("DELETE", f"{ADMIN}/accounts/{quote(account, safe='')}")
    session.terminal.note("Access ends within one minute.")


@server_command
async def rotate_account(session: CommandContext, account: ClientId) -> None:
    """Give a service account a new secret and print its credentials as JSON, shown only once."""
    path = f"{ADMIN}/accounts/{quote(account, safe='')}/rotate"
    made = await session.client.request("POST", path)
    session.terminal.write(json_document({"url": session.client.url} | made))


@server_command
async def list_users(session: CommandContext, as_json: AsJson = False) -> None:
    """List users from identity providers."""
    found = await session.client.request("GET", f"{ADMIN}/users")
    rows = [
        [
            one["name"],
            ", ".join(one["groups"]),
            _state(one),
            one["lastSeenAt"],
            one["issuer"],
            one["id"],
        ]
        for one in found["users"]
    ]
    _print(
        session,
        found,
        ("NAME", "GROUPS", "STATE", "LAST-SEEN", "IDENTITY-PROVIDER", "ID"),
        rows,
        as_json,
    )


@server_command
async def disable_user(
    session: CommandContext, user_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Disable a user."""
    await session.client.request("POST", f"{ADMIN}/users/{quote(user_id, safe='')}/disable")
    session.terminal.note("Access ends within one minute.")


@server_command
async def enable_user(
    session: CommandContext, user_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Enable a user again."""
    await session.client.request("POST", f"{ADMIN}/users/{quote(user_id, safe='')}/enable")


@server_command
async def add_rule(
    session: CommandContext,
    role: Annotated[str, typer.Option(help="Name of the role; see `admin role list`.")],
    user: Annotated[str | None, typer.Option(help="The subject: a user.")] = None,
    group: Annotated[str | None, typer.Option(help="The subject: a group.")] = None,
    account: Annotated[str | None, typer.Option(help="The subject: a service account.")] = None,
    cluster: options.ClusterOption = None,
    department: Annotated[str | None, typer.Option(help="The scope: a department.")] = None,
    project: options.Project = None,
) -> None:
    """Grant a role: to one subject, in a project, a department, a cluster or the whole tenant."""
    named = {"user": user, "group": group, "serviceAccount": account}
    subject = {kind: value for kind, value in named.items() if value}
    if len(subject) != 1:
        usage_error("Give exactly one subject.", hint="pass --user, --group or --account")
    scope = _scope(cluster=cluster, department=department, project=project)
    body = {"subject": subject, "role": role, "scope": scope}
    made = await session.client.request("POST", f"{ADMIN}/rules", body=body)
    session.terminal.print(str(made["id"]))


@server_command
async def list_rules(session: CommandContext, as_json: AsJson = False) -> None:
    """List the access rules."""
    found = await session.client.request("GET", f"{ADMIN}/rules")
    rows = [[*_rule(one), one.get("managedBy", ""), one["id"]] for one in found["rules"]]
    _print(session, found, ("SUBJECT", "ROLE", "SCOPE", "MANAGED-BY", "ID"), rows, as_json)


@server_command
async def remove_rule(
    session: CommandContext, rule_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Remove an access rule."""
    await session.client.request("DELETE", f"{ADMIN}/rules/{quote(rule_id, safe='')}")
    session.terminal.note("Access ends within one minute.")


@server_command
async def list_roles(session: CommandContext, as_json: AsJson = False) -> None:
    """List the roles and what they allow."""
    found = await session.client.request("GET", f"{ADMIN}/roles")
    rows = [
        [one["name"], one["title"], ", ".join(one["permissions"]), one["description"]]
        for one in found["roles"]
    ]
    _print(session, found, ("NAME", "TITLE", "PERMISSIONS", "DESCRIPTION"), rows, as_json)


@server_command
async def apply(
    session: CommandContext,
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="YAML; see docs.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, change nothing.")] = False,
) -> None:
    """Make the access rules match a file. Idempotent."""
    body = {"document": _document(file), "dryRun": dry_run}
    found = await session.client.request("POST", f"{ADMIN}/apply", body=body)
    for name in found["newServiceAccounts"]:
        session.terminal.note(f"+ service account {name}")
    for sign, member in (("+", "added"), ("-", "removed")):
        for one in found[member]:
            session.terminal.note(f"{sign} {' '.join(_rule(one))}")
    done = "would change" if dry_run else "changed"
    count = sum(len(found[name]) for name in ("newServiceAccounts", "added", "removed"))
    session.terminal.note(
        f"{count} {done}, {found['unchanged']} unchanged, "
        f"{found['leftAlone']} not managed by this document."
    )
    if found["credentials"]:
        session.terminal.note("Credentials of the new accounts, shown only once:")
        session.terminal.write(json_document(found["credentials"]))


@server_command
async def rotate_keys(
    session: CommandContext,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="End every token that was issued so far.")
    ] = False,
) -> None:
    """Change the key that tokens are signed with."""
    made = await session.client.request("POST", f"{ADMIN}/keys/rotate", body={"atOnce": at_once})
    session.terminal.note(f"The key {made['kid']} signs from {made['activeAt']} on.")


@server_command
async def create_tenant(
    session: CommandContext, name: Annotated[str, typer.Argument(metavar="NAME")]
) -> None:
    """Create a tenant and print its first administrator's credentials as JSON, shown only once."""
    made = await session.client.request("POST", f"{ADMIN}/tenants", body={"name": name})
    session.terminal.write(json_document({"url": session.client.url} | made))


@server_command
async def audit(
    session: CommandContext,
    subject: Annotated[str | None, typer.Option(help="Only what this subject did.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only this operation.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the audit log: who did what, by which rules, from where, with which outcome; latest first."""
    wanted = {"subject": subject, "operation": operation, "since": since, "until": until}
    parameters = [(name, value) for name, value in wanted.items() if value]
    found = await session.client.request(
        "GET", f"{ADMIN}/audit", parameters=[*parameters, ("limit", str(limit))]
    )
    rows = [
        [
            *(one["lastAt"], one["subject"], one["operation"], str(one["outcome"])),
            *(str(one["count"]), one["address"], ", ".join(one["rules"])),
            " ".join(part for part in (one["target"], one["details"]) if part),
        ]
        for one in found["events"]
    ]
    headers = ("AT", "SUBJECT", "OPERATION", "OUTCOME", "COUNT", "FROM", "RULES", "WHAT")
    _print(session, found, headers, rows, as_json)


def _print(
    session: CommandContext,
    document: JSON,
    headers: Sequence[str],
    rows: list[list[Any]],
    as_json: bool,
) -> None:
    if as_json:
        session.terminal.write(json_document(document))
        return
    for line in table_lines(headers, rows, session.terminal):
        session.terminal.print(line)


def _scope(**parts: str | None) -> dict[str, Any]:
    named: dict[str, Any] = {kind: value for kind, value in parts.items() if value}
    return named or {"tenant": True}


def _state(one: JSON) -> str:
    return "disabled" if one["isDisabled"] else "active"


def _rule(one: JSON) -> list[str]:
    return [
        f"{one['subjectKind']}:{one['subject']}",
        str(one["role"]),
        f"{one['scopeKind']}:{one['scopeId']}",
    ]


def _document(file: Path) -> JSON:
    import yaml

    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        usage_error(f"Cannot read {file}: {error}.")
    if not isinstance(found, dict):
        usage_error(
            f"{file} is not a document of access rules.", hint="it has serviceAccounts and rules"
        )
    return found

"""`admin account|user|rule|role|keys|tenant|apply|audit`: who may do what, and who did what."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.session import CommandContext, asks_server
from watchbill.cli.output.columns import JSON
from watchbill.cli.output.formats import json_document
from watchbill.cli.output.table import lines

ADMIN = "/api/v1/admin"

AsJson = Annotated[bool, typer.Option("--json", help="The server's answer as JSON.")]
ClientId = Annotated[str, typer.Argument(metavar="CLIENT-ID")]


@asks_server
async def create_account(
    session: CommandContext,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    role: Annotated[str | None, typer.Option(help="A role to begin with.")] = None,
    cluster: options.ClusterOption = None,
    department: Annotated[str | None, typer.Option(help="The role's scope.")] = None,
    project: options.Project = None,
) -> None:
    """Make a service account and print its login as JSON: shown this once."""
    scope = _scope(cluster=cluster, department=department, project=project)
    made = await session.client.request("POST", f"{ADMIN}/accounts", body={"name": name})
    session.terminal.write(json_document({"url": session.client.url} | made))
    if role is not None:
        rule = {"subject": {"serviceAccount": made["clientId"]}, "role": role, "scope": scope}
        await session.client.request("POST", f"{ADMIN}/rules", body=rule)


@asks_server
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


@asks_server
async def disable_account(session: CommandContext, account: ClientId) -> None:
    """Disable a service account or an access key, for ever."""
    await session.client.request("DELETE", f"{ADMIN}/accounts/{quote(account, safe='')}")
    session.terminal.remark("It is out within a minute.")


@asks_server
async def rotate_account(session: CommandContext, account: ClientId) -> None:
    """Give a service account a new secret, and print its login as JSON: shown this once."""
    path = f"{ADMIN}/accounts/{quote(account, safe='')}/rotate"
    made = await session.client.request("POST", path)
    session.terminal.write(json_document({"url": session.client.url} | made))


@asks_server
async def list_users(session: CommandContext, as_json: AsJson = False) -> None:
    """List the users whom an issuer vouched for."""
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
    _print(session, found, ("NAME", "GROUPS", "STATE", "LAST-SEEN", "ISSUER", "ID"), rows, as_json)


@asks_server
async def disable_user(
    session: CommandContext, user_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Shut a user out."""
    await session.client.request("POST", f"{ADMIN}/users/{quote(user_id, safe='')}/disable")
    session.terminal.remark("Out within a minute.")


@asks_server
async def enable_user(
    session: CommandContext, user_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Let a user in again."""
    await session.client.request("POST", f"{ADMIN}/users/{quote(user_id, safe='')}/enable")


@asks_server
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
        usage_error("Name one subject.", hint="pass --user, --group or --account")
    scope = _scope(cluster=cluster, department=department, project=project)
    body = {"subject": subject, "role": role, "scope": scope}
    made = await session.client.request("POST", f"{ADMIN}/rules", body=body)
    session.terminal.print(str(made["id"]))


@asks_server
async def list_rules(session: CommandContext, as_json: AsJson = False) -> None:
    """List the access rules."""
    found = await session.client.request("GET", f"{ADMIN}/rules")
    rows = [[*_rule(one), one.get("managedBy", ""), one["id"]] for one in found["rules"]]
    _print(session, found, ("SUBJECT", "ROLE", "SCOPE", "MANAGED-BY", "ID"), rows, as_json)


@asks_server
async def remove_rule(
    session: CommandContext, rule_id: Annotated[str, typer.Argument(metavar="ID")]
) -> None:
    """Remove an access rule."""
    await session.client.request("DELETE", f"{ADMIN}/rules/{quote(rule_id, safe='')}")
    session.terminal.remark("It ends within a minute.")


@asks_server
async def list_roles(session: CommandContext, as_json: AsJson = False) -> None:
    """List the roles and what they allow."""
    found = await session.client.request("GET", f"{ADMIN}/roles")
    rows = [
        [one["name"], one["title"], ", ".join(one["permissions"]), one["description"]]
        for one in found["roles"]
    ]
    _print(session, found, ("NAME", "TITLE", "PERMISSIONS", "DESCRIPTION"), rows, as_json)


@asks_server
async def apply(
    session: CommandContext,
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="YAML; see docs.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show, change nothing.")] = False,
) -> None:
    """Make the access rules what a file says. Twice is as good as once."""
    body = {"document": _document(file), "dryRun": dry_run}
    found = await session.client.request("POST", f"{ADMIN}/apply", body=body)
    for name in found["newServiceAccounts"]:
        session.terminal.remark(f"+ service account {name}")
    for sign, member in (("+", "added"), ("-", "removed")):
        for one in found[member]:
            session.terminal.remark(f"{sign} {' '.join(_rule(one))}")
    done = "would change" if dry_run else "changed"
    count = sum(len(found[name]) for name in ("newServiceAccounts", "added", "removed"))
    session.terminal.remark(
        f"{count} {done}, {found['unchanged']} as declared, "
        f"{found['leftAlone']} made otherwise and left alone."
    )
    if found["credentials"]:
        session.terminal.remark("The new accounts' secrets, shown this once:")
        session.terminal.write(json_document(found["credentials"]))


@asks_server
async def rotate_keys(
    session: CommandContext,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="End every token that was issued so far.")
    ] = False,
) -> None:
    """Change the key that tokens are signed with."""
    made = await session.client.request("POST", f"{ADMIN}/keys/rotate", body={"atOnce": at_once})
    session.terminal.remark(f"The key {made['kid']} signs from {made['activeAt']} on.")


@asks_server
async def create_tenant(
    session: CommandContext, name: Annotated[str, typer.Argument(metavar="NAME")]
) -> None:
    """Make a tenant and print its first administrator's login as JSON: shown this once."""
    made = await session.client.request("POST", f"{ADMIN}/tenants", body={"name": name})
    session.terminal.write(json_document({"url": session.client.url} | made))


@asks_server
async def audit(
    session: CommandContext,
    subject: Annotated[str | None, typer.Option(help="Only what this subject did.")] = None,
    operation: Annotated[str | None, typer.Option(help="Only this operation.")] = None,
    since: Annotated[str | None, typer.Option(help="From this time on (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Who asked what, by which rules, from where, and how it ended; latest first."""
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
    for line in lines(headers, rows, session.terminal):
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
        usage_error(f"{file} is no document of rules.", hint="it has serviceAccounts and rules")
    return found

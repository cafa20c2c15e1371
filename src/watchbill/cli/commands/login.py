"""`login`, `logout`, `key …` and `open`: people on their own machine."""

import os
import sys
from typing import Annotated
from urllib.parse import quote

import typer

from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import LookupScope, find_workload
from watchbill.cli.connection.session import (
    CaFile,
    CommandContext,
    login_file,
    server_command,
)
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.humanize import rfc3339
from watchbill.cli.output.terminal import credential_document, table_lines, terminal


@server_command
async def open_page(
    session: CommandContext,
    name: options.MaybeNamed = None,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    only_print: Annotated[bool, typer.Option("--print", help="Do not open a browser.")] = False,
) -> None:
    """Print the URL of the web page, or of one workload, and open it on a terminal."""
    address = session.client.url + "/"
    if name is not None:
        scope = LookupScope(project=project, cluster=cluster)
        document = await find_workload(session.client, name, scope)
        address += f"workloads/{document.workload.id}"
    session.terminal.print(address)
    if not only_print and sys.stdout.isatty():
        import webbrowser

        if not webbrowser.open(address):
            session.terminal.note("No browser could be opened.")


ServerUrl = Annotated[
    str, typer.Option("--url", envvar="WATCHBILL_URL", help="Address of the server.")
]


def login(url: ServerUrl = "", ca_file: CaFile = None) -> None:
    """Log in as yourself: confirm a code in the browser. Later commands use this login."""
    import asyncio

    from watchbill.client.login import begin_device_login, finish_device_login, write_login
    from watchbill.client.transport import Transport

    if not url:
        usage_error(
            "The server's address is not given.", hint="pass --url URL, or set WATCHBILL_URL"
        )
    if not url.startswith(("http://", "https://")):
        usage_error(
            f"'{url}' is not the URL of a server.",
            hint="write it with its scheme, as in https://watchbill.example.com",
        )
    screen, path = terminal(os.environ, no_color=False), login_file(os.environ)

    async def confirmed() -> None:
        transport = Transport(url, ca_file=ca_file)
        try:
            device_login = await begin_device_login(transport)
            screen.note(f"Open {device_login.verification_uri_complete}")
            screen.note(f"and confirm the code {device_login.user_code}.")
            write_login(path, await finish_device_login(transport, device_login))
        finally:
            await transport.close()

    asyncio.run(confirmed())
    screen.note(f"Logged in to {url}. The login is kept in {path}.")


def logout(ca_file: CaFile = None) -> None:
    """Log out on this machine."""
    import asyncio

    from watchbill.client.login import end_login, read_login
    from watchbill.client.transport import Transport

    path = login_file(os.environ)
    stored = read_login(path)
    if stored is None:
        usage_error("You are not logged in.")

    async def ended() -> None:
        transport = Transport(stored.url, ca_file=ca_file)
        try:
            await end_login(transport, stored)
        finally:
            await transport.close()

    asyncio.run(ended())
    path.unlink()
    terminal(os.environ, no_color=False).note("Logged out.")


@server_command
async def create_key(
    session: CommandContext,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    expires_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When it expires, as in 2026-12-31T00:00:00Z.  [default: in 90 days]",
        ),
    ] = None,
    output: options.CredentialFile = None,
) -> None:
    """Create an access key that acts as you and print it as JSON, shown only once."""
    from watchbill.responses.access import Credential

    body = {"name": name} | ({"expiresAt": expires_at} if expires_at else {})
    with session.terminal.secret(output) as write:
        credential = await session.client.post("/api/v1/me/keys", Credential, body=body)
        write(credential_document(session.client.url, credential))


@server_command
async def list_keys(session: CommandContext) -> None:
    """List your access keys."""
    from watchbill.responses.access import AccessKeyList

    keys = (await session.client.get("/api/v1/me/keys", AccessKeyList)).access_keys
    rows = [
        [
            key.client_id,
            key.name,
            "-" if key.expires_at is None else rfc3339(key.expires_at),
            "disabled" if key.is_disabled else "",
        ]
        for key in keys
    ]
    for line in table_lines(
        header_row("clientId", "name", "expiresAt", "state"), rows, session.terminal
    ):
        session.terminal.print(line)


@server_command
async def delete_key(
    session: CommandContext,
    key: Annotated[
        str,
        typer.Argument(metavar="CLIENT-ID", help="Client id of the key, as `key list` shows it."),
    ],
) -> None:
    """Delete an access key."""
    await session.client.delete(f"/api/v1/me/keys/{quote(key, safe='')}")
    session.terminal.note("Access ends within one minute.")

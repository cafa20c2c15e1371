"""`open`: the web page of what is asked for, in the browser where a person sits at a terminal.

`login`, `logout` and `key …`: people on their own machine.
"""

import os
import sys
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

import typer

from watchbill.cli.connection import credentials as sources
from watchbill.cli.connection import options
from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.lookup import Place, find_workload
from watchbill.cli.connection.session import CommandContext, asks_server
from watchbill.cli.output.formats import json_document
from watchbill.cli.output.table import lines
from watchbill.cli.output.terminal import terminal


@asks_server
async def open_page(
    session: CommandContext,
    name: options.MaybeNamed = None,
    project: options.Project = None,
    cluster: options.ClusterOption = None,
    only_print: Annotated[bool, typer.Option("--print", help="Open no browser.")] = False,
) -> None:
    """Print the address of the web page, or of one workload's, and open it where this is a terminal."""
    address = session.client.url + "/"
    if name is not None:
        place = Place(project=project, cluster=cluster)
        workload = await find_workload(session.client, name, place)
        address += f"workloads/{workload['id']}"
    session.terminal.print(address)
    if not only_print and sys.stdout.isatty():
        import webbrowser

        if not webbrowser.open(address):
            session.terminal.remark("No browser could be opened here.")


ServerUrl = Annotated[
    str, typer.Option("--url", envvar="WATCHBILL_URL", help="Address of the server.")
]


def login(url: ServerUrl = "") -> None:
    """Log in as yourself: confirm a code in the browser. Later commands need no other login."""
    import asyncio

    from watchbill.client.login import begin_device_login, finish_device_login, write_login
    from watchbill.client.transport import Transport

    if not url.startswith(("http://", "https://")):
        usage_error("The server's address is not given.", hint="pass --url URL")
    screen, path = terminal(os.environ, no_color=False), sources.login_file(os.environ)

    async def confirmed() -> None:
        transport = Transport(url)
        try:
            begun = await begin_device_login(transport)
            screen.remark(f"Open {begun.verification_uri_complete}")
            screen.remark(f"and confirm the code {begun.user_code}.")
            write_login(path, await finish_device_login(transport, begun))
        finally:
            await transport.close()

    asyncio.run(confirmed())
    screen.remark(f"Logged in to {url}. The login is kept in {path}.")


def logout() -> None:
    """End the login of this machine."""
    import asyncio

    from watchbill.client.login import end_login, read_login
    from watchbill.client.transport import Transport

    path = sources.login_file(os.environ)
    found = read_login(path)
    if found is None:
        usage_error("Nobody is logged in.")

    async def ended() -> None:
        transport = Transport(found.url)
        try:
            await end_login(transport, found)
        finally:
            await transport.close()

    asyncio.run(ended())
    path.unlink()
    terminal(os.environ, no_color=False).remark("Logged out.")


@asks_server
async def create_key(
    session: CommandContext,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="RFC 3339.  [default: in 90 days]")
    ] = None,
) -> None:
    """Make an access key that acts as you, and print it as JSON: shown this once."""
    body = {"name": name} | ({"expiresAt": expires_at} if expires_at else {})
    made = await session.client.request("POST", "/api/v1/me/keys", body=body)
    shown: Mapping[str, object] = {"url": session.client.url} | made
    session.terminal.write(json_document(shown))


@asks_server
async def list_keys(session: CommandContext) -> None:
    """List your access keys."""
    found = (await session.client.request("GET", "/api/v1/me/keys"))["accessKeys"]
    rows = [
        [
            one["clientId"],
            one["name"],
            one.get("expiresAt", "-"),
            "disabled" if one["isDisabled"] else "",
        ]
        for one in found
    ]
    for line in lines(("CLIENT-ID", "NAME", "EXPIRES", "STATE"), rows, session.terminal):
        session.terminal.print(line)


@asks_server
async def delete_key(
    session: CommandContext, key: Annotated[str, typer.Argument(metavar="CLIENT-ID")]
) -> None:
    """End an access key."""
    await session.client.request("DELETE", f"/api/v1/me/keys/{quote(key, safe='')}")
    session.terminal.remark("The key ends within a minute.")

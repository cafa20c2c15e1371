"""`context list|use|set|delete`: asks no server."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from watchbill.cli.connection.errors import print_message, usage_error
from watchbill.cli.connection.options import NoHeaders
from watchbill.cli.connection.session import (
    NO_LOGIN,
    CliLogin,
    Contexts,
    contexts_file,
    read_contexts,
    read_credentials,
    write_contexts,
)
from watchbill.cli.output.headers import header_row
from watchbill.cli.output.terminal import table_lines, terminal

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the context.")]


def list_contexts(no_headers: NoHeaders = False) -> None:
    """List the contexts; secrets are not shown."""
    contexts = read_contexts(contexts_file(os.environ))
    if not contexts.logins:
        print_message(
            "note", "No contexts yet; create one with `watchbill context set NAME --url URL`."
        )
        return
    rows = [
        ["*" if name == contexts.in_use else "", name, login.url, login.client_id]
        for name, login in sorted(contexts.logins.items())
    ]
    screen = terminal(os.environ, no_color=False)
    for line in table_lines(
        None if no_headers else header_row("isCurrent", "name", "url", "clientId"), rows, screen
    ):
        screen.print(line)


def use(name: Name) -> None:
    """Use this context by default; `-` unsets it."""
    path = contexts_file(os.environ)
    contexts = read_contexts(path)
    if name != "-":
        contexts.named(name)
    write_contexts(path, Contexts(contexts.logins, None if name == "-" else name))
    print_message(
        "note", "No context is in use." if name == "-" else f"Context '{name}' is in use."
    )


def set_context(
    name: Name,
    url: Annotated[str, typer.Option(help="Address of the server.", show_default=False)] = "",
    client_id: Annotated[
        str, typer.Option(help="Id of the service account.", show_default=False)
    ] = "",
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take all from a file with url, clientId, clientSecret."),
    ] = None,
) -> None:
    """Create or replace a context. The secret is read from standard input, never from a flag."""
    if name == "-" or not name.isprintable():
        usage_error("The name of a context must be printable, and not '-'.")
    login = read_credentials(credentials) if credentials is not None else NO_LOGIN
    login = CliLogin(
        url=url or login.url,
        client_id=client_id or login.client_id,
        client_secret="" if client_id else login.client_secret,
    )
    if not login.url.startswith(("http://", "https://")):
        usage_error("A context needs the address of a server.", hint="pass --url https://…")
    if not login.client_id:
        usage_error(
            "A context needs a service account.", hint="pass --client-id, or --credentials FILE"
        )
    if not login.client_secret:
        secret = _secret()
        login = CliLogin(url=login.url, client_id=login.client_id, client_secret=secret)
    path = contexts_file(os.environ)
    contexts = read_contexts(path)
    write_contexts(path, Contexts(contexts.logins | {name: login}, contexts.in_use or name))
    print_message("note", f"Context '{name}' is kept in {path}.")


def _secret() -> str:
    if sys.stdin.isatty():
        secret = str(typer.prompt("Client secret", hide_input=True, err=True))
    else:
        secret = sys.stdin.readline().strip()
    if not secret:
        usage_error("The secret is empty.", hint="write it to standard input")
    return secret


def delete(name: Name) -> None:
    """Delete a context and its secret."""
    path = contexts_file(os.environ)
    contexts = read_contexts(path)
    contexts.named(name)
    del contexts.logins[name]
    write_contexts(
        path, Contexts(contexts.logins, None if contexts.in_use == name else contexts.in_use)
    )

"""What every command that asks the server has in common: its flags, its login, its client, its terminal."""

import functools
import inspect
import os
import traceback
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from watchbill.cli.connection.contexts import with_context
from watchbill.cli.connection.credentials import CliLogin, find_login, login_file, names_account
from watchbill.cli.output.terminal import Terminal, terminal

if TYPE_CHECKING:
    from watchbill.client import Client

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class CommandContext:
    """One command's client and where it writes."""

    client: "Client"
    terminal: Terminal


def _common(
    *,
    url: Annotated[str, typer.Option(help="Address of the server.", show_default=False)] = "",
    client_id: Annotated[
        str, typer.Option(help="Id of the service account.", show_default=False)
    ] = "",
    client_secret: Annotated[
        str,
        typer.Option(
            help="Its secret; other users of the machine can see flags, a file is better.",
            show_default=False,
        ),
    ] = "",
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file with url, clientId and clientSecret."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="A server kept with `watchbill context set`.")
    ] = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """The flags themselves; only the signature is used."""


COMMON = tuple(inspect.signature(_common).parameters.values())


def asks_server(
    command: Callable[Concatenate[CommandContext, P], Coroutine[Any, Any, None]],
    *,
    is_address_enough: Callable[[dict[str, Any]], bool] = lambda options: False,
) -> Callable[..., None]:
    """The command as typer takes it: with the common flags, synchronous, its session opened and closed.

    `is_address_enough`: with which options it needs no login.
    """

    @functools.wraps(command)
    def run(**options: Any) -> None:
        common = {parameter.name: options.pop(parameter.name) for parameter in COMMON}
        is_debugging = common.pop("debug")
        try:
            _run(command, common, options, is_address_enough=is_address_enough(options))
        except Exception:
            if is_debugging:
                traceback.print_exc()
            raise

    own = list(inspect.signature(command).parameters.values())[1:]
    keyword = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*own, *COMMON)]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in keyword}
    return run


def _run(
    command: Callable[..., Coroutine[Any, Any, None]],
    common: dict[str, Any],
    options: dict[str, Any],
    *,
    is_address_enough: bool,
) -> None:
    given = CliLogin(
        url=common["url"], client_id=common["client_id"], client_secret=common["client_secret"]
    )
    flags = with_context(given, common["context"], common["credentials"], os.environ)
    open_client = client_of(flags, common["credentials"], is_address_enough=is_address_enough)
    screen = terminal(os.environ, no_color=common["no_color"])

    import asyncio

    async def ask() -> None:
        async with open_client() as client:
            await command(CommandContext(client, screen), **options)

    asyncio.run(ask())


def client_of(
    flags: CliLogin, credentials: Path | None, *, is_address_enough: bool = False
) -> Callable[[], "Client"]:
    """As a service account where anything names one, else as the person who is logged in here. Raises Invalid
    where nothing says which server, or as whom."""
    if not names_account(flags, credentials, os.environ):
        path = login_file(os.environ)
        if path.exists():
            from watchbill.client.login import LoginClient, read_login

            stored = read_login(path)
            wanted = (flags.url or os.environ.get("WATCHBILL_URL", "")).rstrip("/")
            if stored is not None and wanted in ("", stored.url):
                return functools.partial(LoginClient, path, stored)
    from watchbill.client import Client

    login = find_login(flags, credentials, os.environ, is_address_enough=is_address_enough)
    return functools.partial(Client, login.url, login.client_id, login.client_secret)

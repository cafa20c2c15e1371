"""`mcp`: the read operations for language models, on standard input and output or over HTTP."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from watchbill.cli.connection.errors import usage_error
from watchbill.cli.connection.session import CommandContext, default_ca_file, server_command

if TYPE_CHECKING:
    from socket import socket

    from mcp.server import MCPServer

    from watchbill.client import Client


async def _mcp(
    session: CommandContext,
    http: Annotated[
        bool,
        typer.Option("--http", help="Serve HTTP at /mcp instead of standard input and output."),
    ] = False,
    host: Annotated[str, typer.Option(help="Address to listen on, with --http.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port, with --http.")] = 8601,
) -> None:
    """Serve read-only tools to language models (Model Context Protocol). Needs watchbill[mcp].

    On standard input and output the tools use this command's login. With --http every client
    sends its own token, `Authorization: Bearer …`, and sees what that token may see.
    """
    try:
        from watchbill.cli import mcp_tools
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in (
            "mcp",
            "mcp_types",
            "pydantic",
        ):
            raise
        usage_error(
            "The Model Context Protocol is not installed.", hint="pip install 'watchbill[mcp]'"
        )
    if http:
        from watchbill.api.http.listen import open_listener

        url = session.client.url
        with closing(open_listener(host, port)) as listener:
            port = listener.getsockname()[1]
            session.terminal.note(
                f"Answering at http://{host}:{port}/mcp for {url}; Ctrl-C ends it."
            )
            await _serve(mcp_tools.build_server(_as_the_caller(url)), host, listener)
        return
    await mcp_tools.build_server(_as_ourselves(session.client)).run_stdio_async()


mcp = server_command(_mcp, is_address_enough=lambda options: bool(options["http"]))
mcp.__name__ = "mcp"


def _as_ourselves(client: "Client") -> Any:
    @asynccontextmanager
    async def opened(context: Any) -> AsyncIterator["Client"]:
        yield client

    return opened


def _as_the_caller(url: str) -> Any:
    """Each call with the token that came with it: nobody borrows the rights of whoever started this."""

    @asynccontextmanager
    async def opened(context: Any) -> AsyncIterator["Client"]:
        from watchbill.client import Client
        from watchbill.errors import Unauthenticated

        request = context.request_context.request
        sent = request.headers.get("authorization", "") if request is not None else ""
        scheme, _, token = sent.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("Send a token of the Watchbill server: Authorization: Bearer …")
        async with Client(url, token=token.strip(), ca_file=default_ca_file(os.environ)) as client:
            yield client

    return opened


async def _serve(server: "MCPServer[Any]", host: str, listener: "socket") -> None:
    import uvicorn

    app = server.streamable_http_app(stateless_http=True, json_response=True, host=host)
    config = uvicorn.Config(app, host=host, log_config=None, access_log=False, server_header=False)
    await uvicorn.Server(config).serve(sockets=[listener])

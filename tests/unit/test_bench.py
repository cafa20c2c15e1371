"""The benches' load generator, and that the programs which benches start can be started."""

import asyncio
import subprocess
import sys

import pytest

from bench import servers
from bench.http import Connection

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_a_connection_that_idled_too_long_is_made_again() -> None:
    served: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One answer a connection, as after a keep-alive that ran out."""
        served.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await Connection.open(f"http://127.0.0.1:{port}")
        for _ in range(3):
            assert await connection.send("GET", "/") == b"ok"
        await connection.close()
    assert len(served) == 3


@pytest.mark.parametrize("program", [servers.OURS, servers.PEER])
def test_a_contestants_imports_are_there(program: tuple[str, str]) -> None:
    lines = [line for line in program[0].splitlines() if line.startswith(("import", "from"))]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)

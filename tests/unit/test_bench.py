"""The benches' load generator, and that the programs which benches start can be started."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from uuid import UUID

import pytest

from bench import servers
from bench.__main__ import lines, markdown
from bench.http import Connection
from bench.readers import plain

IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[0\r\n1\r\n]\r\n0\r\n\r\n"
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


@pytest.mark.parametrize("cut", range(1, len(IN_CHUNKS)))
async def test_an_answer_in_chunks_is_read_to_its_end(cut: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(IN_CHUNKS[:cut])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(IN_CHUNKS[cut:])

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        connection = await Connection.open(f"http://127.0.0.1:{port}")
        for _ in range(2):
            assert await connection.send("GET", "/") == b"2\r\n[0\r\n1\r\n]\r\n0\r\n\r\n"
        await connection.close()


def test_a_copy_for_sqlite_has_the_values_of_the_table() -> None:
    values = (True, 3, None, "x", UUID(int=1), datetime(2026, 11, 30, tzinfo=UTC))
    shown = (True, 3, None, "x", str(UUID(int=1)), "2026-11-30 00:00:00+00:00")
    assert tuple(map(plain, values)) == shown


@pytest.mark.parametrize("program", [servers.OURS, servers.PEER])
def test_a_contestants_imports_are_there(program: tuple[str, str]) -> None:
    lines = [line for line in program[0].splitlines() if line.startswith(("import", "from"))]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


def test_a_line_of_a_contest_has_the_ratio_of_medians_and_of_single_rounds() -> None:
    taken = {"ours": [0.010, 0.020, 0.040], "theirs": [0.030, 0.010, 0.060], "other": [0.020] * 3}
    theirs, other = map(markdown, lines("a list", taken))
    assert theirs == "| a list | theirs | 20 ms | 30 ms | 1.50 | 0.50, 3.00 |"
    assert other == "| a list | other | 20 ms | 20 ms | 1.00 | 0.50, 2.00 |"

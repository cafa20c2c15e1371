"""The way between an agent and its server, as a TCP proxy that can be made to fail."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum

from drills.processes import free_port

CUT_BYTES = 400
"""Of a request: its head, and the beginning of its body at most."""


DELAY_SECONDS = 0.2
"""Each way."""
RESENT_SECONDS = 1.0
"""As long as TCP waits at first for what nobody confirms."""
BATCH = b"POST /agent/v1/batch "
REPEATED_AFTER = 3
"""So many batches later."""


class Way(Enum):
    OPEN = "open"
    HALF_OPEN = "half-open"
    """Connections stay, and are made; nothing comes through either way, and nobody is told."""
    CUTS_REQUESTS = "cuts requests"
    REPEATS = "repeats"
    """Every batch arrives once more, later than those that follow it, and whole."""
    IS_LONG = "is long"
    """What is sent arrives late, and of ten pieces one has to be sent again."""
    LOSES_REPLIES = "loses replies"
    """Requests arrive whole; the connection breaks before the reply."""


class Link:
    def __init__(self, target_port: int) -> None:
        self.port = free_port()
        self.way = Way.OPEN
        self.broken = 0
        self._target_port = target_port
        self._connections: set[asyncio.Task[None]] = set()
        self.repeated = 0
        self._pieces = 0
        self._batches: list[bytes] = []
        """Requests that arrived and will arrive once more, the oldest first."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Link"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            for task in self._connections:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
            await asyncio.gather(
                self._requests(reader, back, writer), self._replies(there, writer, back)
            )
        writer.close()

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        request = bytearray()
        while data := await reader.read(65_536):
            await self._travel()
            request += data
            await self._repeat(request)
            if self.way is Way.CUTS_REQUESTS:
                self.broken += 1
                back.write(data[:CUT_BYTES])
                await back.drain()
                _abort(back, writer)
                return
            back.write(data)
            await back.drain()
        back.close()

    async def _replies(
        self,
        there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        while data := await there.read(65_536):
            await self._travel()
            if self.way is Way.LOSES_REPLIES:
                self.broken += 1
                _abort(writer, back)
                return
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _repeat(self, request: bytearray) -> None:
        """Take whole requests from the front; send the oldest batches again, of two the later one first."""
        while (length := _length(request)) is not None and len(request) >= length:
            if self.way is Way.REPEATS and request.startswith(BATCH):
                self._batches.append(bytes(request[:length]))
            del request[:length]
        while len(self._batches) > REPEATED_AFTER:
            for batch in (self._batches[1], self._batches[0]):
                await self._send_alone(batch)
            del self._batches[:2]

    async def _send_alone(self, request: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        writer.write(request)
        await writer.drain()
        await reader.readline()
        self.repeated += 1
        writer.close()

    async def _travel(self) -> None:
        while self.way is Way.HALF_OPEN:
            await asyncio.sleep(0.05)
        if self.way is Way.IS_LONG:
            self._pieces += 1
            is_lost = self._pieces % 10 == 0
            await asyncio.sleep(DELAY_SECONDS + (RESENT_SECONDS if is_lost else 0.0))


def _abort(*writers: asyncio.StreamWriter) -> None:
    for writer in writers:
        writer.transport.abort()


def _length(request: bytearray) -> int | None:
    """Of the first request, in bytes; None where its head is not whole yet."""
    end = request.find(b"\r\n\r\n")
    if end < 0:
        return None
    for line in bytes(request[:end]).split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return end + 4 + int(value)
    return end + 4

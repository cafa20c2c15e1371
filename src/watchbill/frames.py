"""Frames between a process and its child, over the child's standard input and output.

A frame is its length, in four bytes, and MessagePack.
"""

import asyncio
import errno
import os
import sys
from struct import Struct

import msgspec

BUFFER_BYTES = 1024 * 1024
_LENGTH = Struct(">I")


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """None where the other side is gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None


async def write_frame(writer: asyncio.StreamWriter, value: object) -> None:
    """Raises OSError."""
    put_frame(writer, value)
    await writer.drain()


def put_frame(writer: asyncio.StreamWriter, value: object) -> None:
    """Without waiting until it may be sent. Raises OSError."""
    if writer.is_closing():  # where uvloop raises RuntimeError, and asyncio nothing at first
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
    frame = msgspec.msgpack.encode(value)
    writer.writelines((_LENGTH.pack(len(frame)), frame))


async def standard_streams() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Standard input and output; whatever else prints goes to standard error."""
    loop = asyncio.get_running_loop()
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    reader = asyncio.StreamReader(limit=BUFFER_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), output
    )
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)

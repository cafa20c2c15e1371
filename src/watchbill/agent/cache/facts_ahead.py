"""What owners state, read in a process of its own while a large cluster's first lists arrive.

That is a third of all that a first start takes, and Python lets one thread of a process work at a time. Nothing
depends on it: what was not read ahead is read when its workload is derived, so a child that cannot start, or
that dies, costs time alone. End of input is its end.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from watchbill.agent.cache.stored_objects import decompress
from watchbill.background import log_failure
from watchbill.frames import BUFFER_BYTES, read_frame, standard_streams, write_frame
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.facts import PackedFacts
from watchbill.kinds.definition.loader import load_definitions
from watchbill.kinds.objects.objects import GroupKind

WORTH_A_PROCESS = 2_000
"""Objects; fewer are read in the time in which a process starts."""
MAX_WAITING = 100_000
"""Of objects; beyond, those that have waited longest are read when their workloads are derived."""
AT_ONCE = 2
"""Batches under way, so that the child need not wait for the next."""
BATCH_OBJECTS = 128
BATCH_BYTES = 256 * 1024
"""Of compressed objects, after which a batch takes no further one."""
PAUSE_SECONDS = 0.05
"""Between two looks for what has come."""

UnreadOwner = tuple[GroupKind, str, bytes]
"""Kind, UID, and the object as it is stored."""

log = structlog.get_logger(__name__)


class OwnerSource(Protocol):
    """The cache; the child would take a third more memory with all that it imports."""

    unread_owners: deque[UnreadOwner] | None


async def read_ahead(cache: OwnerSource, definitions: Definitions, kinds_dir: Path | None) -> None:
    """Have owners read as they are stored, until cancelled. Without a processor to spare it does nothing."""
    if _processors() < 2:
        return
    unread: deque[UnreadOwner] = deque(maxlen=MAX_WAITING)
    cache.unread_owners = unread
    try:
        while len(unread) < WORTH_A_PROCESS:
            await asyncio.sleep(PAUSE_SECONDS)
        async with _child(kinds_dir) as child:
            with suppress(OSError):  # it has ended
                await _exchange(child, unread, definitions)
        log.warning(
            "the process that reads owners ahead ended; they are read as workloads are derived"
        )
    except OSError as error:  # no memory, no more processes
        log.warning("owners cannot be read ahead", reason=str(error))
    except Exception as error:
        log_failure("owners cannot be read ahead", error)
    finally:
        cache.unread_owners = None


def _processors() -> int:
    """That this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


@asynccontextmanager
async def _child(kinds_dir: Path | None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Raises OSError."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __name__, *([str(kinds_dir)] if kinds_dir else ())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=BUFFER_BYTES,
        start_new_session=True,  # Ctrl-C is the agent's alone, also while the child imports
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _exchange(
    child: asyncio.subprocess.Process, unread: deque[UnreadOwner], definitions: Definitions
) -> None:
    """Until the child ends. Raises OSError."""
    assert child.stdin is not None, "it has a pipe"
    assert child.stdout is not None, "it has a pipe"
    under_way = 0
    while True:
        while unread and under_way < AT_ONCE:
            if batch := list(_batch(unread, definitions)):
                await write_frame(child.stdin, batch)
                under_way += 1
        if not under_way:
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        frame = await read_frame(child.stdout)
        if frame is None:
            return
        under_way -= 1
        for read in msgspec.msgpack.decode(frame, type=list[PackedFacts]):
            definitions.keep_packed(read)


def _batch(unread: deque[UnreadOwner], definitions: Definitions) -> Iterator[bytes]:
    """Without what deriving has read meanwhile: a child that is slow would read nothing but that."""
    left, objects = BATCH_BYTES, 0
    while unread and left > 0 and objects < BATCH_OBJECTS:
        key, uid, payload = unread.popleft()
        if not definitions.is_read(key, uid):
            left, objects = left - len(payload), objects + 1
            yield payload


async def _read(kinds_dir: Path | None) -> None:
    """The child."""
    definitions = load_definitions(kinds_dir)
    reader, writer = await standard_streams()
    while (frame := await read_frame(reader)) is not None:
        payloads = msgspec.msgpack.decode(frame, type=list[bytes])
        with suppress(OSError):  # nobody is there any more, which also ends the input
            await write_frame(writer, list(_packed(payloads, definitions)))


def _packed(payloads: list[bytes], definitions: Definitions) -> Iterator[PackedFacts]:
    for payload in payloads:
        read = None
        with suppress(Exception):  # deriving meets it again, and says so
            read = definitions.read_packed(decompress(payload))
        if read is not None:
            yield read


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(10)
    asyncio.run(_read(Path(sys.argv[1]) if len(sys.argv) > 1 else None))


if __name__ == "__main__":
    main()

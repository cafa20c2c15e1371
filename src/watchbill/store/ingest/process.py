"""Agents' messages in a process of their own, so that what one of them holds is never what users wait for.

Python lets one thread of a process work at a time: a message of megabytes that is inflated, decoded and made
into rows would keep everybody else waiting, however well it was cut. The server hands each message as it was
sent to a child and gets back the bytes of the answer. End of input is the child's end. One that dies, say of
memory, takes with it only messages that agents send again, and the next message starts another.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Sequence
from functools import partial

import msgspec
import structlog

from watchbill import errors
from watchbill.errors import Unavailable, WatchbillError
from watchbill.frames import BUFFER_BYTES, put_frame, read_frame, standard_streams, write_frame
from watchbill.store.ingest.messages import AgentMessage, Ingest, MessageSize
from watchbill.store.postgres.database import Database

RESTART_SECONDS = 1.0
"""Between two starts, at least: a child that cannot start must not take the machine."""
END_SECONDS = 10.0
"""For a child whose input has ended."""
CHECK_SECONDS = 10.0
"""Between two looks at the child."""
HANGING_SECONDS = 30.0
"""In which a child says that it is there, or leaves a message that nobody waits for; else it hangs."""

log = structlog.get_logger(__name__)


class IngestSettings(msgspec.Struct, frozen=True):
    """What a child is given first; not as arguments, which others on the machine can see."""

    database_url: str
    pool_size: int
    statement_timeout_seconds: float
    most_bytes: int


class _Request(msgspec.Struct, frozen=True, array_like=True):
    """Without a message: the one of that number is to be left, as nobody waits for it; where there is none, it
    is only to be answered."""

    number: int
    message: AgentMessage | None = None


class _Failure(msgspec.Struct, frozen=True, array_like=True):
    """An error of ours, by the name of its class."""

    kind: str
    message: str
    details: str | None
    retry_after_seconds: int | None


class _Outcome(msgspec.Struct, frozen=True, array_like=True):
    number: int
    size_bytes: int
    answer: bytes = b""
    failure: _Failure | None = None


class IngestProcess:
    """Applies messages in a child, which it starts, and starts anew. `command` runs `serve_messages`."""

    def __init__(self, command: Sequence[str], settings: IngestSettings) -> None:
        self._command = command
        self._settings = settings
        self._starting = asyncio.Lock()
        self._child: _Child | None = None
        self._is_closed = False
        self._may_start_at = 0.0

    async def start(self) -> None:
        """Before the first message, which would wait for it. Raises Unavailable."""
        await self._running()

    async def apply(self, message: AgentMessage, size: MessageSize) -> bytes:
        """As `Ingest.apply`. Raises Unavailable where the child ends meanwhile, which may have applied it."""
        child = await self._running()
        outcome = await child.ask(message)
        size.bytes = outcome.size_bytes
        if outcome.failure is not None:
            raise _error_of(outcome.failure)
        return outcome.answer

    async def check(self) -> None:
        """Starts it where it does not run, and kills it where it stands still. Raises Unavailable."""
        await (await self._running()).check()

    async def close(self) -> None:
        self._is_closed = True
        if self._child is not None:
            await self._child.close()

    @property
    def pid(self) -> int | None:
        """Of the child that runs."""
        return None if self._child is None or self._child.has_ended else self._child.pid

    async def _running(self) -> "_Child":
        async with self._starting:
            if self._child is None or self._child.has_ended:
                now = time.monotonic()
                if self._is_closed or now < self._may_start_at:
                    raise _interrupted()
                self._may_start_at = now + RESTART_SECONDS
                self._child = await _Child.start(self._command, self._settings)
            return self._child


class _Child:
    """One process, and who waits for its answers."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_Outcome]] = {}
        self._left: dict[int, asyncio.TimerHandle] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: Sequence[str], settings: IngestSettings) -> "_Child":
        """Raises Unavailable."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=BUFFER_BYTES,
                start_new_session=True,  # Ctrl-C is the server's alone, also while the child imports
            )
        except OSError as error:
            log.error("cannot start the process of agents' messages", exc_info=error)
            raise _interrupted() from error
        child = cls(process)
        await child._send(settings)
        return child

    @property
    def has_ended(self) -> bool:
        return self._reading.done()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def check(self) -> None:
        """Whatever it works on: how long that takes is the database's business. Raises Unavailable."""
        try:
            async with asyncio.timeout(HANGING_SECONDS):
                await self.ask(None)
        except TimeoutError as error:
            self._kill_hanging()
            raise _interrupted() from error

    async def ask(self, message: AgentMessage | None) -> _Outcome:
        """Where the caller is cancelled, the message is left: it must not keep a connection for nobody."""
        number = next(self._numbers)
        waiter: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        try:
            await self._send(_Request(number, message))
            return await waiter
        except asyncio.CancelledError:
            self._leave(number)
            raise
        finally:
            del self._waiting[number]

    def _leave(self, number: int) -> None:
        assert self._process.stdin is not None, "it has a pipe"
        if self.has_ended:
            return
        loop = asyncio.get_running_loop()
        self._left[number] = loop.call_later(HANGING_SECONDS, self._kill_hanging)
        with contextlib.suppress(OSError):  # it ends, which reading notices
            put_frame(self._process.stdin, _Request(number))

    def _kill_hanging(self) -> None:
        log.error("the process of agents' messages hangs; it is killed")
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        assert self._process.stdin is not None, "it has a pipe"
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            log.warning("the process of agents' messages does not end; it is killed")
            self._process.kill()
            await self._process.wait()
        await self._reading

    async def _send(self, value: object) -> None:
        """Raises Unavailable."""
        assert self._process.stdin is not None, "it has a pipe"
        if self.has_ended:
            raise _interrupted()
        try:
            await write_frame(self._process.stdin, value)
        except OSError as error:
            raise _interrupted() from error

    async def _read(self) -> None:
        """Until it ends; then nobody is left waiting."""
        assert self._process.stdout is not None, "it has a pipe"
        assert self._process.stdin is not None, "it has a pipe"
        try:
            while (frame := await read_frame(self._process.stdout)) is not None:
                outcome = msgspec.msgpack.decode(frame, type=_Outcome)
                if (left := self._left.pop(outcome.number, None)) is not None:
                    left.cancel()
                waiter = self._waiting.get(outcome.number)
                if waiter is not None and not waiter.done():
                    waiter.set_result(outcome)
        finally:
            for left in self._left.values():
                left.cancel()
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            was_expected = self._process.stdin.is_closing() and not self._waiting
            status = await self._process.wait()
            if not was_expected:
                log.error("the process of agents' messages ended", status=status)
            for waiter in self._waiting.values():
                if not waiter.done():
                    waiter.set_exception(_interrupted())


def _interrupted() -> Unavailable:
    return Unavailable("Agents' messages cannot be taken just now.", retry_after_seconds=1)


def _error_of(failure: _Failure) -> Exception:
    kind = getattr(errors, failure.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, WatchbillError)):
        return RuntimeError(f"{failure.kind} in the process of agents' messages; its log says more")
    return kind(
        failure.message,
        details=failure.details,
        retry_after_seconds=failure.retry_after_seconds,
    )


async def serve_messages() -> None:
    """The child: applies what arrives on standard input, several at a time, until that ends."""
    reader, writer = await standard_streams()
    first = await read_frame(reader)
    if first is None:
        return
    settings = msgspec.msgpack.decode(first, type=IngestSettings)
    async with contextlib.AsyncExitStack() as stack:
        ingest = _Opening(settings, stack)
        tasks: dict[int, asyncio.Task[None]] = {}
        while (frame := await read_frame(reader)) is not None:
            request = msgspec.msgpack.decode(frame, type=_Request)
            if request.message is not None:
                task = asyncio.create_task(_answer(ingest, request.number, request.message, writer))
                tasks[request.number] = task
                task.add_done_callback(partial(_forget, tasks, request.number))
            elif request.number in tasks:
                tasks[request.number].cancel()
            else:
                await _tell(writer, _Outcome(request.number, 0))
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


def _forget(tasks: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    del tasks[number]


class _Opening:
    """`Ingest` over a database that is connected to at the first message, and tried again at the next."""

    def __init__(self, settings: IngestSettings, stack: contextlib.AsyncExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._lock = asyncio.Lock()
        self._ingest: Ingest | None = None

    async def get(self) -> Ingest:
        """Raises Unavailable."""
        async with self._lock:
            if self._ingest is None:
                db = await Database.open(
                    self._settings.database_url,
                    pool_size=self._settings.pool_size,
                    statement_timeout_seconds=self._settings.statement_timeout_seconds,
                )
                self._stack.push_async_callback(db.close)
                self._ingest = Ingest(db, most_bytes=self._settings.most_bytes)
            return self._ingest


async def _answer(
    ingest: _Opening, number: int, message: AgentMessage, writer: asyncio.StreamWriter
) -> None:
    size = MessageSize()
    try:
        answer = await (await ingest.get()).apply(message, size)
        outcome = _Outcome(number, size.bytes, answer)
    except asyncio.CancelledError:
        outcome = _Outcome(number, size.bytes, failure=_failure_of(_interrupted()))
    except Exception as error:
        outcome = _Outcome(number, size.bytes, failure=_failure_of(error))
    await _tell(writer, outcome)


async def _tell(writer: asyncio.StreamWriter, outcome: _Outcome) -> None:
    with contextlib.suppress(OSError):  # nobody is there any more, which also ends the input
        await write_frame(writer, outcome)


def _failure_of(error: Exception) -> _Failure:
    kind = type(error).__name__
    if isinstance(error, WatchbillError):
        return _Failure(kind, error.message, error.details, error.retry_after_seconds)
    log.error("a message of an agent failed", exc_info=error)
    return _Failure(kind, str(error), None, None)

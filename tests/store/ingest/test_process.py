"""Agents' messages in a process of their own: answers and errors arrive as if it were this one."""

import asyncio
import gzip
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from tests.fixtures.clusters import connected_agent
from tests.fixtures.large_items import NOW
from tests.fixtures.records import upsert, workload
from watchbill.background import loop_factory
from watchbill.errors import Conflict, Invalid, Superseded, TooLarge, Unavailable
from watchbill.frames import put_frame, write_frame
from watchbill.identity import AgentIdentity
from watchbill.protocol import Batch, BatchReply, HelloReply
from watchbill.store.ingest import process
from watchbill.store.ingest.messages import HELLO_BYTES, AgentMessage, MessageSize
from watchbill.store.ingest.process import IngestProcess, IngestSettings
from watchbill.store.postgres.database import Database

COMMAND = (sys.executable, "-m", "watchbill.ingest_process", "error")
HELLO = b'{"protocol":1,"agentVersion":"x"}'


@pytest_asyncio.fixture
async def ingest(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[IngestProcess]:
    monkeypatch.setattr(process, "RESTART_SECONDS", 0.0)  # counted from its start on
    settings = IngestSettings(
        database_url=database_url, pool_size=2, statement_timeout_seconds=60.0, most_bytes=2**30
    )
    child = IngestProcess(COMMAND, settings)
    await child.start()
    yield child
    await child.close()
    with pytest.raises(Unavailable):
        await child.apply(_message("hello", AgentIdentity(1, workload(1).id), HELLO), MessageSize())


def _message(operation: str, agent: AgentIdentity, body: bytes) -> AgentMessage:
    return AgentMessage(operation, agent, NOW, gzip.compress(body), is_gzip=True)


async def test_answers_and_errors_arrive_as_if_it_were_this_process(
    db: Database, ingest: IngestProcess
) -> None:
    agent = (await connected_agent(db, NOW)).identity
    size = MessageSize()
    hello = msgspec.json.decode(
        await ingest.apply(_message("hello", agent, HELLO), size), type=HelloReply
    )
    assert size.bytes == len(HELLO)
    batch = Batch(stream_id=hello.stream_id, seq=1, items=(upsert(workload(1)),))
    encoded = msgspec.json.encode(batch)
    for _ in range(2):
        answer = await ingest.apply(_message("batch", agent, encoded), size)
        assert msgspec.json.decode(answer, type=BatchReply) == BatchReply(seq=1, refused=())
    late = msgspec.json.encode(msgspec.structs.replace(batch, seq=5))
    with pytest.raises(Conflict) as conflict:
        await ingest.apply(_message("batch", agent, late), size)
    assert conflict.value.details == "2"
    for body, error in (
        (b'{"streamId":"x","seq":0}', Superseded),
        (b"[]" + b" " * 100_000, Invalid),
        (b" " * (5 * 1024 * 1024), TooLarge),
    ):
        with pytest.raises(error):
            await ingest.apply(_message("heartbeat", agent, body), size)
    size = MessageSize()
    with pytest.raises(Invalid):
        await ingest.apply(_message("hello", agent, b"[]" + b" " * (HELLO_BYTES - 2)), size)
    assert size.bytes == HELLO_BYTES, "what is refused is charged, too"


async def test_a_process_that_dies_loses_what_it_had_in_work_alone(
    db: Database, ingest: IngestProcess
) -> None:
    agent = (await connected_agent(db, NOW)).identity
    await ingest.apply(_message("hello", agent, HELLO), MessageSize())
    first = ingest.pid
    assert first is not None
    assert os.getsid(first) == first, "Ctrl-C does not reach it"
    async with db.transaction(agent.tenant_id) as connection:
        await connection.execute("SELECT FROM cluster WHERE id = $1 FOR UPDATE", agent.cluster_id)
        waiting = asyncio.create_task(ingest.apply(_message("hello", agent, HELLO), MessageSize()))
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(Unavailable) as refused:
            await waiting
    assert refused.value.retry_after_seconds == 1
    await ingest.apply(_message("hello", agent, HELLO), MessageSize())
    assert ingest.pid not in (None, first)


def test_what_is_written_to_a_process_that_has_ended_is_an_error_of_the_system() -> None:
    async def write_to_nobody() -> None:
        ended = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdin=PIPE)
        await ended.wait()
        assert ended.stdin is not None
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            while True:  # until it is noticed that nobody reads
                await write_frame(ended.stdin, b"")
                await asyncio.sleep(0)
        with pytest.raises(BrokenPipeError):
            put_frame(ended.stdin, b"")

    for factory in (None, loop_factory()):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(write_to_nobody())


async def test_a_message_that_nobody_waits_for_is_left_and_who_cannot_leave_it_is_killed(
    db: Database, ingest: IngestProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = (await connected_agent(db, NOW)).identity
    await ingest.apply(_message("hello", agent, HELLO), MessageSize())
    first = ingest.pid
    assert first is not None
    locks = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with db.transaction(agent.tenant_id) as connection:
        await connection.execute("SELECT FROM cluster WHERE id = $1 FOR UPDATE", agent.cluster_id)
        waiting = asyncio.create_task(ingest.apply(_message("hello", agent, HELLO), MessageSize()))
        while not await connection.fetchval(locks):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while await connection.fetchval(locks):
            await asyncio.sleep(0)
    await ingest.apply(_message("hello", agent, HELLO), MessageSize())
    assert ingest.pid == first, "it goes on"
    monkeypatch.setattr(process, "HANGING_SECONDS", 0.0)
    os.kill(first, signal.SIGSTOP)
    waiting = asyncio.create_task(ingest.apply(_message("hello", agent, HELLO), MessageSize()))
    await asyncio.sleep(0)
    waiting.cancel()
    while ingest.pid == first:
        await asyncio.sleep(0)
    await ingest.apply(_message("hello", agent, HELLO), MessageSize())
    assert ingest.pid not in (None, first)


async def test_a_process_that_stands_still_is_ended_and_one_that_waits_is_not(
    db: Database, ingest: IngestProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = (await connected_agent(db, NOW)).identity
    async with db.transaction(agent.tenant_id) as connection:
        await connection.execute("SELECT FROM cluster WHERE id = $1 FOR UPDATE", agent.cluster_id)
        waiting = asyncio.create_task(ingest.apply(_message("hello", agent, HELLO), MessageSize()))
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
        first = ingest.pid
        assert first is not None
        await ingest.check()
        assert ingest.pid == first, "it waits for the database"
        os.kill(first, signal.SIGSTOP)
        monkeypatch.setattr(process, "HANGING_SECONDS", 0.1)
        for refused in (ingest.check(), waiting):
            with pytest.raises(Unavailable):
                await refused
    monkeypatch.setattr(process, "HANGING_SECONDS", 60.0)
    await ingest.check()
    assert ingest.pid not in (None, first), "a look starts another, with no message"


async def test_a_process_that_cannot_start_is_not_started_again_and_again(
    database_url: str,
) -> None:
    settings = IngestSettings(
        database_url=database_url, pool_size=1, statement_timeout_seconds=60.0, most_bytes=2**30
    )
    broken = IngestProcess((sys.executable, "-c", "raise SystemExit(1)"), settings)
    agent = AgentIdentity(1, workload(1).id)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await broken.apply(_message("hello", agent, HELLO), MessageSize())
    with pytest.raises(Unavailable):
        await IngestProcess(("/nowhere",), settings).check()
    await broken.close()

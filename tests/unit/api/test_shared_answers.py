"""Who shares an answer with whom: those who ask the same before it is asked for, and nobody else."""

import asyncio
import gzip
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from watchbill.api.http import reply
from watchbill.api.http.reply import Answer, Reply, StreamingReply
from watchbill.api.http.shared_answers import SharedAnswers
from watchbill.errors import Unavailable


class Database:
    """Counts what it is asked, and answers with the count, once it is allowed to."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = asyncio.Event()
        self.failure: Exception | None = None

    async def ask(self) -> Answer:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return Reply(body=str(number).encode())


async def begun(database: Database, count: int) -> None:
    while database.asked < count:
        await asyncio.sleep(0)


async def test_who_asks_the_same_at_the_same_time_is_answered_once() -> None:
    shared, database = SharedAnswers(), Database()
    database.open.set()
    same = [shared.answer("a", database.ask) for _ in range(50)]
    answers = await asyncio.gather(*same, shared.answer("b", database.ask))
    assert database.asked == 2
    assert len({answer.body for answer in answers[:50] if isinstance(answer, Reply)}) == 1
    assert answers[50] != answers[0]


async def test_who_comes_after_it_was_asked_asks_again() -> None:
    """What is answered then was read before the second request came."""
    shared, database = SharedAnswers(), Database()
    first = asyncio.create_task(shared.answer("a", database.ask))
    await begun(database, 1)
    second = asyncio.create_task(shared.answer("a", database.ask))
    await begun(database, 2)
    database.open.set()
    assert await first == Reply(body=b"1")
    assert await second == Reply(body=b"2")


async def test_a_failure_is_everybodys() -> None:
    shared, database = SharedAnswers(), Database()
    database.failure = Unavailable("The database is restarting.")
    database.open.set()
    asking = [shared.answer("a", database.ask) for _ in range(3)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert answers == [database.failure] * 3
    assert database.asked == 1
    database.failure = None
    assert await shared.answer("a", database.ask) == Reply(body=b"2")


@pytest.mark.parametrize("has_begun", [False, True])
async def test_one_who_leaves_takes_nothing_from_the_others(has_begun: bool) -> None:
    shared, database = SharedAnswers(), Database()
    asking = [asyncio.create_task(shared.answer("a", database.ask)) for _ in range(3)]
    await asyncio.sleep(0)
    if has_begun:
        await begun(database, 1)
    asking[0].cancel()  # the one who asks for all
    await asyncio.wait(asking[:1])
    database.open.set()
    answers = await asyncio.gather(*asking[1:])
    assert all(isinstance(answer, Reply) for answer in answers)


async def test_a_follower_who_leaves_takes_nothing_either() -> None:
    shared, database = SharedAnswers(), Database()
    asking = [asyncio.create_task(shared.answer("a", database.ask)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[1].cancel()
    await asyncio.wait(asking[1:2])
    database.open.set()
    assert await asyncio.gather(asking[0], asking[2]) == [Reply(body=b"1")] * 2


async def test_a_stream_has_one_reader() -> None:
    shared, streams = SharedAnswers(), 0

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"x"

    async def export() -> Answer:
        nonlocal streams
        streams += 1
        return StreamingReply(pieces=pieces(), media_type="text/csv")

    answers = await asyncio.gather(*(shared.answer("a", export) for _ in range(3)))
    assert streams == 3
    assert len({id(answer) for answer in answers}) == 3
    for answer in answers:
        assert isinstance(answer, StreamingReply)
        assert [piece async for piece in answer.pieces] == [b"x"]


async def test_requests_that_have_arrived_belong_together() -> None:
    """Read from their connections in the next turn of the loop, with handlers that begin in the one after."""
    shared, database = SharedAnswers(), Database()
    database.open.set()
    first = asyncio.create_task(shared.answer("a", database.ask))
    await asyncio.sleep(0)  # it begins
    await asyncio.sleep(0)  # the other one is read
    second = asyncio.create_task(shared.answer("a", database.ask))
    await asyncio.gather(first, second)
    assert database.asked == 1


async def test_a_large_answer_is_compressed_once_for_all_who_send_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a thread, so all of them ask for it before it is there; the one who asked first may leave."""
    compressed: list[int] = []
    sent: list[bytes] = []

    async def counted(body: bytes) -> bytes:
        compressed.append(len(body))
        return await compress(body)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    compress = reply.compressed
    monkeypatch.setattr(reply, "compressed", counted)
    answer = Reply(body=bytes(2 * reply.ASIDE_BYTES))
    scope = {"method": "GET", "headers": [(b"accept-encoding", b"gzip")]}
    sending = [asyncio.create_task(answer.send(scope, receive, send)) for _ in range(4)]
    while not compressed:
        await asyncio.sleep(0)
    sending[0].cancel()
    await asyncio.wait(sending)
    assert compressed == [len(answer.body)]
    assert [gzip.decompress(body) for body in sent if body] == [answer.body] * 3

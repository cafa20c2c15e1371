"""Deadlines, exports at once, and answers that break off: what happens when something takes too long."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from dataclasses import replace
from secrets import token_hex
from typing import Any
from unittest.mock import patch

import aiohttp
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.samples import ONE, RANGE
from tests.fixtures.serving import Served, listening
from watchbill.api.app import build_app
from watchbill.api.http import endpoint
from watchbill.api.limits import CONCURRENT_EXPORTS
from watchbill.api.resources import workloads

EXPORT = "/api/v1/workloads/export?format=ndjson"


class Slow:
    """A source of metrics that never answers."""

    def __init__(self) -> None:
        self.cancelled = False

    async def measure(self, *_: object) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_an_answer_that_takes_too_long_is_given_up(shared: Served) -> None:
    source = Slow()
    built = build_app(replace(shared.services, metrics=source))
    async with listening(built) as url:
        with patch.object(endpoint, "ANSWER_SECONDS", 0.2):
            served = replace(shared, url=url)
            answer = await served.get(f"{ONE}/metrics?metricType=POD_COUNT&{RANGE}")
    assert_is_error(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert source.cancelled


async def test_only_a_few_exports_at_once(shared: Served) -> None:
    with ExitStack() as stack:
        for _ in range(CONCURRENT_EXPORTS):
            stack.enter_context(shared.services.export_limiter.hold(1))
        refused = await shared.get(EXPORT)
        assert_is_error(refused, 429)
        assert int(refused.headers["Retry-After"]) > 0
        assert (await shared.get("/api/v1/workloads/count")).status == 200
    for _ in range(CONCURRENT_EXPORTS * 3):
        assert (await shared.get(EXPORT)).status == 200


async def test_an_export_that_fails_halfway_is_not_taken_for_whole(shared: Served) -> None:
    closed = asyncio.Event()

    async def failing(*_: object) -> AsyncGenerator[list[bytes], None]:
        try:
            yield [token_hex(1_000_000).encode()]  # more than compression holds back
            raise ValueError("the database went away")
        finally:
            closed.set()

    with (
        patch.object(workloads, "workload_export", failing),
        pytest.raises(aiohttp.ClientPayloadError),
    ):
        await shared.get(EXPORT)
    assert closed.is_set()
    assert (await shared.get(EXPORT)).status == 200


async def test_an_export_that_fails_at_once_is_an_error_like_any_other(shared: Served) -> None:
    async def failing(*_: object) -> AsyncGenerator[list[bytes], None]:
        raise ValueError("the database is not there")
        yield []

    with patch.object(workloads, "workload_export", failing):
        assert_is_error(await shared.get(EXPORT), 500)


async def test_a_reader_who_leaves_stops_the_export(shared: Served) -> None:
    stopped, sent = asyncio.Event(), 0

    async def endless(*_: object) -> AsyncGenerator[list[bytes], None]:
        nonlocal sent
        try:
            while True:
                sent += 1
                yield [b"x" * 10_000]
                await asyncio.sleep(0.001)
        finally:
            stopped.set()

    with patch.object(workloads, "workload_export", endless):
        headers = {"Authorization": f"Bearer {await shared.token()}"}
        response = await shared.session.get(shared.url + EXPORT, headers=headers)
        assert await response.content.read(1000)
        response.close()
        async with asyncio.timeout(60):
            await stopped.wait()
    assert sent > 0


async def test_a_reader_who_takes_nothing_is_left(
    shared: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold one of its tenant's two exports and a connection of the database as long as it likes."""
    stopped = asyncio.Event()

    async def endless(*_: object) -> AsyncGenerator[list[bytes], None]:
        try:
            while True:
                yield [b"x" * 1_000_000]
        finally:
            stopped.set()

    monkeypatch.setattr(workloads, "SEND_SECONDS", 0.2)
    with patch.object(workloads, "workload_export", endless):
        headers = {"Authorization": f"Bearer {await shared.token()}"}
        response = await shared.session.get(shared.url + EXPORT, headers=headers)
        async with asyncio.timeout(60):
            await stopped.wait()
        response.close()


async def test_head_of_an_export_reads_nothing(shared: Served) -> None:
    async def never(*_: object) -> AsyncGenerator[list[bytes], None]:
        raise AssertionError("nobody asked for the rows")
        yield []

    with patch.object(workloads, "workload_export", never):
        answer = await shared.ask("HEAD", EXPORT)
    assert (answer.status, answer.body) == (200, b"")

"""Replies shrink where the client takes gzip and there is something to gain; a stream of events never does."""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator

import pytest
import pytest_asyncio

from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, random_workload, upsert
from tests.fixtures.serving import Served
from watchbill.api.http.reply import MIN_BYTES, compressed_pieces

WORKLOADS = "/api/v1/workloads"
LARGE = (
    f"{WORKLOADS}?limit=50",
    f"{WORKLOADS}/export",
    f"{WORKLOADS}/export?format=ndjson",
    "/openapi.json",
)
SMALL = (f"{WORKLOADS}/count", f"{WORKLOADS}/telemetry?telemetryType=WORKLOADS_COUNT")


@pytest_asyncio.fixture(scope="module")
async def filled(shared: Served) -> AsyncIterator[Served]:
    rng = random.Random(3)
    agent = await connected_agent(shared.db, START, number=77)
    made = [random_workload(rng, rng.getrandbits(128)) for _ in range(50)]
    await agent.send(*map(upsert, made), now=START)
    yield shared


async def fetched(
    served: Served, path: str, accepted: str, method: str = "GET"
) -> tuple[dict[str, str], bytes]:
    headers = {"Accept-Encoding": accepted, "Authorization": f"Bearer {await served.token()}"}
    async with served.session.request(
        method, served.url + path, headers=headers, auto_decompress=False
    ) as response:
        assert response.status == 200, await response.read()
        return {
            name.lower(): value for name, value in response.headers.items()
        }, await response.read()


async def test_each_gets_what_it_takes_of_an_answer_that_many_share(filled: Served) -> None:
    accepted = ["gzip", "identity", "gzip", "gzip;q=0", "br"] * 3
    answers = await asyncio.gather(*(fetched(filled, LARGE[0], takes) for takes in accepted))
    plain = [body for headers, body in answers if "content-encoding" not in headers]
    zipped = [body for headers, body in answers if headers.get("content-encoding") == "gzip"]
    assert (len(plain), len(zipped)) == (9, 6)
    pages = [json.loads(body) for body in (*plain, *map(gzip.decompress, zipped))]
    assert len({str([row["id"] for row in page["workloads"]]) for page in pages}) == 1


@pytest.mark.parametrize("path", LARGE)
async def test_large_replies_shrink_for_those_who_take_it(filled: Served, path: str) -> None:
    headers, plain = await fetched(filled, path, "identity")
    assert "content-encoding" not in headers
    assert headers["vary"] == "accept-encoding"
    assert len(plain) > MIN_BYTES
    headers, body = await fetched(filled, path, "br, gzip;q=0.8")
    assert headers["content-encoding"] == "gzip"
    assert headers["vary"] == "accept-encoding"
    assert len(body) < len(plain) / 2
    assert len(gzip.decompress(body)) == len(plain)


@pytest.mark.parametrize("path", SMALL)
async def test_small_replies_stay_as_they_are(filled: Served, path: str) -> None:
    headers, body = await fetched(filled, path, "gzip")
    assert "content-encoding" not in headers
    assert len(body) < MIN_BYTES


async def test_head_tells_the_length_that_get_has(filled: Served) -> None:
    headers, body = await fetched(filled, "/openapi.json", "gzip")
    head, nothing = await fetched(filled, "/openapi.json", "gzip", "HEAD")
    assert nothing == b""
    assert head["content-length"] == headers["content-length"] == str(len(body))


async def test_a_stream_of_events_is_never_compressed(filled: Served) -> None:
    headers = {"Accept-Encoding": "gzip", "Authorization": f"Bearer {await filled.token()}"}
    async with filled.session.get(
        f"{filled.url}{WORKLOADS}/stream", headers=headers, auto_decompress=False
    ) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert "Content-Encoding" not in response.headers
        async with asyncio.timeout(60):
            assert await response.content.readline()


async def test_pieces_are_one_gzip_member() -> None:
    pieces = [b"first,", b"", b"second" * 50_000, b"end"]

    async def produced() -> AsyncGenerator[bytes, None]:
        for piece in pieces:
            yield piece

    sent = [piece async for piece in compressed_pieces(produced())]
    assert all(sent), "an empty piece would end nothing, but says nothing either"
    assert gzip.decompress(b"".join(sent)) == b"".join(pieces)

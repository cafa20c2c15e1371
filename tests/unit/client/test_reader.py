"""The client for people's programs, against a server that answers what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.fixtures.command_line import aged, document
from watchbill.client import Client, Selection
from watchbill.errors import Forbidden, Invalid, NotFound, TooMany, Unauthenticated, Unavailable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fake:
    """Hands out tokens; every other request goes to `handler`."""

    def __init__(self) -> None:
        self.tokens = 0
        self.requests: list[web.Request] = []
        self.handler: Handler = self.empty

    async def empty(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"workloads": []})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/api/v2/token":
            self.tokens += 1
            token = f"t{self.tokens}"
            return web.json_response(
                {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
            )
        self.requests.append(request)
        return await self.handler(request)


@asynccontextmanager
async def asking(fake: Fake) -> AsyncIterator[Client]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        async with Client(f"http://127.0.0.1:{port}/", "id", "secret") as client:
            yield client
    finally:
        await runner.cleanup()


def answering(status: int, body: object, **headers: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=sent)
        return web.json_response(body, status=status, headers=sent)

    return handler


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (418, Invalid),
        (429, TooMany),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_a_status_becomes_its_error_with_the_servers_words(
    status: int, kind: type[Exception]
) -> None:
    fake = Fake()
    fake.handler = answering(status, {"code": status, "message": "Because.", "details": "Do so."})
    async with asking(fake) as client:
        with pytest.raises(kind) as caught:
            await client.clusters()
    assert str(caught.value) == "Because."
    assert caught.value.details == "Do so."  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", ["<html>hello</html>", "", "[1]", '{"clusters": 3}', "\xff"])
async def test_a_success_that_is_no_answer_of_ours_is_unavailable(body: str) -> None:
    fake = Fake()
    fake.handler = answering(200, body)
    async with asking(fake) as client:
        with pytest.raises(Unavailable, match="not come from a Watchbill server"):
            await client.clusters()


async def test_a_token_endpoint_of_something_else_is_unavailable() -> None:
    fake = Fake()
    fake.answer = answering(200, "<html>log in here</html>")  # type: ignore[method-assign]
    async with asking(fake) as client:
        with pytest.raises(Unavailable, match="not come from a Watchbill server"):
            await client.me()


async def test_a_redirect_is_not_followed_with_the_secret() -> None:
    fake = Fake()
    fake.handler = answering(302, "moved", Location="http://127.0.0.1:9/elsewhere")
    async with asking(fake) as client:
        with pytest.raises(Invalid):
            await client.me()
    assert len(fake.requests) == 1


async def test_one_token_serves_many_calls_and_a_refused_one_is_renewed_once() -> None:
    fake = Fake()

    async def first_token_is_stale(request: web.Request) -> web.StreamResponse:
        if request.headers["Authorization"] == "Bearer t1" and len(fake.requests) > 2:
            return web.json_response({"code": 401, "message": "expired"}, status=401)
        return web.json_response([])

    fake.handler = first_token_is_stale
    async with asking(fake) as client:
        await asyncio.gather(client.clusters(), client.clusters())
        assert fake.tokens == 1
        await client.clusters()
    assert fake.tokens == 2
    assert fake.requests[-1].headers["Authorization"] == "Bearer t2"


async def test_a_read_is_repeated_where_a_retry_can_help() -> None:
    fake = Fake()

    async def once_busy(request: web.Request) -> web.StreamResponse:
        if len(fake.requests) == 1:
            return web.json_response(
                {"code": 503, "message": "busy"}, status=503, headers={"Retry-After": "0"}
            )
        return web.json_response({"count": 7})

    fake.handler = once_busy
    async with asking(fake) as client:
        assert await client.workload_count(Selection()) == 7
    assert len(fake.requests) == 2


async def test_without_retry_after_nothing_is_repeated() -> None:
    fake = Fake()
    fake.handler = answering(503, {"code": 503, "message": "busy"})
    async with asking(fake) as client:
        with pytest.raises(Unavailable):
            await client.workload_count(Selection())
    assert len(fake.requests) == 1


async def test_all_pages_are_read_and_a_workload_that_moved_comes_once() -> None:
    pages = {
        0: {"workloads": [document(aged(1)), document(aged(2))], "next": 2},
        2: {"workloads": [document(aged(2)), document(aged(3))], "next": 4},
        4: {"workloads": [document(aged(4))]},
    }
    fake = Fake()

    async def page(request: web.Request) -> web.StreamResponse:
        return web.json_response(pages[int(request.query["offset"])])

    fake.handler = page
    async with asking(fake) as client:
        result = await client.workloads(Selection())
    assert [workload.id.int for workload in result] == [1, 2, 3, 4]


async def test_most_bounds_what_is_asked_for() -> None:
    fake = Fake()

    async def page(request: web.Request) -> web.StreamResponse:
        offset, limit = int(request.query["offset"]), int(request.query["limit"])
        result = [document(aged(n)) for n in range(offset, offset + limit)]
        return web.json_response({"workloads": result, "next": offset + limit})

    fake.handler = page
    async with asking(fake) as client:
        assert len(await client.workloads(Selection(), most=501)) == 501
    assert [request.query["limit"] for request in fake.requests] == ["500", "1"]


async def test_a_selection_is_sent_in_the_apis_words() -> None:
    fake = Fake()
    selection = Selection(
        filters=("phase==Running", "name=@a,b&c"),
        search="ü x",
        is_deleted=True,
        sort_by="name",
        is_descending=True,
    )
    async with asking(fake) as client:
        await client.workload_list(selection, limit=3)
    query = fake.requests[0].query
    assert query.getall("filterBy") == ["phase==Running", "name=@a,b&c"]
    assert (query["search"], query["deleted"]) == ("ü x", "true")
    assert (query["sortBy"], query["sortOrder"], query["limit"]) == ("name", "desc", "3")


async def test_an_address_where_nobody_listens() -> None:
    async with Client("http://127.0.0.1:9", "id", "secret") as client:
        with pytest.raises(
            Unavailable, match=r"Cannot reach http://127\.0\.0\.1:9: Connection refused"
        ):
            await client.me()


async def test_an_address_that_is_none() -> None:
    async with Client("http://[::", "id", "secret") as client:
        with pytest.raises(Invalid, match="not the URL"):
            await client.me()

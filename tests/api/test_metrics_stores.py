"""Metrics from a Prometheus that is well, down, slow, wrong or odd: what each of it is answered with."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web

from tests.api.http.test_errors import assert_is_error
from tests.api.test_metrics import SCHEMA, path, with_usage
from tests.fixtures.serving import Served, listening
from watchbill.api.app import build_app
from watchbill.metrics import prometheus
from watchbill.metrics.workload import workload_metrics
from watchbill.settings.prometheus import PrometheusSettings

Handler = Callable[[web.Request, dict[str, str]], Awaitable[web.Response]]
TYPES = "GPU_UTILIZATION,POD_COUNT"


def prometheus_answer(result: object, *, kind: str = "matrix", **more: object) -> web.Response:
    data = {"resultType": kind, "result": result}
    return web.json_response({"status": "success", "data": data} | more)


@asynccontextmanager
async def raw_store(handler: Handler) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """The address of a store that answers as `handler` does, and what it was asked."""
    asked: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        asked.append({"path": request.path, **form, **dict(request.headers)})
        return await handler(request, form)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@asynccontextmanager
async def stored(
    served: Served, handler: Handler, **settings: object
) -> AsyncIterator[tuple[Served, list[dict[str, str]]]]:
    """The server with a store that answers as `handler` does, and what the store was asked."""
    async with raw_store(handler) as (url, asked):
        store = PrometheusSettings(url=url, **settings)  # type: ignore[arg-type]
        metrics = workload_metrics(served.db, {"": store})
        try:
            async with listening(build_app(replace(served.services, metrics=metrics))) as at:
                yield replace(served, url=at), asked
        finally:
            await metrics.close()


def points(form: dict[str, str], *values: str) -> list[list[object]]:
    start, step = float(form["start"]), float(form["step"])
    return [[start + number * step, value] for number, value in enumerate(values)]


async def answer_of(
    server: Served, handler: Handler, types: str = TYPES, **settings: object
) -> tuple[object, list[dict[str, str]]]:
    id_ = await with_usage(server)
    async with stored(server, handler, **settings) as (served, asked):
        answer = await served.get(path(types, id_=id_))
    return answer, asked


async def test_a_well_one(server: Served) -> None:
    async def handler(_: web.Request, form: dict[str, str]) -> web.Response:
        labels = {"UUID": "GPU-1", "GPU_I_ID": "3"}
        series = [
            {"metric": {}, "values": points(form, "10", "20", "30", "40")},
            {"metric": labels, "values": points(form, "1", "2", "3", "4")},
        ]
        return prometheus_answer(series)

    answer, asked = await answer_of(server, handler, "GPU_UTILIZATION")
    assert answer.status == 200, answer.body
    SCHEMA.validate(answer.json)
    whole, each = answer.json["measurements"]
    # The pods lived from 8:30 and the cluster was heard of until 10:30: two of the four instants.
    assert [value["value"] for value in whole["values"]] == ["10", "20"]
    assert each["labels"] == {"gpu": "GPU-1/3"}
    assert asked[0]["path"] == "/api/v1/query_range"


async def test_an_answer_with_warnings_is_partial(server: Served) -> None:
    """Thanos and Mimir answer with what they have, and warn of the stores behind them that did not."""

    async def handler(_: web.Request, form: dict[str, str]) -> web.Response:
        series = [{"metric": {}, "values": points(form, "10", "20", "30", "40")}]
        return prometheus_answer(series, warnings=["a part of the stores did not answer"])

    answer, _ = await answer_of(server, handler, "GPU_UTILIZATION")
    assert answer.status == 207
    SCHEMA.validate(answer.json)
    whole, missing = answer.json["measurements"]
    assert [value["value"] for value in whole["values"]] == ["10", "20"]
    assert missing == {
        "type": "GPU_UTILIZATION",
        "labels": {"reason": "source_error"},
        "values": None,
    }


async def test_login_and_tenant_go_along(server: Served) -> None:
    async def handler(_: web.Request, form: dict[str, str]) -> web.Response:
        return prometheus_answer([])

    id_ = await with_usage(server)
    async with stored(server, handler, token="t0ken", tenant="blue") as (served, asked):
        await served.get(path(TYPES, id_=id_))
    assert {query["Authorization"] for query in asked} == {"Bearer t0ken"}
    assert {query["X-Scope-OrgID"] for query in asked} == {"blue"}
    async with stored(server, handler, username="u", password="p") as (served, asked):
        await served.get(path(TYPES, id_=id_))
    assert asked[0]["Authorization"] == "Basic dTpw"


async def test_oddities_are_left_out(server: Served) -> None:
    async def handler(_: web.Request, form: dict[str, str]) -> web.Response:
        series = [
            {"metric": {}, "values": points(form, "NaN", "+Inf")},
            {"metric": {}, "values": points(form, "-Inf", "5")},
            {"metric": {}, "values": points(form, "x", "7")},
        ]
        return prometheus_answer(series)

    answer, _ = await answer_of(server, handler, "GPU_UTILIZATION")
    assert answer.status == 200
    (result,) = answer.json["measurements"]
    assert [value["value"] for value in result["values"]] == ["7"]


async def test_a_store_whose_clock_is_ahead_tells_nothing_of_the_future(server: Served) -> None:
    async def handler(_: web.Request, form: dict[str, str]) -> web.Response:
        start, step = float(form["start"]), float(form["step"])
        ahead = [[start + step * number, "9"] for number in range(-3, 40)]
        return prometheus_answer([{"metric": {}, "values": ahead}])

    answer, _ = await answer_of(server, handler, "GPU_UTILIZATION")
    (result,) = answer.json["measurements"]
    assert [value["timestamp"] for value in result["values"]] == [
        "2026-11-20T09:00:00.000Z",
        "2026-11-20T10:00:00.000Z",
    ]


async def test_nothing_there_and_nothing_now(server: Served) -> None:
    id_ = await with_usage(server)
    for exists, status in ((True, 200), (False, 207)):

        async def handler(
            request: web.Request, form: dict[str, str], exists: bool = exists
        ) -> web.Response:
            if request.path.endswith("/query"):
                result = [{"metric": {}, "value": [1.0, "3"]}] if exists else []
                return prometheus_answer(result, kind="vector")
            return prometheus_answer([])

        async with stored(server, handler) as (served, _):
            answer = await served.get(path(TYPES, id_=id_))
        assert answer.status == status
        result = answer.json["measurements"][0]
        assert result["values"] == ([] if exists else None)


async def test_what_a_store_lacked_a_moment_ago_is_looked_for_again(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "_ABSENT_SECONDS", 0.05)
    collected: list[object] = []

    async def handler(request: web.Request, _: dict[str, str]) -> web.Response:
        return (
            prometheus_answer(collected, kind="vector")
            if request.path.endswith("/query")
            else prometheus_answer([])
        )

    id_ = await with_usage(server)
    async with stored(server, handler) as (served, _):
        missing = await served.get(path("GPU_UTILIZATION", id_=id_))
        collected.append({"metric": {}, "value": [1.0, "3"]})
        await asyncio.sleep(0.1)
        again = await served.get(path("GPU_UTILIZATION", id_=id_))
    assert (missing.status, again.status) == (503, 200)
    assert "Retry-After" not in missing.headers


async def test_a_silent_store_is_asked_one_question_until_it_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prometheus, "UNRESPONSIVE_SECONDS", 0.1)
    monkeypatch.setattr(prometheus, "PROBE_SECONDS", 0.05)
    answers = asyncio.Event()

    async def handler(_: web.Request, __: dict[str, str]) -> web.Response:
        await answers.wait()
        return prometheus_answer([])

    session = prometheus.StoreConnection()
    form = {"query": "up"}
    try:
        async with raw_store(handler) as (url, asked):
            store = prometheus.PrometheusStore(PrometheusSettings(url=url), session)

            async def ask(seconds: float) -> list[prometheus.Series]:
                async with asyncio.timeout(seconds):
                    return await store.ask(prometheus.RANGE_PATH, form)

            with pytest.raises(TimeoutError):
                await ask(0.02)  # its asker left early: that says nothing of the store
            with pytest.raises(TimeoutError):
                await ask(0.3)
            probe = asyncio.create_task(ask(5))
            await asyncio.sleep(0.1)
            before = len(asked)
            for _ in range(3):
                with pytest.raises(prometheus.QueryFailed):
                    await ask(1)
            assert len(asked) == before == 3
            answers.set()
            assert (await probe).series == []
            answers = await asyncio.gather(*(ask(1) for _ in range(5)))
            assert [answer.series for answer in answers] == [[]] * 5
    finally:
        await session.close()


async def test_a_store_that_hangs_holds_up_no_other(server: Served) -> None:
    """More questions wait at one store than it may be asked at once; another cluster's is asked meanwhile."""

    async def hangs(_: web.Request, __: dict[str, str]) -> web.Response:
        await asyncio.sleep(30)
        return prometheus_answer([])

    async def answers(_: web.Request, form: dict[str, str]) -> web.Response:
        return prometheus_answer([{"metric": {}, "values": points(form, "1", "2", "3", "4")}])

    session = prometheus.StoreConnection()
    async with raw_store(hangs) as (slow, _), raw_store(answers) as (fast, _):
        asked = {"start": "0", "step": "1", "query": "up"}
        waiting = [
            asyncio.create_task(
                session.post(slow_store, prometheus.RANGE_PATH, form=asked, headers={})
            )
            for slow_store in [slow] * (2 * prometheus.MAX_CONCURRENT_QUERIES)
        ]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(120):
            status, _body = await session.post(fast, prometheus.RANGE_PATH, form=asked, headers={})
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    await session.close()
    assert status == 200


def text(body: str, *, status: int = 200, kind: str = "text/html") -> Handler:
    async def handler(_: web.Request, __: dict[str, str]) -> web.Response:
        return web.Response(text=body, status=status, content_type=kind)

    return handler


async def redirects(request: web.Request, _: dict[str, str]) -> web.Response:
    if request.path.endswith("/elsewhere"):
        return prometheus_answer([{"metric": {}, "values": [[0, "1"]]}])
    raise web.HTTPTemporaryRedirect("/elsewhere")


async def cuts(request: web.Request, _: dict[str, str]) -> web.Response:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"status":"success","data":{"resultType":"matrix","result":[')
    assert request.transport is not None
    request.transport.abort()
    return response  # type: ignore[return-value]


async def is_too_large(request: web.Request, _: dict[str, str]) -> web.Response:
    return web.Response(body=b'"' + b"x" * 200_000, content_type="application/json")


ERROR = json.dumps({"status": "error", "errorType": "execution", "error": "many-to-many matching"})
FAULTS: dict[str, Handler] = {
    "5xx": text("upstream down", status=502),
    "429": text("slow down", status=429),
    "401": text("who are you", status=401),
    "404": text("404 page not found", status=404),
    "422": text(ERROR, status=422, kind="application/json"),
    "error with 200": text(ERROR, kind="application/json"),
    "page with 200": text("<html>log in</html>"),
    "truncated": text('{"status":"success","data":{"resultType":"matrix","resu'),
    "scalar": text('{"status":"success","data":{"resultType":"scalar","result":[0,"1"]}}'),
    "no data": text('{"status":"success"}'),
    "redirect": redirects,
    "cut": cuts,
    "too large": is_too_large,
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_faulty_one(server: Served, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "MAX_RESPONSE_BYTES", 100_000)
    id_ = await with_usage(server)
    async with stored(server, FAULTS[fault]) as (served, _):
        some = await served.get(path(TYPES, id_=id_))
        none = await served.get(path("GPU_UTILIZATION,CPU_USAGE_CORES", id_=id_))
    assert some.status == 207, some.body
    SCHEMA.validate(some.json)
    failed, pods = some.json["measurements"]
    assert failed == {
        "type": "GPU_UTILIZATION",
        "labels": {"reason": "source_error"},
        "values": None,
    }
    assert pods["values"], "what objects tell needs no Prometheus"
    assert_is_error(none, 503)
    assert int(none.headers["Retry-After"]) > 0


async def test_a_store_that_never_answers_is_given_up(server: Served) -> None:
    """The published bound of five seconds is that of the question; how long the rest takes is measured."""
    never = asyncio.Event()

    async def handler(_: web.Request, __: dict[str, str]) -> web.Response:
        await never.wait()
        raise AssertionError("nothing sets it")

    answer, _ = await answer_of(server, handler, "GPU_UTILIZATION,CPU_USAGE_CORES")
    assert prometheus.QUERY_SECONDS < 5
    assert_is_error(answer, 503)
    assert "timeout" in answer.json["details"]


async def test_one_that_is_not_there(server: Served) -> None:
    id_ = await with_usage(server)
    metrics = workload_metrics(server.db, {"": PrometheusSettings(url="http://127.0.0.1:9")})
    async with listening(build_app(replace(server.services, metrics=metrics))) as at:
        answer = await replace(server, url=at).get(path(TYPES, id_=id_))
    await metrics.close()
    assert answer.status == 207
    assert answer.json["measurements"][0]["labels"] == {"reason": "source_error"}


async def test_a_question_that_is_no_promql_is_our_fault(server: Served) -> None:
    body = json.dumps({"status": "error", "errorType": "bad_data", "error": "parse error"})
    answer, _ = await answer_of(server, text(body, status=400, kind="application/json"))
    assert_is_error(answer, 500)

"""Every error on every route has one shape, whatever caused it."""

import asyncio
import io
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Engine, fresh_database
from tests.fixtures.samples import OPERATIONS, PAGES, SAMPLES, of_login, with_body
from tests.fixtures.serving import ABSENT_ID, HARDLY, SETTINGS, Answer, Served, listening, serving
from watchbill.api.app import build_app
from watchbill.api.changes import ChangeStreams
from watchbill.api.http.contract import LoginRequirement
from watchbill.errors import Unavailable
from watchbill.metrics.pushed import PushedSamples
from watchbill.metrics.workload import WorkloadMetrics

ROUTES = sorted(
    {SAMPLES[name].path.partition("?")[0] for name in SAMPLES} | {"/", "/fleet", "/docs"}
)
READING = [name for name, operation in OPERATIONS.items() if operation.method == "GET"]
OAUTH_MEMBERS = {"error", "error_description"}


def assert_is_error(answer: Answer, status: int, *, is_oauth: bool = False) -> None:
    assert answer.status == status, (answer.status, answer.body)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["X-Request-Id"]
    members = set(answer.json)
    if is_oauth:
        assert members >= OAUTH_MEMBERS
        assert answer.json["error_description"] == answer.json["message"]
        members -= OAUTH_MEMBERS
    assert {"code", "message"} <= members <= {"code", "message", "details"}
    assert answer.json["code"] == status
    assert isinstance(answer.json["message"], str)
    assert answer.json["message"]
    assert isinstance(answer.json.get("details", ""), str)
    if status == 401:
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def ask(served: Served, name: str, *, query: str = "", **options: Any) -> Answer:
    sample = SAMPLES[name]
    path = sample.path + (("&" if "?" in sample.path else "?") + query if query else "")
    return await served.ask(OPERATIONS[name].method, path, **(sample.options | options))


def is_oauth(name: str) -> bool:
    return name in ("create_token_v2", "revoke_token", "create_device_login")


@pytest.mark.parametrize("name", of_login(LoginRequirement.CALLER, LoginRequirement.AGENT))
@pytest.mark.parametrize("token", [None, "nonsense", "a.b.c", f"wba.{ABSENT_ID}.{'s' * 43}"])
async def test_without_a_credential(shared: Served, name: str, token: str | None) -> None:
    assert_is_error(await ask(shared, name, token=token), 401)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_unknown_methods(shared: Served, path: str, method: str) -> None:
    answer = await shared.ask(method, path)
    assert_is_error(answer, 405)
    allowed = {
        operation.method for operation in OPERATIONS.values() if _is_at(operation.path, path)
    }
    allowed = allowed or {"GET"}
    assert set(answer.headers["Allow"].split(", ")) == allowed | (
        {"HEAD"} if "GET" in allowed else set()
    )


def _is_at(template: str, path: str) -> bool:
    result = [
        SAMPLES[name].path.partition("?")[0]
        for name in SAMPLES
        if OPERATIONS[name].path == template
    ]
    return path in result


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/api",
        "/api/v1",
        "/api/v1/workloads/",
        "//api/v1/workloads",
        "/api/v1//workloads",
        "/api/v1/workloads/%2e%2e/clusters",
        "/api/v1/workloads/count/",
        "/API/V1/workloads",
        "/assets/",
        "/assets/../contract.py",
        "/assets/%2e%2e/contract.py",
        "/%00",
        "/%ff",
        "/api/v1/workloads%2Fcount%2Fx",
        "/agent/v1/",
        "/session",
    ],
)
async def test_unknown_addresses(shared: Served, path: str) -> None:
    assert_is_error(await shared.get(path), 404)


@pytest.mark.parametrize(
    "name", [name for name, operation in OPERATIONS.items() if "{workloadId}" in operation.path]
)
@pytest.mark.parametrize("id_", [str(ABSENT_ID), "1", "null", "%00", "a b", "'--", "x" * 500])
async def test_absent_and_malformed_ids(shared: Served, name: str, id_: str) -> None:
    path = OPERATIONS[name].path.replace("{workloadId}", id_.replace(" ", "%20"))
    query = SAMPLES[name].path.partition("?")[2]
    assert_is_error(await shared.get(f"{path}?{query}"), 404)


@pytest.mark.parametrize("name", of_login(LoginRequirement.CALLER, LoginRequirement.NONE))
async def test_bad_escapes_in_the_query(shared: Served, name: str) -> None:
    answer = await ask(shared, name, query="x=%ff")
    assert_is_error(answer, 400, is_oauth=is_oauth(name))


@pytest.mark.parametrize("name", [name for name in READING if OPERATIONS[name].offers])
async def test_media_types_that_are_not_offered(shared: Served, name: str) -> None:
    answer = await ask(shared, name, headers={"Accept": "image/png"})
    assert_is_error(answer, 406)
    assert "application/json" in answer.json["details"]


@pytest.mark.parametrize("name", [*READING, "delete_cluster", "delete_session"])
async def test_bodies_where_none_belongs(shared: Served, name: str) -> None:
    answer = await ask(shared, name, data=b"{}", headers={"Content-Type": "application/json"})
    assert_is_error(answer, 413)


@pytest.mark.parametrize("path", [*ROUTES, "/nothing"])
async def test_addresses_that_are_too_long(shared: Served, path: str) -> None:
    assert_is_error(await shared.get(f"{path}?x={'a' * 8200}"), 414)


@pytest.mark.parametrize("path", [*ROUTES, "/nothing"])
async def test_header_fields_that_are_too_large(shared: Served, path: str) -> None:
    fields = {f"X-{number}": "a" * 4000 for number in range(5)}
    assert_is_error(await shared.get(path, headers=fields), 431)


BODIES: list[tuple[str, bytes, int]] = [
    ("no JSON", b"{", 400),
    ("no UTF-8", b'{"a":"\xff"}', 400),
    ("another shape", b"[]", 400),
    ("null", b"null", 400),
    ("empty", b"", 400),
    ("deeply nested", b"[" * 10_000, 400),
    ("too large", b" " * 20_000, 413),
]


@pytest.mark.parametrize(("cause", "body", "status"), BODIES)
@pytest.mark.parametrize(
    "name", [operation for operation in with_body() if "agent" not in operation]
)
async def test_bodies_that_cannot_be_read(
    shared: Served, name: str, cause: str, body: bytes, status: int
) -> None:
    if (name, cause) == ("apply_access", "too large"):
        body *= 60  # a whole document may be larger
    kind = "application/x-www-form-urlencoded" if is_oauth(name) else "application/json"
    answer = await shared.ask(
        OPERATIONS[name].method,
        SAMPLES[name].path,
        data=io.BytesIO(body),
        headers={"Content-Type": kind},
    )
    assert_is_error(answer, status, is_oauth=is_oauth(name))


@pytest.mark.parametrize(
    "name", [operation for operation in with_body() if "agent" not in operation]
)
async def test_bodies_of_another_media_type(shared: Served, name: str) -> None:
    answer = await shared.ask(
        OPERATIONS[name].method,
        SAMPLES[name].path,
        data=b"<a/>",
        headers={"Content-Type": "application/xml"},
    )
    assert_is_error(answer, 415, is_oauth=is_oauth(name))


class Broken:
    """A database in which everything goes wrong in one way."""

    can_listen = True

    def __init__(self, error: Callable[[], Exception]) -> None:
        self._error = error

    @asynccontextmanager
    async def acquire(self, *_: object, **__: object) -> Any:
        raise self._error()
        yield

    transaction = snapshot = by_handle = listening = acquire

    async def check_ready(self) -> None:
        raise self._error()


def broken(error: Callable[[], Exception]) -> Any:
    return Broken(error)


NO_DATABASE = {"get_me", "delete_session", "get_health", "get_server_metrics"} | {
    *("get_openapi", "get_contract", "list_roles", "list_issuers", "list_access_keys"),
    *("get_liveness", "get_version"),
    *("list_workload_types", "get_workload_type"),
}
ELSEWHERE = {
    "start_oidc_login",
    "finish_oidc_login",
    "decide_device_login",
    "create_device_login",
} | {
    *("rotate_keys", "create_access_key", "delete_access_key", "revoke_token"),
}
"""What ends before the database, or asks it by another way."""
TOUCHING = [
    name
    for name in SAMPLES
    if name not in NO_DATABASE | ELSEWHERE and OPERATIONS[name].login is not LoginRequirement.AGENT
]


@asynccontextmanager
async def over(served: Served, db: Any) -> Any:
    """The same server over another database; keys and callers are remembered."""
    await served.get("/api/v1/me")
    services = replace(
        served.services,
        db=db,
        metrics=WorkloadMetrics(db, lambda _: PushedSamples(db)),
        accounts=type(served.services.accounts)(db, served.services.clock),
        streams=ChangeStreams(db, served.services.clock),
    )
    async with listening(build_app(services)) as url:
        yield replace(served, url=url)


async def test_what_is_ours_tells_nothing_but_the_request(shared: Served) -> None:
    async with over(shared, broken(lambda: ValueError("password=hunter2"))) as served:
        for name in TOUCHING:
            if name == "get_readiness":
                continue
            answer = await ask(served, name)
            assert_is_error(answer, 500, is_oauth=is_oauth(name))
            assert answer.headers["X-Request-Id"] in answer.json["details"]
            assert b"hunter2" not in answer.body
            assert b"ValueError" not in answer.body


async def test_a_database_that_does_not_answer(shared: Served) -> None:
    def unavailable() -> Exception:
        return Unavailable("The database does not answer.", retry_after_seconds=2)

    async with over(shared, broken(unavailable)) as served:
        for name in TOUCHING:
            answer = await ask(served, name)
            assert_is_error(answer, 503, is_oauth=is_oauth(name))
            assert answer.headers["Retry-After"] == "2"
        for name in NO_DATABASE:
            assert (await ask(served, name)).status < 300, name


async def test_more_than_the_published_rate(embedded_engine: Engine) -> None:
    settings = replace(SETTINGS, requests_burst=1, requests_per_second=HARDLY)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        await served.get("/api/v1/me")
        names = of_login(LoginRequirement.CALLER)
        began = time.monotonic()
        for answer in await asyncio.gather(*(ask(served, name) for name in names)):
            assert_is_error(answer, 429)
            assert int(answer.headers["Retry-After"]) >= 1
        assert time.monotonic() - began >= 0.5, "who is hasty waits for its refusal"


async def test_head_answers_as_get_without_a_body(shared: Served) -> None:
    for name in READING:
        head = await shared.ask("HEAD", SAMPLES[name].path)
        assert head.status == (await shared.get(SAMPLES[name].path)).status, name
        assert head.body == b""
    assert (await shared.ask("HEAD", "/nothing")).status == 404


@pytest.mark.parametrize("path", [path for path in PAGES if "{" not in path])
async def test_pages_are_there_or_say_why_not(shared: Served, path: str) -> None:
    answer = await shared.get(path, token=None)
    if answer.status != 200:
        assert_is_error(answer, 404)

"""Ways around the limits: what costs the database is paced whatever its outcome, and a flood fills neither the
connections nor the log. That nobody else is kept out is in `test_unverified_credentials.py`."""

import asyncio
import logging
import statistics
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from tests.api.http.test_errors import assert_is_error
from tests.api.http.test_http import raw
from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import HARDLY, SETTINGS, Served, serving
from tests.fixtures.virtual_time import VirtualLoop
from watchbill.access import logins
from watchbill.access.logins import DEVICE_LOGIN_LIFETIME
from watchbill.access.tokens import tokens as access_tokens
from watchbill.api.http import listen
from watchbill.api.limits import (
    ADDRESSES_PER_NETWORK,
    CONCURRENT_LOOKUPS,
    DEVICE_LOGINS_BURST,
    DEVICE_LOGINS_PER_SECOND,
    MAX_DELAYED_REFUSALS,
    SPACING_SECONDS,
    DeviceLoginLimiter,
    PacedLookup,
    RefusalDelay,
    UnverifiedCredentialLimiter,
)
from watchbill.errors import TooMany, Unavailable
from watchbill.store.identity.sessions import MAX_OPEN

DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


class SlowLookup:
    """Stands in for a query of the store: finds nothing, and counts how many run at a time."""

    def __init__(self) -> None:
        self.running = self.peak = self.calls = 0

    async def __call__(self, *_: Any, **__: Any) -> None:
        self.calls += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        await asyncio.sleep(0.005)
        self.running -= 1


async def test_revoking_an_invented_token_again_and_again(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is always 200, so the token never counts as wrong; nor as one that was right before."""
    lookup = SlowLookup()
    monkeypatch.setattr(access_tokens, "refresh_family_get", lookup)
    form = {"token": f"wbr_{'x' * 43}"}
    for _ in range(2):
        answers = await asyncio.gather(
            *(server.ask("POST", "/api/v2/revoke", data=form, token=None) for _ in range(20))
        )
        assert {answer.status for answer in answers} == {200}
    assert 0 < lookup.peak <= CONCURRENT_LOOKUPS


async def test_polling_one_device_login_again_and_again(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = SlowLookup()
    monkeypatch.setattr(logins, "device_login_poll", lookup)

    async def poll(code: str) -> str:
        form = {"grant_type": DEVICE, "device_code": code}
        return str((await server.ask("POST", "/api/v2/token", data=form, token=None)).json["error"])

    errors = await asyncio.gather(*(poll("the same code") for _ in range(20)))
    assert sorted(errors) == ["expired_token", *["slow_down"] * 19]
    assert lookup.calls == 1, "only the first poll of an interval asks the database"
    assert set(await asyncio.gather(*(poll(uuid4().hex) for _ in range(20)))) == {"expired_token"}
    assert 0 < lookup.peak <= CONCURRENT_LOOKUPS


async def test_paced_lookups_count_whatever_they_find(monkeypatch: pytest.MonkeyPatch) -> None:
    delayed: list[int] = []

    async def wait(_: RefusalDelay) -> None:
        delayed.append(1)

    monkeypatch.setattr(RefusalDelay, "wait", wait)
    limiter = UnverifiedCredentialLimiter(1, 5)
    for _ in range(8):
        async with limiter.paced_lookup("2001:db8::1", "revocation"):
            pass
    assert len(delayed) == 3
    async with limiter.paced_lookup("192.0.2.1", "revocation"):
        pass
    assert len(delayed) == 3, "another address has a rate of its own"


@pytest.mark.parametrize("kind", get_args(PacedLookup))
async def test_who_logs_in_or_revokes_waits_for_no_flood_of_anything_else(
    kind: PacedLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    async def wait(delay: RefusalDelay) -> None:
        delays.append(delay.seconds())
        delay.waiting += 1

    monkeypatch.setattr(RefusalDelay, "wait", wait)
    limiter = UnverifiedCredentialLimiter(HARDLY, 1)
    for _ in range(300):
        await limiter.count("192.0.2.1")
        for other in set(get_args(PacedLookup)) - {kind}:
            async with limiter.paced_lookup("192.0.2.1", other):
                pass
    assert max(delays) > 3, "of the flood's own, the later the more of them wait"
    delays.clear()
    async with limiter.paced_lookup("192.0.2.1", kind):
        pass
    assert 0.5 <= delays[0] <= 1.5


@pytest.mark.parametrize("kind", get_args(PacedLookup))
async def test_more_connections_than_can_wait_get_no_lookup(kind: PacedLookup) -> None:
    """They went to the database at once, and nothing held them back."""
    limiter = UnverifiedCredentialLimiter(HARDLY, 1)
    limiter._paced[kind].waiting = MAX_DELAYED_REFUSALS
    async with limiter.paced_lookup("192.0.2.1", kind):
        pass
    with pytest.raises(Unavailable):
        async with limiter.paced_lookup("192.0.2.1", kind):
            pass
    async with limiter.paced_lookup("192.0.2.2", kind):
        """Who keeps its own rate is looked up."""


async def test_one_network_cannot_take_every_open_device_login(embedded_engine: Engine) -> None:
    """Within an IPv6 /64 addresses cost nothing."""
    settings = replace(SETTINGS, trusted_proxies=("127.0.0.1",))
    form = {"client_id": "watchbill-cli"}
    async with serving(await fresh_database(embedded_engine), settings) as served:

        async def start(address: str) -> int:
            headers = {"X-Forwarded-For": address}
            answer = await served.ask(
                "POST", "/api/v2/device_authorization", data=form, token=None, headers=headers
            )
            return answer.status

        statuses = [await start(f"2001:db8:0:1::{n:x}") for n in range(DEVICE_LOGINS_BURST + 15)]
        assert statuses[:DEVICE_LOGINS_BURST] == [200] * DEVICE_LOGINS_BURST
        assert statuses.count(429) >= 10
        assert await start("2001:db8:0:2::1") == 200


@pytest.mark.parametrize(
    ("addresses", "elsewhere"),
    [
        ("2001:db8:7:{0:x}::1", "2001:db8:8::1"),
        ("2001:db8:7:1{0:02x}::{0:x}", "2001:db8:8::1"),
        ("198.51.100.{0}", "203.0.113.1"),
    ],
)
async def test_many_addresses_of_one_network_take_a_share_of_the_open_device_logins(
    addresses: str, elsewhere: str
) -> None:
    """Whoever has a /56 has 256 times /64: some 36,000 logins in the ten minutes that they stay open."""
    limiter = DeviceLoginLimiter()
    taken = 0
    for _ in range(DEVICE_LOGINS_BURST):
        for number in range(256):
            try:
                limiter.take(addresses.format(number))
                taken += 1
            except TooMany:
                pass
    assert taken <= ADDRESSES_PER_NETWORK * DEVICE_LOGINS_BURST + 10
    seconds = DEVICE_LOGIN_LIFETIME.total_seconds()
    assert taken + ADDRESSES_PER_NETWORK * DEVICE_LOGINS_PER_SECOND * seconds < MAX_OPEN / 5
    limiter.take(elsewhere)


@pytest.mark.parametrize("path", ["/device", "/api/v1/session"])
async def test_invented_cookies_wait_for_one_another(
    server: Served, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Also where the operation needs no login."""
    lookup = SlowLookup()
    monkeypatch.setattr("watchbill.access.logins.session_get", lookup)
    method = "GET" if path == "/device" else "DELETE"
    await asyncio.gather(
        *(
            server.ask(method, path, token=None, headers={"Cookie": f"watchbill_session={n}"})
            for n in range(20)
        )
    )
    assert 0 < lookup.peak <= CONCURRENT_LOOKUPS


async def test_readiness_is_asked_of_the_database_once_a_second(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    check_ready = server.db.check_ready

    async def counted() -> None:
        nonlocal calls
        calls += 1
        await check_ready()

    monkeypatch.setattr(server.db, "check_ready", counted)
    answers = await asyncio.gather(*(server.get("/readyz", token=None) for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert calls <= 2


async def test_anonymous_requests_have_a_rate_per_address(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    async def wait(delay: RefusalDelay) -> None:
        delay.waiting = 500
        delays.append(delay.seconds())

    settings = replace(SETTINGS, requests_per_second=HARDLY, requests_burst=2)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        answers = await asyncio.gather(
            *(
                served.ask(method, path, token=None)
                for method, path in (
                    ("GET", "/api/v1/version"),
                    ("GET", "/nothing"),
                    ("GET", "/api/v1/nothing/at/all"),
                    ("DELETE", "/api/v1/me"),
                )
                for _ in range(3)
            )
        )
        monkeypatch.setattr(RefusalDelay, "wait", wait)
        probes = await asyncio.gather(
            *(served.get(path, token=None) for path in ("/livez", "/readyz") for _ in range(6))
        )
    assert {answer.status for answer in probes} == {200}, (
        "a flood from a kubelet's address kills nobody"
    )
    assert delays, "probes beyond the rate are late"
    assert max(delays) < 4, "but within a kubelet's timeout, however many wait"
    statuses = [answer.status for answer in answers]
    assert statuses.count(429) == 4, "whatever it is that nobody stands behind"
    assert set(statuses) <= {200, 404, 405, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert_is_error(refused, 429)


async def test_a_browser_at_addresses_that_are_none_is_refused_late_but_once(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    delayed: list[None] = []

    async def wait(_: RefusalDelay) -> None:
        delayed.append(None)

    monkeypatch.setattr(RefusalDelay, "wait", wait)
    settings = replace(SETTINGS, requests_per_second=HARDLY, requests_burst=1)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        statuses = [
            (await served.get("/nothing", token=None, headers={"Accept": "text/html"})).status
            for _ in range(9)
        ]
    assert statuses.count(429) == len(delayed) > 0


async def test_who_sends_without_reading_is_left(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests of one connection that nobody reads the answers of; the others hardly notice."""
    address = urlsplit(server.url)
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            with pytest.raises((ConnectionError, TimeoutError)):
                async with asyncio.timeout(60):
                    for _ in range(1000):
                        writer.write(request * 100)
                        await writer.drain()
            writer.close()
        assert (await server.get("/healthz", token=None)).status == 200
    assert [record for record in caplog.records if record.exc_info] == []
    assert len(caplog.records) <= 20


def test_more_connections_get_no_more_refusals() -> None:
    """As many a second, however many wait at the same time, up to those that a server holds."""
    delay = RefusalDelay()
    for waiting in (0, 10, 40, 128, 240):
        delay.waiting = waiting
        delays = [delay.seconds() for _ in range(200)]
        assert min(delays) >= 0.5
        assert waiting / statistics.mean(delays) < 50
        assert max(delays) < 10


def test_no_two_delayed_refusals_end_together() -> None:
    """Also where some leave; all of those that may wait end soon enough for a kubelet."""
    ended: list[float] = []

    async def end_all(loop: VirtualLoop) -> None:
        delay = RefusalDelay(longest=1)

        async def refuse() -> None:
            await delay.wait()
            ended.append(loop.time())

        refusals = [asyncio.create_task(refuse()) for _ in range(MAX_DELAYED_REFUSALS)]
        await asyncio.sleep(1.0)
        for refusal in refusals[::7]:
            refusal.cancel()
        await asyncio.gather(*refusals, return_exceptions=True)

    loop = VirtualLoop()
    loop.run_until_complete(end_all(loop))
    loop.close()
    assert len(ended) > MAX_DELAYED_REFUSALS / 2
    assert min(after - before for before, after in pairwise(ended)) > 0.99 * SPACING_SECONDS
    assert max(ended) < 4


def test_connections_that_are_no_http_fill_no_log() -> None:
    (filter_,) = [
        log_filter
        for log_filter in logging.getLogger("uvicorn.error").filters
        if isinstance(log_filter, listen._LogFilter)
    ]
    record = logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, uuid4().hex, (), None)
    assert [filter_.filter(record) for _ in range(5)] == [True, False, False, False, False]


# What a proxy in front may read otherwise


async def test_a_request_names_one_host(shared: Served) -> None:
    twice = b"GET /healthz HTTP/1.1\r\nHost: a.example.com\r\nHost: b.example.com\r\n\r\n"
    status, body = await raw(shared, twice)
    assert (status, body["code"]) == (400, 400)
    status, body = await raw(shared, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (status, body["code"]) == (400, 400)


async def test_a_body_is_encoded_in_no_other_way_than_in_chunks(shared: Served) -> None:
    """Whoever would decode more than we do may see another body, or another end of it."""
    head = b"POST /api/v1/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    status, body = await raw(shared, head + b"0\r\n\r\n")
    assert (status, body["code"]) == (501, 501)


@pytest.mark.parametrize(
    "path",
    [
        "/api%2fv1/workloads",
        "/api%2Fv1/workloads",
        "/%2e%2e/healthz",
        "/api/v1%5cworkloads",
        "/healthz%00",
    ],
)
async def test_escaped_syntax_names_no_endpoint(shared: Served, path: str) -> None:
    assert_is_error(await shared.get(path), 404)


async def test_the_servers_own_metrics_need_a_token(server: Served) -> None:
    """A page's cookie does not open them: whatever else runs in a browser could read them with it."""
    body = {"clientId": server.client_id, "clientSecret": server.secret}
    session = await server.ask("POST", "/api/v1/session", json=body, token=None)
    cookie = {"Cookie": session.headers["Set-Cookie"].partition(";")[0]}
    assert (await server.get("/api/v1/me", token=None, headers=cookie)).status == 200
    assert_is_error(await server.get("/metrics", token=None, headers=cookie), 401)
    assert (await server.get("/metrics")).status == 200


async def test_an_origin_of_another_scheme_is_another_site(server: Served) -> None:
    body = {"clientId": server.client_id, "clientSecret": server.secret}
    host = urlsplit(server.url).netloc
    for scheme, status in (("ftp", 403), ("file", 403), ("http", 200), ("https", 200)):
        headers = {"Origin": f"{scheme}://{host}"}
        answer = await server.ask("POST", "/api/v1/session", json=body, token=None, headers=headers)
        assert answer.status == status, scheme

"""Whoever holds nothing that opens anything: what a flood of invented credentials costs, and leaves behind."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import SETTINGS, Served, serving
from watchbill.access import logins
from watchbill.access.audit import MANY_ADDRESSES, MAX_ANONYMOUS_ADDRESSES
from watchbill.api import limits
from watchbill.api.limits import (
    CONCURRENT_LOOKUPS,
    MAX_REFUSED_CREDENTIALS,
    REFUSED_CREDENTIAL_SECONDS,
    RefusalDelay,
    UnverifiedCredentialLimiter,
    address_unit,
)
from watchbill.errors import Unauthenticated, Unavailable
from watchbill.store.identity.administration import tenant_create


async def wrong(limiter: UnverifiedCredentialLimiter, address: str, credential: str) -> None:
    with pytest.raises(Unauthenticated):
        async with limiter.lookup(address, credential):
            raise Unauthenticated("no")


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each refusal that came late."""
    collected: list[int] = []

    async def wait(_: RefusalDelay) -> None:
        collected.append(1)

    monkeypatch.setattr(RefusalDelay, "wait", wait)
    return collected


async def test_wrong_credentials_beyond_the_rate_come_back_late(held_back: list[int]) -> None:
    limiter = UnverifiedCredentialLimiter(1, 5)
    for number in range(5):
        await wrong(limiter, "192.0.2.1", f"x{number}")
    assert held_back == []
    for number in range(3):
        await wrong(limiter, "192.0.2.1", f"y{number}")
    assert len(held_back) == 3
    await wrong(limiter, "192.0.2.2", "z")
    assert len(held_back) == 3, "another address has a rate of its own"
    async with limiter.lookup("192.0.2.1", "right"):
        pass  # who has the right one is let in, whatever others behind the address send


async def test_of_ipv6_a_network_counts(held_back: list[int]) -> None:
    limiter = UnverifiedCredentialLimiter(1, 5)
    for number in range(8):
        await wrong(limiter, f"2001:db8:0:1::{number:x}", "x")
    assert len(held_back) == 3
    assert address_unit("::ffff:192.0.2.1") == address_unit("192.0.2.1") == "192.0.2.1"
    assert address_unit("2001:db8::1%eth0") == "2001:db8::"
    assert address_unit("") == ""


async def test_unverified_credentials_take_turns_and_the_known_do_not() -> None:
    limiter, going, most = UnverifiedCredentialLimiter(1000, 1000), 0, 0
    async with limiter.lookup("192.0.2.1", "known"):
        pass

    async def invented(number: int) -> None:
        nonlocal going, most
        async with limiter.lookup("192.0.2.1", f"x{number}"):
            going += 1
            most = max(most, going)
            await asyncio.sleep(0.001)
            going -= 1

    stuck = [asyncio.create_task(invented(number)) for number in range(20)]
    await asyncio.sleep(0)
    async with limiter.lookup("192.0.2.1", "known"):
        assert going > 0, "it was not waited for"
    await asyncio.gather(*stuck)
    assert most == CONCURRENT_LOOKUPS


async def test_what_was_refused_for_good_is_refused_for_a_moment_without_a_lookup() -> None:
    now, looked_up = [0.0], []
    limiter = UnverifiedCredentialLimiter(1000, 1000, clock=lambda: now[0])

    async def ask(credential: str, *, is_final: bool = True) -> None:
        with pytest.raises(Unauthenticated, match="not valid"):
            async with limiter.lookup("192.0.2.1", credential, is_final=is_final):
                looked_up.append(credential)
                await asyncio.sleep(0)
                raise Unauthenticated("The credential is not valid.")

    await asyncio.gather(*(ask("a") for _ in range(20)))
    assert len(looked_up) <= CONCURRENT_LOOKUPS
    looked_up.clear()
    await ask("a")
    await ask("b")
    assert looked_up == ["b"], "each is remembered by itself"
    now[0] += REFUSED_CREDENTIAL_SECONDS
    await ask("a")
    assert looked_up == ["b", "a"], "a database that was restored may know it by now"
    for _ in range(2):
        await ask("c", is_final=False)
    assert looked_up[2:] == ["c", "c"]
    for number in range(MAX_REFUSED_CREDENTIALS + 10):
        limiter._refused[number.to_bytes(4)] = "no"
    assert len(limiter._refused) <= MAX_REFUSED_CREDENTIALS


async def test_a_database_that_hangs_makes_no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUEUE_SECONDS", 0.02)
    limiter, hanging = UnverifiedCredentialLimiter(1000, 1000), asyncio.Event()

    async def stuck(number: int) -> None:
        async with limiter.lookup("192.0.2.1", f"x{number}"):
            await hanging.wait()

    tasks = [asyncio.create_task(stuck(number)) for number in range(CONCURRENT_LOOKUPS)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await stuck(99)
    hanging.set()
    await asyncio.gather(*tasks)
    await stuck(99)


async def test_a_flood_of_invented_credentials_asks_the_database_a_few_at_a_time(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = most = 0

    async def slow(*_: object, **__: object) -> None:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0.005)
        going -= 1

    monkeypatch.setattr(logins, "cluster_credential_get", slow)
    monkeypatch.setattr(logins, "session_get", slow)
    agent = f"wba.{uuid4()}.{'x' * 43}"
    answers = await asyncio.gather(
        *(server.ask("POST", "/agent/v1/hello", token=agent + str(n), json={}) for n in range(20)),
        *(
            server.get("/api/v1/me", token=None, headers={"Cookie": f"watchbill_session={n}"})
            for n in range(20)
        ),
    )
    assert {answer.status for answer in answers} == {401}
    assert 0 < most <= CONCURRENT_LOOKUPS


async def test_a_flood_of_refusals_is_a_few_events_and_crowds_nobody_out(server: Served) -> None:
    audit = server.services.audit
    await audit.flush()
    for _ in range(30):  # every one asks for something else
        assert_is_error(await server.get(f"/api/v1/workloads/{uuid4()}", token="a.b.c"), 401)
        body = {"grantType": "app_token", "appId": f"wbc-{uuid4().hex[:16]}", "appSecret": "x"}
        assert_is_error(await server.ask("POST", "/api/v1/token", json=body, token=None), 401)
    assert sorted(queue.count for queue in audit._waiting.values()) == [30, 30]
    assert {(queue.subject, queue.target) for queue in audit._waiting.values()} == {("", "")}
    (event, *_) = audit._waiting.values()
    for number in range(3 * MAX_ANONYMOUS_ADDRESSES):
        audit.note(
            replace(event, address=f"192.0.2.{number}"), is_read=True, is_unauthenticated=True
        )
    assert len(audit._waiting) <= 2 + MAX_ANONYMOUS_ADDRESSES + 1
    assert any(
        queue.address == MANY_ADDRESSES and queue.count > 1 for queue in audit._waiting.values()
    )
    await audit.flush()
    audit.note(replace(event, address="198.51.100.1"), is_read=True, is_unauthenticated=True)
    assert [queue.address for queue in audit._waiting.values()] == ["198.51.100.1"]


async def test_a_failed_login_stands_in_the_log_of_its_own_tenant(server: Served) -> None:
    _, client_id, secret = await tenant_create(server.db, "second", now=datetime.now(UTC))
    second = await server.token_of(client_id, secret)
    for app_id in (client_id, server.client_id, "wbc-0123456789abcdef", "hunter2"):
        body = {"grantType": "app_token", "appId": app_id, "appSecret": "wrong"}
        assert_is_error(await server.ask("POST", "/api/v1/token", json=body, token=None), 401)

    async def failed(token: str) -> list[tuple[str, int]]:
        path = "/api/v1/admin/audit?operation=create_token"
        events = (await server.get(path, token=token)).json["events"]
        return [(event["subject"], event["count"]) for event in events if event["outcome"] == 401]

    assert await failed(second) == [(client_id, 1)]
    # What names nobody stands in the first tenant's, without what was typed.
    assert sorted(await failed(await server.token())) == [("", 2), (server.client_id, 1)]


async def test_valid_tokens_pass_beside_a_flood_from_the_same_address(
    embedded_engine: Engine, held_back: list[int]
) -> None:
    settings = replace(SETTINGS, requests_per_second=20, requests_burst=20)
    async with serving(await fresh_database(embedded_engine), settings) as served:
        for number in range(60):
            assert_is_error(await served.get("/api/v1/me", token=f"a.b.c{number}"), 401)
        assert held_back
        fresh = await served.account(("viewer", "tenant", "1"))  # logs in, and is new here
        assert (await served.get("/api/v1/workloads", token=fresh)).status == 200

"""What is taken away while somebody listens: each loss of a right ends the open stream and the next request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.test_stream import Ear, ear
from tests.conftest import Engine, fresh_database
from tests.fixtures.serving import Served, serving
from watchbill.access.tokens.tokens import RefreshTokens
from watchbill.api.resources import stream
from watchbill.identity import GROUP, USER, USER_PRINCIPAL, ExternalLogin, Principal, Rule
from watchbill.store.identity.accounts import account_create, user_upsert
from watchbill.store.identity.administration import RuleChange, rule_change

VIEWER = Rule(role="viewer", scope_kind="tenant", scope_id="1")
Headers = dict[str, str]
Withdraw = Callable[[], Awaitable[Any]]


class Place:
    def __init__(self, served: Served) -> None:
        self.served = served
        self.numbers = iter(range(100))

    async def account(self) -> tuple[str, str]:
        now = datetime.now(UTC)
        return await account_create(self.served.db, 1, "listener", (VIEWER,), now=now)

    async def person(self, *, group: str = "") -> tuple[ExternalLogin, Principal]:
        now, number = datetime.now(UTC), next(self.numbers)
        login = ExternalLogin(
            tenant_id=1, issuer="https://id.example.com", external_id=f"u-{number}", email=None,
            name=f"ada-{number}@example.com", groups=(group,) if group else (), stated_at=now,
        )  # fmt: skip
        subject = (GROUP, group) if group else (USER, login.name)
        change = RuleChange(added=((*subject, VIEWER),), removed=())
        await rule_change(self.served.db, 1, change, changed_by="test", now=now)
        person_id = await user_upsert(self.served.db, login, now=now)
        return login, Principal(tenant_id=1, kind=USER_PRINCIPAL, id=person_id)

    async def ask(self, method: str, path: str, **options: Any) -> None:
        answer = await self.served.ask(method, path, **options)
        assert answer.status < 300, answer.body


async def a_disabled_account(at: Place) -> tuple[Headers, Withdraw]:
    client_id, secret = await at.account()
    token = await at.served.token_of(client_id, secret)
    return bearer(token), lambda: at.ask("DELETE", f"/api/v1/admin/accounts/{client_id}")


async def a_disabled_user(at: Place) -> tuple[Headers, Withdraw]:
    _, principal = await at.person()
    token = await at.served.services.tokens.issue(principal, client_id="ada")
    return bearer(token), lambda: at.ask("POST", f"/api/v1/admin/users/{principal.id}/disable")


async def a_session_of_a_disabled_user(at: Place) -> tuple[Headers, Withdraw]:
    _, principal = await at.person()
    cookie = await at.served.services.sessions.begin(principal)
    headers = {"Cookie": f"watchbill_session={cookie}"}
    return headers, lambda: at.ask("POST", f"/api/v1/admin/users/{principal.id}/disable")


async def a_session_that_logged_out(at: Place) -> tuple[Headers, Withdraw]:
    _, principal = await at.person()
    cookie = await at.served.services.sessions.begin(principal)
    headers = {"Cookie": f"watchbill_session={cookie}"}
    return headers, lambda: at.ask("DELETE", "/api/v1/session", token=None, headers=headers)


async def a_session_whose_secret_was_rotated(at: Place) -> tuple[Headers, Withdraw]:
    client_id, secret = await at.account()
    body = {"clientId": client_id, "clientSecret": secret}
    begun = await at.served.ask("POST", "/api/v1/session", json=body, token=None)
    headers = {"Cookie": begun.headers["Set-Cookie"].partition(";")[0]}
    return headers, lambda: at.ask("POST", f"/api/v1/admin/accounts/{client_id}/rotate")


async def an_ended_access_key(at: Place) -> tuple[Headers, Withdraw]:
    _, principal = await at.person()
    as_person = await at.served.services.tokens.issue(principal, client_id="ada")
    made = await at.served.ask("POST", "/api/v1/me/keys", json={"name": "x"}, token=as_person)
    assert made.status == 201, made.body
    token = await at.served.token_of(made.json["clientId"], made.json["clientSecret"])
    path = f"/api/v1/me/keys/{made.json['clientId']}"
    return bearer(token), lambda: at.ask("DELETE", path, token=as_person)


async def a_revoked_login(at: Place) -> tuple[Headers, Withdraw]:
    _, principal = await at.person()
    services = at.served.services
    refresh_tokens: RefreshTokens = services.refresh_tokens
    refresh, member = await refresh_tokens.begin(principal)
    token = await services.tokens.issue(member, client_id="ada")
    form = {"token": refresh}
    return bearer(token), lambda: at.ask("POST", "/api/v2/revoke", data=form, token=None)


async def a_group_that_was_left(at: Place) -> tuple[Headers, Withdraw]:
    login, principal = await at.person(group="ml-team")
    token = await at.served.services.tokens.issue(principal, client_id="ada")
    later = replace(login, groups=("others",), stated_at=login.stated_at + timedelta(seconds=1))
    return bearer(token), lambda: user_upsert(at.served.db, later, now=datetime.now(UTC))


async def a_removed_rule(at: Place) -> tuple[Headers, Withdraw]:
    client_id, secret = await at.account()
    token = await at.served.token_of(client_id, secret)
    rules = (await at.served.get("/api/v1/admin/rules")).json["rules"]
    [rule_id] = [rule["id"] for rule in rules if rule["subject"] == client_id]
    return bearer(token), lambda: at.ask("DELETE", f"/api/v1/admin/rules/{rule_id}")


LOSSES = (
    a_disabled_account,
    a_disabled_user,
    a_session_of_a_disabled_user,
    a_session_that_logged_out,
    a_session_whose_secret_was_rotated,
    an_ended_access_key,
    a_revoked_login,
    a_group_that_was_left,
    a_removed_rule,
)


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def listening(served: Served, headers: Headers) -> AsyncIterator[Ear]:
    url = f"{served.url}/api/v1/workloads/stream"
    async with served.session.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        result = Ear(response)
        assert (await result.next())[0] == "ready"
        yield result


async def test_every_loss_ends_the_open_stream_within_a_minute(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.2)
    shift = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + shift

    async with (
        serving(await fresh_database(embedded_engine), clock=clock) as served,
        AsyncExitStack() as stack,
    ):
        at = Place(served)
        ears: dict[str, tuple[Ear, Headers]] = {}
        losses = [await loss(at) for loss in LOSSES]
        for loss, (headers, _) in zip(LOSSES, losses, strict=True):
            live = await stack.enter_async_context(listening(served, headers))
            ears[loss.__name__] = live, headers
        untouched = await stack.enter_async_context(ear(served))
        for _, withdraw in losses:
            await withdraw()
        shift = timedelta(seconds=59)
        ended = await asyncio.gather(*(live.next() for live, _ in ears.values()))
        for name, (event, data) in zip(ears, ended, strict=True):
            assert (event, data["reason"]) == ("end", "access"), name
        for name, (_, headers) in ears.items():
            answer = await served.get("/api/v1/workloads", token=None, headers=headers)
            assert answer.status in (401, 403), name
        await untouched.silence(0.5)


async def test_all_keys_at_once_end_every_stream(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.2)
    shift = timedelta()

    def clock() -> datetime:
        return datetime.now(UTC) + shift

    async with (
        serving(await fresh_database(embedded_engine), clock=clock) as served,
        ear(served) as live,
    ):
        await served.ask("POST", "/api/v1/admin/keys/rotate", json={"atOnce": True})
        shift = timedelta(seconds=59)
        name, data = await live.next()
        assert (name, data["reason"]) == ("end", "access")

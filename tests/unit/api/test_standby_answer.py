"""What a server with a standby answers to who changes something."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from watchbill.access.roles import Permission
from watchbill.api.http import endpoint
from watchbill.api.http.call import Call
from watchbill.api.http.contract import Operation
from watchbill.api.http.reply import Answer


async def test_a_change_is_answered_though_the_standby_is_long_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is stored: answering that the request timed out would lose a credential that is shown once."""
    monkeypatch.setattr(endpoint, "STANDBY_ANSWER_SECONDS", 0.01)
    stored = cast("Answer", object())

    async def change(_: Call) -> Answer:
        return stored

    async def never() -> None:
        await asyncio.Event().wait()

    services = SimpleNamespace(standby=SimpleNamespace(catch_up=never))
    call = cast("Call", SimpleNamespace(services=services))
    operation = SimpleNamespace(method="POST", permission=Permission.CLUSTERS_WRITE)
    async with asyncio.timeout(60):
        answer = await endpoint._answer(change, call, cast("Operation", operation))
    assert answer is stored

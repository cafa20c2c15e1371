"""Servers for the tests of the API: one that all reading tests share, and fresh ones for the others."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.conftest import Engine, fresh_database
from tests.fixtures.estate import NOW, Estate, estate
from tests.fixtures.serving import Served, fill, serving


@pytest_asyncio.fixture(scope="session")
async def filled(engine: Engine) -> AsyncIterator[Served]:
    """Shared and filled: only for tests that change nothing but accounts."""
    async with serving(await fresh_database(engine)) as served:
        await fill(served.db)
        yield served


@pytest_asyncio.fixture(scope="session")
async def shared(embedded_engine: Engine) -> AsyncIterator[Served]:
    """As `filled`, on one engine: for what happens before SQL."""
    async with serving(await fresh_database(embedded_engine)) as served:
        await fill(served.db)
        yield served


@pytest_asyncio.fixture
async def server(embedded_engine: Engine) -> AsyncIterator[Served]:
    """A test's own, empty."""
    async with serving(await fresh_database(embedded_engine)) as served:
        yield served


@pytest_asyncio.fixture(scope="session")
async def made(embedded_engine: Engine) -> AsyncIterator[Estate]:
    """The matrix's one estate: its tests add to it, and none takes anything away."""
    async with serving(await fresh_database(embedded_engine), clock=lambda: NOW) as served:
        yield await estate(served)

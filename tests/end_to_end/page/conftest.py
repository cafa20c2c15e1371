"""The page in a browser: one server and one Chromium for all of its tests, a new session for each."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest_asyncio
from playwright.async_api import Browser

from tests.conftest import Engine, RunningServer, fresh_database, running_server
from tests.fixtures.browser import Tab, chromium, new_tab
from tests.fixtures.fleet import Fleet, make_fleet, new_credential
from watchbill.client import AgentClient


@dataclass(frozen=True)
class Site:
    server: RunningServer
    fleet: Fleet
    browser: Browser


@pytest_asyncio.fixture(scope="session")
async def site(embedded_engine: Engine) -> AsyncIterator[Site]:
    async with (
        chromium() as browser,
        running_server(await fresh_database(embedded_engine)) as server,
        AgentClient(server.url, await new_credential(server)) as agent,
    ):
        yield Site(server, await make_fleet(server, agent), browser)


@pytest_asyncio.fixture
async def tab(site: Site) -> AsyncIterator[Tab]:
    async with new_tab(site.browser, site.server) as opened:
        yield opened


@pytest_asyncio.fixture
async def phone(site: Site) -> AsyncIterator[Tab]:
    async with new_tab(site.browser, site.server, width=390, height=844) as opened:
        yield opened

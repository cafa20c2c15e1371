"""The page below a prefix: assets, addresses, requests, the stream and the cookie, all of them below it."""

from urllib.parse import urlsplit

from playwright.async_api import expect

from tests.conftest import Engine, RunningServer, fresh_database, running_server
from tests.fixtures.browser import chromium, new_tab
from tests.fixtures.fleet import make_fleet, new_credential
from watchbill.client import AgentClient

BASE = "/tools/watchbill"


async def test_nothing_is_asked_for_beside_the_prefix(embedded_engine: Engine) -> None:
    database_url = await fresh_database(embedded_engine)
    public_url = f"http://tools.example.com{BASE}"
    async with (
        running_server(database_url, public_url=public_url) as server,
        AgentClient(server.url, await new_credential(server)) as agent,
        chromium() as browser,
    ):
        await make_fleet(server, agent)
        below = RunningServer(
            server.url + BASE, server.client_id, server.client_secret, database_url
        )
        asked: list[str] = []
        async with new_tab(browser, below) as tab:
            tab.context.on("request", lambda request: asked.append(urlsplit(request.url).path))
            await tab.log_in("/fleet?by=cluster")
            await expect(tab.page).to_have_url(f"{below.url}/fleet?by=cluster")
            await tab.page.get_by_role("link", name="Workloads").first.click()
            await tab.page.locator(".row .name").first.click()
            await tab.page.get_by_role("tab", name="Structure").click()
            assert urlsplit(tab.page.url).path.startswith(f"{BASE}/workloads/")
            await tab.page.reload()
            await tab.page.wait_for_selector("[role=tabpanel]")
            await tab.open("/")
            link = tab.page.get_by_role("link", name="CSV").first
            assert str(await link.get_attribute("href")).startswith(f"{BASE}/api/v1/")
            (cookie,) = await tab.context.cookies()
            assert cookie["path"] == BASE
            await tab.open("/docs")
            await tab.page.wait_for_selector(".opblock")
        outside = {path for path in asked if not path.startswith(f"{BASE}/")}
        assert (len(asked) > 20, outside) == (True, set())

"""Live refresh: the stream reports changes, many changes cause few requests, and polling is the fallback."""

import asyncio
from uuid import UUID

import pytest
from playwright.async_api import Request, expect

from tests.end_to_end.page.conftest import Site
from tests.fixtures.browser import Tab
from tests.fixtures.records import upsert
from watchbill.workload import Phase

STREAM_MS = 30_000
"""How long a slow machine may take to show a change."""

STREAMS_OF_THE_WINDOW = """performance.getEntriesByType("resource")
  .map((entry) => entry.name).filter((name) => name.includes("/workloads/stream"))"""


def refreshes(tab: Tab) -> list[str]:
    """The URLs of the list's refreshes from now on."""
    requests: list[str] = []

    def record(request: Request) -> None:
        if "/workloads/facets" in request.url:
            requests.append(request.url)

    tab.page.on("request", record)
    return requests


async def test_the_stream_reports_changes_and_nothing_is_polled(tab: Tab, site: Site) -> None:
    fleet = site.fleet
    await tab.log_in("/?search=llama-sft-7")
    await expect(tab.page.locator(".status .live")).to_have_text("live")
    row = tab.page.locator(f'.row[data-id="{UUID(int=7)}"]')
    await expect(row.locator(".phase")).to_have_text("Running")
    await asyncio.sleep(3)
    requests = refreshes(tab)
    await asyncio.sleep(7)
    assert requests == [], "the page polls beside the stream"
    await fleet.send(
        upsert(fleet.running(7, phase=Phase.DEGRADED), (Phase.DEGRADED, fleet.now)),
        upsert(fleet.running(8, running_pods=0)),
    )
    await expect(row.locator(".phase")).to_have_text("Degraded", timeout=STREAM_MS)
    await fleet.send(upsert(fleet.running(7), (Phase.RUNNING, fleet.now)))
    await expect(row.locator(".phase")).to_have_text("Running", timeout=STREAM_MS)


async def test_thousands_of_changes_a_minute_move_no_row(tab: Tab, site: Site) -> None:
    fleet = site.fleet
    await tab.log_in("/?sortBy=createdAt&sortOrder=asc")
    await tab.page.wait_for_selector(".row .name")
    grid = tab.page.locator(".grid")
    await grid.evaluate("grid => grid.scrollTo(0, 1200)")
    await asyncio.sleep(1)
    before = await tab.names()
    top = await grid.evaluate("grid => grid.scrollTop")
    assert top > 1_000
    requests = refreshes(tab)
    for turn in range(60):  # 85 changes ten times a second are 5,100 in six seconds' minute
        changed = [fleet.running(number, running_pods=turn % 5) for number in range(20, 105)]
        await fleet.send(*(upsert(workload) for workload in changed))
        await asyncio.sleep(0.1)
    assert 2 <= len(requests) <= 12, "one refresh covers many changes"
    assert await grid.evaluate("grid => grid.scrollTop") == top
    assert await tab.names() == before
    await fleet.send(*(upsert(fleet.running(number)) for number in range(20, 105)))


async def test_without_a_stream_the_page_polls(tab: Tab, site: Site) -> None:
    fleet = site.fleet
    await tab.page.add_init_script("delete window.SharedWorker")
    await tab.page.route("**/workloads/stream*", lambda route: route.abort())
    await tab.log_in("/?search=llama-sft-9")
    await expect(tab.page.locator(".status .live")).to_have_text("polling")
    row = tab.page.locator(f'.row[data-id="{UUID(int=9)}"]')
    await expect(row.locator(".phase")).to_have_text("Running")
    await fleet.send(
        upsert(fleet.running(9, phase=Phase.DEGRADED), (Phase.DEGRADED, fleet.now)),
    )
    await expect(row.locator(".phase")).to_have_text("Degraded")
    await fleet.send(upsert(fleet.running(9), (Phase.RUNNING, fleet.now)))


async def test_one_workload_follows_its_own_changes_only(tab: Tab, site: Site) -> None:
    fleet, path = site.fleet, f"/workloads/{UUID(int=9)}"
    await tab.log_in("/")
    await expect(tab.page.locator(".status .live")).to_have_text("live")
    await tab.open(path)
    phase = tab.page.locator(".detail-phase .phase")
    await expect(phase).to_have_text("Running")
    await asyncio.sleep(3)
    requests: list[str] = []
    tab.page.on("request", lambda request: requests.append(request.url))
    await fleet.send(upsert(fleet.running(10, running_pods=0)))
    await asyncio.sleep(6)
    assert [url for url in requests if url.endswith((path, f"{path}/phases"))] == []
    await fleet.send(upsert(fleet.running(9, phase=Phase.DEGRADED), (Phase.DEGRADED, fleet.now)))
    await expect(phase).to_have_text("Degraded", timeout=STREAM_MS)
    await fleet.send(upsert(fleet.running(9), (Phase.RUNNING, fleet.now)))
    await expect(phase).to_have_text("Running", timeout=STREAM_MS)


@pytest.mark.parametrize("is_shared", [True, False], ids=["shared worker", "stream per window"])
async def test_a_window_follows_a_change(tab: Tab, site: Site, *, is_shared: bool) -> None:
    """Chrome for Android has no SharedWorker: there each window opens its own stream."""
    fleet = site.fleet
    if not is_shared:
        await tab.page.add_init_script("delete window.SharedWorker")
    await tab.log_in("/?search=llama-sft-11")
    await expect(tab.page.locator(".status .live")).to_have_text("live")
    row = tab.page.locator(f'.row[data-id="{UUID(int=11)}"]')
    await fleet.send(
        upsert(fleet.running(11, phase=Phase.DEGRADED), (Phase.DEGRADED, fleet.now)),
    )
    await expect(row.locator(".phase")).to_have_text("Degraded", timeout=STREAM_MS)
    await fleet.send(upsert(fleet.running(11), (Phase.RUNNING, fleet.now)))
    await expect(row.locator(".phase")).to_have_text("Running", timeout=STREAM_MS)


async def test_windows_share_one_stream(tab: Tab, site: Site) -> None:
    """With two streams a window, three windows would use all six connections that a browser opens."""
    fleet, path = site.fleet, f"/?search=llama-sft-12&open={UUID(int=12)}"
    await tab.log_in(path)
    windows = [tab.page, *[await tab.context.new_page() for _ in range(7)]]
    for window in windows[1:]:
        await window.goto(tab.server.url + path)
        await expect(window.locator(".panel h1")).to_have_text("llama-sft-12")
    await fleet.send(
        upsert(fleet.running(12, phase=Phase.DEGRADED), (Phase.DEGRADED, fleet.now)),
    )
    for window in windows:
        await expect(window.locator(".status .live")).to_have_text("live")
        await expect(window.locator(".detail-phase .phase")).to_have_text("Degraded")
        assert await window.evaluate(STREAMS_OF_THE_WINDOW) == []
    await fleet.send(upsert(fleet.running(12), (Phase.RUNNING, fleet.now)))
    for window in windows:
        await expect(window.locator(".row .phase")).to_have_text("Running", timeout=STREAM_MS)

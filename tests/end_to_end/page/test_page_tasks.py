"""The tasks of docs/tasks.md in the browser: each is done in as many clicks as the page says."""

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from playwright.async_api import Locator, expect

from tests.fixtures.browser import Tab
from tests.fixtures.fleet import WHY

TABLE = Path(__file__).parents[3] / "docs" / "tasks.md"


class Walk:
    """A person at the list of workloads, who counts: a click, or a choice in a list."""

    def __init__(self, tab: Tab) -> None:
        self.page = tab.page
        self.clicks = 0

    async def click(self, target: Locator) -> None:
        self.clicks += 1
        await target.click()

    async def choose(self, target: Locator, value: str) -> None:
        self.clicks += 1
        await target.select_option(value)

    async def to(self, label: str) -> None:
        pages = self.page.get_by_role("navigation", name="Pages")
        await self.click(pages.get_by_role("link", name=label, exact=True))

    async def pending(self) -> None:
        await self.click(self.page.locator(".facet", has_text="Pending"))
        await expect(self.page.locator(".row .phase-word").first).to_have_text("Pending")

    async def row(self) -> None:
        await self.click(self.page.locator(".row .name", has_text="llama-sft").first)
        await expect(self.page.locator(".detail h1")).to_be_visible()

    async def tab_of_detail(self, label: str) -> None:
        await self.click(self.page.locator(".detail").get_by_role("tab", name=label))

    async def filter(self, field: str, value: str) -> None:
        await self.click(self.page.get_by_role("button", name="Add a filter"))
        form = self.page.locator(".filter-form")
        await self.choose(form.locator("select"), field)
        await form.locator("input:not([type=radio])").fill(value)
        await self.click(form.get_by_role("button", name="Apply"))
        await expect(self.page.locator(".chip-words")).to_contain_text(value)


async def why(walk: Walk) -> None:
    await walk.pending()
    await walk.row()
    await expect(walk.page.locator(".why-answer")).to_have_text(WHY)


async def idle(walk: Walk) -> None:
    await walk.to("Idle GPUs")
    await expect(walk.page).to_have_title("Idle GPUs · Watchbill")


async def deleted(walk: Walk) -> None:
    await walk.click(walk.page.get_by_role("tab", name="Deleted"))
    await walk.click(walk.page.locator(".row .name", has_text="deleted-workload"))
    await expect(walk.page.locator(".timeline")).to_be_visible()


async def image(walk: Walk) -> None:
    await walk.filter("image", "example.com")


async def node(walk: Walk) -> None:
    await walk.filter("node", "gpu-17")


async def events(walk: Walk) -> None:
    await walk.row()
    await walk.tab_of_detail("Events")


async def compare(walk: Walk) -> None:
    await walk.row()
    await walk.tab_of_detail("Metrics")
    await walk.page.get_by_label("Compare with").fill("llama-sft-7")
    await walk.click(walk.page.get_by_role("button", name="Compare", exact=True))
    await expect(walk.page.locator(".chip-text")).to_have_text("llama-sft-7")


async def pending_hours_of_a_queue(walk: Walk) -> None:
    await walk.pending()
    await walk.row()
    await walk.click(
        walk.page.get_by_role("link", name="pending GPU-hours of the project this week")
    )
    await expect(walk.page.locator(".lead")).to_contain_text("GPU-hours pending")


async def pending_hours_of_projects(walk: Walk) -> None:
    await walk.to("Usage")
    await walk.click(
        walk.page.get_by_role("navigation", name="GPU-hours").get_by_role("link", name="pending")
    )
    await expect(walk.page.locator(".lead")).to_contain_text("GPU-hours pending")


async def capacity(walk: Walk) -> None:
    await walk.to("Clusters")
    await expect(walk.page.locator(".card").first).to_be_visible()


async def why_for_a_program(walk: Walk) -> None:
    await walk.row()
    await walk.click(
        walk.page.locator(".detail").get_by_role("button", name="Copy as curl command")
    )


async def most(walk: Walk) -> None:
    await walk.to("Fleet")
    await expect(walk.page.locator(".stat").first).to_be_visible()


async def failed(walk: Walk) -> None:
    await walk.to("Fleet")
    async with walk.page.expect_download() as download:
        await walk.click(walk.page.get_by_role("button", name="CSV, 7 days"))
    assert "llama-sft-301" in Path(await (await download.value).path()).read_text()


async def usage(walk: Walk) -> None:
    await walk.to("Usage")
    await expect(walk.page.locator(".lead")).to_contain_text("GPU-hours allocated")


TASKS: tuple[Callable[[Walk], Awaitable[None]], ...] = (
    why,
    idle,
    deleted,
    image,
    node,
    events,
    compare,
    pending_hours_of_a_queue,
    pending_hours_of_projects,
    capacity,
    why_for_a_program,
    most,
    failed,
    usage,
)
"""In the order of the table."""


async def test_each_task_takes_as_many_clicks_as_is_written(tab: Tab) -> None:
    rows = re.findall(r"^\| (.+?) \|.*\| (\d+) \| \d+ \|$", TABLE.read_text(), re.MULTILINE)
    await tab.log_in()
    counted = []
    for task in TASKS:
        await tab.open("/")
        await expect(tab.page.locator(".row .name").first).to_be_visible()
        walk = Walk(tab)
        await task(walk)
        counted.append(walk.clicks)
    assert list(zip((name for name, _ in rows), counted, strict=True)) == [
        (name, int(clicks)) for name, clicks in rows
    ]

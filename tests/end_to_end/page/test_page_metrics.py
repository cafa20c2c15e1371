"""The charts of a workload: every device is shown, however many there are."""

import asyncio
import re
from uuid import UUID

from playwright.async_api import Locator, Route, expect

from tests.fixtures.browser import TIMEOUT_SECONDS, Tab

DEVICES = 64
IDLE = 3


def values(number: int) -> list[dict[str, str]]:
    """Ten minutes, the last samples of some devices are 0."""
    used = 0 if number < IDLE else 20 + number
    return [
        {"value": str(used), "timestamp": f"2026-11-28T12:{minute:02}:00Z"} for minute in range(10)
    ]


async def fulfil(route: Route) -> None:
    if "GPU_UTILIZATION" not in route.request.url:
        await route.fulfill(json={"measurements": []})
        return
    each = [
        {
            "type": "GPU_UTILIZATION",
            "labels": {"gpu": f"GPU-{number:08x}-0000-0000-0000-000000000000"},
            "values": values(number),
        }
        for number in range(DEVICES)
    ]
    whole = {"type": "GPU_UTILIZATION", "labels": None, "values": values(30)}
    await route.fulfill(json={"measurements": [whole, *each]})


async def test_many_devices_are_a_heat_map(tab: Tab) -> None:
    """Sixty-four lines in one chart would be indistinguishable."""
    page = tab.page
    await page.route("**/metrics?*", fulfil)
    await tab.log_in(
        f"/workloads/{UUID(int=5)}?tab=metrics&from=2026-11-28T12:00:00Z&to=2026-11-28T12:10:00Z"
    )
    chart = page.locator(".chart-with-heatmap")
    await expect(chart.locator(".legend-item")).to_have_count(1)  # the mean
    canvas = chart.get_by_role("img", name="GPU utilization of 64 devices")
    await expect(canvas).to_have_accessible_name(
        re.compile(f"Last: 0 % to 83 %, median 51 %, {IDLE} at 0")
    )
    drawn = await canvas.evaluate(
        "c => c.getContext('2d').getImageData(c.width / 2, c.height - 4, 1, 1).data[3]"
    )
    assert drawn > 0, "the last row of the heat map has a colour"
    text = chart.locator(".heatmap p")
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while "GPU 0000003f" not in await text.inner_text():
            await point_at_last_row(canvas)
    await expect(text).to_contain_text("83 %")


async def point_at_last_row(canvas: Locator) -> None:
    """Charts that come late move the canvas away under the pointer: try again."""
    box = await canvas.bounding_box()
    assert box is not None
    await canvas.hover(position={"x": box["width"] / 2, "y": box["height"] - 1})


async def test_two_workloads_are_drawn_into_one_chart(tab: Tab) -> None:
    """Found by name, kept in the address, and taken away again."""
    page = tab.page
    await tab.log_in(f"/workloads/{UUID(int=5)}?tab=metrics")
    name = await page.locator("h1").first.inner_text()
    await page.get_by_label("Compare with").fill("no-workload-has-this-name")
    await page.get_by_role("button", name="Compare", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("No workload is named")
    await page.goto(f"{tab.server.url}/workloads/{UUID(int=6)}")
    other = await page.locator("h1").first.inner_text()
    await page.goto(f"{tab.server.url}/workloads/{UUID(int=5)}?tab=metrics")
    await page.get_by_label("Compare with").fill(other)
    await page.get_by_role("button", name="Compare", exact=True).click()
    chart = page.locator(".chart", has_text="Allocated GPUs")
    await expect(chart.locator(".legend-item")).to_have_count(2)
    await expect(chart.locator(".legend-item").nth(0)).to_contain_text(name)
    await expect(chart.locator(".legend-item").nth(1)).to_contain_text(other)
    assert f"compare={UUID(int=6)}" in page.url
    await page.get_by_role("button", name=f"Do not compare with {other}").click()
    await expect(chart.locator(".legend-item")).to_have_count(1)

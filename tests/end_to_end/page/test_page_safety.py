"""What the page does with what clusters say, on small screens too; and how much script it is."""

import gzip
import re
from importlib.resources import files
from uuid import UUID

from playwright.async_api import expect

from tests.fixtures.browser import Tab
from tests.fixtures.fleet import BAD_URLS, GOOD_URL, HOSTILE_NUMBER, PAYLOADS

HOSTILE = UUID(int=HOSTILE_NUMBER)
FOREIGN = """() => [...document.querySelectorAll(
    "img, iframe, object, embed, link:not([rel=icon], [rel=stylesheet], [rel=modulepreload]), "
    + "style, base, form[action], svg[onload], [onerror], [onload], [onclick], [srcdoc]")]
  .map((element) => element.outerHTML)"""
SCRIPT_LIMIT_BYTES = 150_000


def visible(text: str) -> str:
    """As the page shows it: a character that reorders what stands beside it becomes an escape."""
    return text.replace("\u202e", "\\u202e")


SHOWN = visible(" ".join(PAYLOADS))
BIDI = "[\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]"


async def _is_untouched(tab: Tab) -> None:
    assert await tab.page.evaluate("typeof window.owned") == "undefined"
    assert await tab.page.evaluate(FOREIGN) == []
    scripts = await tab.page.evaluate("[...document.scripts].map((script) => script.src)")
    assert all(source.startswith(f"{tab.server.url}/assets/") for source in scripts)
    reordering = f"() => new RegExp('{BIDI}', 'u').test(document.body.innerText + document.title)"
    assert await tab.page.evaluate(reordering) is False


async def test_markup_from_a_cluster_stays_text_in_the_list(tab: Tab) -> None:
    await tab.log_in("/?search=onerror&columns=" + ",".join(await _all_columns()))
    name = tab.page.locator(f'.row[data-id="{HOSTILE}"] .name')
    await expect(name).to_have_text(SHOWN)
    await expect(tab.page.locator(f'.row[data-id="{HOSTILE}"]')).to_contain_text(PAYLOADS[0])
    await _is_untouched(tab)


async def test_markup_from_a_cluster_stays_text_in_every_part_of_the_detail(tab: Tab) -> None:
    await tab.log_in(f"/workloads/{HOSTILE}")
    await expect(tab.page.locator("h1")).to_have_text(SHOWN)
    await expect(tab.page).to_have_title(f"{SHOWN} · Watchbill")
    await expect(tab.page.locator(".why-answer")).to_have_text(SHOWN)
    await tab.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    for payload in PAYLOADS:
        await expect(tab.page.locator(".tab-content")).to_contain_text(visible(payload))
    await _is_untouched(tab)
    for part in ("Structure", "JSON", "Metrics"):
        await tab.page.get_by_role("tab", name=part).click()
        await tab.page.wait_for_timeout(500)
        await _is_untouched(tab)


async def test_only_plain_web_addresses_become_links(tab: Tab) -> None:
    await tab.log_in(f"/workloads/{HOSTILE}")
    await tab.page.wait_for_selector(".address")
    links = tab.page.locator("a.address")
    await expect(links).to_have_count(1)
    await expect(links).to_have_attribute("href", GOOD_URL)
    await expect(links).to_have_attribute("rel", "noopener noreferrer")
    await expect(tab.page.locator("code.address")).to_have_count(len(BAD_URLS))
    hrefs = await tab.page.evaluate("[...document.links].map((link) => link.protocol)")
    assert set(hrefs) <= {"http:", "https:"}


async def test_the_way_back_after_signing_in_stays_on_the_page(tab: Tab) -> None:
    await tab.log_in("/login?next=https%3A%2F%2Fevil.example.com")
    await expect(tab.page).to_have_url(tab.server.url + "/")
    await tab.context.clear_cookies()
    await tab.log_in("/login?next=%2F%2Fevil.example.com")
    await expect(tab.page).to_have_url(tab.server.url + "/")


async def test_every_page_keeps_the_content_policy(tab: Tab) -> None:
    await tab.log_in()
    for path in ("/fleet", "/idle", "/clusters", "/docs"):
        await tab.open(path)
        await tab.page.wait_for_selector(".page, .opblock-summary")
        await tab.page.wait_for_timeout(400)
        assert await tab.reports() == []


async def test_the_api_page_shows_and_asks_the_api_offline(tab: Tab) -> None:
    foreign: list[str] = []
    tab.page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((tab.server.url, "data:"))
            else foreign.append(request.url)
        ),
    )
    await tab.log_in()
    await tab.open("/docs")
    operation = tab.page.locator(".opblock").first
    await operation.locator(".opblock-summary").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    status = operation.locator(".live-responses-table .response .response-col_status")
    await expect(status).to_contain_text("200")
    assert foreign == []


async def test_a_phone_gets_two_lines_a_row_and_a_page_for_the_detail(phone: Tab) -> None:
    await phone.log_in("/?search=llama-sft-205")
    row = phone.page.locator(".row .two-lines")
    await expect(row.locator(".line")).to_have_count(2)
    await row.locator(".second").click()
    await expect(phone.page).to_have_url(re.compile(f"/workloads/{UUID(int=205)}$"))
    for path in (f"/workloads/{UUID(int=205)}", "/", "/fleet", "/idle", "/clusters", "/login"):
        await phone.open(path)
        await phone.page.wait_for_selector(".detail, .page, .row .name")
        wide = await phone.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, path


def test_the_script_stays_within_its_budget() -> None:
    assets = files("watchbill.api") / "page" / "assets"
    sizes = {
        asset.name: len(gzip.compress(asset.read_bytes()))
        for asset in assets.iterdir()
        if asset.name.endswith(".js") and not asset.name.startswith("docs-")
    }
    assert sizes
    assert sum(sizes.values()) <= SCRIPT_LIMIT_BYTES, sizes


async def _all_columns() -> list[str]:
    return [
        *("phase", "type", "project", "owner", "cluster", "department", "namespace", "category"),
        *("framework", "nodepools", "priorityClass", "application"),
    ]

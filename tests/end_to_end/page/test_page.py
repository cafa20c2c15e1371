"""The page as a person uses it: in real Chromium, on the served build, over a real server."""

import re
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from playwright.async_api import expect

from tests.end_to_end.page.conftest import Site
from tests.fixtures.browser import Tab
from tests.fixtures.fleet import FAILED, PENDING, RUNNING, WHY
from tests.fixtures.records import upsert
from watchbill.workload import Phase

LIVE = RUNNING + PENDING + FAILED + 1
"""Includes the hostile workload."""


async def test_a_wrong_secret_is_refused_and_the_right_one_leads_to_the_requested_page(
    tab: Tab,
) -> None:
    await tab.open("/clusters")
    await expect(tab.page).to_have_url(re.compile(r"/login\?next=%2Fclusters$"))
    await tab.page.fill("[name=clientId]", tab.server.client_id)
    await tab.page.fill("[name=clientSecret]", "wrong")
    await tab.page.click("button[type=submit]")
    await expect(tab.page.get_by_role("alert")).to_contain_text("secret is wrong")

    await tab.page.fill("[name=clientSecret]", tab.server.client_secret)
    await tab.page.click("button[type=submit]")
    await expect(tab.page).to_have_url(tab.server.url + "/clusters")
    await expect(tab.page.locator(".card h2")).to_contain_text("aurora")


async def test_script_holds_no_token(tab: Tab) -> None:
    await tab.log_in()
    cookies = await tab.context.cookies()
    assert [(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies] == [(True, "Strict")]
    seen = await tab.page.evaluate(
        "document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)"
    )
    assert tab.server.client_secret not in seen
    assert cookies[0]["value"] not in seen


async def test_signing_out_ends_the_session(tab: Tab) -> None:
    await tab.log_in()
    await tab.page.click(".account")
    await tab.page.get_by_role("button", name="Log out").click()
    await tab.page.wait_for_selector("form.login-box")
    answer = await tab.context.request.get(tab.server.url + "/api/v1/workloads")
    assert answer.status == 401
    await tab.open("/fleet")
    await tab.page.wait_for_selector("form.login-box")


async def test_search_and_facets_narrow_the_list(tab: Tab) -> None:
    await tab.log_in()
    await expect(tab.page.locator(".status")).to_contain_text(f"of {LIVE}")
    facet = tab.page.locator(".facet", has_text="Pending")
    await expect(facet).to_contain_text(str(PENDING + 1))

    await facet.click()
    await expect(tab.page.locator(".status")).to_contain_text(f"of {PENDING + 1}")
    await expect(facet).to_have_attribute("aria-pressed", "true")
    assert "filterBy=phase%3D%3DPending" in tab.page.url
    await expect(tab.page.locator(".facet", has_text="Running")).to_contain_text(str(RUNNING))

    await tab.page.keyboard.press("/")
    await tab.page.keyboard.type("llama-sft-203")
    await expect(tab.page.locator(".row .name")).to_have_text(["llama-sft-203"])
    assert "search=llama-sft-203" in tab.page.url

    await tab.page.go_back()
    await expect(tab.page.locator(".status")).to_contain_text(f"of {LIVE}")


async def test_a_filter_is_made_by_hand_and_a_link_carries_it(tab: Tab, site: Site) -> None:
    await tab.log_in()
    await tab.page.get_by_role("button", name="Add a filter").click()
    form = tab.page.locator(".filter-form")
    await form.locator("select").select_option("name")
    await form.get_by_role("radio", name="ends with").click()
    await form.locator("input").fill("-301")
    await form.get_by_role("button", name="Apply").click()
    await expect(tab.page.locator(".chip-words")).to_have_text(["Workload ends with -301"])
    await expect(tab.page.locator(".row .name")).to_have_text(["llama-sft-301"])

    other = await tab.context.new_page()
    await other.goto(tab.page.url)
    await expect(other.locator(".row .name")).to_have_text(["llama-sft-301"])
    await other.close()

    await tab.page.get_by_role("button", name="Remove the filter").click()
    await expect(tab.page.locator(".status")).to_contain_text(f"of {LIVE}")


async def test_the_csv_holds_what_matches(tab: Tab) -> None:
    await tab.log_in("/?filterBy=phase%3D%3DFailed")
    async with tab.page.expect_download() as started:
        await tab.page.get_by_role("link", name="CSV").click()
    lines = Path(await (await started.value).path()).read_text().splitlines()
    assert len(lines) == 1 + FAILED
    assert "llama-sft-301" in lines[1]


async def test_no_match_suggests_which_filter_to_remove(tab: Tab) -> None:
    await tab.log_in("/?filterBy=phase%3D%3DFailed&filterBy=projectName%3D%3Dspeech")
    suggestion = tab.page.get_by_role("button", name="Remove “Project is speech”")
    await suggestion.click()
    await expect(tab.page.locator(".row .name")).to_have_text(["llama-sft-301"])


async def test_all_rows_can_be_scrolled_to_and_few_are_in_the_document(tab: Tab) -> None:
    await tab.log_in("/?sortBy=createdAt&sortOrder=desc")
    await expect(tab.page.locator(".row .name").first).to_have_text("llama-sft-1")
    seen: set[str] = set()
    for _ in range(40):
        seen.update(await tab.names())
        assert await tab.page.locator(".row").count() < 60
        await tab.page.locator(".grid").evaluate("grid => grid.scrollBy(0, 400)")
        await tab.page.wait_for_timeout(60)
    seen.update(await tab.names())
    assert {f"llama-sft-{number}" for number in range(1, RUNNING + 1)} <= seen
    assert len(seen) == LIVE


async def test_a_column_head_sorts_both_ways(tab: Tab) -> None:
    await tab.log_in("/?filterBy=phase%3D%3DRunning")
    head = tab.page.get_by_role("columnheader", name="Workload")
    sort = head.get_by_role("button", name="Workload", exact=True)
    await sort.click()
    await expect(tab.page.locator(".row .name").first).to_have_text("llama-sft-1")
    await expect(head).to_have_attribute("aria-sort", "ascending")
    await sort.click()
    await expect(tab.page.locator(".row .name").first).to_have_text("llama-sft-99")
    await head.hover()
    await head.get_by_role("button", name="Filter by Workload").click()
    await expect(tab.page.locator(".filter-form select").first).to_have_value("name")


async def test_the_deleted_tab_shows_deleted_workloads(tab: Tab) -> None:
    await tab.log_in()
    await tab.page.get_by_role("tab", name="Deleted").click()
    await expect(tab.page.locator(".row .name").first).to_have_text("deleted-workload")
    await tab.page.locator(".row .name").first.click()
    await expect(tab.page.locator(".detail-phase")).to_contain_text("deleted")
    await expect(tab.page.locator(".timeline")).to_be_visible()


async def test_the_panel_answers_why_and_shows_the_phases(tab: Tab) -> None:
    await tab.log_in("/?search=llama-sft-204")
    await tab.page.locator(".row .cell").nth(1).click()
    panel = tab.page.locator(".panel")
    await expect(panel.locator(".why-answer")).to_have_text(WHY)
    await expect(panel.locator(".why-source").first).to_contain_text("KAI Scheduler")
    await expect(panel.locator(".timeline-bar .span")).to_have_count(2)
    assert f"open={UUID(int=204)}" in tab.page.url
    await tab.page.keyboard.press("Escape")
    await expect(panel).to_have_count(0)


async def test_a_link_to_one_workload_opens_it(tab: Tab) -> None:
    await tab.log_in(f"/workloads/{UUID(int=301)}")
    await expect(tab.page.locator("h1")).to_have_text("llama-sft-301")
    await expect(tab.page.locator(".why")).to_contain_text("ended with code 137")
    await tab.page.get_by_role("tab", name="JSON").click()
    await expect(tab.page.locator(".json pre")).to_contain_text('"phase": "Failed"')
    await tab.open(f"/workloads/{UUID(int=0)}")
    await expect(tab.page.get_by_role("alert")).to_contain_text("Workload not found")


async def test_the_list_can_be_used_by_keyboard(tab: Tab) -> None:
    await tab.log_in("/?sortBy=name&sortOrder=asc&filterBy=phase%3D%3DRunning")
    await tab.page.wait_for_selector(".row .name")
    for key in "jjk":
        await tab.page.keyboard.press(key)
    await expect(tab.page.locator(".row.is-selected .name")).to_have_text("llama-sft-1")
    await tab.page.keyboard.press("o")
    await expect(tab.page.locator(".panel h1")).to_have_text("llama-sft-1")
    await tab.page.keyboard.press("Escape")
    await tab.page.keyboard.press("c")
    await expect(tab.page.get_by_role("dialog", name="Columns")).to_be_visible()
    await tab.page.get_by_label("Namespace").check()
    await tab.page.keyboard.press("Escape")
    await expect(tab.page.get_by_role("columnheader", name="Namespace")).to_be_visible()
    await tab.page.keyboard.press("?")
    await expect(tab.page.locator("dialog.help")).to_be_visible()
    await tab.page.keyboard.press("Escape")
    for key in ("j", "k", "Enter"):
        await tab.page.keyboard.press(key)
    await expect(tab.page).to_have_url(re.compile(f"/workloads/{UUID(int=1)}$"))
    await expect(tab.page.locator("#content")).to_be_focused()
    await expect(tab.page.get_by_role("table", name="Resources")).to_be_visible()
    await tab.page.keyboard.press("Escape")
    await expect(tab.page).to_have_url(re.compile("sortBy=name"))
    await expect(tab.page.locator("#content")).to_be_focused()


async def test_an_address_that_is_no_page_says_so_and_leads_on(tab: Tab) -> None:
    await tab.log_in("/nosuch")
    await expect(tab.page.get_by_role("heading", name="Page not found")).to_be_visible()
    await expect(tab.page).to_have_title("Page not found · Watchbill")
    await tab.page.get_by_role("link", name="Go to the workloads").click()
    await tab.page.wait_for_selector(".row .name")


async def test_filters_and_pages_can_be_reached_by_keyboard(tab: Tab) -> None:
    keyboard, chips = tab.page.keyboard, tab.page.locator(".chip-words")
    await tab.log_in()
    await tab.page.wait_for_selector(".row .name")
    await keyboard.press("p")
    await expect(chips).to_have_text(["Phase is Pending"])
    await keyboard.press("p")
    await expect(chips).to_have_count(0)
    await keyboard.press("f")
    await expect(tab.page.locator(".filter-form select")).to_be_focused()
    await keyboard.type("Owner")
    for key in ("Tab", "ArrowRight", "ArrowLeft", "Tab"):
        await keyboard.press(key)
    await keyboard.type("ada")
    await keyboard.press("Enter")
    await expect(chips).to_have_text(["Owner contains ada"])
    await keyboard.press("3")
    await expect(tab.page).to_have_title("Idle GPUs · Watchbill")


async def test_changes_appear_in_place_and_new_workloads_wait(tab: Tab, site: Site) -> None:
    fleet = site.fleet
    await tab.log_in("/?sortBy=createdAt&sortOrder=desc")
    row = tab.page.locator(f'.row[data-id="{UUID(int=2)}"]')
    await expect(row.locator(".phase")).to_have_text("Running")
    before = await tab.names()

    changed = fleet.running(2, phase=Phase.STOPPED, running_pods=0)
    soon = fleet.now + timedelta(hours=12)
    await fleet.send(
        upsert(changed, (Phase.STOPPED, fleet.now)),
        upsert(fleet.running(801, name="newcomer", created_at=soon)),
    )
    await expect(row.locator(".phase")).to_have_text("Stopped")
    changes = tab.page.locator(".changes-button")
    await expect(changes).to_contain_text("1 new")
    assert await tab.names() == before
    await changes.click()
    await expect(tab.page.locator(".row .name").first).to_have_text("newcomer")

    await fleet.delete(801)
    await expect(tab.page.locator(".row.is-removed .name")).to_have_text(["newcomer"])
    await fleet.send(upsert(fleet.running(2), (Phase.RUNNING, fleet.now)))


async def test_without_the_server_the_page_says_how_old_its_data_is(tab: Tab) -> None:
    await tab.log_in()
    await tab.page.wait_for_selector(".row .name")
    await tab.context.set_offline(True)
    await expect(tab.page.locator(".not-live")).to_be_visible()
    await expect(tab.page.get_by_role("alert")).to_contain_text("Showing data from")
    assert await tab.page.locator(".row .name").count() > 10
    await tab.context.set_offline(False)
    await tab.page.get_by_role("button", name="Try again").click()
    await expect(tab.page.locator(".status .live")).to_be_visible()


async def test_the_tab_and_the_time_of_a_workload_are_in_its_address(tab: Tab) -> None:
    """A link shows a colleague the same; in the panel it stays while moving from row to row."""
    page = tab.page
    await tab.log_in(f"/workloads/{UUID(int=205)}?tab=metrics&range=6h")
    await expect(page.get_by_role("tab", name="Metrics")).to_have_attribute("aria-selected", "true")
    six = page.get_by_role("button", name="6 h")
    await expect(six).to_have_attribute("aria-pressed", "true")
    await page.get_by_role("button", name="24 h").click()
    await expect(page).to_have_url(re.compile(r"\?tab=metrics&range=24h$"))
    await page.get_by_role("tab", name="Overview").click()
    await expect(page).to_have_url(re.compile(r"/workloads/[0-9a-f-]+$"))

    await tab.open("/")
    await page.wait_for_selector(".row")
    await page.keyboard.press("j")
    await page.keyboard.press("o")
    await page.get_by_role("tab", name="JSON").click()
    first = page.url
    await page.keyboard.press("j")
    await expect(page).not_to_have_url(first)
    await expect(page).to_have_url(re.compile(r"\?open=[0-9a-f-]+&tab=json$"))

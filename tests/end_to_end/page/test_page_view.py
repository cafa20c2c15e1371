"""The view of the list: nothing in an address is ignored, links add to filters, and it works on any screen."""

import re
from uuid import UUID

import pytest
from playwright.async_api import expect

from tests.end_to_end.page.conftest import Site
from tests.fixtures.browser import Tab, new_tab
from tests.fixtures.fleet import FAILED, PENDING, RUNNING


@pytest.mark.parametrize(
    ("address", "problem", "suggestion"),
    [
        ("/?filterBy=phase%3D%3Dpending", "There is no phase 'pending'", "phase==Pending"),
        ("/?filterBy=projectNmae%3D%3Dvision", "There is no field", "projectName==vision"),
    ],
)
async def test_an_invalid_filter_is_refused_with_what_was_meant(
    tab: Tab, address: str, problem: str, suggestion: str
) -> None:
    await tab.log_in(address)
    content = tab.page.locator("#content")
    await expect(content).to_contain_text(problem)
    await expect(tab.page.locator(".row")).to_have_count(0)
    await tab.page.get_by_role("button", name=f"Did you mean {suggestion}?").click()
    await expect(tab.page.locator(".row .name").first).to_be_visible()
    assert suggestion.replace("==", "%3D%3D") in tab.page.url


async def test_an_unknown_column_is_refused_with_what_was_meant(tab: Tab) -> None:
    await tab.log_in("/?columns=phase,projekt")
    await expect(tab.page.locator("#content")).to_contain_text("There is no column 'projekt'")
    await expect(tab.page.locator(".row")).to_have_count(0)
    await tab.page.get_by_role("button", name="Did you mean project?").click()
    await expect(tab.page.locator(".row .name").first).to_be_visible()
    assert "columns=phase%2Cproject" in tab.page.url


async def test_an_unknown_parameter_is_refused_with_what_was_meant(tab: Tab) -> None:
    await tab.log_in("/?filter=phase%3D%3DFailed")
    await expect(tab.page.locator("#content")).to_contain_text("There is no parameter “filter”.")
    await expect(tab.page.locator(".row")).to_have_count(0)
    await tab.page.get_by_role("link", name="filterBy=phase==Failed").click()
    await expect(tab.page.locator(".row .name")).to_have_text(["llama-sft-301"])
    await tab.open("/nodes?nodes=gpu-1")
    await tab.page.get_by_role("link", name="Remove nodes").click()
    await expect(tab.page.get_by_role("heading", name="Nodes")).to_be_visible()
    await tab.open("/fleet?by=owner")
    await expect(tab.page.locator("#content")).to_contain_text("“by” cannot be “owner”.")
    await tab.page.get_by_role("link", name="by=nodepool").click()
    await expect(tab.page.get_by_role("heading", name="Fleet")).to_be_attached()


async def test_why_leads_to_who_holds_the_gpus_and_to_the_events(tab: Tab) -> None:
    await tab.log_in("/?filterBy=phase%3D%3DPending")
    await tab.page.locator(".row .name").first.click()
    why = tab.page.get_by_role("region", name="Why it is pending")
    await why.get_by_text("Events with kubectl").click()
    await expect(why.locator("code")).to_contain_text("kubectl get events --namespace ")
    await why.get_by_role("link", name="project ").first.click()
    await expect(tab.page).to_have_url(re.compile("filterBy=projectName.*sortBy=allocatedGPU"))


async def test_an_invalid_filter_can_be_removed(tab: Tab) -> None:
    await tab.log_in("/?filterBy=colour%3D%3Dblue&filterBy=phase%3D%3DFailed")
    await tab.page.get_by_role("button", name="Remove colour==blue").click()
    await expect(tab.page.locator(".row .name")).to_have_text(["llama-sft-301"])


@pytest.mark.parametrize(
    ("filter_by", "suggestion"),
    [
        ("submittedBy%3D%3Dada", "Did you mean “Owner contains ada”?"),
        ("projectName%3D%3Dvison", "Did you mean “Project is vision”?"),
    ],
)
async def test_a_filter_without_matches_is_corrected(
    tab: Tab, filter_by: str, suggestion: str
) -> None:
    await tab.log_in(f"/?filterBy={filter_by}")
    await tab.page.get_by_role("button", name=suggestion).click()
    await expect(tab.page.locator(".row .name").first).to_be_visible()


async def test_an_owner_is_found_by_a_part_of_the_address(tab: Tab) -> None:
    await tab.log_in()
    await tab.page.get_by_role("button", name="Add a filter").click()
    form = tab.page.locator(".filter-form")
    await form.locator("select").select_option("submittedBy")
    await form.locator("input").fill("ada")
    await form.get_by_role("button", name="Apply").click()
    await expect(tab.page.locator(".chip-words")).to_have_text(["Owner contains ada"])
    await expect(tab.page.locator(".row .cell").get_by_text("ada").first).to_be_visible()


async def test_a_link_in_a_cell_adds_to_the_filters(tab: Tab) -> None:
    await tab.log_in("/?filterBy=phase%3D%3DRunning&search=llama-sft-1&density=compact")
    await tab.page.locator(".row").first.get_by_role("link", name="vision").click()
    await expect(tab.page.locator(".chip-words")).to_have_text(
        ["Phase is Running", "Project is vision"]
    )
    await expect(tab.page).to_have_url(re.compile("search=llama-sft-1.*density=compact"))


async def test_the_panel_of_a_workload_adds_to_the_filters_too(tab: Tab) -> None:
    await tab.log_in(f"/?filterBy=phase%3D%3DPending&open={UUID(int=203)}")
    await tab.page.locator(".detail-owner").get_by_role("link", name="speech").click()
    await expect(tab.page.locator(".chip-words")).to_have_text(
        ["Phase is Pending", "Project is speech"]
    )


@pytest.mark.parametrize(
    ("head", "order"), [("GPUs r/a", "desc"), ("Age", "asc"), ("Type", "asc"), ("Idle", "desc")]
)
async def test_the_first_click_sorts_numbers_from_the_largest(
    tab: Tab, head: str, order: str
) -> None:
    await tab.log_in("/")  # newest first, so that Age begins with the least
    await tab.page.get_by_role("button", name=head, exact=True).click()
    await expect(tab.page).to_have_url(re.compile(f"sortOrder={order}"))


async def test_selecting_text_opens_nothing(tab: Tab) -> None:
    await tab.log_in("/?search=llama-sft-203")
    message = tab.page.locator(".row .message")
    box = await message.bounding_box()
    assert box is not None
    await tab.page.mouse.move(box["x"] + 5, box["y"] + 8)
    await tab.page.mouse.down()
    await tab.page.mouse.move(box["x"] + 90, box["y"] + 8, steps=4)
    await tab.page.mouse.up()
    assert await tab.page.evaluate("String(window.getSelection())") != ""
    await expect(tab.page.locator(".panel")).to_have_count(0)
    await message.click()
    await expect(tab.page.locator(".panel")).to_have_count(1)


async def test_a_deleted_workload_shows_what_it_was(tab: Tab) -> None:
    await tab.log_in("/?deleted=true&search=deleted-workload")
    phase = tab.page.locator(".row .phase").first
    await expect(phase).to_have_text("wasCompleted")
    muted = await tab.page.locator(".status").evaluate("e => getComputedStyle(e).color")
    await expect(phase).to_have_css("color", muted)


async def test_columns_and_their_widths_are_in_the_address(tab: Tab) -> None:
    page = tab.page
    await tab.log_in("/?columns=phase,namespace,gpu")
    await expect(page.get_by_role("columnheader")).to_have_count(4)
    head = page.get_by_role("columnheader", name="Namespace")
    box = await head.bounding_box()
    assert box is not None
    edge = box["x"] + box["width"]
    await page.mouse.move(edge, box["y"] + 15)
    await page.mouse.down()
    await page.mouse.move(edge + 100, box["y"] + 15, steps=5)
    await page.mouse.up()
    await expect(page).to_have_url(re.compile(r"widths=namespace%3A\d+"))
    width = round(box["width"]) + 100
    async with new_tab(tab.context.browser, tab.server) as other:  # type: ignore[arg-type]
        await other.log_in(page.url.removeprefix(tab.server.url))
        same = other.page.get_by_role("columnheader", name="Namespace")
        await expect(same).to_be_visible()
        assert await same.evaluate("e => Math.round(e.getBoundingClientRect().width)") == width


async def test_the_name_stays_in_sight_while_one_scrolls_sideways(tab: Tab) -> None:
    await tab.page.set_viewport_size({"width": 800, "height": 700})
    await tab.log_in("/?search=llama-sft-7")
    name = tab.page.locator(".row .name").first
    await expect(name).to_be_in_viewport()
    before = await name.bounding_box()
    await tab.page.locator(".grid").evaluate("grid => grid.scrollBy(600, 0)")
    assert await tab.page.locator(".grid").evaluate("grid => grid.scrollLeft") > 100
    assert await name.bounding_box() == before


@pytest.mark.parametrize(
    ("width", "height", "scale"), [(390, 844, 1), (720, 450, 2)], ids=["phone", "200 % zoom"]
)
async def test_sorting_and_columns_on_a_narrow_screen(
    site: Site, width: int, height: int, scale: int
) -> None:
    """A browser at 200 % has half as many pixels of its own; the device's are as many as before."""
    async with new_tab(site.browser, site.server, width=width, height=height) as tab:
        page = tab.page
        await page.emulate_media(reduced_motion="reduce")
        await tab.log_in("/?filterBy=phase%3D%3DRunning&search=llama-sft-1")
        await page.get_by_label("Sort by").select_option("name")
        await expect(page).to_have_url(re.compile("sortBy=name&sortOrder=asc"))
        await expect(page.locator(".row .name").first).to_have_text("llama-sft-1")
        await page.get_by_role("button", name="Sorted ascending").click()
        await expect(page.locator(".row .name").first).to_have_text("llama-sft-19")
        await page.get_by_role("button", name="Columns").click()
        await page.get_by_label("Namespace").check()
        await page.keyboard.press("Escape")
        await expect(page.locator(".row .chosen").first).to_contain_text("Namespace team-vision")
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width


@pytest.mark.parametrize("width", [390, 720])
async def test_a_narrow_screen_has_every_page_in_a_menu(site: Site, width: int) -> None:
    """720 pixels is what 1440 are at 200 %."""
    async with new_tab(site.browser, site.server, width=width, height=844) as tab:
        page = tab.page
        await tab.log_in()
        await page.get_by_role("button", name="Pages, now Workloads").click()
        links = page.get_by_role("navigation", name="Pages").get_by_role("link")
        await expect(links).to_have_text(
            ["Workloads", "Fleet", "Idle GPUs", "Usage", "Nodes", "Projects", "Clusters"]
        )
        for link in await links.all():
            await expect(link).to_be_in_viewport(ratio=1)
        await links.nth(3).click()
        await expect(page).to_have_url(re.compile("/usage$"))
        await expect(page.get_by_role("button", name="Pages, now Usage")).to_be_visible()
        await expect(links).to_have_count(0)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_a_pending_workload_leads_to_the_pending_hours_of_its_project(tab: Tab) -> None:
    page = tab.page
    await tab.log_in(f"/workloads/{UUID(int=203)}")
    await page.get_by_role("link", name="pending GPU-hours of the project this week").click()
    await expect(page).to_have_url(
        re.compile("/usage\\?period=7d&show=pending&by=workload&project=speech$")
    )
    await expect(page).to_have_title("Pending GPU-hours of speech · Watchbill")
    await expect(page.locator(".lead")).to_contain_text("GPU-hours pending")
    await page.get_by_role("link", name=re.compile(r"workloads? (is|are) pending now")).click()
    await expect(page.locator(".row .name").first).to_be_visible()
    shown = await page.locator(".row .phase").all_inner_texts()
    assert set(shown) == {"Pending"}
    await tab.open("/usage?show=pending&project=visoin")
    await expect(page.locator("#content")).to_contain_text("No workload of a project named visoin")
    await expect(page.locator(".lead")).to_contain_text("No workload is pending now.")
    await page.get_by_role("link", name="Not project visoin alone").click()
    await expect(page).to_have_url(re.compile("/usage\\?show=pending$"))
    await page.get_by_role("navigation", name="GPU-hours").get_by_role("link", name="idle").click()
    await expect(page).to_have_title("Idle GPU-hours · Watchbill")


async def test_the_title_names_what_is_shown(tab: Tab) -> None:
    page = tab.page
    await tab.log_in()
    await expect(page).to_have_title("Workloads · Watchbill")
    await tab.open(f"/workloads/{UUID(int=203)}")
    await expect(page).to_have_title("llama-sft-203 · Watchbill")
    await tab.open(f"/?open={UUID(int=204)}")
    await expect(page).to_have_title("llama-sft-204 · Watchbill")
    await page.keyboard.press("Escape")
    await expect(page).to_have_title("Workloads · Watchbill")


async def test_paper_shows_the_rows_without_controls(tab: Tab) -> None:
    await tab.log_in("/?filterBy=phase%3D%3DPending")
    await expect(tab.page.locator(".row .name").first).to_be_visible()
    await tab.page.evaluate("document.documentElement.dataset.theme = 'dark'")
    await tab.page.emulate_media(media="print", color_scheme="dark")
    await expect(tab.page.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")
    await expect(tab.page.locator(".toolbar")).to_be_hidden()
    await expect(tab.page.locator(".search")).to_be_hidden()
    await expect(tab.page.locator(".chip-words")).to_be_visible()
    await expect(tab.page.locator(".status")).to_contain_text(f"of {PENDING + 1}")
    height = await tab.page.locator(".body").evaluate("e => e.getBoundingClientRect().height")
    rows = await tab.page.locator(".row").count()
    assert rows == PENDING + 1
    assert round(height) >= rows * 32 * 0.8, "the paper is as long as the rows"
    await tab.open("/?filterBy=name%3D%3Dllama-sft-203")
    await expect(tab.page.locator(".row")).to_have_count(1)
    paper = await tab.page.pdf(prefer_css_page_size=True)
    assert b"/Count 1" in paper, "no page is left empty before the list"


async def test_failed_in_24_hours_is_what_its_links_show(tab: Tab, site: Site) -> None:
    page = tab.page
    await tab.log_in("/fleet")
    stat = page.locator(".stat", has_text="Failed in 24 h")
    await expect(stat.locator(".stat-value")).to_have_text(str(FAILED))
    assert RUNNING  # the others did not fail
    for part in ("live", "deleted"):
        await tab.open("/fleet")
        link = stat.get_by_role("link", name=part)
        number = int((await link.inner_text()).split()[0])
        await link.click()
        tabs = page.locator(".tabs [aria-selected=true]")
        await expect(tabs).to_have_text(re.compile(f"{part} {number}$", re.IGNORECASE))


async def test_workloads_are_found_by_image_node_and_label(tab: Tab, site: Site) -> None:
    """A link in a cell narrows to what shares the name; the form suggests the names that there are."""
    await tab.log_in("/?columns=phase,image,node,gpuModel,label")
    await tab.page.get_by_role("button", name="Add a filter").click()
    form = tab.page.locator(".filter-form")
    await form.locator("select").select_option("image")
    await expect(form.locator("datalist option").first).to_have_attribute("value", re.compile("."))
    await tab.page.keyboard.press("Escape")
    cell = tab.page.locator(".row").first.get_by_role("link").nth(1)
    image = await cell.get_attribute("title")
    await cell.click()
    await expect(tab.page.locator(".chip-words")).to_have_text([f"Image is {image}"])
    await expect(tab.page.locator(".row .name").first).to_be_visible()


async def test_a_pinned_column_stays_while_others_move(tab: Tab) -> None:
    await tab.log_in(
        "/?columns=phase,project,owner,gpu,image,namespace,category,framework,createdAt,memory"
    )
    await tab.page.get_by_role("button", name="Columns").click()
    await tab.page.get_by_role("button", name="Pin GPUs r/a").click()
    await expect(tab.page).to_have_url(re.compile("pinned=gpu"))
    await tab.page.keyboard.press("Escape")
    head = tab.page.locator(".head-cell").nth(1)
    await expect(head).to_contain_text("GPUs r/a")
    other = tab.page.get_by_role("columnheader", name="Phase")
    before, moved = await head.bounding_box(), await other.bounding_box()
    await tab.page.locator(".grid").evaluate("grid => grid.scrollTo({left: 150})")
    await tab.page.wait_for_function("document.querySelector('.grid').scrollLeft === 150")
    assert await head.bounding_box() == before
    after = await other.bounding_box()
    assert after is not None
    assert moved is not None
    assert after["x"] == moved["x"] - 150


async def test_gpu_use_of_all_rows_is_one_request(tab: Tab) -> None:
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    await tab.log_in("/?columns=phase,gpu,gpuUse&filterBy=phase%3D%3DRunning")
    await expect(tab.page.locator(".row").first.get_by_text("n/m")).to_be_visible()
    assert len([url for url in asked if "/utilization?" in url]) == 1

"""Accessibility: axe reports no violation of WCAG 2.2 AA on any page, light or dark, wide or narrow."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.end_to_end.page.conftest import Site
from tests.fixtures.browser import new_tab
from tests.fixtures.fleet import HOSTILE_NUMBER

AXE = Axe()
WCAG = {
    "resultTypes": ["violations"],
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
}
HOSTILE = f"/workloads/{UUID(int=HOSTILE_NUMBER)}"
RUNNING = f"/workloads/{UUID(int=201)}"


async def _press(page: Page, key: str) -> None:
    await page.keyboard.press(key)


async def _settle(page: Page) -> None:
    await page.wait_for_selector("[role=tabpanel], .page, .row, .card, form")
    await page.wait_for_timeout(300)


def click(role: str, name: str) -> Callable[[Page], Awaitable[None]]:
    async def do(page: Page) -> None:
        await page.get_by_role(role, name=name).first.click()  # type: ignore[arg-type]

    return do


def press(key: str) -> Callable[[Page], Awaitable[None]]:
    return lambda page: _press(page, key)


STATES: dict[str, tuple[str, Callable[[Page], Awaitable[None]] | None]] = {
    "workloads": ("/", None),
    "no match": ("/?search=nothing-has-this-name", None),
    "deleted": ("/?deleted=true", None),
    "filters": ("/?filterBy=phase%3D%3DPending", click("button", "Add a filter")),
    "columns": ("/", press("c")),
    "keyboard help": ("/", press("?")),
    "hostile workload": (HOSTILE, None),
    "metrics": (RUNNING, click("tab", "Metrics")),
    "structure": (RUNNING, click("tab", "Structure")),
    "JSON": (RUNNING, click("tab", "JSON")),
    "not found": (f"/workloads/{UUID(int=999_999)}", None),
    "fleet": ("/fleet", None),
    "idle": ("/idle", None),
    "clusters": ("/clusters", None),
    "usage": ("/usage", None),
    "nodes": ("/nodes", None),
    "projects": ("/projects", None),
    "no project matches": ("/projects?search=nothing-has-this-name", None),
    "rules": ("/admin?tab=rules", None),
    "clusters to administer": ("/admin?tab=clusters", None),
    "accounts": ("/admin?tab=accounts", None),
    "audit log": ("/admin?tab=audit", None),
}


async def violations(page: Page) -> list[str]:
    """One line for each violation, with its element."""
    await _settle(page)
    results = await AXE.run(page, options=WCAG)
    return [
        f"{violation['id']}: {node['target']} {node['any'][0]['message'] if node['any'] else ''}"
        for violation in results.response["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
async def test_no_page_has_a_barrier(site: Site, scheme: str, width: int) -> None:
    by_state: dict[str, list[str]] = {}
    async with new_tab(site.browser, site.server, width=width) as tab:
        await tab.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        await tab.open("/login")
        by_state["login"] = await violations(tab.page)
        await tab.log_in()
        for name, (path, act) in STATES.items():
            await tab.open(path)
            await _settle(tab.page)
            if act is not None:
                await act(tab.page)
            by_state[name] = await violations(tab.page)
    barriers = [f"{name}: {line}" for name, lines in by_state.items() for line in lines]
    assert not barriers, "\n".join(barriers)

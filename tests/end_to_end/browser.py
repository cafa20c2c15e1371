"""Real Chromium for the tests of the page: signs in, and keeps account of everything that went wrong."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.conftest import RunningServer, require

expect.set_options(timeout=15_000)  # Longer than the page's quiet refetching.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
WATCH_POLICY = """
  window.policyReports = [];
  document.addEventListener("securitypolicyviolation", (event) =>
    window.policyReports.push(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
EXPECTED_CONSOLE = ("Failed to load resource",)
"""Chromium's own note of a 401 before signing in, and of an offline answer."""


@dataclass
class Tab:
    page: Page
    context: BrowserContext
    server: RunningServer
    troubles: list[str] = field(default_factory=list)

    async def open(self, path: str) -> None:
        await self.page.goto(self.server.url + path)

    async def sign_in(self, path: str = "/") -> None:
        await self.open(path)
        await self.page.fill("[name=clientId]", self.server.client_id)
        await self.page.fill("[name=clientSecret]", self.server.client_secret)
        await self.page.click("button[type=submit]")
        await self.page.wait_for_selector("header.frame")

    async def names(self) -> list[str]:
        """The names on the screen, from top to bottom."""
        return await self.page.locator(".row .name").all_inner_texts()

    async def reports(self) -> list[str]:
        return list(await self.page.evaluate("window.policyReports"))


@asynccontextmanager
async def chromium(*more_flags: str) -> AsyncIterator[Browser]:
    path = require("Chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(path), args=[*FLAGS, *more_flags]
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def new_tab(
    browser: Browser, server: RunningServer, *, width: int = 1440, height: int = 900
) -> AsyncIterator[Tab]:
    """A tab of its own session; when it closes, no script failed, no dialog came, no rule was broken."""
    context = await browser.new_context(viewport={"width": width, "height": height})
    await context.add_init_script(WATCH_POLICY)
    page = await context.new_page()
    page.set_default_timeout(15_000)
    tab = Tab(page, context, server)

    async def refuse(dialog: object) -> None:
        tab.troubles.append(f"dialog: {dialog}")
        await dialog.dismiss()  # type: ignore[attr-defined]

    page.on("dialog", refuse)
    page.on("pageerror", lambda error: tab.troubles.append(f"script: {error}"))
    page.on(
        "console",
        lambda message: (
            tab.troubles.append(f"console: {message.text}")
            if message.type == "error" and not message.text.startswith(EXPECTED_CONSOLE)
            else None
        ),
    )
    try:
        yield tab
        assert await tab.reports() == []
        assert tab.troubles == []
    finally:
        await context.close()

"""Administration in the page: it reads what its reader may read, and copies the commands that change it."""

import json
import shlex
from collections.abc import Awaitable, Callable

import typer.main
from click import Group
from playwright.async_api import Route, expect

from tests.end_to_end.page.conftest import Site
from tests.fixtures.browser import Tab
from watchbill.cli.app import build
from watchbill.client import Client


async def copied(tab: Tab) -> list[list[str]]:
    """The words of every command that the page offers to copy, and of those that it shows."""
    labels = await tab.page.locator("[aria-label^='Copy: ']").all()
    texts = [await label.get_attribute("aria-label") or "" for label in labels]
    shown = await tab.page.locator(".command code").all_inner_texts()
    return [shlex.split(text.removeprefix("Copy: ")) for text in (*texts, *shown)]


def is_known(words: list[str]) -> bool:
    """Whether the command line has such a command."""
    command = typer.main.get_command(build())
    for word in words[1:]:
        if not isinstance(command, Group):
            return True
        if word not in command.commands:
            return bool(word.startswith("-"))
        command = command.commands[word]
    return True


async def test_it_shows_who_may_what_and_the_commands_to_change_it(site: Site, tab: Tab) -> None:
    async with Client(tab.server.url, tab.server.client_id, tab.server.client_secret) as client:
        from watchbill.responses.access import Credential

        made = await client.post("/api/v1/admin/accounts", Credential, body={"name": "reports"})
    await tab.log_in("/admin?tab=clusters")
    commands: list[list[str]] = []
    parts = ("Clusters", "Rules", "Accounts", "Users", "My access keys")
    for part in parts:
        await (
            tab.page.get_by_role("navigation", name="Administration")
            .get_by_role("link", name=part)
            .click()
        )
        await expect(tab.page.get_by_role("heading", name=part).first).to_be_visible()
        commands += await copied(tab)
    assert ["watchbill", "admin", "account", "disable", made.client_id] in commands
    assert all(is_known(words) for words in commands), commands
    await tab.open("/admin?tab=rules")
    rule = tab.page.get_by_role("row", name="administrator").first
    await expect(rule).to_contain_text("everywhere")


async def test_the_audit_log_is_narrowed_by_its_own_cells(site: Site, tab: Tab) -> None:
    await tab.log_in("/admin?tab=audit&operation=create_cluster")  # others wrote a page since
    event = tab.page.get_by_role("row", name="create_cluster").first
    await event.get_by_role("link", name="create_cluster").click()
    await expect(tab.page.get_by_label("Operation")).to_have_value("create_cluster")
    await expect(tab.page.get_by_role("row", name="agent_hello")).to_have_count(0)
    assert "operation=create_cluster" in tab.page.url
    await tab.page.get_by_role("link", name="Show all").click()
    await expect(tab.page.get_by_label("Operation")).to_have_value("")


def with_permissions(*permissions: str) -> Callable[[Route], Awaitable[None]]:
    async def answer(route: Route) -> None:
        response = await route.fetch()
        me = await response.json()
        if response.ok:
            me |= {"isAdministrator": False, "permissions": permissions}
        await route.fulfill(response=response, body=json.dumps(me))

    return answer


async def test_who_may_not_sees_why(tab: Tab) -> None:
    await tab.log_in("/")
    await tab.page.route("**/api/v1/me", with_permissions("workloads:read"))
    await tab.open("/admin")
    links = tab.page.get_by_role("navigation", name="Administration").get_by_role("link")
    await expect(links).to_have_text(["My access keys"])
    await tab.open("/admin?tab=rules")
    await expect(tab.page.get_by_text("You may not see Rules")).to_be_visible()
    await expect(tab.page.get_by_text("access:read")).to_be_visible()
    await tab.open("/admin?tab=ruels")
    await expect(tab.page.get_by_text("Administration has no part “ruels”")).to_be_visible()

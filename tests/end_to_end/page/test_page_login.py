"""Logging in to the page with one's own account: real Chromium, a strict provider, and the way back."""

from pathlib import Path
from urllib.parse import urlsplit

import yaml
from playwright.async_api import expect

from tests.conftest import Engine, fresh_database, require, running_server
from tests.fixtures.browser import chromium, new_tab
from tests.fixtures.identity import strict_provider
from tests.fixtures.identity.strict_provider import (
    PAGE_CLIENT,
    PUBLIC_URL,
    new_key,
    running_provider,
)


async def test_somebody_signs_in_at_the_issuer_and_is_where_they_wanted(
    embedded_engine: Engine, tmp_path: Path
) -> None:
    require("strict OpenID provider")
    secret, config = tmp_path / "secret", tmp_path / "access.yaml"
    secret.write_text(strict_provider.SECRET)
    async with running_provider(new_key("page")) as provider:
        issuer = {
            "name": "corp",
            "title": "Example Corp",
            "issuer": provider.url,
            "clientId": PAGE_CLIENT,
            "clientSecretFile": str(secret),
            "scopes": ["openid", "email", "groups"],
        }
        config.write_text(yaml.safe_dump({"issuers": [issuer]}))
        database = await fresh_database(embedded_engine)
        async with running_server(database, access_config=config, public_url=PUBLIC_URL) as server:
            here, public = urlsplit(server.url), urlsplit(PUBLIC_URL)
            rule = f"MAP {public.hostname}:80 {here.hostname}:{here.port}"
            async with (
                chromium(f"--host-resolver-rules={rule}") as browser,
                new_tab(browser, server) as tab,
            ):
                # Somebody else's link to our address of return leads to the login, and says what to do.
                back = f"{PUBLIC_URL}/api/v1/session/oidc/corp/callback"
                await tab.page.goto(f"{back}?code=x&error_description=<script>alert(1)</script>")
                await expect(tab.page.get_by_role("alert")).to_contain_text("Please try again")
                await expect(tab.page).to_have_url(
                    f"{PUBLIC_URL}/login?failed=expired&issuer=corp&next=%2F"
                )
                await tab.page.goto(f"{PUBLIC_URL}/fleet?by=type")
                await tab.page.get_by_role("link", name="Log in with Example Corp").click()
                await tab.page.fill("[name=login]", "ada")
                await tab.page.fill("[name=password]", "x")
                await tab.page.click("button[type=submit]")
                await tab.page.click("button[type=submit]")
                # Nobody gave ada a rule yet: she is known, and reads nothing.
                await expect(tab.page).to_have_url(f"{PUBLIC_URL}/fleet?by=type")
                await expect(tab.page.get_by_role("alert")).to_contain_text(
                    "You do not have access"
                )
                await tab.page.click(".account")
                await expect(tab.page.locator(".popover")).to_contain_text("ada@example.com")


async def test_without_issuers_only_the_client_id_is_asked_for(embedded_engine: Engine) -> None:
    async with (
        running_server(await fresh_database(embedded_engine)) as server,
        chromium() as browser,
        new_tab(browser, server) as tab,
    ):
        await tab.open("/")
        await expect(tab.page.locator("form.login-box")).to_be_visible()
        await expect(tab.page.locator(".login-box a")).to_have_count(0)

"""The wheel as a stranger installs it: built, started from elsewhere, its page in a real browser.

As in the image it may write nothing where it is installed, and runs as a user of its own.
"""

import asyncio
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio
from playwright.async_api import async_playwright, expect

from tests.conftest import require

PROJECT = Path(__file__).parents[2]
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
_NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
_STARTS_ANOTHER = (
    "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import asyncpg'], check=True)"
)


@dataclass(frozen=True)
class Installed:
    url: str
    client_id: str
    client_secret: str


def build_wheel(folder: Path) -> Path:
    """Without isolation: hatchling and Node are among what the tests are installed with."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    built = subprocess.run([*command, str(PROJECT)], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (wheel,) = folder.glob("*.whl")
    return wheel


def confined(site: Path, data: Path) -> list[str]:
    """What a command begins with to find `site` read-only and to be the user that `data` then belongs to; the
    same user where this machine lets no other one reach its Python; nothing where no mount can be made."""
    read_only = ["unshare", "--mount", "sh", "-c", _READ_ONLY, "sh", str(site)]
    prefix = [*read_only, *_NOBODY]
    if _can_start_another(prefix):
        data.mkdir()
        os.chown(data, 65534, 65534)
    elif _can_start_another(read_only):
        prefix = read_only
    else:
        return []
    written = subprocess.run([*prefix, "touch", site / "written"], check=False, capture_output=True)
    assert b"Read-only file system" in written.stderr
    return prefix


def _can_start_another(prefix: list[str]) -> bool:
    """As a server starts a process of its own: what began with more rights may have lost them."""
    return not subprocess.run([*prefix, sys.executable, "-c", _STARTS_ANOTHER]).returncode


@pytest_asyncio.fixture
async def installed(private_dir: Path) -> AsyncIterator[Installed]:
    wheel = await asyncio.to_thread(build_wheel, private_dir)
    site = private_dir / "site"
    await asyncio.to_thread(zipfile.ZipFile(wheel).extractall, site)
    data = private_dir / "data"
    process = await asyncio.create_subprocess_exec(
        *confined(site, data),
        *(sys.executable, "-m", "watchbill", "server", "--port", "0"),
        *("--data-dir", str(data)),
        cwd=private_dir,
        env=os.environ | {"PYTHONPATH": str(site)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    lines: list[str] = []
    async with asyncio.timeout(240):
        while (
            sum(word in " ".join(lines) for word in ("http://", "client id", "client secret")) < 3
        ):
            line = await process.stdout.readline()
            assert line, f"the server ended after it said {lines}"
            lines.append(line.decode())
    words = " ".join(lines).split()
    yield Installed(
        url=next(word for word in words if word.startswith("http://")).rstrip("."),
        client_id=words[words.index("id") + 1],
        client_secret=words[words.index("secret") + 1],
    )
    process.terminate()
    await process.wait()


async def test_the_installed_page_signs_in_and_teaches_how_to_connect(
    installed: Installed,
) -> None:
    chromium = require("Chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(chromium), args=list(CHROMIUM_FLAGS)
        )
        page = await browser.new_page()
        refused: list[str] = []
        page.on("console", lambda message: refused.append(message.text))
        await page.goto(installed.url)
        await page.get_by_label("Client id").fill(installed.client_id)
        await page.get_by_label("Client secret").fill(installed.client_secret)
        await page.get_by_role("button", name="Log in").click()
        await expect(page.get_by_text("watchbill agent manifest")).to_be_visible()
        await page.goto(f"{installed.url}/docs")
        await expect(page.get_by_text("/api/v1/workloads/count")).to_be_visible()
        assert not [text for text in refused if "Content Security Policy" in text]
        await browser.close()


def test_the_wheel_carries_what_it_serves(private_dir: Path) -> None:
    names = zipfile.ZipFile(build_wheel(private_dir)).namelist()
    for wanted in ("api/page/index.html", "api/page/docs.html", "api/openapi.json"):
        assert f"watchbill/{wanted}" in names
    assert any(name.startswith("watchbill/api/page/assets/") for name in names)
    assert any(name.startswith("watchbill/kinds/definitions/") for name in names)
    migrations = {
        str(path.relative_to(PROJECT / "src"))
        for path in (PROJECT / "src/watchbill/store/postgres/migrations").rglob("r[0-9]*.py")
    }
    assert len(migrations) > 35
    assert migrations <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "ui/", "bench/"))]

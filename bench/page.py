"""`python -m bench.page`: how long a person waits for the page, with 200,000 workloads behind it.

A real Chromium on this machine. Each figure is from the deed to the animation frame in which what was asked for
is on the screen, as the page's own clock tells; medians of several rounds, after one that does not count.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
from collections.abc import Awaitable, Callable

import asyncpg
from playwright.async_api import Page, async_playwright

from bench import servers
from bench.data import fill
from watchbill.store.postgres.database import Database

FLAGS = ["--no-sandbox", "--disable-gpu"]
UNTIL = """([deed, seen]) => new Promise((done) => {
  const act = new Function(deed), isSeen = new Function(`return ${seen}`);
  const began = performance.now();
  act();
  const look = () => isSeen() ? done(performance.now() - began) : requestAnimationFrame(look);
  requestAnimationFrame(look);
})"""
FIRST = "document.querySelector('.row .name')?.textContent"
Measure = Callable[[Page, str], Awaitable[dict[str, float]]]


async def until(page: Page, deed: str, seen: str) -> float:
    """Milliseconds from the deed until what is to be seen is there; both are JavaScript."""
    return float(await page.evaluate(UNTIL, [deed, seen]))


async def opened(page: Page, url: str) -> dict[str, float]:
    await page.goto(url)
    await page.wait_for_function(f"() => {FIRST}", polling="raf")
    row = await page.evaluate("performance.now()")
    paint = await page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    return {"first paint": float(paint), "first row": float(row)}


async def sorted_by_project(page: Page, url: str) -> dict[str, float]:
    await opened(page, url)
    await page.evaluate(f"window.before = {FIRST}")
    deed = f"[...document.querySelectorAll('button.head-label')].find({having('Project')}).click()"
    return {"sort by project": await until(page, deed, f"{FIRST} && {FIRST} !== window.before")}


async def far_end(page: Page, url: str) -> dict[str, float]:
    await opened(page, url)
    deed = "const list = document.querySelector('[role=grid]'); list.scrollTop = list.scrollHeight"
    last = "document.querySelector('[role=grid]').getAttribute('aria-rowcount')"
    seen = f"document.querySelector(`.row[aria-rowindex='${{{last}}}'] .name`)"
    return {"to the far end": await until(page, deed, seen)}


async def facet(page: Page, url: str) -> dict[str, float]:
    await opened(page, url)
    deed = f"[...document.querySelectorAll('.facet')].find({having('Failed')}).click()"
    return {"a facet": await until(page, deed, all_rows_have("Failed"))}


async def searched(page: Page, url: str) -> dict[str, float]:
    await opened(page, url)
    deed = (
        "const box = document.querySelector('input[type=search]'); box.value = 'project-77'; "
        "box.dispatchEvent(new Event('input', { bubbles: true }))"
    )
    return {"a search": await until(page, deed, all_rows_have("project-77"))}


def having(text: str) -> str:
    return f"(one) => one.textContent.includes('{text}')"


def all_rows_have(text: str) -> str:
    rows = "[...document.querySelectorAll('.row')]"
    return f"{rows}.length > 5 && {rows}.every({having(text)})"


async def fleet(page: Page, url: str) -> dict[str, float]:
    await page.goto(f"{url}/fleet")
    await page.wait_for_function(
        "() => document.querySelectorAll('.bars-row').length > 5", polling="raf"
    )
    return {"fleet": float(await page.evaluate("performance.now()"))}


MEASURES: tuple[Measure, ...] = (opened, sorted_by_project, far_end, facet, searched, fleet)


async def measure(url: str, client_id: str, secret: str, rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS
        )
        page = await browser.new_page(viewport={"width": 1440, "height": 900})
        await page.goto(f"{url}/login")
        await page.fill("[name=clientId]", client_id)
        await page.fill("[name=clientSecret]", secret)
        await page.click("button[type=submit]")
        await page.wait_for_selector(".row .name")
        for number in range(rounds + 1):
            for measure in MEASURES:
                for name, milliseconds in (await measure(page, url)).items():
                    if number:
                        taken.setdefault(name, []).append(milliseconds)
        await browser.close()
    return taken


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--workloads", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    async with servers.database() as database_url:
        db = await Database.open(database_url, pool_size=4)
        print(f"filling in {options.workloads} workloads ...", file=sys.stderr)
        await fill(db, total=options.workloads, live=options.workloads)
        connection = await asyncpg.connect(database_url)
        await connection.execute("VACUUM ANALYZE")
        await connection.close()
        client_id, secret = await servers.administrator(db)
        async with servers.serving(servers.OURS, database_url) as url:
            taken = await measure(url, client_id, secret, options.rounds)
        await db.close()
    for name, values in taken.items():
        median = round(statistics.median(values))
        print(json.dumps({"measure": name, "median_ms": median, "most_ms": round(max(values))}))


if __name__ == "__main__":
    asyncio.run(main())

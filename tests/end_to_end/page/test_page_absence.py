"""Absent data is never "all is well": each cause has its own sentence with the next step."""

import json
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Route, expect

from tests.conftest import Engine, fresh_database, running_server
from tests.end_to_end.page.conftest import Site
from tests.fixtures.browser import Tab, chromium, new_tab

JSON = dict[str, Any]
HOUR_AGO = "2026-11-29T00:00:00Z"


def kind(group: str, name: str, state: str) -> JSON:
    return {"group": group, "kind": name, "state": state, "since": HOUR_AGO}


def clusters(state: str, *kinds: JSON, contact: str | None = HOUR_AGO) -> Callable[[JSON], JSON]:
    """The answer of `/clusters`, with this in place of what the only cluster reported."""

    def change(answer: JSON) -> JSON:
        changed = deepcopy(answer)
        for cluster in changed:
            cluster |= {"state": state, "kinds": list(kinds), "lastContactAt": contact}
            if contact is None:
                del cluster["lastContactAt"]
        return changed

    return change


def gpus(**members: float | None) -> Callable[[JSON], JSON]:
    def change(answer: JSON) -> JSON:
        changed = deepcopy(answer)
        changed["now"]["gpus"] |= members
        return changed

    return change


@dataclass(frozen=True)
class Absence:
    path: str
    sentence: str
    advice: str
    clusters: Callable[[JSON], JSON] | None = None
    fleet: Callable[[JSON], JSON] | None = None
    me: Callable[[JSON], JSON] | None = None


def _viewer(me: JSON) -> JSON:
    scope = {"tenant": False, "clusterIds": [], "departmentIds": [], "projectIds": ["1"]}
    return me | {"isAdministrator": False, "permissions": ["workloads:read"], "scope": scope}


POD = kind("", "Pod", "complete")
UNMEASURED = gpus(allocated=8, measured=0, idle=None)
CASES = {
    "agent never connected": Absence(
        "/clusters",
        "Its agent has never connected.",
        "Start the agent",
        clusters("waiting", contact=None),
    ),
    "agent does not report": Absence(
        "/clusters",
        "Its agent does not report.",
        "can reach this server",
        clusters("disconnected", POD),
    ),
    "API server unreachable": Absence(
        "/clusters",
        "cannot reach the Kubernetes API server",
        "Check the API server",
        clusters("degraded", kind("", "Pod", "failing")),
    ),
    "nothing reported yet": Absence(
        "/clusters", "The agent has not reported yet", "within a minute", clusters("connected")
    ),
    "no right to the whole cluster": Absence(
        "/clusters",
        "Your access covers only a part of this cluster",
        "",
        clusters("connected"),
        me=_viewer,
    ),
    "no exporter": Absence(
        "/clusters",
        "No GPU exporter was found.",
        "Install the NVIDIA DCGM exporter",
        clusters("connected", POD, kind("metrics", "DCGM exporter", "absent")),
    ),
    "exporter may not be read": Absence(
        "/idle",
        "The agent may not read the GPU exporter.",
        "nodes/proxy",
        clusters("connected", POD, kind("metrics", "DCGM exporter", "forbidden")),
        UNMEASURED,
    ),
    "exporter late": Absence(
        "/idle",
        "The GPU exporter does not respond.",
        "Check the exporter's pods",
        clusters("connected", POD, kind("metrics", "DCGM exporter", "failing")),
        UNMEASURED,
    ),
    "exporter not read yet": Absence(
        "/idle",
        "The agent has not read a GPU exporter yet.",
        "within a minute",
        clusters("connected", POD),
        UNMEASURED,
    ),
    "no GPU allocated": Absence(
        "/idle",
        "No GPUs are allocated",
        "",
        clusters("connected", POD),
        gpus(allocated=0, measured=0, idle=None),
    ),
    "a part is not measured": Absence(
        "/idle",
        "No idle GPUs among the 4 measured",
        "4 other allocated GPUs are not measured",
        clusters("connected", POD),
        gpus(allocated=8, measured=4, idle=0),
    ),
    "a part is not measured though the exporter responds": Absence(
        "/idle",
        "No idle GPUs among the 4 measured",
        "their pods have just started",
        clusters("connected", POD, kind("metrics", "DCGM exporter", "complete")),
        gpus(allocated=8, measured=4, idle=0),
    ),
    "all is well": Absence(
        "/idle",
        "all of them have been in use recently",
        "",
        clusters("connected", POD, kind("metrics", "DCGM exporter", "complete")),
        gpus(allocated=8, measured=8, idle=0),
    ),
    "fleet of a disconnected cluster": Absence(
        "/fleet",
        "Includes the last known state of aurora (disconnected",
        "ago",
        clusters("disconnected", POD),
    ),
}


@pytest.mark.parametrize("absence", CASES.values(), ids=CASES.keys())
async def test_each_absence_has_its_own_sentence(site: Site, absence: Absence) -> None:
    async with new_tab(site.browser, site.server) as tab:
        for pattern, change in (
            ("**/api/v1/clusters", absence.clusters),
            ("**/api/v1/fleet", absence.fleet),
            ("**/api/v1/session", absence.me),
        ):
            if change is not None:
                await tab.page.route(pattern, _changed(change))
        await tab.page.route("**/workloads/idle*", _changed(_no_idle_workloads))
        await tab.log_in(absence.path)
        content = tab.page.locator("#content")
        await expect(content).to_contain_text(absence.sentence)
        await expect(content).to_contain_text(absence.advice)


def _no_idle_workloads(answer: JSON) -> JSON:
    return answer | {"total": 0, "idleGpus": 0, "idleGpuHours": 0, "owners": [], "workloads": []}


def _changed(change: Callable[[JSON], JSON]) -> Callable[[Route], Any]:
    async def fulfil(route: Route) -> None:
        answer = await route.fetch()
        if answer.ok:
            await route.fulfill(response=answer, body=json.dumps(change(await answer.json())))
        else:
            await route.fulfill(response=answer)

    return fulfil


@pytest_asyncio.fixture(scope="module")
async def empty_tab(embedded_engine: Engine) -> AsyncIterator[Tab]:
    """A server without a cluster."""
    async with (
        chromium() as browser,
        running_server(await fresh_database(embedded_engine)) as server,
        new_tab(browser, server) as tab,
    ):
        await tab.log_in()
        yield tab


@pytest.mark.parametrize("path", ["/", "/?deleted=true", "/fleet", "/idle", "/clusters"])
async def test_without_a_cluster_every_page_says_how_to_connect_one(
    empty_tab: Tab, path: str
) -> None:
    await empty_tab.open(path)
    content = empty_tab.page.locator("#content")
    await expect(content).to_contain_text("No cluster is connected yet")
    await expect(content).to_contain_text("watchbill login")
    await expect(content).to_contain_text("watchbill agent manifest")


async def test_somebody_who_may_not_connect_a_cluster_sees_whom_to_ask(empty_tab: Tab) -> None:
    await empty_tab.page.route("**/api/v1/me", _changed(_viewer))
    await empty_tab.open("/fleet")
    content = empty_tab.page.locator("#content")
    await expect(content).to_contain_text("No cluster is visible to you")
    await expect(content).to_contain_text("Ask an administrator")

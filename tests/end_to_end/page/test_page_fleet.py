"""Fleet and idle GPUs in the browser: the headline numbers, and where their links lead."""

import csv
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest_asyncio
from playwright.async_api import expect

from tests.conftest import Engine, fresh_database, running_server
from tests.fixtures.browser import Tab, chromium, new_tab
from tests.fixtures.fleet import Fleet, new_credential
from tests.fixtures.records import all_nodes, node, pod, upsert
from tests.fixtures.serving import kai_queue
from watchbill.client import AgentClient
from watchbill.cluster_node import NodeCondition
from watchbill.protocol import Heartbeat, NodePoolCapacity
from watchbill.store.fleet.fleet import fleet_record, last_instant
from watchbill.store.postgres.database import Database
from watchbill.store.usage.accounting import usage_account
from watchbill.workload import AllocatedResources
from watchbill.workload_pod import WorkloadPod


def stamp(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


async def idle_fleet(fleet: Fleet) -> None:
    """Ada leaves 4 GPUs idle for five hours, Grace 1 for two; one is busy, and a fourth is not measured."""
    for number, (owner, idle, hours, project) in enumerate(
        (
            ("ada@example.com", 4.0, 5, "vision"),
            ("grace@example.com", 1.0, 2, "speech"),
            ("alan@example.com", 0.0, 0, "speech"),
            ("alan@example.com", None, 0, "speech"),
        ),
        1,
    ):
        since = stamp(fleet.now - timedelta(hours=hours))
        times = {"idleSince": since, "idleMeanSince": since} if idle else {}
        made = fleet.running(
            number,
            name=f"train-{number}",
            current_node_pools=("a100",),
            submitted_by=owner,
            gpus=8.0,
            project_name=project,
            department_name="research",
            idle_allocated_gpus=idle,
            idle_gpus=None if idle is None else int(idle),
            additional_fields={"idleGpuHours": 0.0, "idleMeasuredSince": since} | times,
        )
        await fleet.send(upsert(made, pods=_pods(number)))


def _pods(number: int) -> tuple[WorkloadPod, ...]:
    """Of the first two workloads one each, on a node of its own."""
    if number > 2:
        return ()
    resources = AllocatedResources(gpu=4.0 * number, extended_resources=())
    return (pod(number, node_name=f"gpu-{number}", allocated_resources=resources),)


DOWN = NodeCondition(
    type="Ready", reason="NodeStatusUnknown", status="Unknown", message="Kubelet stopped."
)
QUEUES = (
    kai_queue("department", "research", gpus=40),
    kai_queue("project", "vision", "research", gpus=6),
)
NODES = all_nodes(node("gpu-1"), node("gpu-2", status="NotReady", conditions=(DOWN,)))


@pytest_asyncio.fixture(scope="module")
async def idle_tab(embedded_engine: Engine) -> AsyncIterator[Tab]:
    async with (
        chromium() as browser,
        running_server(await fresh_database(embedded_engine)) as server,
        AgentClient(server.url, await new_credential(server)) as agent,
        new_tab(browser, server) as tab,
    ):
        fleet = Fleet(agent, datetime.now(UTC).replace(microsecond=0))
        await fleet.hello()
        pools = (NodePoolCapacity(node_pool="a100", nodes=8, gpus=64, gpu_memory_bytes=0),)
        beat = Heartbeat(
            stream_id=fleet.stream_id,
            seq=0,
            kinds=(),
            node_pools=pools,
            nodes=NODES,
            queues=QUEUES,
        )
        await agent.heartbeat(beat)
        await idle_fleet(fleet)
        await tab.log_in()
        yield tab


async def test_idle_gpus_with_owner_time_and_cost(idle_tab: Tab) -> None:
    page = idle_tab.page
    await idle_tab.open("/idle")
    lead = page.locator(".lead")
    await expect(lead).to_contain_text("5 of 32 allocated GPUs are idle, in 2 workloads")
    await expect(lead).to_contain_text("22 GPU-hours so far")
    await expect(page.locator(".page")).to_contain_text("8 allocated GPUs are not measured")
    owners = page.locator(".bars .bars-row")
    await expect(owners).to_have_count(2)
    await expect(owners.first).to_have_text(re.compile("ada.*20 h · 4 GPU"))
    first = page.locator("tbody tr").first
    await expect(first).to_contain_text("train-1")
    await expect(first).to_contain_text("5h")
    await expect(first.get_by_text("ada", exact=True)).to_have_attribute("title", "ada@example.com")
    await owners.first.click()
    await expect(page.locator(".row .name")).to_have_text(["train-1"])


async def test_a_workload_shows_its_idle_cost(idle_tab: Tab) -> None:
    await idle_tab.open(f"/workloads/{UUID(int=1)}")
    box = idle_tab.page.locator(".why")
    await expect(box).to_contain_text("4 of 8 allocated GPUs idle for 5h")
    await expect(box).to_contain_text(
        re.compile(r"20(\.\d+)? GPU-hours so far")
    )  # it grows meanwhile
    await expect(box).to_contain_text("Ask ada@example.com")


async def test_the_headline_numbers_and_their_links(idle_tab: Tab) -> None:
    page = idle_tab.page
    await idle_tab.open("/fleet")
    stats = page.locator(".stat")
    await expect(stats).to_have_count(4)
    await expect(stats.nth(0)).to_contain_text("32")
    await expect(stats.nth(0)).to_contain_text("of 64 · 50 %")
    await expect(stats.nth(1)).to_contain_text("5")
    await expect(stats.nth(1)).to_contain_text("of 24 measured")
    held = page.get_by_role("list", name="Allocated GPUs by project").locator(".bars-row")
    await expect(held).to_have_text([re.compile("speech.*24"), re.compile("vision.*8")])
    await page.get_by_role("link", name="department", exact=True).click()
    await expect(page).to_have_url(re.compile(r"/fleet\?by=department$"))
    held = page.get_by_role("list", name="Allocated GPUs by department").locator(".bars-row")
    await expect(held).to_have_text([re.compile("research.*32")])
    await expect(page.locator("table")).to_contain_text("aurora")
    await held.first.click()
    await expect(page.locator(".status")).to_contain_text("of 4")
    assert "departmentName%3D%3Dresearch" in page.url


async def test_recorded_moments_are_drawn(idle_tab: Tab) -> None:
    """The line needs two recorded moments at least; what is now is the second."""
    db = await Database.open(idle_tab.server.database_url, pool_size=1)
    now = datetime.now(UTC)
    for steps in (0, 1, 2):
        await fleet_record(db, 1, last_instant(now - timedelta(minutes=5 * steps)))
    await db.close()
    await idle_tab.open("/fleet")
    await expect(idle_tab.page.locator("svg.spark path")).to_have_count(4)
    drawn = await idle_tab.page.locator("svg.spark path").first.get_attribute("d")
    assert drawn is not None
    assert drawn.count("L") >= 2
    assert "NaN" not in drawn


async def test_a_cluster_shows_the_allocation_of_each_node_pool(idle_tab: Tab) -> None:
    await idle_tab.open("/clusters")
    row = idle_tab.page.locator(".pools tbody tr")
    await expect(row).to_contain_text("32 · 50 %")


async def test_usage_by_project_and_day(idle_tab: Tab) -> None:
    """Eight GPUs each since 11 to 14 minutes, accounted up to ten minutes ago."""
    page = idle_tab.page
    await idle_tab.open("/usage?period=7d")
    await expect(page.locator(".lead")).to_have_text(
        re.compile("not counted yet|No usage is recorded yet")
    )
    await expect(page.locator(".usage")).not_to_contain_text("0 GPU-hours")
    db = await Database.open(idle_tab.server.database_url, pool_size=2)
    await usage_account(db, 1, datetime.now(UTC))
    await db.close()
    await idle_tab.open("/usage?period=7d")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("speech")
    await expect(page.locator(".lead")).to_contain_text("GPU-hours allocated")
    await expect(page.locator(".usage-day")).to_have_count(7)
    shown = await page.locator("tbody tr td:nth-of-type(1)").all_inner_texts()
    total = await page.locator("tfoot td").first.inner_text()
    assert abs(sum(map(float, shown)) - float(total)) <= 0.02, "the rows add up to their sum"
    async with page.expect_download() as download:
        await page.get_by_role("link", name="CSV", exact=True).click()
    text = (await (await download.value).path()).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0].startswith("project,requestedGpuHours,allocatedGpuHours")
    assert [line.split(",")[0] for line in lines[1:]] == ["speech", "vision"]
    await page.get_by_role("link", name="owner", exact=True).click()
    await expect(page).to_have_url(re.compile(r"by=owner"))
    await expect(page.locator("tbody")).to_contain_text("alan@example.com")
    await page.get_by_role("link", name="ada@example.com", exact=True).click()
    await expect(page.locator(".row .name")).to_have_text(["train-1"])


async def test_nodes_show_their_gpus_and_who_holds_them(idle_tab: Tab) -> None:
    """One node is down and takes the workload on it along; the other has half its GPUs allocated."""
    page = idle_tab.page
    await idle_tab.open("/nodes")
    await expect(page.locator(".lead")).to_contain_text("12 of 16 GPUs allocated on 2 nodes")
    await expect(page.locator(".warning")).to_contain_text("gpu-2 (1 workload)")
    tile = page.locator(".node-tile", has_text="gpu-1")
    await expect(tile.locator(".gpu-free")).to_have_count(4)
    await expect(tile.locator(".gpu-idle")).to_have_count(2)
    await expect(page.locator(".node-tile.is-down")).to_contain_text("NotReady")
    await page.get_by_role("link", name="gpu-2", exact=True).click()
    detail = page.get_by_role("region", name="gpu-2")
    await expect(detail).to_contain_text("Ready is Unknown (NodeStatusUnknown)")
    await expect(detail).to_contain_text("It may take 1 workload with it:")
    await detail.get_by_role("link", name="train-2", exact=True).click()
    await expect(page).to_have_url(re.compile(f"/workloads/{UUID(int=2)}"))
    await idle_tab.open(f"/nodes?node={UUID(int=9)}")
    await expect(page.get_by_role("alert")).to_contain_text("is not among these: it is gone")


async def test_projects_show_their_quotas_and_what_lies_behind_each_number(idle_tab: Tab) -> None:
    """Vision holds 8 of 6 GPUs, half of them idle; speech is a namespace with one workload unmeasured."""
    page = idle_tab.page
    await idle_tab.open("/projects")
    await expect(page.locator(".lead")).to_contain_text("32 GPUs allocated to 2 projects")
    await expect(page.locator(".lead")).to_contain_text("1 project is over quota")
    rows = page.locator("tbody tr")
    names = rows.locator("th a")
    await expect(names).to_have_text(["aurora", "research", "speech", "vision"])
    vision, speech = rows.filter(has_text="vision"), rows.filter(has_text="speech")
    await expect(vision.locator("td")).to_have_text(["6", "8", "+2", "0", "4"])
    await expect(speech.locator("td")).to_have_text(["none", "24", "–", "0", "1"])
    await expect(rows.nth(1).locator("td")).to_have_text(["40", "32", "0", "0", "5"])
    await expect(page.get_by_role("list", name="Why numbers are missing")).to_contain_text(
        "It is a namespace"
    )
    await page.get_by_role("button", name="Idle").click()
    await expect(page).to_have_url(re.compile("sortBy=idle&sortOrder=desc"))
    await expect(names).to_have_text(["aurora", "research", "vision", "speech"])
    await page.get_by_role("button", name="Hide what is in research").click()
    await expect(names).to_have_text(["aurora", "research"])
    await page.get_by_label("Search projects and departments").fill("spee")
    await expect(page).to_have_url(re.compile("search=spee"))
    await expect(names).to_have_text(["aurora", "research", "speech"])
    await page.get_by_label("Search projects and departments").fill("nothing")
    await expect(page.locator(".empty")).to_contain_text("No project or department matches")
    await page.get_by_role("link", name="Show all projects").click()
    await expect(names).to_have_count(4)
    await page.get_by_role("link", name="4 idle: workloads of vision").click()
    await expect(page.locator(".row .name")).to_have_text(["train-1"])


async def test_what_failed_in_a_week_is_one_file(tab: Tab) -> None:
    """Live and deleted ones, under one line of headers."""
    await tab.log_in("/fleet")
    async with tab.page.expect_download() as saved:
        await tab.page.get_by_role("button", name="CSV, 7 days").click()
    path = await (await saved.value).path()
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert rows
    assert {row["phase"] for row in rows} == {"Failed"}
    assert "llama-sft-301" in {row["name"] for row in rows}

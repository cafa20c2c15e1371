"""What is meant to be copied works: alert rules, scrape jobs, the dashboard, and names that really exist."""

import json
import re
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import pytest_asyncio
import yaml

from simulator import probe
from tests.conftest import Engine, fresh_database, require
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from tests.fixtures.serving import Served, serving
from watchbill.agent.metrics import exporter
from watchbill.background import LoopState
from watchbill.protocol import Covered, InventoryBegin, InventoryCommit
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit
from watchbill.store.usage.accounting import usage_account
from watchbill.workload import Phase

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "watchbill.json").read_text())
RULES: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "rules.yaml").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + [
    rule["expr"] for group in RULES["groups"] for rule in group["rules"]
]
NAME = re.compile(r"watchbill_[a-z_]+")


IN_HOURS = 'watchbill_usage_today_gpu_hours use base unit "seconds" instead of "hours"'
"""What people ask for and pay by; the page, the command line and the API have the same unit."""


def promtool(*arguments: str, text: str | None = None, minds: str = "") -> str:
    """What it prints. `minds`: what it may mind."""
    path = require("Prometheus").with_name("promtool")
    done = subprocess.run(
        [path, *arguments],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        input=text,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or done.stderr.strip() == minds, done.stdout + done.stderr
    return done.stdout


def test_rules_are_sound_and_fire_when_they_should() -> None:
    assert "SUCCESS" in promtool("check", "rules", "rules.yaml")
    assert "SUCCESS" in promtool("test", "rules", "rules.test.yaml")


def test_scrape_jobs_are_a_configuration(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    text = (DEPLOY / "prometheus" / "scrape.yaml").read_text()
    (tmp_path / "prometheus.yml").write_text(
        text.replace("/etc/prometheus/watchbill-secret", str(secret))
    )
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


@pytest.mark.parametrize("query", QUERIES)
def test_queries_are_promql(query: str) -> None:
    promql_parser.parse(query)


def test_no_panel_counts_the_fleet_once_for_each_server() -> None:
    """Every server tells of the whole fleet."""
    of_the_fleet = r"\((watchbill_(?:workloads|gpus|cluster|usage)\w*)"
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            assert not re.search(r"sum( by \(.*?\) )?" + of_the_fleet, target["expr"]), panel[
                "title"
            ]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest_asyncio.fixture
async def at_start(embedded_engine: Engine) -> AsyncIterator[Served]:
    """A server at the time of the records."""
    async with serving(await fresh_database(embedded_engine), clock=lambda: START) as served:
        yield served


async def test_everything_asked_for_is_shown_by_server_or_agent(at_start: Served) -> None:
    agent = await connected_agent(at_start.db, START)
    made = [
        workload(1, idle_allocated_gpus=1.0, idle_gpus=1, created_at=START - timedelta(hours=2)),
        workload(2, phase=Phase.PENDING, created_at=START),
    ]
    await agent.send(*(upsert(document) for document in made), now=START)
    await usage_account(at_start.db, 1, START)
    begin = InventoryBegin(stream_id=agent.stream_id, coverage=(Covered(group="", kind="Pod"),))
    begun = await inventory_begin(at_start.db, agent.identity, begin, START)
    commit = InventoryCommit(stream_id=agent.stream_id, inventory_id=begun.inventory_id, count=0)
    await inventory_commit(at_start.db, agent.identity, commit, START)
    at_start.services.background.include(LoopState("purge", timedelta(hours=1), START))
    answer = await at_start.get("/metrics")
    assert answer.status == 200
    page = answer.body.decode()
    assert promtool("check", "metrics", text=page, minds=IN_HOURS) == ""
    reported = set(re.findall(r"^(watchbill_[a-z_]+)[{ ]", page, re.MULTILINE))
    by_agents = set(NAME.findall(Path(exporter.__file__).read_text()))
    by_agents |= set(NAME.findall(Path(probe.__file__).read_text()))
    by_embedded = {"watchbill_disk_free_bytes", "watchbill_disk_size_bytes"}
    asked = {name for query in QUERIES for name in NAME.findall(query)}
    assert asked - reported - by_agents == by_embedded | {
        "watchbill_standby_up",
        "watchbill_certificate_expires_timestamp_seconds",
    }
    assert 'watchbill_gpus_idle{cluster="cluster-1"} 1' in page
    assert 'watchbill_workloads{phase="Pending"} 1' in page
    hours = re.search(r'today_gpu_hours\{.*state="allocated"\} (.*)', page)
    assert hours is not None
    assert abs(float(hours[1]) - 2 * 110 / 60) < 1e-5, "two GPUs until ten minutes ago"
    assert re.search(r'^watchbill_table_bytes\{table="workload"\} [1-9]', page, re.MULTILINE)
    contact = 'watchbill_cluster_last_contact_timestamp_seconds{cluster="cluster-1"}'
    (line,) = [line for line in page.splitlines() if line.startswith(contact)]
    assert float(line.split()[-1]) == START.timestamp()


async def test_metrics_show_what_their_reader_may_see(server: Served) -> None:
    await connected_agent(server.db, START)
    anonymous = await server.ask("GET", "/metrics", token=None)
    assert anonymous.status == 401

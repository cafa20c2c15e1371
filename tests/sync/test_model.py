"""Random histories of a cluster, with the real agent and the real server on PostgreSQL, in virtual time.

The model knows which workloads exist; what must hold of them is in `validators.py`. A batch that comes again
changes nothing, and neither does an agent of another cluster.

A history that fails is written to a file, and WATCHBILL_HISTORY=FILE runs it again; those of
`tests/fixtures/histories`, which failed once, are run every time. WATCHBILL_HISTORIES says how many others.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import Engine, fresh_database
from tests.fixtures.model_world import World
from tests.sync.histories import NAMES, Histories
from watchbill.agent import run as run_module
from watchbill.agent.cache import watch_manager
from watchbill.agent.kubernetes import reflector, steady_clock
from watchbill.agent.kubernetes.backoff import Backoff
from watchbill.agent.stream import stream
from watchbill.kinds import derive
from watchbill.kinds.derivation.pods import pods_of
from watchbill.store.ingest import held_deletions, inventory

HISTORIES = Path(__file__).parents[1] / "fixtures" / "histories"
CLOCKED = (steady_clock, stream)


SMALL = st.integers(0, 5)


class RandomHistories(Histories, RuleBasedStateMachine):
    """The rules by which histories are drawn."""

    @initialize()
    def begin(self) -> None:
        self.wait(seconds=5.0)

    _kinds = st.sampled_from(["Job", "Deployment", "Pod"])
    _rarely = st.sampled_from([False, False, False, False, True])
    create = rule(kind=_kinds, name=st.integers(0, NAMES - 1), lost=_rarely)(Histories.create)
    add_pod = rule(index=SMALL, lost=_rarely)(Histories.add_pod)
    change = rule(
        index=SMALL,
        phase=st.sampled_from(["Pending", "Running", "Failed", "Succeeded"]),
        lost=_rarely,
    )(Histories.change)
    delete = rule(index=SMALL, pods_first=st.booleans(), lost=_rarely)(Histories.delete)
    delete_pods = rule(index=SMALL)(Histories.delete_pods)
    delete_all = rule()(Histories.delete_all)
    orphans_come = rule(seconds=st.sampled_from([40, 160]))(Histories.orphans_come)
    end_watches = rule(ending=st.sampled_from(["cut", "clean"]))(Histories.end_watches)
    compact = rule()(Histories.compact)
    stall = rule(is_stalled=st.booleans())(Histories.stall)
    api_server = rule(is_down=st.booleans())(Histories.api_server)
    rights = rule(index=SMALL, is_forbidden=st.booleans())(Histories.rights)
    list_only = rule(index=SMALL, is_list_only=st.booleans())(Histories.list_only)
    serve_jobs = rule(is_served=st.booleans())(Histories.serve_jobs)
    wrong_cluster = rule(seconds=st.sampled_from([3, 90]))(Histories.wrong_cluster)
    backup = rule()(Histories.backup)
    restore = rule()(Histories.restore)
    purge = rule()(Histories.purge)
    server_down = rule(is_down=st.booleans())(Histories.server_down)
    lose = rule(requests=st.integers(0, 2), replies=st.integers(0, 2), doubles=st.integers(0, 2))(
        Histories.lose
    )
    repeat_batch = rule(index=SMALL)(Histories.repeat_batch)
    kill_agent = rule()(Histories.kill_agent)
    stop_agent = rule(seconds=st.sampled_from([3, 30, 120]))(Histories.stop_agent)
    suspend_agent = rule(seconds=st.sampled_from([3, 30, 120]))(Histories.suspend_agent)
    second_agent = rule(seconds=st.sampled_from([3, 30]))(Histories.second_agent)
    older_agent = rule(is_older=st.booleans())(Histories.older_agent)
    fill = rule(is_full=st.booleans())(Histories.fill)
    set_agent_clock = rule(ahead_seconds=st.sampled_from([-90.0, -5.0, 0.0, 5.0, 90.0]))(
        Histories.set_agent_clock
    )
    wait = rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 5.0, 20.0, 90.0]))(Histories.wait)

    @invariant()
    def holds(self) -> None:
        try:
            self.check()
        except BaseException:
            self.keep()
            raise


@contextmanager
def world(database_url: str, patch: pytest.MonkeyPatch) -> Iterator[World]:
    """Virtual time for all of the agent, and holds that a handful of workloads can reach."""
    result = World(database_url)
    for module in CLOCKED:
        patch.setattr(module, "datetime", result.loop.datetime_class())
    patch.setattr(steady_clock, "boot_seconds", result.loop.time)
    patch.setattr(steady_clock, "CLOCK", steady_clock.SteadyClock())
    patch.setattr(watch_manager, "discover", None)
    patch.setattr(derive, "pods_of", lambda view: pods_of(view) if result.reports_pods else ())
    patch.setattr(stream, "Backoff", lambda **_: Backoff(most_seconds=5.0, draw=lambda: 1.0))
    patch.setattr(reflector, "jittered", lambda seconds: seconds)
    patch.setattr(stream, "jittered", lambda seconds: seconds)
    patch.setattr(watch_manager, "jittered", lambda seconds: seconds)
    patch.setattr(held_deletions, "SUSPECT_ROWS", 3)
    patch.setattr(held_deletions, "ROWS_AT_ONCE", 2)
    patch.setattr(inventory, "ROWS_AT_ONCE", 2)
    patch.setattr(run_module.gc, "freeze", lambda: None)
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield result
    finally:
        structlog.configure(**before)
        result.close()


def run_again(replayed: World, path: Path) -> None:
    """The history of a file."""
    Histories.world = replayed
    machine = Histories()
    for name, arguments in json.loads(path.read_text()):
        getattr(machine, name)(**arguments)
        machine.check()
    machine.teardown()


@pytest_asyncio.fixture
async def model_database(embedded_engine: Engine) -> str:
    return await fresh_database(embedded_engine)


def files() -> list[Path]:
    given = os.environ.get("WATCHBILL_HISTORY")
    return [*sorted(HISTORIES.glob("*.json")), *([Path(given)] if given else [])]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_a_history_of_a_file(
    model_database: str, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    with world(model_database, monkeypatch) as a_world:
        run_again(a_world, path)


def test_random_histories(model_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with world(model_database, monkeypatch) as a_world:
        Histories.world = a_world
        run_state_machine_as_test(
            RandomHistories,
            settings=settings(
                max_examples=int(os.environ.get("WATCHBILL_HISTORIES", "30")),
                stateful_step_count=40,
                deadline=None,
                database=None,
                derandomize="WATCHBILL_HISTORIES" not in os.environ,
                suppress_health_check=list(HealthCheck),
            ),
        )

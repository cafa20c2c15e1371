"""A short drill, and two faults in one run; `make drills` and `make faults` do them all, each by itself."""

from drills.faults import suffer
from drills.rolling import rolling_restart
from tests.conftest import require


async def test_a_rolling_restart_behind_haproxy_loses_nothing() -> None:
    require("HAProxy")
    require("PostgreSQL 15")
    shown = await rolling_restart("HAProxy", servers=2)
    assert "none failed" in shown
    assert "none lost or doubled" in shown


async def test_processes_that_are_killed_leave_nothing_wrong_behind() -> None:
    require("PostgreSQL 15")
    _, _, summary = await suffer(
        "agent killed after a batch was sent, before its reply was read",
        "server killed after a commit, before anybody was notified",
    )
    assert " live, " in summary
    assert "in no gap" not in summary, "what came and went unseen lies in the gaps that are shown"

"""Two short faults in one run; `make faults` does all of them, each by itself."""

from drills.faults import suffer
from tests.conftest import require


async def test_processes_that_are_killed_leave_nothing_wrong_behind() -> None:
    require("PostgreSQL 15")
    _, _, summary = await suffer(
        "agent killed after a batch was sent, before its reply was read",
        "server killed after a commit, before anybody was notified",
    )
    assert " live, " in summary
    assert "in no gap" not in summary, "what came and went unseen lies in the gaps that are shown"

"""Two short faults; `make faults` does all of them."""

import pytest

from drills.faults import suffer
from tests.conftest import require

SHORT = (
    "agent killed after a batch was sent, before its reply was read",
    "server killed after a commit, before anybody was told",
)


@pytest.mark.parametrize("name", SHORT)
async def test_a_process_that_is_killed_leaves_nothing_wrong_behind(name: str) -> None:
    require("PostgreSQL 15")
    _, _, held = await suffer(name)
    assert " live, " in held
    assert "in no gap" not in held, "what came and went unseen lies in the gaps that are shown"

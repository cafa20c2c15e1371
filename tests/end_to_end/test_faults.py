"""The short fault; `make faults` does all of them."""

from drills.faults import kill_agent, suffer
from tests.conftest import require


async def test_an_agent_that_is_killed_leaves_nothing_wrong_behind() -> None:
    require("PostgreSQL 15")
    _, _, held = await suffer(kill_agent)
    assert " live, " in held

"""The short drills; `make drills` does all of them."""

from drills.rolling import rolling_restart
from tests.conftest import require


async def test_a_rolling_restart_behind_haproxy_loses_nothing() -> None:
    require("HAProxy")
    require("PostgreSQL 15")
    shown = await rolling_restart("HAProxy", servers=2)
    assert "none failed" in shown
    assert "none lost or doubled" in shown

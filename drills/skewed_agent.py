"""`python skewed_agent.py FILE …`: Watchbill's command line; its agent's clock is ahead by the seconds in FILE.

What the file says may change while it runs. Only the agent's wall clock is moved; its timers are not, as on a
machine whose clock is set.
"""

import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from watchbill.__main__ import main
from watchbill.agent.cache import cache, owner_lookup, watch_manager
from watchbill.agent.kubernetes import attention, reflector
from watchbill.agent.stream import stream, tracker

CLOCKED = (cache, owner_lookup, watch_manager, attention, reflector, stream, tracker)


def skew(file: Path) -> None:
    class SkewedDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(seconds=float(file.read_text()))

    for module in CLOCKED:
        module.datetime = SkewedDatetime  # type: ignore[attr-defined]


if __name__ == "__main__":
    skew(Path(sys.argv.pop(1)))
    main()

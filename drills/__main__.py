"""`python -m drills [NAME …]`: does the drills, and prints what each showed as a row of docs/drills.md."""

import asyncio
import logging
import sys
import time

import structlog

from drills.catalogue import ALL


async def main(names: list[str]) -> int:
    failed = 0
    for name, drill in ALL.items():
        if names and not any(wanted in name for wanted in names):
            continue
        started_at = time.monotonic()
        try:
            shown = await drill()
        except Exception as error:
            failed += 1
            shown = f"FAILED: {type(error).__name__}: {error}"
        print(f"| {name} | {shown} | {time.monotonic() - started_at:.0f} s |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sys.exit(asyncio.run(main(sys.argv[1:])))

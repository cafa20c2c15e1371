"""Interrupts the embedded PostgreSQL when the process that started it is gone (where the kernel cannot).

Run as `python -m watchbill.store.postgres.watchdog PID`; the starter holds the other end of standard input.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    sys.stdin.buffer.read()
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(sys.argv[1]), signal.SIGINT)


if __name__ == "__main__":
    main()

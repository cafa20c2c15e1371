"""`python -m watchbill.ingest_process LEVEL`: what a server starts for agents' messages; of no use by hand.

Signals are the server's business: it goes on until the server is done with it, or gone.
"""

import asyncio
import gc
import signal
import sys

from watchbill.cli.connection.log_setup import log_to_stderr
from watchbill.store.ingest.process import serve_messages


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log_to_stderr(sys.argv[1])
    gc.freeze()
    asyncio.run(serve_messages())


if __name__ == "__main__":
    main()

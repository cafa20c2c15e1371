"""A child process that ends with its parent, even when the parent is killed. It knows nothing of the demo.

Two things see to that: on Linux the kernel signals the child when its parent dies; everywhere the child reads a
pipe whose other end only the parent holds. Lines that come through the pipe are the parent's messages.
"""

import asyncio
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

EXIT_GRACE_SECONDS: Final = 1.5
"""How long the child may take to end by itself once the parent is gone."""
_PR_SET_PDEATHSIG: Final = 1
_STDIN: Final = 0


def exit_with_parent(
    loop: asyncio.AbstractEventLoop, on_line: Callable[[bytes | None], None]
) -> None:
    """Call in the child: `on_line` gets every line of the parent, and None once it has gone."""
    for number in (signal.SIGINT, signal.SIGHUP):
        # The terminal tells the whole group; only the parent decides what it means.
        signal.signal(number, signal.SIG_IGN)
    loop.add_signal_handler(signal.SIGTERM, on_line, None)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_listen, args=(loop, on_line), daemon=True).start()


def _listen(loop: asyncio.AbstractEventLoop, on_line: Callable[[bytes | None], None]) -> None:
    # Read without a buffer: its lock, held in a read, would stop the interpreter from ending.
    rest = b""
    while piece := os.read(_STDIN, 65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            loop.call_soon_threadsafe(on_line, line)
    deadline = threading.Timer(EXIT_GRACE_SECONDS, os._exit, (1,))
    deadline.daemon = True
    deadline.start()
    try:
        loop.call_soon_threadsafe(on_line, None)
    except RuntimeError:
        # The loop has ended already, and the process is about to.
        return

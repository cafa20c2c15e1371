"""What the demo tells its starter while it starts: one line that changes on a terminal, else plain lines."""

import sys
import time
from typing import TextIO


class Progress:
    """`begin` opens a step, `count` moves it on, `done` closes the last one."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._step = ""
        self._began = time.monotonic()

    def begin(self, step: str) -> None:
        self._close()
        self._step = step
        if self._is_terminal:
            self._redraw("")
        else:
            self._write(f"{step} ...\n")

    def count(self, done: int, total: int) -> None:
        if self._is_terminal:
            self._redraw(f" {done} of {total}")

    def done(self) -> None:
        self._close()
        seconds = time.monotonic() - self._began
        self._write(f"Ready after {seconds:.1f} s.\n")

    def warn(self, message: str) -> None:
        self._close()
        self._write(f"{message}\n")

    def _redraw(self, ending: str) -> None:
        self._write(f"\r\x1b[K{self._step} ...{ending}")

    def _close(self) -> None:
        if self._step and self._is_terminal:
            self._write(f"\r\x1b[K{self._step}: done\n")
        self._step = ""

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (BrokenPipeError, OSError):
            # Nobody reads it any more; the demo goes on.
            self._is_terminal = False

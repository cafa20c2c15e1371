"""Logging never ends what it logs about."""

import sys

import pytest
import structlog

from watchbill.cli.connection.log_setup import log_to_stderr


class Full:
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def isatty(self) -> bool:
        return False


def test_a_full_disk_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    monkeypatch.setattr(sys, "stderr", Full())
    try:
        log_to_stderr("info")
        structlog.get_logger("test").error("a line that nobody can write")
    finally:
        structlog.configure(**before)

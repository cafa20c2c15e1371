"""Logging never ends what it logs about, and every event is one line, whoever logs it."""

import io
import json
import logging
import sys
import warnings

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


def test_what_libraries_log_is_one_event_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's driver warns and logs tracebacks; both would break a reader of JSON lines."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logging.captureWarnings(capture=False)  # an earlier test's, which pytest has undone
    try:
        log_to_stderr("info")
        logging.getLogger("asyncpg").warning("lost\na connection to %s", "db")
        warnings.showwarning("unclosed\nconnection", ResourceWarning, "file.py", 1)
        try:
            raise ValueError("one\ntwo")
        except ValueError:
            logging.getLogger("asyncio").exception("Task failed")
        logging.getLogger("asyncpg").info("not wanted")
        structlog.get_logger("watchbill").info("ours")
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**before)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event.get("logger") for event in events] == ["asyncpg", "py.warnings", "asyncio", None]
    assert [event["level"] for event in events] == ["warning", "warning", "error", "info"]
    assert events[0]["event"] == "lost\na connection to db"
    assert all("timestamp" in event for event in events)
    assert events[2]["exception"][0]["exc_value"] == "one\ntwo"


@pytest.mark.parametrize(
    "name",
    ["plain", "käfer", "\u202eevil", "half \ud800", "\x1b[2J\nnew", "\x7f", "a" * 9],
    ids=ascii,
)
def test_lines_are_ascii_and_lose_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        log_to_stderr("info")
        structlog.get_logger("test").info("met", name=name, number=2**70, kind=ValueError)
    finally:
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**before)
    line = stream.getvalue()
    assert line.isascii()
    assert line.count("\n") == 1
    event = json.loads(line)
    assert (event["name"], event["number"]) == (name, 2**70)
    assert "ValueError" in event["kind"]

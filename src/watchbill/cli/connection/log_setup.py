"""Where the long-running commands log: stderr, for people on a terminal, else one JSON object a line."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, TextIO, cast

import msgspec
import structlog

from watchbill.errors import Invalid

LEVELS = ("debug", "info", "warning", "error")


def log_to_stderr(level: str) -> None:
    """Raises Invalid for an unknown level."""
    if level.lower() not in LEVELS:
        raise Invalid(f"There is no log level '{level}'.", details=f"Levels: {', '.join(LEVELS)}.")
    number = logging.getLevelNamesMapping()[level.upper()]
    stream = cast("TextIO", _Patient(sys.stderr))
    logger = structlog.WriteLogger(stream)
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering = _rendering(is_terminal=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=False,
    )
    _log_libraries(stream, max(number, logging.WARNING), [*shared, _name_logger], rendering)


def _log_libraries(
    stream: TextIO,
    level: int,
    shared: list[structlog.typing.Processor],
    rendering: list[structlog.typing.Processor],
) -> None:
    """What libraries log and warn of, in the same form: the driver of the database, the event loop."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def _name_logger(
    _: object, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    record = event.get("_record")
    return event if record is None else {**event, "logger": record.name}


class _Patient(io.TextIOBase):
    """A stream that never raises: a full disk or a reader that left must not end what is logged about. What is
    written is flushed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)


def _rendering(*, is_terminal: bool) -> list[structlog.typing.Processor]:
    if is_terminal:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    # locals hold secrets
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [
        structlog.processors.ExceptionRenderer(tracebacks),
        structlog.processors.JSONRenderer(_json),
    ]


def _json(event: structlog.typing.EventDict, *, default: Callable[[Any], Any]) -> str:
    """One line of ASCII: a name in an event must not move a terminal's cursor, nor write from right to left."""
    # Half a surrogate pair or a number of many digits is for the slower encoder, too.
    with contextlib.suppress(ValueError, OverflowError):
        line = msgspec.json.encode(event, enc_hook=default)
        if line.isascii():
            return line.decode()
    return json.dumps(event, default=default)

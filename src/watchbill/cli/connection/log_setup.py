"""Where the long-running commands log: stderr, for people on a terminal, else one JSON object a line."""

import logging
import sys

import structlog

from watchbill.errors import Invalid

LEVELS = ("debug", "info", "warning", "error")


def log_to_stderr(level: str) -> None:
    """Raises Invalid for an unknown level."""
    if level.lower() not in LEVELS:
        raise Invalid(f"There is no log level '{level}'.", details=f"Levels: {', '.join(LEVELS)}.")
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(stream=sys.stderr, level=max(number, logging.WARNING))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_rendering(is_terminal=sys.stderr.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _rendering(*, is_terminal: bool) -> list[structlog.typing.Processor]:
    if is_terminal:
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(exception_formatter=plain)]
    told = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # they hold secrets
    return [structlog.processors.ExceptionRenderer(told), structlog.processors.JSONRenderer()]

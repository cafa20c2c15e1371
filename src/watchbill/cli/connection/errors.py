"""How a command ends when it cannot do what it was asked: exit codes, and one line that says why."""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import typer

from watchbill.cli.connection.kubectl_words import usage_hint
from watchbill.cli.output.terminal import safe
from watchbill.errors import (
    Forbidden,
    Invalid,
    TooMany,
    Unauthenticated,
    Unavailable,
    WatchbillError,
)

OK = 0
FAILED = 1
"""Not found, refused, or failed on the way."""
USAGE = 2
"""The command was not understood, or means more than one thing."""
UNREACHABLE = 3
"""The server cannot be reached, or does not accept the login."""
INTERRUPTED = 130
PIPE_CLOSED = 141

EXIT_CODES: dict[type[WatchbillError], int] = {
    Invalid: USAGE,
    Unauthenticated: UNREACHABLE,
    Unavailable: UNREACHABLE,
}
_HINTS: dict[type[WatchbillError], str] = {
    Unauthenticated: "check the client id and the secret; `watchbill --help` says where they come from",
    Forbidden: "ask an administrator for an access rule",
    TooMany: "wait a moment and run the command again",
    Unavailable: "wait a moment and run the command again; `watchbill doctor` looks for the cause",
}
"""What to do where the error itself does not say."""
_SYSTEM_HINTS: dict[int, str] = {
    errno.ENOSPC: "free space on the disk, or write somewhere else",
    errno.EDQUOT: "free space within the quota, or write somewhere else",
    errno.EROFS: "the file system is read-only; write somewhere else",
    errno.EACCES: "check who owns it and who may use it",
    errno.EPERM: "check who owns it and who may use it",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file, not a folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EADDRINUSE: "another program holds the port; end it or choose another port",
}
"""By the operating system's error number."""
DEBUG_VARIABLE = "WATCHBILL_DEBUG"

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises when a command line does not fit; it exports only this subclass."""


class Ambiguous(Invalid):
    """A name that several workloads bear; `candidates` are lines that list them, safe already."""

    def __init__(self, message: str, *, candidates: Sequence[str], details: str) -> None:
        super().__init__(message, details=details)
        self.candidates = candidates


def exit_code(error: WatchbillError) -> int:
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), FAILED)


def report_error(error: Exception) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    if isinstance(error, WatchbillError):
        print_message("error", error.message)
        for line in error.candidates if isinstance(error, Ambiguous) else ():
            print(line, file=sys.stderr)
        hint = error.details or _hint(error)
        for line in (hint or "").splitlines():
            print_message("hint", line)
        return exit_code(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(_usage_message(error), file=sys.stderr)
        return USAGE
    if isinstance(error, UsageError):
        print_message("error", _usage_message(error))
        print_message("hint", usage_hint(error) or f"see `{_usage_command(error)} --help`")
        return USAGE
    if isinstance(error, OSError):
        return _report_system_error(error)
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    print_message("error", f"unexpected {type(error).__name__}: {error}")
    print_message(
        "hint",
        f"this is a bug in Watchbill; run again with {DEBUG_VARIABLE}=1 and report its output",
    )
    return FAILED


def _report_system_error(error: OSError) -> int:
    """What the operating system refused: a full disk, a missing folder, a file that may not be read."""
    what = f"Cannot use {error.filename}" if error.filename else "Cannot write the output"
    print_message("error", f"{what}: {error.strerror or error}.")
    print_message("hint", _SYSTEM_HINTS.get(error.errno or 0, "check the path and the disk"))
    return FAILED


def _hint(error: WatchbillError) -> str | None:
    if isinstance(error, TooMany | Unavailable) and error.retry_after_seconds:
        return f"run the command again in {error.retry_after_seconds} seconds"
    return _HINTS.get(type(error))


def print_message(what: str, message: str) -> None:
    print(f"{what}: {safe(message)}", file=sys.stderr)


def usage_error(message: str, *, hint: str | None = None) -> NoReturn:
    """The command line cannot be followed. Raises Invalid."""
    raise Invalid(message, details=hint)


def _usage_message(error: Exception) -> str:
    message: str = error.format_message()  # type: ignore[attr-defined]
    return message.replace("Value error, ", "")


def _usage_command(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "watchbill"

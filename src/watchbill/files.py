"""Files that a person named: read whole or refused in words; private ones written whole or not at all.

A private file is never readable by others than its owner, not even meanwhile.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from watchbill.errors import Invalid, WatchbillError


def read_text(path: Path) -> str:
    """Raises Invalid."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Invalid(f"Cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise Invalid(f"Cannot read {path}: it is not text in UTF-8.") from error


@contextmanager
def open_private(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes its place at `path` when the block ends, and leaves nothing where that fails.

    The folder is made where it is missing. Raises WatchbillError where the file cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def write_private(path: Path, content: bytes) -> None:
    """Raises WatchbillError where that cannot be done; what was there before then stays as it was."""
    with open_private(path) as file:
        file.write(content)


def unwritable(path: Path, error: OSError) -> WatchbillError:
    """What to raise where a file that a person named cannot be written."""
    return WatchbillError(
        f"Cannot write {path}: {error.strerror or error}.",
        details="nothing was written; check the folder, its permissions and the free space",
    )

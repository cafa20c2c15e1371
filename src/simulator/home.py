"""Where a demo keeps its things: a folder that was named, or one of its own that goes at the end."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from watchbill.errors import Conflict
from watchbill.private_files import write_private

_PREFIX = "watchbill-demo-"
_LOCK = "demo.lock"


@contextmanager
def demo_home(data_dir: Path | None) -> Iterator[Path]:
    """The folder, held by a lock while it is used. Raises Conflict where another demo uses it."""
    if data_dir is not None:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _locked(data_dir):
            yield data_dir
        return
    _sweep()
    home = Path(tempfile.mkdtemp(prefix=_PREFIX))
    # The database may run as another user, who has to pass through.
    home.chmod(0o711)
    try:
        with _locked(home):
            yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def write_credentials(path: Path, *, url: str, client_id: str, client_secret: str) -> None:
    """The whole file at once, readable by its owner alone."""
    content = {"url": url, "clientId": client_id, "clientSecret": client_secret}
    write_private(path, json.dumps(content, indent=2).encode() + b"\n")


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / _LOCK).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Another demo is using {home}.", details="End it, or name another folder."
            ) from None
        yield


def _sweep() -> None:
    """Remove what demos left that were killed: folders of ours whose lock nobody holds."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if home.is_symlink() or home.stat().st_uid != os.geteuid():
                continue
            with (home / _LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(home, ignore_errors=True)
        except OSError:
            # In use, just being made, or not ours to judge.
            continue

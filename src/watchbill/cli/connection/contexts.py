"""Servers that a person uses often, by name: a file only its owner may read, and which of them is in use.

A context is taken as a whole: no secret kept for one server ever goes to another.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watchbill.cli.connection.credentials import CREDENTIALS_VARIABLE, MEMBERS, NOTHING, CliLogin
from watchbill.errors import Invalid, NotFound

CONTEXTS_VARIABLE = "WATCHBILL_CONTEXTS"
CONTEXT_VARIABLE = "WATCHBILL_CONTEXT"
_SAYING = (
    CREDENTIALS_VARIABLE,
    "WATCHBILL_URL",
    "WATCHBILL_CLIENT_ID",
    "WATCHBILL_CLIENT_SECRET",
)
"""Where one of these is set, the context in use does not count."""


@dataclass(slots=True)
class Contexts:
    """`in_use` may be nothing, never a name that is not there."""

    logins: dict[str, CliLogin] = field(default_factory=dict)
    in_use: str | None = None

    def named(self, name: str) -> CliLogin:
        """Raises NotFound, naming those that there are."""
        if name not in self.logins:
            known = ", ".join(sorted(self.logins))
            raise NotFound(
                f"There is no context '{name}'.",
                details=f"contexts: {known}" if known else "make one with `watchbill context set`",
            )
        return self.logins[name]


def contexts_file(environ: Mapping[str, str]) -> Path:
    if environ.get(CONTEXTS_VARIABLE):
        return Path(environ[CONTEXTS_VARIABLE])
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "watchbill" / "contexts.json"


def read_contexts(path: Path) -> Contexts:
    """None at all where there is no file. Raises Invalid where others may read it, or it is none of ours."""
    try:
        if path.stat().st_mode & 0o077:
            raise Invalid(
                f"Others may read the contexts in {path}.", details=f"run `chmod 600 {path}`"
            )
        found = json.loads(path.read_text(encoding="utf-8"))
        logins = {name: _login(entry) for name, entry in found["contexts"].items()}
        in_use = found.get("inUse")
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"The contexts in {path} are not understood: {error}.") from error
    return Contexts(logins, in_use if in_use in logins else None)


def _login(entry: Any) -> CliLogin:
    found = {name: entry.get(member, "") for name, member in MEMBERS.items()}
    if not all(isinstance(value, str) and value for value in found.values()):
        raise TypeError("a context holds an address, an id and a secret")
    return CliLogin(**found)


def write_contexts(path: Path, contexts: Contexts) -> None:
    """All at once, and never readable by others, not even for a moment."""
    document = {
        "inUse": contexts.in_use,
        "contexts": {
            name: {member: getattr(login, one) for one, member in MEMBERS.items()}
            for name, login in sorted(contexts.logins.items())
        },
    }
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
        fresh.replace(path)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise Invalid(f"Cannot write the contexts to {path}: {error.strerror}.") from error


def with_context(
    flags: CliLogin, name: str | None, credentials: Path | None, environ: Mapping[str, str]
) -> CliLogin:
    """The flags, completed by the context that is named, or by the one in use where nothing else says
    anything. Raises Invalid, NotFound."""
    wanted = name or environ.get(CONTEXT_VARIABLE)
    if wanted:
        return _completed(flags, wanted, read_contexts(contexts_file(environ)).named(wanted))
    if flags != NOTHING or credentials is not None or any(environ.get(one) for one in _SAYING):
        return flags
    contexts = read_contexts(contexts_file(environ))
    return contexts.logins[contexts.in_use] if contexts.in_use is not None else flags


def _completed(flags: CliLogin, name: str, context: CliLogin) -> CliLogin:
    if flags.url and flags.url.rstrip("/") != context.url.rstrip("/"):
        raise Invalid(f"--url and the context '{name}' name different servers.")
    if flags.client_id or flags.client_secret:
        return CliLogin(
            url=context.url, client_id=flags.client_id, client_secret=flags.client_secret
        )
    return context

"""Which server, and as whom: from flags, files and variables to the client of one command.

Each of address, id and secret is taken from the first source that names it: flags, the credentials file, the
WATCHBILL_… variables, the context in use, the RUNAI_… variables. A context is taken as a whole, and the RUNAI_…
variables count only where nothing else says anything: no secret of one server ever goes to another.
"""

import functools
import inspect
import json
import os
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from watchbill.cli.output.terminal import Terminal, terminal
from watchbill.errors import Invalid, NotFound

if TYPE_CHECKING:
    from watchbill.client import Client

LOGIN_FILE_VARIABLE = "WATCHBILL_LOGIN_FILE"
CA_FILE_VARIABLE = "WATCHBILL_CA_FILE"
CREDENTIALS_VARIABLE = "WATCHBILL_CREDENTIALS"
MEMBERS = {"url": "url", "client_id": "clientId", "client_secret": "clientSecret"}
URL_VARIABLES = {"WATCHBILL": "WATCHBILL_URL", "RUNAI": "RUNAI_BASE_URL"}
CaFile = Annotated[
    Path | None,
    typer.Option(
        envvar=CA_FILE_VARIABLE,
        metavar="FILE",
        help="Certificate authorities (PEM) to trust in addition to the system's.",
    ),
]

_HOW = (
    "give --credentials FILE, a JSON file with url, clientId and clientSecret "
    "(or name it in WATCHBILL_CREDENTIALS)\n"
    "or run `watchbill login --url URL` to log in as yourself\n"
    "or keep them once: `watchbill context set NAME --url URL --client-id ID`\n"
    "or set WATCHBILL_URL, WATCHBILL_CLIENT_ID and WATCHBILL_CLIENT_SECRET\n"
    "or pass --url, --client-id and --client-secret"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CliLogin:
    """What one source says; the result of `find_login` has every member."""

    url: str = ""
    client_id: str = ""
    client_secret: str = ""


NO_LOGIN = CliLogin()


def find_login(
    flags: CliLogin,
    credentials: Path | None,
    environ: Mapping[str, str],
    *,
    is_address_enough: bool = False,
) -> CliLogin:
    """Raises Invalid, saying what is missing and how to give it."""
    sources = [flags]
    named = credentials or (Path(environ[CREDENTIALS_VARIABLE]) if _has_file(environ) else None)
    if named is not None:
        sources.append(read_credentials(named))
    sources.append(_from_environment(environ, "WATCHBILL"))
    if all(source == NO_LOGIN for source in sources[1:]):
        sources.append(_from_environment(environ, "RUNAI"))
    url = next((source.url for source in sources if source.url), "")
    client_id = next((source.client_id for source in sources if source.client_id), "")
    client_secret = next((source.client_secret for source in sources if source.client_secret), "")
    login = CliLogin(url=url, client_id=client_id, client_secret=client_secret)
    _check(login, is_address_enough=is_address_enough)
    return login


def login_file(environ: Mapping[str, str]) -> Path:
    """Where `watchbill login` keeps the person's login."""
    if environ.get(LOGIN_FILE_VARIABLE):
        return Path(environ[LOGIN_FILE_VARIABLE])
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "watchbill" / "login.json"


def default_ca_file(environ: Mapping[str, str]) -> Path | None:
    """Certificates to trust in addition to the system's, for commands without that option."""
    return Path(environ[CA_FILE_VARIABLE]) if environ.get(CA_FILE_VARIABLE) else None


def names_account(flags: CliLogin, credentials: Path | None, environ: Mapping[str, str]) -> bool:
    """Whether anything names a service account: then the person's own login does not count."""
    sources = (flags, _from_environment(environ, "WATCHBILL"), _from_environment(environ, "RUNAI"))
    is_named = any(source.client_id or source.client_secret for source in sources)
    return is_named or credentials is not None or _has_file(environ)


def _check(login: CliLogin, *, is_address_enough: bool) -> None:
    missing = [
        words
        for words, value in (
            ("the server's address", login.url),
            ("the client id", login.client_id),
            ("the client secret", login.client_secret),
        )
        if not value
    ][: 1 if is_address_enough and not login.url else None]
    if missing and not (is_address_enough and login.url):
        raise Invalid(f"{_listed(missing)} {_is(missing)} not given.", details=_HOW)
    if not login.url.startswith(("http://", "https://")):
        raise Invalid(
            f"'{login.url}' is not the URL of a server.",
            details="write it with its scheme, as in https://watchbill.example.com",
        )


def read_credentials(path: Path) -> CliLogin:
    """The file that `watchbill demo --credentials` writes. Raises Invalid."""
    try:
        members = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(
            f"Cannot read the credentials file {path}: {error.strerror}.", details=_HOW
        ) from error
    except ValueError as error:
        raise Invalid(f"The credentials file {path} is not JSON.", details=_HOW) from error
    if not isinstance(members, dict) or not all(
        isinstance(members.get(member, ""), str) for member in MEMBERS.values()
    ):
        raise Invalid(
            f"The credentials file {path} is not a JSON object whose values are strings.",
            details=_HOW,
        )
    return CliLogin(**{name: members.get(member, "") for name, member in MEMBERS.items()})


def _has_file(environ: Mapping[str, str]) -> bool:
    return bool(environ.get(CREDENTIALS_VARIABLE))


def _from_environment(environ: Mapping[str, str], prefix: str) -> CliLogin:
    return CliLogin(
        url=environ.get(URL_VARIABLES[prefix], ""),
        client_id=environ.get(f"{prefix}_CLIENT_ID", ""),
        client_secret=environ.get(f"{prefix}_CLIENT_SECRET", "") or _secret_file(environ, prefix),
    )


def _secret_file(environ: Mapping[str, str], prefix: str) -> str:
    """The secret in the file that the environment names. Raises Invalid where it cannot be read."""
    name = environ.get(f"{prefix}_CLIENT_SECRET_FILE", "") if prefix == "WATCHBILL" else ""
    if not name:
        return ""
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise Invalid(f"Cannot read {prefix}_CLIENT_SECRET_FILE, {name}: {reason}.") from error


def _listed(words: list[str]) -> str:
    joined = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return joined[0].upper() + joined[1:]


def _is(words: list[str]) -> str:
    return "are" if len(words) > 1 else "is"


CONTEXTS_VARIABLE = "WATCHBILL_CONTEXTS"
CONTEXT_VARIABLE = "WATCHBILL_CONTEXT"
_SAYING = (
    CREDENTIALS_VARIABLE,
    "WATCHBILL_URL",
    "WATCHBILL_CLIENT_ID",
    "WATCHBILL_CLIENT_SECRET",
    "WATCHBILL_CLIENT_SECRET_FILE",
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
                details=f"contexts: {known}"
                if known
                else "create one with `watchbill context set`",
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
                f"Other users can read the contexts in {path}.", details=f"run `chmod 600 {path}`"
            )
        document = json.loads(path.read_text(encoding="utf-8"))
        logins = {name: _login(entry) for name, entry in document["contexts"].items()}
        in_use = document.get("inUse")
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise Invalid(f"Cannot read the contexts in {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(
            f"The contexts in {path} are invalid: {error}.",
            details="correct the file, or remove it and run `watchbill context set` again",
        ) from error
    return Contexts(logins, in_use if in_use in logins else None)


def _login(entry: Any) -> CliLogin:
    members = {name: entry.get(member, "") for name, member in MEMBERS.items()}
    if not all(isinstance(value, str) and value for value in members.values()):
        raise TypeError("a context holds an address, an id and a secret")
    return CliLogin(**members)


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Raises WatchbillError where that cannot be done."""
    from watchbill.files import write_private

    document = {
        "inUse": contexts.in_use,
        "contexts": {
            name: {member: getattr(login, attribute) for attribute, member in MEMBERS.items()}
            for name, login in sorted(contexts.logins.items())
        },
    }
    write_private(path, json.dumps(document, indent=2).encode() + b"\n")


def with_context(
    flags: CliLogin, name: str | None, credentials: Path | None, environ: Mapping[str, str]
) -> CliLogin:
    """The flags, completed by the context that is named, or by the one in use where nothing else says
    anything. Raises Invalid, NotFound."""
    wanted = name or environ.get(CONTEXT_VARIABLE)
    if wanted:
        return _completed(flags, wanted, read_contexts(contexts_file(environ)).named(wanted))
    if (
        flags != NO_LOGIN
        or credentials is not None
        or any(environ.get(variable) for variable in _SAYING)
    ):
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


P = ParamSpec("P")


@dataclass(slots=True)
class CommandContext:
    """One command's client and where it writes."""

    open_client: Callable[[], "Client"]
    """Raises Invalid where nothing says which server, or as whom."""
    terminal: Terminal
    time_zone: tzinfo = UTC
    ca_file: Path | None = None
    """Certificates that the command is to trust."""
    _client: "Client | None" = None

    @property
    def client(self) -> "Client":
        """Made where it is first needed: whoever mistyped an option reads that before a login is missing."""
        if self._client is None:
            self._client = self.open_client()
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def now(self) -> datetime:
        """In the time zone that times are shown in."""
        return datetime.now(self.time_zone)


TIME_ZONE_VARIABLE = "WATCHBILL_TIME_ZONE"


_MACHINE_ZONE = Path("/etc/localtime")


def find_time_zone(name: str, environ: Mapping[str, str]) -> tzinfo:
    """`local` is that of TZ, else the machine's, else UTC. Raises Invalid where there is none of that name."""
    from zoneinfo import ZoneInfo

    try:
        if name == "local" and not environ.get("TZ") and _MACHINE_ZONE.exists():
            with _MACHINE_ZONE.open("rb") as file:
                return ZoneInfo.from_file(file, key="local")
        if name == "local":
            name = environ.get("TZ") or "UTC"
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise Invalid(
            f"There is no time zone '{name}'.",
            details="write UTC, local, or a name such as Europe/Berlin",
        ) from error


def _common(
    *,
    url: Annotated[str, typer.Option(help="Address of the server.", show_default=False)] = "",
    client_id: Annotated[
        str, typer.Option(help="Id of the service account.", show_default=False)
    ] = "",
    client_secret: Annotated[
        str,
        typer.Option(
            help="Secret of the service account; other users of the machine can see "
            "flags, so a file is safer.",
            show_default=False,
        ),
    ] = "",
    credentials: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON file with url, clientId and clientSecret."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Context to use, as kept by `watchbill context set`.")
    ] = None,
    time_zone: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Time zone of the times shown: local, or a name such as Europe/Berlin; "
            "data stays in UTC.  "
            "[WATCHBILL_TIME_ZONE; default UTC]",
            show_default=False,
        ),
    ] = "",
    ca_file: CaFile = None,
    no_color: Annotated[bool, typer.Option("--no-color", help="Print without colors.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
) -> None:
    """The flags themselves; only the signature is used."""


COMMON = tuple(inspect.signature(_common).parameters.values())


def server_command(
    command: Callable[Concatenate[CommandContext, P], Coroutine[Any, Any, None]],
    *,
    is_address_enough: Callable[[dict[str, Any]], bool] = lambda options: False,
) -> Callable[..., None]:
    """The command as typer takes it: with the common flags, synchronous, its session opened and closed.

    `is_address_enough`: with which options it needs no login.
    """

    @functools.wraps(command)
    def run(**options: Any) -> None:
        common = {parameter.name: options.pop(parameter.name) for parameter in COMMON}
        is_debugging = common.pop("debug")
        try:
            _run(command, common, options, is_address_enough=is_address_enough(options))
        except Exception:
            if is_debugging:
                traceback.print_exc()
            raise

    own = list(inspect.signature(command).parameters.values())[1:]
    keyword = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *COMMON)
    ]
    run.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword}
    return run


def _run(
    command: Callable[..., Coroutine[Any, Any, None]],
    common: dict[str, Any],
    options: dict[str, Any],
    *,
    is_address_enough: bool,
) -> None:
    screen = terminal(
        os.environ, no_color=common["no_color"], is_wide=options.get("output") == "wide"
    )
    time_zone = find_time_zone(
        common["time_zone"] or os.environ.get(TIME_ZONE_VARIABLE) or "UTC", os.environ
    )

    import asyncio

    async def ask() -> None:
        open_client = functools.partial(_open_client, common, is_address_enough=is_address_enough)
        context = CommandContext(open_client, screen, time_zone, common["ca_file"])
        try:
            await command(context, **options)
        finally:
            await context.close()

    asyncio.run(ask())


def _open_client(common: Mapping[str, Any], *, is_address_enough: bool) -> "Client":
    """By the common flags, else by whatever names a server and a login. Raises Invalid, NotFound."""
    credentials = common["credentials"]
    given = CliLogin(
        url=common["url"], client_id=common["client_id"], client_secret=common["client_secret"]
    )
    flags = with_context(given, common["context"], credentials, os.environ)
    return client_factory(
        flags, credentials, ca_file=common["ca_file"], is_address_enough=is_address_enough
    )()


def client_factory(
    flags: CliLogin,
    credentials: Path | None,
    *,
    ca_file: Path | None = None,
    is_address_enough: bool = False,
) -> Callable[[], "Client"]:
    """As a service account where anything names one, else as the person who is logged in here. Raises Invalid
    where nothing says which server, or as whom."""
    if not names_account(flags, credentials, os.environ):
        path = login_file(os.environ)
        if path.exists():
            from watchbill.client.login import LoginClient, read_login

            stored = read_login(path)
            wanted = (flags.url or os.environ.get("WATCHBILL_URL", "")).rstrip("/")
            if stored is not None and wanted in ("", stored.url):
                return functools.partial(LoginClient, path, stored, ca_file=ca_file)
    from watchbill.client import Client

    login = find_login(flags, credentials, os.environ, is_address_enough=is_address_enough)
    return functools.partial(
        Client, login.url, login.client_id, login.client_secret, ca_file=ca_file
    )

"""Which server, and as whom: flags, the credentials file, WATCHBILL_… variables, RUNAI_… variables.

Each of the three things is taken from the first source that names it. The RUNAI_… variables count only where
neither the file nor a WATCHBILL_… variable says anything: no secret of one server ever goes to the other.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from watchbill.errors import Invalid

LOGIN_FILE_VARIABLE = "WATCHBILL_LOGIN_FILE"
CREDENTIALS_VARIABLE = "WATCHBILL_CREDENTIALS"
MEMBERS = {"url": "url", "client_id": "clientId", "client_secret": "clientSecret"}
URL_VARIABLES = {"WATCHBILL": "WATCHBILL_URL", "RUNAI": "RUNAI_BASE_URL"}

_HOW = (
    "give --credentials FILE, a JSON file with url, clientId and clientSecret "
    "(or name it in WATCHBILL_CREDENTIALS)\n"
    "or run `watchbill login --url URL` to log in as yourself\n"
    "or set WATCHBILL_URL, WATCHBILL_CLIENT_ID and WATCHBILL_CLIENT_SECRET\n"
    "or pass --url, --client-id and --client-secret"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CliLogin:
    """What one source says; the result of `find_login` has every member."""

    url: str = ""
    client_id: str = ""
    client_secret: str = ""


NOTHING = CliLogin()


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
    if all(source == NOTHING for source in sources[1:]):
        sources.append(_from_environment(environ, "RUNAI"))
    url = next((source.url for source in sources if source.url), "")
    client_id = next((source.client_id for source in sources if source.client_id), "")
    client_secret = next((source.client_secret for source in sources if source.client_secret), "")
    found = CliLogin(url=url, client_id=client_id, client_secret=client_secret)
    _check(found, is_address_enough=is_address_enough)
    return found


def login_file(environ: Mapping[str, str]) -> Path:
    """Where `watchbill login` keeps the person's login."""
    if environ.get(LOGIN_FILE_VARIABLE):
        return Path(environ[LOGIN_FILE_VARIABLE])
    home = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "watchbill" / "login.json"


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
            f"'{login.url}' is no address of a server.",
            details="write it with its scheme, as in https://watchbill.example.com",
        )


def read_credentials(path: Path) -> CliLogin:
    """The file that `watchbill demo --credentials` writes. Raises Invalid."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"Cannot read the credentials file {path}: {error.strerror}.") from error
    except ValueError as error:
        raise Invalid(f"The credentials file {path} is no JSON.", details=_HOW) from error
    if not isinstance(found, dict) or not all(
        isinstance(found.get(member, ""), str) for member in MEMBERS.values()
    ):
        raise Invalid(f"The credentials file {path} is no JSON object of texts.", details=_HOW)
    return CliLogin(**{name: found.get(member, "") for name, member in MEMBERS.items()})


def _has_file(environ: Mapping[str, str]) -> bool:
    return bool(environ.get(CREDENTIALS_VARIABLE))


def _from_environment(environ: Mapping[str, str], prefix: str) -> CliLogin:
    return CliLogin(
        url=environ.get(URL_VARIABLES[prefix], ""),
        client_id=environ.get(f"{prefix}_CLIENT_ID", ""),
        client_secret=environ.get(f"{prefix}_CLIENT_SECRET", ""),
    )


def _listed(words: list[str]) -> str:
    joined = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return joined[0].upper() + joined[1:]


def _is(words: list[str]) -> str:
    return "are" if len(words) > 1 else "is"

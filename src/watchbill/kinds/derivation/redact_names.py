"""Names that say that their value is secret, and values that are none although their name sounds like it."""

import re
from functools import lru_cache

from watchbill.kinds.derivation.redact_forms import HIDDEN, unreadable_length

NAME_LENGTH = 253
"""So much of a name is looked at: its end, where the word stands that says what it is."""
ORDINARY_LENGTH = 256
"""Longer values than this are never ordinary."""

_SECRET = re.compile(
    "KEY|TOKEN|SECRET|PASS|PWD|CRED|AUTH|PRIVATE|SAS|DSN|CONN|SIGNATURE|JWT|BEARER|COOKIE|WEBHOOK"
    "|^SIG$|(?:^|[_.-])(?:PAT|PIN|OTP|SALT)$",
    re.IGNORECASE,
)
_STRONG = re.compile("SECRET|PASS|PWD|CRED|PRIVATE", re.IGNORECASE)
_INNOCENT = re.compile(
    r"(?:DE)?TOKENI[SZ](?:ERS?|E[DS]?|ING|ATION)|AUTHORS?(?!I)|BYPASS|COMPASS|PASSAGES?|PASSIVE"
    r"|PASS_?THROUGH|KEYBOARD|KEYFRAMES?|KEYSPACE|KEYCLOAK|KEYWORDS?|KEYERROR|HOTKEYS?|MONKEY|TURKEY|WHISKEY"
    r"|DISASTER|KEEP_?ALIVE|SASHA|ACCREDITED|UNAUTHORI[SZ]ED|DISCONNECT(?:ED|S)?|CONNECTIVITY"
    r"|(?:FOREIGN|SORT|PARTITION|PUBLIC)_?KEYS?|KEY_?COLUMNS?|CONNECTORS?|CREDITS?|PASSES"
    r"|SASL_MECHANISM|IMAGE_?PULL_?SECRETS?|XAUTHORITY",
    re.IGNORECASE,
)
_FILE = re.compile(
    r"(?:^|[_-])(?:FILE|PATH|DIR|DIRECTORY|SOCK|SOCKET|MOUNT)$|^GOOGLE_APPLICATION_CREDENTIALS$",
    re.IGNORECASE,
)
_DESCRIBING = re.compile(
    r"[_.-](?:NAME|TYPE|MODE|METHOD|MECHANISM|PROVIDER|ALGORITHM|ALG|POLICY|FORMAT|HELPER|SOURCE"
    r"|STRATEGY|ISSUER|DOMAIN|HEADER|SCOPES?|BACKEND|CLASS|TTL|TIMEOUT|SIZE|LENGTH|ENDPOINT|URL|URI"
    r"|HOST|VERSION|REGION)$",
    re.IGNORECASE,
)
"""The end of a name that is about a secret: `SECRET_NAME`, `AUTH_MODE`, `TOKEN_ENDPOINT`."""
_NOT_DESCRIBING = re.compile("WEBHOOK|CONN|DSN|SAS", re.IGNORECASE)

_ORDINARY = re.compile(
    r"(?:true|false|yes|no|on|off|none|null|nil|auto|enabled|disabled|required|optional|default|)"
    r"|\*++"  # masked by somebody else
    r"|(?:\$\w++|\$[({]\w++[)}]|[/:@.,_-])++"  # references, and what joins them
    r"|\$\{\{[^{}]*+\}\}|\{\{[^{}]*+\}\}|\{[a-z_]++\}|%\([a-z_]++\)s"
    r"|<[/|]{0,2}[\w-]{1,20}+\|?>|\[[A-Z]{2,8}+\]",  # what language models call tokens: `</s>`
    re.IGNORECASE,
)
_SCHEME = re.compile(r"bearer|basic|token|digest|negotiate", re.IGNORECASE)
"""What stands in `Authorization: Bearer x` before the secret."""
_PRIMARY_KEY = re.compile(r"-{0,2}(?:\w+\.)?primary[_-]?keys?", re.IGNORECASE)
_COLUMNS = re.compile(r"[a-z][a-z_]{0,30}+(?:, ?[a-z][a-z_]{0,30}+){0,15}+")
"""What stands under a database's primary key; an account's primary key is a secret."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,7}(?:\.[0-9]{1,6})?(?:[kKmMgGsh%]|ms|min)?")
_PATH = re.compile(r"(?:~|\.{0,2})/[\w./@+-]*+")
_DESCRIPTION = re.compile(r"(?:https?://)?[\w.:/ -]{0,128}+")


def is_secret_name(name: str) -> bool:
    return _is_secret_name(name[-NAME_LENGTH:])


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    return _SECRET.search(_INNOCENT.sub("", name)) is not None


def is_strong_name(name: str) -> bool:
    """Whether a name speaks of a password, a secret or credentials: numbers are secret there, too."""
    return _STRONG.search(name[-NAME_LENGTH:]) is not None


def is_ordinary(name: str, value: str) -> bool:
    """Whether no secret looks like `value`, although `name` sounds like one's."""
    if len(value) > ORDINARY_LENGTH:
        return False
    if value == HIDDEN or _ORDINARY.fullmatch(value):
        return True
    name = name[-NAME_LENGTH:]
    if name.lower().endswith("authorization") and _SCHEME.fullmatch(value):
        return True
    if _NUMBER.fullmatch(value):
        return not is_strong_name(name)
    if _PRIMARY_KEY.fullmatch(name) and _COLUMNS.fullmatch(value):
        return True
    if _FILE.search(name) and _PATH.fullmatch(value):
        return True
    return _describes(name) and _is_description(value)


def _describes(name: str) -> bool:
    return _DESCRIBING.search(name) is not None and _NOT_DESCRIBING.search(name) is None


def _is_description(value: str) -> bool:
    """A name, an address or a word: `db-credentials`, `https://issuer.example.com/realm`, `RS256`."""
    if _DESCRIPTION.fullmatch(value) is None:
        return False
    return unreadable_length(value.replace(":", "/").replace(" ", "/")) == 0

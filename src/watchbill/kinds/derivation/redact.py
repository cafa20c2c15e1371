"""Secrets out of what people see: variables, commands, arguments, images, URLs and messages.

A value is hidden where its name says that it is secret, or where its own form does: the prefix of a known kind
of token, a PEM block, a URL with userinfo, or twenty and more characters too evenly mixed to be words. What is
hidden becomes one constant, which tells neither length nor content. Ordinary values stay: numbers and flags
under such a name, paths, digests, UUIDs, model names. docs/redaction.md tells what is promised.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from watchbill.kinds.objects.settings import Redaction
from watchbill.kinds.objects.template import Variable

HIDDEN = "***"

_NAME = re.compile(
    "KEY|TOKEN|SECRET|PASS|PWD|CRED|AUTH|PRIVATE|SAS|DSN|CONN|SIGNATURE|^SIG$", re.IGNORECASE
)
_STRONG_NAME = re.compile("SECRET|PASS|PWD|CRED|PRIVATE", re.IGNORECASE)
_INNOCENT_NAME = re.compile(
    r"TOKENI[SZ]\w*|AUTHORS?(?!I)|BYPASS|COMPASS|PASSAGE|PASSIVE|PASS_?THROUGH"
    r"|KEYBOARD|KEYFRAME|KEYSPACE|KEYCLOAK|HOTKEYS?|MONKEY|TURKEY|DISASTER|KEEP_?ALIVE"
    r"|(?:PRIMARY|FOREIGN|SORT|PARTITION)_?KEYS?|KEY_?COLUMNS?|CONNECTORS?|CREDITS?|PASSES"
    r"|AUTH_(?:MODE|TYPE|METHOD)|SASL_MECHANISM|SECRET_?NAME|IMAGE_?PULL_?SECRETS?",
    re.IGNORECASE,
)
_FILE_NAME = re.compile(
    r"[_-](?:FILE|PATH|DIR|DIRECTORY)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE
)
_FLAG = re.compile(r"(?:true|false|yes|no|on|off|none|null|auto|)", re.IGNORECASE)
_MARKER = re.compile(r"<[/|]{0,2}\w{1,20}\|?>")
"""What language models call tokens: `</s>`, `<|endoftext|>`."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,7}(?:\.[0-9]{1,6})?[kKmMgGsh%]?")
_VARIABLE = re.compile(r"\$\w+|\$[({]\w+[)}]|\{\{[^{}]*\}\}")
_PATH = re.compile(r"(?:~|\.{0,2})/[\w./@+-]*")

_VALUE = re.compile(
    r'\$[{(]\w{1,128}+[})]|\\"(?:[^\\]|\\(?!"))*+(?:\\")?|"[^"]*+"?|\'[^\']*+\'?|[^\s,;&"\'}\]]++'
)
_PAIR = re.compile(
    r"""(?<![\w.$-])([\w.-]{1,128}+)(\\?["']|)([ \t]{0,4}+(?:[:+]?=>?|:)[ \t]{0,4}+)"""
)
_OPTION = re.compile(r"(?<![\w.$-])(-{1,2}[A-Za-z][\w.-]{0,127}+)([ \t]++)(?!-)")
_USER_OPTIONS = frozenset({"-u", "--user", "--proxy-user"})
_USER_AND_SECRET = re.compile(r"(?![0-9]+:[0-9]+$)[^\s:/]{1,128}:\S+")
_OPTION_ALONE = re.compile(r"-[A-Za-z]|--[A-Za-z][\w.-]*(?:=.*)?", re.DOTALL)
_USERINFO = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,20}+://)"
    r"(?:[^/\s\"'?#]{1,512}@|[^/:@\s\"']{0,128}+:(?![0-9]{1,5}/)[^@\s\"'?#]{1,256}+@)"
)
_BEHIND = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # What a webhook's address consists of is its secret.
        r"(https://(?:hooks\.slack\.com/|discord(?:app)?\.com/api/webhooks/"
        r"|[\w-]{1,63}\.webhook\.office\.com/|api\.telegram\.org/bot))[^\s\"'<>]+",
        r"(\b(?:authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?:bearer|basic|token)|cookie:)\s{1,4})"
        r"(?!\*\*\*|[a-z]+(?:\s|$))[^\s\"'][^\r\n\"']*",
        r"(\blogin\s{1,4}\S{1,128}\s{1,4}password\s{1,4})\S+",  # .netrc
        r"(\bwandb\s{1,4}login\s{1,4}(?:--(?:relogin|verify|cloud)\s{1,4}){0,3})(?![-$*])[^\s;&|]+",
        r"((?<!\S)(?:-u|--user|--proxy-user)[ =])(?![0-9]+:[0-9]+(?:\s|$))[^\s:/\"']{1,128}:[^\s\"']+",
        r"(\bjdbc:oracle:\w{1,10}:)[^/\s]{1,128}/[^@\s]{1,256}(?=@)",
        r"((?<![\w:/]))[\w.-]{1,64}:[^\s@:/\"']{1,256}(?=@(?:tcp|unix)\()",  # Go's MySQL
    )
)
"""Where a secret has a place of its own: all that follows the first group goes."""
_IMAGE_USERINFO = re.compile(r"^[^/@\s]+:[^/@\s]*@(?![a-z0-9]+:[0-9a-fA-F]{32,})")
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL
)
_BEARER = re.compile(r"\b(bearer|basic)(\s{1,4})([A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(hf_|sk-|nvapi-)([A-Za-z0-9_-]{6,}+)"
    r"|(?:gh[pousr]_|github_pat_|gl(?:pat|dt|rt|ptt|soat|cbt)-|xox[abeoprs]-|npm_|pypi-|dop_v1_)"
    r"[A-Za-z0-9_-]{4,}+"
    r"|(?:gsk_|dckr_pat_|glsa_|hvs\.|SG\.|[rs]k_(?:live|test)_|wba\.|wbr_)[A-Za-z0-9_.-]{16,}+"
    r"|dapi[0-9a-f]{32}|[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,}+"
    r"|(?:AKIA|ASIA)[A-Z0-9]{8,}+"
    r"|(?:AIza|ya29\.)[A-Za-z0-9_-]{10,}+"
    r"|eyJ[A-Za-z0-9_-]{6,}+(?:\.[A-Za-z0-9_-]*+){0,4}"
    r")={0,2}"
)
_PIECE = re.compile(r"[A-Za-z0-9+/=_.~-]{20,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_WORD = re.compile(
    r"[0-9]{1,12}|[a-z]{1,14}|[A-Z]{1,14}|[A-Z][a-z]{1,13}"  # numbers and words
    r"|[A-Za-z]{1,12}[0-9]{1,4}[a-zA-Z]{0,2}|v?[0-9]{1,6}[A-Za-z]{1,3}[0-9]{0,3}"  # v2, 70B, fp16
    r"|[0-9]{8}T[0-9]{4,6}Z?"  # a timestamp
    r"|[0-9a-f]{6,64}|[0-9A-F]{6,64}"  # a digest: at most four bits a character
    r"|[bcdf-hj-np-tv-xz2-9]{4,10}"  # what Kubernetes appends to generated names
)
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRET_LENGTH = 20
_SECRET_BITS = 4.0
_STRANGE_CHARACTERS = 12
_STRANGE_IN_PATH = 20


def redact_variables(variables: Iterable[Variable], mode: Redaction) -> dict[str, str]:
    """Names and shown values. A reference is shown: it names where a secret is, not what it is."""
    return {
        variable.name: variable.value
        if variable.is_reference
        else redact_value(variable.name, variable.value, mode)
        for variable in variables
    }


@lru_cache(maxsize=8192)
def redact_value(name: str, value: str, mode: Redaction) -> str:
    """The value of a variable as it may be shown."""
    if mode is Redaction.OFF:
        return value
    if mode is Redaction.STRICT:
        return HIDDEN
    if is_secret_name(name) and not _is_ordinary(name, value):
        return HIDDEN
    return redact_text(value, mode)


def redact_arguments(arguments: Sequence[str], mode: Redaction) -> tuple[str, ...]:
    """A command or its arguments: `--api-key x`, `--api-key=x` and `K=V` lose their values."""
    if mode is Redaction.OFF:
        return tuple(arguments)
    shown: list[str] = []
    option = before = ""
    for argument in arguments:
        is_option = argument.startswith("-") and not any(mark in argument for mark in "= \t\n")
        name, equals, value = argument.partition("=")
        is_pair = before in _USER_OPTIONS and _USER_AND_SECRET.fullmatch(argument)
        is_value = option and not _is_next_option(argument) and not _is_ordinary(option, argument)
        if is_pair or is_value:
            shown.append(HIDDEN)
        elif equals and _is_plain(name) and is_secret_name(name) and not _is_ordinary(name, value):
            shown.append(f"{name}={HIDDEN}")
        elif mode is Redaction.STRICT and shown and not is_option:
            shown.append(_without_value(argument))
        else:
            shown.append(redact_text(argument, mode))
        option = argument if is_option and is_secret_name(argument) else ""
        before = argument
    return tuple(shown)


def _is_next_option(argument: str) -> bool:
    """After an option with a secret's name only `--word` and `-x` are options: a secret may begin so, too."""
    return _OPTION_ALONE.fullmatch(argument) is not None


def _is_plain(name: str) -> bool:
    return name.replace("-", "").replace("_", "").replace(".", "").isalnum()


def _without_value(argument: str) -> str:
    name, equals, _ = argument.partition("=")
    return f"{name}={HIDDEN}" if equals and name.startswith("-") else HIDDEN


def redact_image(image: str, mode: Redaction) -> str:
    """An image reference; digests and tags are long and even by nature, so only userinfo can go."""
    if mode is Redaction.OFF:
        return image
    without = _USERINFO.sub(rf"\g<1>{HIDDEN}@", _IMAGE_USERINFO.sub(f"{HIDDEN}@", image))
    return _KNOWN.sub(_hide_token, without)


@lru_cache(maxsize=8192)
def redact_text(text: str, mode: Redaction) -> str:
    """Free text or a URL: everything in it that looks like a secret is hidden."""
    if mode is Redaction.OFF or not text:
        return text
    text = _PEM.sub(HIDDEN, text)
    text = _USERINFO.sub(rf"\g<1>{HIDDEN}@", text)
    for pattern in _BEHIND:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    text = _hide_values(text, _PAIR)
    text = _hide_values(text, _OPTION)
    text = _BEARER.sub(_hide_bearer, text)
    text = _KNOWN.sub(_hide_token, text)
    return _PIECE.sub(_hide_piece, text)


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    return _NAME.search(_INNOCENT_NAME.sub("", name)) is not None


def _is_ordinary(name: str, value: str) -> bool:
    """A value that no secret has, although its name sounds like one."""
    if value == HIDDEN or any(one.fullmatch(value) for one in (_FLAG, _VARIABLE, _MARKER)):
        return True
    if _NUMBER.fullmatch(value):
        return _STRONG_NAME.search(name) is None
    return bool(_FILE_NAME.search(name) and _PATH.fullmatch(value))


def _hide_values(text: str, pattern: re.Pattern[str]) -> str:
    """Hide the value behind every name that `pattern` finds and that sounds secret."""
    shown: list[str] = []
    done = position = 0
    while (match := pattern.search(text, position)) is not None:
        position = match.end()
        if not is_secret_name(match[1]):
            continue
        value = _VALUE.match(text, position)
        if value is None:
            continue
        bare = value[0].strip("\\\"'")
        quote = next((mark for mark in ('\\"', '"', "'") if value[0].startswith(mark)), "")
        if _is_ordinary(match[1], bare) or (_is_prose(match) and not quote and _is_word(bare)):
            continue
        shown += (text[done:position], quote, HIDDEN, quote)
        done = position = value.end()
    return "".join((*shown, text[done:]))


def _is_prose(match: re.Match[str]) -> bool:
    """`token: unexpected status` is a sentence; `token=x`, `"token": "x"` and `--token x` are not."""
    return match.re is _PAIR and not match[2] and match[3].startswith(":") and match[3] != ":"


def _hide_bearer(match: re.Match[str]) -> str:
    return match[0] if _is_word(match[3]) else f"{match[1]}{match[2]}{HIDDEN}"


def _hide_token(match: re.Match[str]) -> str:
    # `hf_transfer` and `sk-learn` are words with a token's beginning.
    rest = match[2] or ""
    is_words = rest and len(rest) < _SECRET_LENGTH and _strange(rest) == 0
    return match[0] if is_words else HIDDEN


def _is_word(text: str) -> bool:
    return not any(character.isdigit() for character in text) and _strange(text) == 0


def _hide_piece(match: re.Match[str]) -> str:
    piece = match[0]
    if _bits_per_character(piece) <= _SECRET_BITS:
        return piece
    limit = _STRANGE_IN_PATH if "/" in piece else _STRANGE_CHARACTERS
    return HIDDEN if _strange(_UUID.sub("", piece)) >= limit else piece


def _bits_per_character(text: str) -> float:
    length = len(text)
    return -sum(n / length * math.log2(n / length) for n in Counter(text).values())


def _strange(text: str) -> int:
    """How many characters stand in parts that are no words, numbers, versions or digests."""
    return sum(
        len(part)
        for part in re.split(r"[/=+_.~-]+", text)
        if part and not _WORD.fullmatch(part) and not _is_camel(part)
    )


def _is_camel(part: str) -> bool:
    """Words joined without a mark, `MyLongName`: what is random falls into shorter parts."""
    words = _CAMEL.findall(part)
    return bool(words) and len(part) / len(words) >= 3.5 and max(map(len, words)) <= 14

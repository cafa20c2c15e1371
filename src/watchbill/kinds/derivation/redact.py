"""Secrets out of what people see: variables, commands, arguments, images, URLs and messages.

A value is hidden where its name, its own form or its place in a command says that it is secret; a list, an
object or a block that is such a value is hidden whole. What is hidden becomes one constant, which tells
neither length nor content. Ordinary values stay: numbers and flags under such a name, paths, digests, UUIDs,
model names. docs/redaction.md lists what is promised.

Every text is cut before it is looked at, and looked at in time linear in its length.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from watchbill.kinds.derivation.redact_commands import (
    KEYED_CALL,
    SCRIPT_OPTION,
    SEVERAL_KEYS,
    SHELL_NAME,
    WORD_LENGTH,
    Command,
)
from watchbill.kinds.derivation.redact_names import (
    HIDDEN,
    ORDINARY_LENGTH,
    hide_mixed,
    hide_pem_blocks,
    hide_tokens,
    is_image,
    is_ordinary,
    is_secret_name,
    is_wordy,
    names_a_credential,
)
from watchbill.kinds.derivation.redact_places import BUNDLER_LOGIN, PLACES
from watchbill.kinds.derivation.redact_structures import block_end, bracket_end, leaves
from watchbill.kinds.objects.settings import Redaction
from watchbill.kinds.objects.template import Variable

__all__ = [
    "HIDDEN",
    "MAX_TEXT",
    "redact_arguments",
    "redact_image",
    "redact_text",
    "redact_value",
    "redact_variables",
]

MAX_TEXT = 10_240
"""Characters of a text, or of all arguments of a command, that are looked at; the rest is cut off."""
CUT = "…"
_CACHED_LENGTH = 512
_BETWEEN_VALUES = " \t\n\"',;<>"
_MAX_DEPTH = 3
_MAX_COMMAND_WORDS = 64

_REFERENCE = r"\$\{[^{}\s]{0,128}+\}|[$<]\([^()\n]{0,1024}+\)?+|`[^`\n]{0,1024}+`?+"
_ESCAPED = r"\\(?:\r?\n|[ \t,;&])"
_PLAIN = r"[^\s,;&\"'}\]`$\\]++|[$\\](?![\s\"])"
_NESTED = r'\\"(?:[^\\]|\\(?!"))*+(?:\\")?|\\{2,15}"[^"]*+"?'
_QUOTED = {'"': r'"(?:[^"\\]|\\.)*+"?', "'": r"'(?:[^']|'\\'')*+'?"}


def _value_pattern(*quotes: str) -> re.Pattern[str]:
    """A value as a shell joins it of pieces; only these quotes begin a further piece of it."""
    first = "|".join((_NESTED, *_QUOTED.values(), _REFERENCE, _ESCAPED, _PLAIN))
    further = "|".join((*(_QUOTED[quote] for quote in quotes), _REFERENCE, _ESCAPED, _PLAIN))
    return re.compile(rf"(?:{first})(?:{further})*+", re.DOTALL)


_VALUE_OUTSIDE = _value_pattern('"', "'")
_VALUE_INSIDE = {'"': _value_pattern("'"), "'": _value_pattern('"')}
"""Within a text in such quotes the next one of them ends the text."""
_TO_QUOTE = {"'": re.compile(r"[^']++"), '"': re.compile(r'(?:[^"\\]|\\.)++', re.DOTALL)}
_PAIR = re.compile(
    r"""(?<![\w.$-])([\w.-]{1,128}+)(\\{0,15}+["']|)[\]}]?+([ \t]{0,64}+(?:[:+?]?=>?|:)[ \t]{0,64}+)"""
)
_ARGUMENT = re.compile(
    r"""["'](-{1,2}[A-Za-z][\w-]{0,127}+|[A-Z][A-Z0-9_]{2,127}+|[Xx]-[\w-]{1,126}+|[Aa]pi-?[Kk]ey"""
    r"""|[Aa]uthorization|[Cc]ookie)["'][ \t]{0,8}+,[ \t]{0,8}+(?=["'])"""
    r"""(?!["'][^"'\n]{0,128}+["'][ \t]{0,8}+:)"""
)
"""`["--token", "x"]`, `("x-api-key", "x")` and `setdefault("HF_TOKEN", "x")`, but not
`"protocol": "SASL_SSL", "mechanism": "x"`."""
_CALL = re.compile(r"""(?<![\w.$-])([A-Za-z_][\w.]{0,127}+)\([ \t]{0,8}+(?=b?["'])""")
_VARIABLE = re.compile(r"""\$([A-Za-z_]\w{0,127}+)[ \t]{0,8}+=[ \t]{0,8}+(?=["'])""")
"""`$password = "x"`, as PowerShell, PHP and Perl write it."""
_INDEXED = re.compile(r"""\[\\?["']([\w.-]{1,128}+)\\?["']\]["']?[ \t]{1,8}+["']?(?=\\?["'\[{])""")
"""`["db"]["password"] "x"`, as sops takes it."""
_VALUE_ATTRIBUTE = re.compile(r"""<([A-Za-z][\w.-]{0,127}+)\s{1,8}+value=(?=["'])""")
"""`<apiKey value="x"/>`."""
_PROPERTY = re.compile(
    r"(?:^|(?<=[\n\"']))((?:spark|ssl|sasl)\.[\w.]{1,128}+)[ \t]{1,8}+(?=[^\s=])"
)
"""`spark.ssl.keyPassword x`, as spark-defaults.conf has it."""
_HEADER_STATEMENT = re.compile(
    r"\b(?:(?:proxy|grpc|uwsgi)_set_header|(?:set|add)-header|RequestHeader[ \t]{1,8}+(?:set|add)|header_up)"
    r"[ \t]{1,8}+([A-Za-z][\w-]{0,127}+)[ \t]{1,8}+(?=\S)"
)
"""`proxy_set_header X-Api-Key "x"`, as nginx, HAProxy, Apache and Caddy write it."""
_STATEMENT = re.compile(
    r"\b(?:ENV|ARG|setenv|set(?:[ \t]{1,8}+-[a-z]{1,3}+)?(?=[ \t]{1,8}+[A-Z]))[ \t]{1,8}+"
    r"([A-Za-z_]\w{0,127}+)[ \t]{1,8}+(?=[^\s=])"
)
_OPTION = re.compile(r"(?<![\w.$-])(-{1,2}[A-Za-z][\w.-]{0,127}+)((?:[ \t]|\\\r?\n){1,64}+)(?!-)")
_NAME_AND_VALUE = re.compile(
    r"""\b(?:name|key)["'\\>]{0,2}+[ \t]{0,64}+[:=]?[ \t]{0,64}+["'\\]{0,2}+([\w.-]{1,128}+)"""
    r"""(?:</name>|["'\\,\s]){1,24}+<?["'\\]{0,2}+(?:[\w.]{1,64}+\[[0-9]{1,4}+\]\.)?+"""
    r"""value["'\\>]{0,2}+[ \t]{0,64}+[:=]?[ \t]{0,64}+""",
    re.IGNORECASE,
)
"""`{"name": "DB_PASSWORD", "value": "x"}`, as lists of variables and Hadoop's XML have it."""
_KEYED_ELEMENT = re.compile(r"""\b(?:name|key)=["']([\w.-]{1,128}+)["'][^<>\n]{0,64}+>(?=[^<\s])""")
_ELEMENT = re.compile(r"<([A-Za-z][\w.-]{0,127}+)(?:\s[^<>]{0,128}+)?>([^<]{1,4096}+)(?=</)")
_QUOTED_PIECE = r""""(?:[^"\\]|\\.)*+"|'[^']*+'"""
_SUBSTITUTION = r"[$<]\([^()\n]{0,1024}+\)"
_SHELL = re.compile(
    rf"""(?P<continued>[\\`^]\r?\n)|(?P<end>[;&|\n]++)|(?P<quoted>(?:{_QUOTED_PIECE})(?![^\s;&|]))"""
    rf"""|(?:{_QUOTED_PIECE}|{_SUBSTITUTION}|[^\s;&|\\]|\\(?!\r?\n)["']?)++""",
    re.DOTALL,
)
"""Words of a command, of which a shell joins quoted pieces: `-p'a b'` is one."""
_PIECES = re.compile(rf"(?P<substituted>{_SUBSTITUTION})|{_QUOTED_PIECE}", re.DOTALL)
_LEADING_REFERENCE = re.compile(r"""["']?\$(?:\w++|\{\w++\}|\([^()\n]{1,256}+\))["']?\s""")
"""`TOKEN=$X python t.py` is a command, of which the first word alone is the token's."""
_OPTION_ALONE = re.compile(r"-[A-Za-z]|--[A-Za-z][\w.-]{0,127}+(?:=.*)?", re.DOTALL)
_USERINFO_CHARACTER = r"(?:[^\s\"'<>]|[\"'](?![\s,;:)\]}>]))"
"""A quote that ends a text is followed by a mark; in a password anything may follow."""
_USERINFO = re.compile(
    r"(://)(?:(?!git@)[^/\s\"'?#]{1,256}@"
    rf"|[^/:@\s\"']{{0,128}}+:(?![0-9]{{1,5}}[/?#]){_USERINFO_CHARACTER}{{1,256}}@"
    r"|(?<!http://)(?<!https://)[^/:@\s\"'.]{0,128}+:[0-9]{1,5}[/?#][^\s\"'<>@]{1,256}@(?!sha))"
)
_IMAGE_USERINFO = re.compile(r"^[^/@\s]+:[^/@\s]*@(?![a-z0-9]+:[0-9a-fA-F]{32,})")
_BUNDLER_LOGIN = re.compile(BUNDLER_LOGIN)
_BEARER = re.compile(r"\b(bearer|basic)(\s{1,4})([A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE)


_NAMES = (
    *(_NAME_AND_VALUE, _KEYED_ELEMENT, _ARGUMENT, _CALL, _STATEMENT, _VARIABLE, _INDEXED),
    *(_HEADER_STATEMENT, _PROPERTY, _VALUE_ATTRIBUTE),
    *(_PAIR, _OPTION),
)
"""Where a name in the first group says of the value behind it that it is secret."""


def redact_variables(variables: Iterable[Variable], mode: Redaction) -> dict[str, str]:
    """Names and shown values. A reference is shown: it names where a secret is, not what it is."""
    return {
        variable.name: variable.value
        if variable.is_reference
        else redact_value(variable.name, variable.value, mode)
        for variable in variables
    }


def redact_value(name: str, value: str, mode: Redaction) -> str:
    """The value of a variable as it may be shown."""
    if mode is Redaction.OFF:
        return value
    if mode is Redaction.STRICT:
        return HIDDEN
    if is_secret_name(name) and not (
        is_ordinary(name, value) or _holds_nothing_secret(name, value)
    ):
        return HIDDEN
    if name.startswith("BUNDLE_") and _BUNDLER_LOGIN.match(f"{name}={value[:ORDINARY_LENGTH]}"):
        return HIDDEN
    return redact_text(value, mode)


def redact_arguments(
    arguments: Sequence[str], mode: Redaction, command_words: Sequence[str] = ()
) -> tuple[str, ...]:
    """A command or its arguments: `--api-key x`, `--api-key=x` and `K=V` lose their values.

    `command_words` stand before them: `mysql` before `-px`, `sh -c` before a script."""
    if mode is Redaction.OFF:
        return tuple(arguments)
    shown: list[str] = []
    command = Command()
    option = previous = ""
    keys = has_shell = False
    for word in command_words[:_MAX_COMMAND_WORDS]:
        command.secret_start(word[:WORD_LENGTH])
        previous = word[:WORD_LENGTH]
        has_shell = has_shell or SHELL_NAME.fullmatch(previous) is not None
        option = previous if _is_option(previous) and is_secret_name(previous) else ""
    left = MAX_TEXT
    for argument in arguments:
        if left <= 0:
            return (*shown, CUT)
        is_cut = len(argument) > left
        argument = _cut(argument, left)
        left = 0 if is_cut else left - len(argument) - 1
        start = command.secret_start(argument)
        is_named = option and not is_ordinary(option, argument)
        if (is_named or (keys and not is_wordy(argument))) and not _OPTION_ALONE.fullmatch(
            argument
        ):
            # After an option with a secret's name only `--word` and `-x` are options.
            shown.append(HIDDEN)
        elif start is not None:
            shown.append(argument[:start] + HIDDEN)
        else:
            is_script = _is_script(argument, previous, has_shell=has_shell)
            shown.append(_redact_argument(argument, mode, is_first=not shown, is_script=is_script))
        previous = argument
        has_shell = has_shell or SHELL_NAME.fullmatch(argument) is not None
        option = argument if _is_option(argument) and is_secret_name(argument) else ""
        keys = argument in SEVERAL_KEYS or (keys and not _is_option(argument))
    return tuple(shown)


def _redact_argument(argument: str, mode: Redaction, *, is_first: bool, is_script: bool) -> str:
    name, equals, value = argument.partition("=")
    is_strict = mode is Redaction.STRICT and not is_first
    if equals and not (is_strict or is_script) and _is_option(name) and not is_secret_name(name):
        # `--env=PASSWORD=a;b`
        inner, inner_equals, inner_value = value.partition("=")
        if inner_equals and _is_plain(inner) and is_secret_name(inner):
            return argument if is_ordinary(inner, inner_value) else f"{name}={inner}={HIDDEN}"
    has_secret_name = equals and not is_script and _is_plain(name) and is_secret_name(name)
    if has_secret_name and not is_ordinary(name, value):
        return f"{name}={HIDDEN}"
    if is_strict and not _is_option(argument):
        return f"{name}={HIDDEN}" if equals and name.startswith("-") else HIDDEN
    return redact_text(argument, mode)


def _is_script(argument: str, previous: str, *, has_shell: bool) -> bool:
    """Whether it is read word by word, and not the value of one name. Where no shell is seen, only the first
    word of all, if it begins with a reference."""
    if previous:
        return has_shell and SCRIPT_OPTION.fullmatch(previous) is not None
    name, _, value = argument.partition("=")
    return not name.startswith("-") and _LEADING_REFERENCE.match(value) is not None


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and not any(mark in argument for mark in "= \t\n")


def _is_plain(name: str) -> bool:
    return name.replace("-", "").replace("_", "").replace(".", "").isalnum()


def redact_image(image: str, mode: Redaction) -> str:
    """An image reference; digests and tags are long and even by nature, so only userinfo and tokens can go."""
    if mode is Redaction.OFF:
        return image
    image = _IMAGE_USERINFO.sub(f"{HIDDEN}@", image[:MAX_TEXT])
    return hide_tokens(_USERINFO.sub(rf"\g<1>{HIDDEN}@", image))


def redact_text(text: str, mode: Redaction) -> str:
    """Free text or a URL, its first `MAX_TEXT` characters, without anything that looks like a secret."""
    if mode is Redaction.OFF or not text:
        return text
    if len(text) <= _CACHED_LENGTH:
        return _redact_short(text)
    return _redact(text) if len(text) <= MAX_TEXT else _redact(_cut(text, MAX_TEXT)) + CUT


@lru_cache(maxsize=4096)
def _redact_short(text: str) -> str:
    return _redact(text)


def _redact(text: str) -> str:
    text = _USERINFO.sub(rf"\g<1>{HIDDEN}@", hide_pem_blocks(text))
    for pattern in PLACES:
        text = pattern.sub(rf"\g<1>{HIDDEN}", text)
    text = _hide_in_commands(text)
    for pattern in _NAMES:
        text = _hide_values(text, pattern)
    text = _ELEMENT.sub(_hide_element, text)
    text = _BEARER.sub(_hide_bearer, text)
    return hide_mixed(hide_tokens(text))


def _cut(text: str, limit: int) -> str:
    """At the last mark between values: half a token, or half a URL, may not look like one."""
    head = text[:limit]
    if len(text) <= limit or text[limit].isspace():
        return head
    return head[: max(head.rfind(mark) for mark in _BETWEEN_VALUES) + 1]


def _hide_in_commands(text: str, depth: int = 0) -> str:
    """What its place in a command says: `docker login -p x`, also within `sh -c "…"`."""
    shown: list[str] = []
    command = Command()
    done = 0
    for match in _SHELL.finditer(text):
        if match["continued"]:
            continue
        if match["end"]:
            command = Command()
            continue
        quote = match[0][0] if match["quoted"] else ""
        word = match[0][1:-1] if quote else match[0]
        start = command.secret_start(word)
        if start is not None:
            replacement = word[:start] + HIDDEN
        elif depth < _MAX_DEPTH and " " in word:
            replacement = (
                _hide_in_commands(word, depth + 1) if quote else _hide_in_pieces(word, depth)
            )
        else:
            continue
        shown += (text[done : match.start()], quote, replacement, quote)
        done = match.end()
    return "".join((*shown, text[done:]))


def _hide_in_pieces(word: str, depth: int) -> str:
    """The same in each quoted or substituted piece of a word: `-o ProxyCommand="sshpass -p x ssh jump"`."""

    def hide(piece: re.Match[str]) -> str:
        start = 2 if piece["substituted"] else 1
        inner = _hide_in_commands(piece[0][start:-1], depth + 1)
        return f"{piece[0][:start]}{inner}{piece[0][-1]}"

    return _PIECES.sub(hide, word)


def _hide_values(text: str, pattern: re.Pattern[str]) -> str:
    """Hide the value behind every name that `pattern` matches and that sounds secret.

    A value that stays is short (`is_ordinary`), so that looking again at what stands in it takes bounded time.
    """
    shown: list[str] = []
    outer = _OuterQuotes(text)
    done = position = 0
    while (match := pattern.search(text, position)) is not None:
        position = match.end()
        if position >= len(text) or not _is_secret(match):
            continue
        quote, end = _secret_value(text, match, outer.value_pattern(match.start(1)))
        if end:
            shown += (
                text[done:position],
                " " if text[position] == "\n" else "",
                quote,
                HIDDEN,
                quote,
            )
            done = position = end
    return "".join((*shown, text[done:]))


def _is_secret(match: re.Match[str]) -> bool:
    return is_secret_name(match[1]) or (
        match.re is _CALL and KEYED_CALL.fullmatch(match[1]) is not None
    )


class _OuterQuotes:
    """Within which quotes a place of the text stands, for places in ascending order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._until = 0
        self._counts = dict.fromkeys(_VALUE_INSIDE, 0)

    def value_pattern(self, position: int) -> re.Pattern[str]:
        for quote in self._counts:
            self._counts[quote] += self._text.count(quote, self._until, position)
        self._until = position
        is_open = [quote for quote, count in self._counts.items() if count % 2]
        return _VALUE_INSIDE[is_open[0]] if len(is_open) == 1 else _VALUE_OUTSIDE


def _secret_value(text: str, match: re.Match[str], pattern: re.Pattern[str]) -> tuple[str, int]:
    """The quote of the value behind a name, and where it ends; 0 where it is none or no secret."""
    name, start = match[1], match.end()
    end = bracket_end(text, start)
    if not end and match.re is _PAIR and ":" in match[3]:
        end = block_end(text, match.start(), start)
    if end:
        inner = text[start:end]
        return "", 0 if is_ordinary(name, inner) or _is_harmless_structure(name, inner) else end
    value = _quoted_option(text, match) or pattern.match(text, start)
    if value is None:
        return "", 0
    quote = next((mark for mark in ('\\"', '"', "'") if value[0].startswith(mark)), "")
    if value.end() - start <= ORDINARY_LENGTH:
        bare = value[0].strip("\\\"'")
        if is_ordinary(name, bare) or (
            not quote and (_is_prose(text, match, bare) or _is_image(match, bare))
        ):
            return "", 0
    return quote, value.end()


def _quoted_option(text: str, match: re.Match[str]) -> re.Match[str] | None:
    """All of the value where option and value stand in quotes together: `"--token=a;b"`, `"TOKEN=a&b"`."""
    before = text[match.start(1) - 1 : match.start(1)]
    is_together = match.re is _PAIR and not match[2] and match[3] == "=" and before in _TO_QUOTE
    if not is_together or not (match[1].startswith("-") or match[1].isupper()):
        return None
    return _TO_QUOTE[before].match(text, match.end())


def _holds_nothing_secret(name: str, value: str) -> bool:
    return value.startswith(("{", "[")) and _is_harmless_structure(name, value)


def _is_harmless_structure(name: str, structure: str) -> bool:
    """Whether every value in a short list, object or block is ordinary: `{"type": "oidc", "enabled": true}`."""
    return len(structure) <= ORDINARY_LENGTH and all(
        is_ordinary(f"{name}.{key}", leaf) for key, leaf in leaves(structure)
    )


def _is_prose(text: str, match: re.Match[str], value: str) -> bool:
    """`no token: unexpected status` is a sentence; `token=x`, `"token": "x"` and `X-Token: x` are not."""
    if match.re is not _PAIR or match[3].strip() != ":" or not is_wordy(value):
        return False
    if match[3][0] == " ":  # `volume "creds" : secret "x" not found`, but not `db.password : x`
        return bool(match[2]) or match[1].isalpha()
    if match[2] or match[3] == ":" or not match[1].isalpha():
        return False
    start = match.start()
    follows_word = start > 1 and text[start - 1] == " " and text[start - 2].isalnum()
    after = text[match.end() + len(value) :][:2]
    leads_words = len(after) == 2 and after[0] == " " and after[1].islower()
    return follows_word or (leads_words and not names_a_credential(match[1]))


def _is_image(match: re.Match[str], value: str) -> bool:
    return match.re is _PAIR and match[2] + match[3] == ":" and is_image(match[1], value)


def _hide_element(match: re.Match[str]) -> str:
    if not is_secret_name(match[1]) or is_ordinary(match[1], match[2].strip()):
        return match[0]
    return match[0][: match.start(2) - match.start()] + HIDDEN


def _hide_bearer(match: re.Match[str]) -> str:
    is_sentence = len(match[3]) <= ORDINARY_LENGTH and is_wordy(match[3])
    return match[0] if is_sentence else f"{match[1]}{match[2]}{HIDDEN}"

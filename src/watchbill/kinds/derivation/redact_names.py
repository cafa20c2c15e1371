"""Names and forms that say that a value is secret, and values that are none although their name sounds like
it.

Known kinds of tokens have a form of their own; so has what is too evenly mixed to be words. Every function
takes time linear in the length of its text: no expression gives back what a repetition took (possessive
repetitions), or it gives back at most a bounded number of characters.
"""

import math
import re
from collections import Counter
from functools import lru_cache

HIDDEN = "***"

_CERTAIN = (
    # Beginnings that no word has. The rest may be short: a cut token is a token, too.
    (r"gh[pousr]_|github_pat_|gl(?:pat|dt|rt|ptt|soat|cbt|ft|imt|agent|oas)-", r"[\w.-]{4,}+"),
    (r"xox[abceoprs]-|xapp-[0-9]-|do[opr]_v1_|dckr_(?:pat|oat)_|whsec_", r"[\w-]{4,}+"),
    (r"shp(?:at|ca|pa|ss|ua)_|PMAK-|sbp_|[srp]k_(?:live|test)_|glsa_|glc_", r"[\w-]{8,}+"),
    (r"hv[bsr]\.|SG\.|wba\.|wbr_|dt0c01\.|dp\.(?:pt|st|ct|sa|scim|audit)\.", r"[\w.-]{16,}+"),
    (r"gsk_|pscale_(?:tkn|pw|oauth)_|tskey-|sha256~|xkeysib-|xsmtpsib-", r"[\w.-]{8,}+"),
    (r"AKIA|ASIA|ABIA|ACCA", r"[A-Z0-9]{8,}+"),
    (r"LTAI|AKID|AIza|ya29\.|GOCSPX-|1//0", r"[\w-]{10,}+"),
    (r"eyJ", r"[\w-]{6,}+(?:\.[\w-]*+){0,4}"),
    (r"AGE-SECRET-KEY-1|SWMTKN-1-|NRAK-|NRII-|sntry[su]_|sq0(?:atp|csp)-|AKCp", r"[\w=+/-]{8,}+"),
    (r"tfp_|figd_|lin_(?:api|oauth)_|ATATT3|ATCTT3|ATBB|CCIP(?:AT|RJ)_|HRKU-", r"[\w=-]{8,}+"),
    (r"lsv2_(?:pt|sk)_|pcsk_|tgp_v1_|wandb_v1_|CFPAT-|CLOJARS_|rdme_|rubygems_", r"[\w-]{8,}+"),
    (
        r"FLWSECK[_-]|EZ[AT]K|(?:shippo|duffel)_(?:live|test)_|dbt[cs]_|bkua_|fm[12]_",
        r"[\w=+/-]{8,}+",
    ),
)
_LIKELY = (
    # Beginnings that a word may have, too: the rest must not read as words.
    (r"hf_|sk-|nvapi-|npm_|pypi-|api_org_|secret_|ntn_|snyk_|sq[apu]_|jina_", r"[\w-]{6,}+"),
    (r"pul-|xai-|pplx-|tvly-|phx_|nfp_|fo1_|e2b_|rpa_|llx-|key-|pubkey-|r8_", r"[\w-]{12,}+"),
    (r"re_|fw_|pa-|ak-|as-|md-|rnd_|napi_|hc[al]ik_|pn[bu]_|sgp_|esecret_", r"[\w-]{16,}+"),
    (r"cio|oy2|EAA[A-Za-z]|AQVN|SK|AC|dapi|dose|dkea|AAAAAAAA|sl\.", r"[\w-]{28,}+"),
)
_OTHER = (
    r"[\w-]{8,64}+\.atlasv1\.[\w=-]{8,}+",  # Terraform
    r"[0-9]{8,10}:A[\w-]{30,}+",  # Telegram's bots
    r"[0-9a-f]{32}-us[0-9]{1,2}(?![A-Za-z0-9])",  # Mailchimp
    r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}",  # Airtable
    r"[\w~.-]{3}[0-9]Q~[\w~.-]{31,}+",  # Azure's applications
    r"[MNO][\w-]{23,28}\.[\w-]{6}\.[\w-]{27,40}",  # Discord's bots
    # hashes of passwords, as crypt writes them
    r"\$(?:apr1|2[abxy]|[1567y]|argon2(?:id|i|d))\$[\w./,=+$-]{0,64}\$[\w./+]{8,}+",
    r"st\.[0-9a-f-]{36}\.[0-9a-f.]{32,}+",  # Infisical
    r"sk_[0-9a-f]{32,}+",  # ElevenLabs
    r"K10[0-9a-f]{64}::[a-z]{1,16}:[0-9a-f]{32,}+",  # k3s
    r"(?:fc-|KGAT_|dtn_)[0-9a-f]{32,}+",  # Firecrawl, Kaggle, Daytona
    r"xa[ap]t-[0-9a-f]{8}-[0-9a-f-]{27}",  # Axiom
)


def _pattern() -> re.Pattern[str]:
    certain = "|".join(f"(?:{beginning}){rest}" for beginning, rest in _CERTAIN)
    likely = "|".join(f"(?:{beginning}){rest}" for beginning, rest in _LIKELY)
    return re.compile(
        rf"(?<![A-Za-z0-9])(?:({likely})|{certain}|{'|'.join(_OTHER)})={{0,2}}", re.ASCII
    )


_TOKEN = _pattern()
_MARKED = re.compile(r"\.atlasv1\.[\w=-]{4,}+", re.ASCII)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL
)
_READABLE = re.compile(r"[a-z]{1,14}|[A-Z]{1,12}|[A-Z][a-z]{1,13}|[0-9]{1,4}|v?[0-9]{1,4}[a-zA-Z]?")

_MIXED = re.compile(r"[A-Za-z0-9+/=_.~-]{20,}+")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_SEPARATORS = re.compile(r"[/=+_.~-]++")
_WORD = re.compile(
    r"[0-9]{1,12}|[a-z]{1,16}|[A-Z]{1,14}|[A-Z][a-z]{1,13}"  # numbers and words
    r"|[A-Za-z]{1,12}[0-9]{1,4}[a-zA-Z]{0,2}|v?[0-9]{1,6}[A-Za-z]{1,3}[0-9]{0,3}"  # v2, 70B, fp16
    r"|[0-9]{8}T[0-9]{4,6}Z?"  # a timestamp
    r"|[0-9a-f]{6,64}|[0-9A-F]{6,64}"  # a digest: at most four bits a character
    r"|[bcdf-hj-np-tv-xz2-9]{4,10}"  # what Kubernetes appends to generated names
)
_CAMEL = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]++|[0-9]++")
_SECRET_BITS = 4.0
_UNREADABLE_CHARACTERS = 12
_UNREADABLE_IN_PATH = 20


def hide_pem_blocks(text: str) -> str:
    return _PEM.sub(HIDDEN, text) if "-----BEGIN " in text else text


def hide_tokens(text: str) -> str:
    """Without every token of a known kind."""
    text = _MARKED.sub(HIDDEN, text) if ".atlasv1." in text else text
    return _TOKEN.sub(_hide_token, text)


def hide_mixed(text: str) -> str:
    """Without pieces of 20 and more characters that are too evenly mixed to be words."""
    return _MIXED.sub(_hide_mixed, text)


def is_wordy(text: str) -> bool:
    """Whether a text is nothing but letters that fall into words."""
    return not any(character.isdigit() for character in text) and unreadable_length(text) == 0


def unreadable_length(text: str) -> int:
    """How many characters stand in parts that are no words, numbers, versions or digests."""
    return sum(
        len(part)
        for part in _SEPARATORS.split(text)
        if part and not _WORD.fullmatch(part) and not _is_camel(part)
    )


def _hide_token(match: re.Match[str]) -> str:
    # `hf_transfer`, `sk-learn` and `key-value-store` are words with a token's beginning.
    likely = match[1]
    return likely if likely and _reads_as_words(likely) else HIDDEN


def _reads_as_words(token: str) -> bool:
    parts = [part for part in re.split(r"[_.-]++", token) if part]
    readable = (part for part in parts if len(parts) > 1 and _READABLE.fullmatch(part))
    words = (part for part in parts if part.isalpha() and _is_camel(part))
    return {*readable, *words} == set(parts)


def _hide_mixed(match: re.Match[str]) -> str:
    piece = match[0]
    if _bits_per_character(piece) <= _SECRET_BITS:
        return piece
    limit = _UNREADABLE_IN_PATH if "/" in piece else _UNREADABLE_CHARACTERS
    return HIDDEN if unreadable_length(_UUID.sub("", piece)) >= limit else piece


def _bits_per_character(text: str) -> float:
    length = len(text)
    return -sum(n / length * math.log2(n / length) for n in Counter(text).values())


def _is_camel(part: str) -> bool:
    """Words joined without a mark, `MyLongName`: what is random falls into shorter parts."""
    words = _CAMEL.findall(part)
    return bool(words) and len(part) / len(words) >= 3.5 and max(map(len, words)) <= 14


NAME_LENGTH = 253
"""So much of a name is looked at: its end, where the word stands that says what it is."""
ORDINARY_LENGTH = 256
"""Longer values than this are never ordinary."""

_SECRET = re.compile(
    "KEY|TOKEN|SECRET|PASS|PWD|CRED|AUTH|PRIVATE|SAS|DSN|CONN|SIGNATURE|JWT|BEARER|COOKIE|WEBHOOK|STRINGDATA"
    r"|^BUNDLE_(?!(?:BUILD|DISABLE|GEM|LOCAL|MIRROR|PATH|PLUGINS)__)\w+__\w+$|^SIG$|^X-JFROG-ART-API$|^X-HONEYCOMB-TEAM$|(?:^|[_.:-])(?:PAT|PIN|OTP|SALT|PSK|PW)$",
    re.IGNORECASE,
)
_STRONG = re.compile("SECRET|PASS|PWD|CRED|PRIVATE", re.IGNORECASE)
_INNOCENT = re.compile(
    r"(?:DE)?TOKENI[SZ](?:ERS?|E[DS]?|ING|ATION)|AUTHORS?(?!I)|AUTHORIT(?:Y|IES)|BYPASS|COMPASS|PASSAGES?|PASSIVE"
    r"|PASS_?THROUGH|KEYBOARD|KEYFRAMES?|KEYPOINTS?|KEYSPACE|KEYCLOAK|KEYWORDS?|KEYERROR|HOTKEYS?|MONKEY|TURKEY|WHISKEY"
    r"|DISASTER|(?:AR)?KANSAS|SACRED|PASSENGERS?|PASSPORTS?|KEEP_?ALIVE|SASHA|ACCREDITED|UNAUTHORI[SZ]ED|DISCONNECT(?:ED|S)?|CONNECTIVITY"
    r"|(?:FOREIGN|SORT|PARTITION|PUBLIC|CACHE|GROUP)[_-]?KEYS?|KEY_?COLUMNS?|KEY[_-]?VALUES?|CONNECTORS?|CREDITS?|PASSES"
    r"|(?:INPUT|OUTPUT|PROMPT|LABEL|TEXT|REWARD|CHOSEN|REJECTED|MONITOR|METRIC|IMAGE|VIDEO|AUDIO|CAPTION|DATASET)"
    r"[_.-]?KEYS?|KEY_METRICS?"
    r"|PASS[_-]?(?:RATES?|(?:AT[_-]?)?K$)|SASL[_.](?:(?:ENABLED[_.])?MECHANISMS?|SSL|PLAINTEXT)|IMAGE_?PULL_?SECRETS?|XAUTHORITY"
    r"|SPECIAL[_-]TOKENS|INITIAL[_-]CLUSTER[_-]TOKEN|^-(?:NEWKEY|KEYOUT)$",
    re.IGNORECASE,
)
_FILE = re.compile(
    r"(?:^|[_-])(?:FILE|PATH|DIR|DIRECTORY|SOCK|SOCKET|MOUNT)$|^GOOGLE_APPLICATION_CREDENTIALS$",
    re.IGNORECASE,
)
_DESCRIBING = re.compile(
    r"[_.-](?:NAME|TYPE|MODE|METHOD|MECHANISM|PROVIDER|ALGORITHM|ALG|POLICY|FORMAT|HELPER|SOURCE"
    r"|STRATEGY|ISSUER|DOMAIN|HEADER|SCOPES?|BACKEND|CLASS|TTL|TIMEOUT|SIZE|LENGTH|ENDPOINT|URL|URI"
    r"|HOST|VERSION|REGION|STORE|IMAGE|ENV|PREFIX|SUFFIX|REF|SERVICEACCOUNTNAME)$",
    re.IGNORECASE,
)
"""The end of a name that is about a secret: `SECRET_NAME`, `AUTH_MODE`, `TOKEN_ENDPOINT`."""
_DESCRIBING_CAMEL = re.compile(
    r"(?<=[a-z])(?:Name|Type|Mode|Method|Provider|Policy|Format|Source|Issuer|Domain|Class|Endpoint|Version|Ref)$"
    r"|(?:^|\.)existingSecret(?:[A-Z][A-Za-z]{0,30})?$|\.(?:username|user|database)$"
)
"""The same as charts and Kubernetes write it: `secretName`, `auth.existingSecret`, `auth.database`."""
_COUNTING = re.compile(
    r"[_.-](?:DAYS|HOURS|MINUTES|SECONDS|LENGTH|SIZE|TTL|TIMEOUT|RETRIES|COUNT)$", re.IGNORECASE
)
"""The end of a name that says how many: `PASSWORD_MIN_LENGTH`."""
_NOT_DESCRIBING = re.compile("WEBHOOK|CONN|DSN|SAS", re.IGNORECASE)

_ORDINARY = re.compile(
    r"(?:true|false|yes|no|on|off|none|null|nil|auto|enabled|disabled|required|optional|default|)"
    r"|\*++"  # masked by somebody else
    r"|(?:\$\w++|\$[({]\w++[)}]|[/:@.,_-])++"  # references, and what joins them
    r"|\$\{\{[^{}]*+\}\}|\{\{[^{}]*+\}\}|\{[a-z_]++\}|%\([a-z_]++\)s"
    r"|\$\((?:cat[ \t]{1,4}|<[ \t]{0,4})(?:~|\.{0,2})/[\w./-]{1,256}+\)"  # what a file holds
    r"|(?:[a-z_]\w{0,63}+\.){1,4}(?:\w{0,63}_)?(?:key|token|secret|password|pwd)\)?"  # args.password
    r"|os\.(?:environ(?:\.get\(|\[)|getenv\()\\?[\"']\w{1,128}+\\?[\"']?[\])]?"
    r"|(?:<[/|]{0,2}[\w-]{1,20}+\|?>,?)++|\[[A-Z]{2,8}+\]",  # what language models call tokens: `</s>`
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"(?:bearer|basic|token|digest|negotiate)(?:[ \t]{1,4}(?:\$\w++|\$[({]\w++[)}]))?",
    re.IGNORECASE,
)
"""What stands in `Authorization: Bearer x` before the secret."""
_PRIMARY_KEY = re.compile(r"-{0,2}(?:\w+\.)?primary[_-]?keys?", re.IGNORECASE)
_COLUMNS = re.compile(r"[a-z][a-z_]{0,30}+(?:, ?[a-z][a-z_]{0,30}+){0,15}+")
"""What stands under a database's primary key; an account's primary key is a secret."""
_NUMBER = re.compile(
    r"[+-]?[0-9]{1,7}(?:\.[0-9]{1,6})?(?:e[+-]?[0-9]{1,2})?(?:[kKmMgGbBtTsh%]|ms|min)?"
)
_PATH = re.compile(r"(?:~|\.{0,2})/[\w./@+-]*+")
_FILE_VALUE = re.compile(
    r"(?:~|\.{0,2})/[\w./@+-]{0,200}\.(?:key|pem|crt|cer|p12|pfx|jks|json|ya?ml|toml|ini|conf|txt|env)"
    r"|[\w./-]{1,200}\.tfstate"
)
"""A file, whatever it is the value of: `-backend-config=key=team/prod.tfstate`, `tls.key=/etc/tls/tls.key`."""
_TAG = re.compile(
    r"(?:v[0-9]{1,4}|[0-9]{1,4}(?=\.))(?:\.[0-9]{1,5}){0,3}"
    r"(?:-(?:alpine|amd|arm|beta|alpha|bookworm|debian|distroless|fips|rc|rootless|slim|ubi|ubuntu|r)?[0-9.]{0,6}){0,3}:?"
    r"|(?:latest|main|master|stable|edge|nightly|dev|release):?"
)
_ADDRESS = re.compile(
    r"(?!https?:)[a-z][a-z0-9+.-]{1,32}+:/{2,4}[\w.-]{0,128}+(?::[0-9]{1,5})?(?:/[\w.-]{0,128}+)?"
)
_CONNECTING = re.compile("CONN|DSN", re.IGNORECASE)
"""Where a database is, without who logs in, under names that may hold both."""
_DESCRIPTION = re.compile(r"(?:https?://)?[\w.:/ -]{0,128}+")


def is_secret_name(name: str) -> bool:
    return _is_secret_name(name[-NAME_LENGTH:])


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    return _SECRET.search(_INNOCENT.sub("", name)) is not None


def names_a_credential(name: str) -> bool:
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
        return not names_a_credential(name) or _COUNTING.search(name) is not None
    if _PRIMARY_KEY.fullmatch(name) and _COLUMNS.fullmatch(value):
        return True
    if _FILE_VALUE.fullmatch(value) or (_FILE.search(name) and _PATH.fullmatch(value)):
        return True
    if _CONNECTING.search(name) and _ADDRESS.fullmatch(value):
        return True
    return _describes(name) and _is_description(value)


def is_image(name: str, value: str) -> bool:
    """Whether they are an image and its tag when they are joined by a colon: `oauth2-proxy:v7.6.0`."""
    return name.islower() and _TAG.fullmatch(value[:ORDINARY_LENGTH]) is not None


def _describes(name: str) -> bool:
    describes = _DESCRIBING.search(name) or _DESCRIBING_CAMEL.search(name)
    return describes is not None and _NOT_DESCRIBING.search(name) is None


def _is_description(value: str) -> bool:
    """A name, an address or a word: `db-credentials`, `https://issuer.example.com/realm`, `RS256`."""
    if _DESCRIPTION.fullmatch(value) is None:
        return False
    return unreadable_length(value.replace(":", "/").replace(" ", "/")) == 0

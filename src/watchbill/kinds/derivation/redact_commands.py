"""Secrets that only their place in a command gives away: `docker login -p x`, `curl -u ada:x`, `mc alias set`.

A command is fed word by word, and each word is answered with where its secret begins. What is remembered of a
command is bounded.
"""

import re

from watchbill.kinds.derivation.redact_names import is_image, is_ordinary, is_secret_name

WORD_LENGTH = 256
"""So much of a word is looked at to tell what it is."""
SCRIPT_OPTION = re.compile(r"-[a-z]{0,3}c|/c|-Command", re.IGNORECASE)
SHELL_NAME = re.compile(
    r"(?:[^\s\"']{0,256}[/\\])?(?:(?:ba|da|z|k|a|c|tc|fi)?sh|su|runuser|cmd|powershell|pwsh)(?:\.exe)?",
    re.IGNORECASE,
)
"""To others `-c` is a setting: `app -c password=x`."""
SEVERAL_KEYS = frozenset({"--api-key", "--api-keys"})
"""vLLM takes several, one after the other."""
KEYED_CALL = re.compile(
    r"(?:(?:wandb|huggingface_hub|hf|comet_ml|replicate)\.)?login"
    r"|(?:\w{1,64}\.){0,8}(?:Fernet|AESGCM|AESCCM|AESSIV|ChaCha20Poly1305|SecretBox)"
    r"|(?:hmac\.(?:new|digest)|HMAC\.new|AES\.new|ChaCha20\.new)"
)
"""What is called with a token or a key as its first argument."""

_USER_OPTIONS = ("--user", "--proxy-user", "--creds", "--src-creds", "--dest-creds", "-u", "-U")
_USER_AND_SECRET = re.compile(
    r"(?![0-9]++:[0-9]++$|\w{1,16}+://)(?:[^\s:/%=]{1,128}+[:%]|[^\s:/%=]{1,64}+/[^\s:/%=]{1,64}+%)\S"
)
_NO_USER_AND_SECRET = frozenset({"run", "exec", "chown", "python", "python3"})
"""Commands whose `-u` is no login: `docker run -u user:group`."""
_SNMP = frozenset(["snmpget", "snmpwalk", "snmpbulkwalk", "snmpset", "snmptrap"])
_PASSWORD_OPTIONS = {
    "-p": frozenset(
        {
            *("login", "sshpass", "twine", "useradd", "usermod", "psexec", "racadm", "esxcli"),
            *("mongo", "mongosh", "mongodump", "mongorestore", "cqlsh", "snowsql", "cypher-shell"),
            *(
                "rabbitmqadmin",
                "elasticsearch-users",
                "beeline",
                "airflow",
                "superset",
                "sql",
                "rdesktop",
                "ncftpput",
                "ncftpget",
                "poetry",
            ),
        }
    ),
    "-P": frozenset(
        [
            "zip",
            "unzip",
            "p4",
            "sqlcmd",
            "bcp",
            "ipmitool",
            "mosquitto_pub",
            "mosquitto_sub",
            "mosquitto_rr",
            "mqttx",
            "tsql",
        ]
    ),
    "-a": frozenset(["redis-cli", "valkey-cli", "keydb-cli", "http", "https", "xh"]),
    "-b": frozenset({"curl", "secret"}),  # cookies; the body of a secret
    "-k": frozenset({"prefect", "openssl"}),
    "-N": frozenset({"ssh-keygen"}),
    "-v": frozenset({"kaggle"}),
    "-K": frozenset({"swift", "openssl"}),
    "-t": frozenset({"doctl", "influx"}),
    "-s": frozenset({"ldappasswd"}),
    "-w": frozenset(
        [
            "ldapsearch",
            "ldapadd",
            "ldapmodify",
            "ldapdelete",
            "ldapwhoami",
            "ldappasswd",
            "kadmin",
            "ktutil",
        ]
    ),
    "-pw": frozenset(["plink", "pscp", "psftp", "putty"]),
    "--session": frozenset({"op", "bw"}),
    "-xp": frozenset({"sendemail", "sendEmail"}),
    "-c": _SNMP,  # the community
    "-A": _SNMP,
    "-X": _SNMP,
    "--value": frozenset(["put-parameter", "keyvault", "tctl", "secret", "secrets"]),
    "--body": frozenset({"secret"}),
    "-String": frozenset({"ConvertTo-SecureString"}),
    "/p": frozenset({"schtasks", "tasklist", "taskkill", "signtool"}),
    "/rp": frozenset({"schtasks"}),
    "/pass": frozenset({"runas", "cmdkey"}),
}
"""Short options whose value is a password, and the words of a command with which they are that."""
_FREERDP = frozenset(["xfreerdp", "xfreerdp3", "wlfreerdp", "wlfreerdp3", "sdl-freerdp", "mstsc"])
_ATTACHED_OPTIONS = _PASSWORD_OPTIONS | {
    "-k": frozenset({"prefect"}),  # openssl -keyout
    "--value=": _PASSWORD_OPTIONS["--value"],
    "--body=": _PASSWORD_OPTIONS["--body"],
    "/p:": _FREERDP,
    "-p": _PASSWORD_OPTIONS["-p"]
    | {
        "mysql",
        "mysqldump",
        "mysqladmin",
        "mysqlimport",
        "mariadb",
        "mariadb-dump",
        "7z",
        "7za",
        "rar",
        "unrar",
    },
}
_ATTACHED = re.compile(r"(?:--[a-z]{1,16}+=|/p:|..)(?=.)", re.DOTALL)
"""The option at the beginning of a word with its value in it."""
_PUBLISHES = frozenset({"uv", "publish"})
"""`uv publish -t x`, `-p x`; to other commands of uv these are a folder and a version of Python."""
_LOGINS = frozenset({"wandb", "vault", "bao", "cargo"})
"""Commands that take the secret itself after `login`."""
_SECRET_FOLLOWS = {
    "authtoken": None,
    "add-authtoken": None,
    "auth:token": None,
    "encrypt_string": None,
    "input_pw": None,
    "requirepass": None,
    "masterauth": None,
    "reset-admin-password": None,
    "setapikey": None,
    "use-auth-token": None,
    "unseal": None,
    "set-initial-password": None,
    "unlock": frozenset({"bw"}),
    "bootstrap": frozenset({"consul"}),
    "set": frozenset({"conda"}),
    "install": frozenset({"cloudflared"}),
    "password": frozenset({"dvc", "mysqladmin", "nmcli"}),
    "token": frozenset({"conda", "doppler", "fly", "flyctl"}),
    "auth": frozenset({"snyk"}),
    "AUTH": frozenset({"redis-cli", "valkey-cli", "keydb-cli"}),
    "ConvertTo-SecureString": None,
    "obscure": frozenset({"rclone"}),
    "pass": frozenset({"rclone"}),
}
"""Words directly before a secret, and the words of a command with which they are that; None = always."""
_NO_COMMANDS: frozenset[str] = frozenset()
_PLACED = (
    (frozenset({"pulumi", "config", "--secret"}), 1),
    (frozenset({"bw", "login"}), 1),
    (frozenset({"chamber", "write"}), 4),
    (frozenset({"openssl", "passwd"}), 2),
    (frozenset({"mosquitto_passwd", "-b"}), 3),
    (frozenset({"rabbitmqctl", "add_user"}), 3),
    (frozenset({"rabbitmqctl", "change_password"}), 3),
    (frozenset({"net", "user"}), 3),
    (frozenset({"wpa_passphrase"}), 2),
    (frozenset({"radtest"}), 2),
    (frozenset({"mkpasswd", "-m"}), 2),
    (frozenset({"salt", "shadow.set_password"}), 4),
    (frozenset({"sentinel", "auth-pass"}), 3),
    (frozenset({"vault", "token", "lookup"}), 3),
    (frozenset({"vault", "token", "renew"}), 3),
    (frozenset({"vault", "token", "revoke"}), 3),
)
"""Words of a command, and how many words that are no options stand before its secret."""
_STORES = (
    frozenset({"vault", "kv", "put"}),
    frozenset({"vault", "kv", "patch"}),
    frozenset({"bao", "kv", "put"}),
    frozenset({"bao", "kv", "patch"}),
    frozenset({"nomad", "var", "put"}),
    frozenset({"secrets", "set"}),
)
"""Words of commands that store secrets: `K=V` is one, whatever its name."""
_VARIABLE_OPTIONS = frozenset({"--env", "-env", "-genv", "--arg", "--parameters", "--raw"})
"""Options before a variable's name, behind which its value stands: `mpirun --env K x`, `jq --arg key x`."""
_JOINED_USER_OPTION = re.compile(r"-[a-zA-Z]{1,12}[uU]")
"""`curl -su ada:x`."""
_SECRET_FORMAT = re.compile(
    r"(?:passw|pwd|token|secret|credential|api[_-]?key|(?:access|private|auth)[_-]?key)[^\n%]{0,16}%s",
    re.IGNORECASE,
)
"""`printf 'password=%s' x`."""
_WRITERS = (frozenset({"vault", "write"}), frozenset({"bao", "write"}))
_WRITTEN = frozenset({"value", "plaintext"})
"""What is secret of what these write; the others have names that tell."""
_SETTERS = frozenset(
    [
        "set",
        "config",
        "configure",
        "setx",
        "modify",
        "put",
        "alias",
        "env:set",
        "config:set",
        "chamber",
    ]
)
_COMPOUND = re.compile(r"[A-Za-z][._/-]|[_:][A-Za-z]|[a-z][A-Z]|[\"']\]")
_LETTERS = re.compile(r"-[a-zA-Z]{1,8}")
"""`htpasswd -bc FILE NAME x`, with an n among them without a file; behind a C stands a number."""
_ORACLE = frozenset(["sqlplus", "sqlldr", "rman", "expdp", "impdp"])
_USER_SLASH_SECRET = re.compile(r"[\w$.]{1,128}+/(?=[^/\s])")
_LOGIN_AT_HOST = re.compile(r"[\w.-]{1,64}+:(?=[^\s@]{1,128}+@[\w.-])")
_MOUNT = frozenset({"mount", "mount.cifs"})
_MOUNTED_AS = re.compile(r"(?<![^,\s])user(?:name)?=[^\s,=%]{1,128}+%")
"""`mount -o username=ada%x`."""
_INNER_COMMAND = re.compile(r"""\A(?:proxycommand=)?["']{0,2}""", re.IGNORECASE)
"""Before a command within an option: `ssh -o ProxyCommand="sshpass -p x ssh jump"`."""
_HEADER = re.compile(
    r"(-H=?[\"']?|--header=|--proxy-header="
    r"|http\.(?:[^\s=]{0,128}\.)?extra[hH]eader=|)([A-Za-z][\w-]{0,127}+):[ \t]{0,64}+(?=\S)"
)
_HEADER_OPTIONS = frozenset({"-H", "--header", "--proxy-header"})
_FLAGS = frozenset({"--relogin", "--verify", "--cloud", "--anonymously", "-no-print"})
_LITERAL = re.compile(r"--from-literal=[^=\s]{1,253}+=(?=\S)")
_MAX_WORDS = 64


class Command:
    """The words of one command so far. It ends where the caller begins a new one."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        self._before = ""
        self._previous = ""
        self._positional = 0
        """Words that are no options since the last of `login`, `set` and `add`."""
        self._htpasswd_letters: set[str] = set()
        """Its options: without a b it asks for the password."""
        self._prints_secrets = False
        """Whether printf's format puts in a secret."""

    def secret_start(self, word: str) -> int | None:
        """Where in the next word of the command a secret begins; None where none does."""
        start = self._start(word, word[:WORD_LENGTH])
        self._remember(word[:WORD_LENGTH])
        return start

    def _start(self, word: str, beginning: str) -> int | None:
        if self._is_password_value(word) or self._is_positional_secret(beginning):
            return 0
        return (
            self._credentials_start(beginning)
            or _header_start(beginning, self._previous)
            or self._attached_start(beginning)
            or self._after_slash_start(beginning)
            or self._literal_start(beginning)
        )

    def _is_password_value(self, word: str) -> bool:
        previous = self._previous
        if not word or (
            word.startswith("-") and len(word) > 1 and previous not in _PASSWORD_OPTIONS
        ):
            return False
        is_publishing = previous in ("-t", "-p") and self._words >= _PUBLISHES
        if is_publishing or self._has(_PASSWORD_OPTIONS.get(previous)):
            return not is_ordinary("token", word)
        is_user_option = previous in _USER_OPTIONS or (
            "curl" in self._words and _JOINED_USER_OPTION.fullmatch(previous) is not None
        )
        if is_user_option and not self._has(_NO_USER_AND_SECRET):
            return _is_user_and_secret(word[:WORD_LENGTH])
        return (
            self._has(_SETTERS)
            and not previous.startswith("-")
            and "=" not in previous
            and _COMPOUND.search(previous) is not None
            and is_secret_name(previous)
            and not is_ordinary(previous, word)
        )

    def _is_positional_secret(self, word: str) -> bool:
        if word.startswith(("-", "http://", "https://", "$", ">")) or not word:
            return False
        if "login" in self._words and self._has(_LOGINS):
            is_value = (
                self._previous.startswith("-")
                and self._previous not in _FLAGS
                and "=" not in self._previous
            )
            return self._positional == 0 and not is_value and "=" not in word
        commands = _SECRET_FOLLOWS.get(self._previous, _NO_COMMANDS)
        if commands is None or self._has(commands):
            return True
        if "b" in self._htpasswd_letters:
            return self._positional == (2 if "n" in self._htpasswd_letters else 3)
        for words, place in _PLACED:
            if words <= self._words:
                return self._positional == place and not word.startswith("/")
        if self._follows_share() or self._before.startswith("http-basic."):
            return not word.startswith(("/", "\\", "*"))
        is_variable_option = self._before in _VARIABLE_OPTIONS or (
            "papermill" in self._words and self._before in ("-p", "-r")
        )
        if (is_variable_option and is_secret_name(self._previous)) or self._prints_secrets:
            return True
        # mc alias set NAME URL ACCESS-KEY SECRET-KEY
        return "mc" in self._words and self._has(_SETTERS) and self._positional in (2, 3)

    def _follows_share(self) -> bool:
        """`net use \\\\host\\share x`, `smbclient //host/share x`."""
        if {"net", "use"} <= self._words:
            return self._previous.startswith(("\\", "/user:"))
        return "smbclient" in self._words and self._previous.startswith("//")

    def _credentials_start(self, word: str) -> int | None:
        """`--user=ada:x` and `-uada:x`."""
        if self._previous == "-u" and "lftp" in self._words and "," in word:
            return word.index(",") + 1
        is_certificate = self._previous in ("--cert", "-E") and "curl" in self._words
        is_host = "." in self._previous and {"bundle", "config"} <= self._words
        is_host = is_host and "://" not in word
        if ":" in word and (is_certificate or is_host or {"etcdctl", "user", "add"} <= self._words):
            return word.index(":") + 1
        known = _LOGIN_AT_HOST.match(word) if self._words & {"sftp", "ftp"} else None
        known = known or (_MOUNTED_AS.search(word) if self._has(_MOUNT) else None)
        if known is not None:
            return known.end()
        for option in _USER_OPTIONS:
            if word.startswith(option) and not self._has(_NO_USER_AND_SECRET):
                start = len(option) + word[len(option) :].startswith("=")
                is_attached = start > len(option) or len(option) == 2
                if is_attached and _is_user_and_secret(word[start:]):
                    return start
        return None

    def _attached_start(self, word: str) -> int | None:
        """`mysql -px`."""
        if "SETUSER" in self._words and word[:1] in (">", "<", "#"):  # redis' ACL
            return 1
        match = _ATTACHED.match(word)
        if match is None or not self._has(_ATTACHED_OPTIONS.get(match[0])):
            return None
        return None if is_ordinary("token", word[match.end() :].strip("\"'")) else match.end()

    def _after_slash_start(self, word: str) -> int | None:
        """`sqlplus ada/x@db`."""
        match = _USER_SLASH_SECRET.match(word) if self._has(_ORACLE) else None
        return match.end() if match else None

    def _literal_start(self, word: str) -> int | None:
        """`kubectl create secret generic NAME --from-literal=k=x`, `vault kv put PATH k=x`."""
        name, equals, value = word.partition("=")
        if equals and value and not word.startswith("-"):
            is_literal = self._previous == "--from-literal" and "secret" in self._words
            stores = (*_STORES, *(_WRITERS if name in _WRITTEN else ()))
            if is_literal or any(words <= self._words for words in stores):
                return len(name) + 1
        match = _LITERAL.match(word) if "secret" in self._words else None
        return match.end() if match else None

    def _has(self, words: frozenset[str] | None) -> bool:
        return words is not None and not self._words.isdisjoint(words)

    def _belongs_to_option(self) -> bool:
        """Whether the next word is what the previous one is set to."""
        is_cost = bool(self._htpasswd_letters) and self._previous.endswith("C")
        return self._previous.startswith("--host") or is_cost

    def _remember(self, word: str) -> None:
        name = _INNER_COMMAND.sub("", word).rpartition("/")[2]
        if name in ("login", "set", "add"):
            self._positional = 0
        elif name == "htpasswd":
            self._positional = 1
        elif not word.startswith("-") and not self._belongs_to_option():
            self._positional += 1
        if "htpasswd" in self._words and _LETTERS.fullmatch(word):
            self._htpasswd_letters |= set(word)
        if self._previous.endswith("printf") and _SECRET_FORMAT.search(word):
            self._prints_secrets = True
        if len(self._words) < _MAX_WORDS:
            self._words.add(name)
        self._before, self._previous = self._previous, word


def _is_user_and_secret(word: str) -> bool:
    word = word.lstrip("\"'")
    return _USER_AND_SECRET.match(word) is not None and not is_ordinary("token", word.rstrip("\"'"))


def _header_start(word: str, previous: str) -> int | None:
    """`X-Vault-Token: x`, the whole of it: a header's value goes on to its end."""
    match = _HEADER.match(word)
    if match is None or not is_secret_name(match[2]):
        return None
    is_header = bool(match[1]) or previous in _HEADER_OPTIONS or match[2] == "Authorization"
    if not is_header and (
        not _COMPOUND.search(match[2]) or is_image(match[2], word[match.end(2) + 1 :])
    ):
        return None
    return None if is_ordinary(match[2], word[match.end() :]) else match.end()

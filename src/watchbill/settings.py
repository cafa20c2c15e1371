"""Settings, read once from the environment and passed on as values. Nothing else reads `os.environ`.

Each setting stands in one place: its type, its range, its variable and what it is for are on its field. What is
not understood stops the start, naming the setting and what it may be.
"""

import dataclasses
import difflib
import os
import re
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from watchbill.addresses import check_database_url, check_http_url
from watchbill.errors import Invalid
from watchbill.prometheus_settings import CONFIG_VARIABLE, PrometheusSettings, prometheus_settings

__all__ = [
    "AgentSettings",
    "PrometheusSettings",
    "ServerSettings",
    "agent_settings",
    "server_settings",
    "settings_table",
    "unknown_variables",
]


@dataclass(frozen=True, slots=True)
class Setting:
    """What stands beside a field's type: its environment variable and, in a phrase, what it is for."""

    variable: str
    purpose: str


Days = Annotated[int, Meta(ge=1, le=36_500)]
Lifetime = Annotated[int, Meta(ge=60, le=10 * 366 * 86_400)]
Port = Annotated[int, Meta(ge=0, le=65_535)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`database_url` None = the embedded PostgreSQL in `data_dir`."""

    data_dir: Annotated[Path, Setting("WATCHBILL_DATA_DIR", "folder of the embedded PostgreSQL")]
    database_url: Annotated[
        str | None,
        Setting(
            "WATCHBILL_DATABASE_URL",
            "another PostgreSQL, 15 or newer; the embedded one is then not started",
        ),
    ] = None
    database_url_file: Annotated[
        Path | None,
        Setting(
            "WATCHBILL_DATABASE_URL_FILE", "file that holds that address, since it has a password"
        ),
    ] = None
    host: Annotated[str, Setting("WATCHBILL_HOST", "address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Setting("WATCHBILL_PORT", "port to listen on; 0 = any free one")] = 8600
    tls_cert: Annotated[
        Path | None,
        Setting(
            "WATCHBILL_TLS_CERT",
            "PEM file with the server's certificate and its chain; with it the server speaks HTTPS",
        ),
    ] = None
    tls_key: Annotated[
        Path | None, Setting("WATCHBILL_TLS_KEY", "PEM file with the certificate's key")
    ] = None
    allowed_hosts: Annotated[
        tuple[str, ...],
        Setting(
            "WATCHBILL_ALLOWED_HOSTS",
            "names, separated by commas and without ports, that requests may use; any unless set",
        ),
    ] = ()
    deleted_retention_days: Annotated[
        Days,
        Setting("WATCHBILL_DELETED_RETENTION_DAYS", "days that deleted workloads stay readable"),
    ] = 90
    metrics_retention_days: Annotated[
        Days, Setting("WATCHBILL_METRICS_RETENTION_DAYS", "days that samples stay in the database")
    ] = 7
    prometheus: Mapping[str, PrometheusSettings] = field(default_factory=dict)
    """Metrics stores by cluster name; "" = every cluster that is not named."""
    statement_timeout_seconds: Annotated[
        float,
        Meta(ge=0.1, le=3600),
        Setting("WATCHBILL_STATEMENT_TIMEOUT_SECONDS", "longest that one query may take"),
    ] = 5.0
    pool_size: Annotated[
        int,
        Meta(ge=2, le=1000),
        Setting("WATCHBILL_POOL_SIZE", "connections to the database at most"),
    ] = 10
    system_user: Annotated[
        str | None,
        Setting(
            "WATCHBILL_SYSTEM_USER",
            "user that the embedded PostgreSQL runs as where the server runs as root; "
            "`watchbill`, which is created, unless named",
        ),
    ] = None
    document_cache_bytes: Annotated[
        int,
        Meta(ge=0, le=2**40),
        Setting("WATCHBILL_DOCUMENT_CACHE_BYTES", "memory for documents that were read"),
    ] = 256 * 1024 * 1024
    token_lifetime_seconds: Annotated[
        Lifetime, Setting("WATCHBILL_TOKEN_LIFETIME_SECONDS", "lifetime of access tokens")
    ] = 3600
    session_lifetime_seconds: Annotated[
        Lifetime, Setting("WATCHBILL_SESSION_LIFETIME_SECONDS", "lifetime of the page's sessions")
    ] = 12 * 3600
    requests_per_second: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Setting(
            "WATCHBILL_REQUESTS_PER_SECOND",
            "sustained requests per caller; a tenant has four times as many",
        ),
    ] = 200
    requests_burst: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        Setting("WATCHBILL_REQUESTS_BURST", "requests per caller that may come at once"),
    ] = 400
    trusted_proxies: Annotated[
        tuple[str, ...],
        Setting(
            "WATCHBILL_TRUSTED_PROXIES",
            "addresses and networks, separated by commas, whose `X-Forwarded-For` and `-Proto` count",
        ),
    ] = ()
    public_url: Annotated[
        str | None,
        Setting(
            "WATCHBILL_PUBLIC_URL",
            "address that people use; identity providers send them back there",
        ),
    ] = None
    access_config: Annotated[
        Path | None,
        Setting("WATCHBILL_ACCESS_CONFIG", "file with identity providers and roles of your own"),
    ] = None
    key_file: Annotated[
        Path | None,
        Setting(
            "WATCHBILL_KEY_FILE",
            "file with the secret that signing keys are encrypted with, 32 bytes or more; "
            "the same for all servers of one database",
        ),
    ] = None
    refresh_lifetime_seconds: Annotated[
        Lifetime, Setting("WATCHBILL_REFRESH_LIFETIME_SECONDS", "lifetime of command-line logins")
    ] = 30 * 24 * 3600
    groups_lifetime_seconds: Annotated[
        Lifetime,
        Setting(
            "WATCHBILL_GROUPS_LIFETIME_SECONDS",
            "how long the groups last received from an identity provider stay valid",
        ),
    ] = 30 * 24 * 3600
    audit_retention_days: Annotated[
        Days, Setting("WATCHBILL_AUDIT_RETENTION_DAYS", "days that the audit log is kept")
    ] = 365
    usage_retention_days: Annotated[
        Days,
        Setting("WATCHBILL_USAGE_RETENTION_DAYS", "days that usage by day is kept"),
    ] = 400
    prices_file: Annotated[
        Path | None,
        Setting(
            "WATCHBILL_PRICES_FILE", "file with prices of a GPU-hour; without it no cost is shown"
        ),
    ] = None
    drain_seconds: Annotated[
        float,
        Meta(ge=0, le=300),
        Setting(
            "WATCHBILL_DRAIN_SECONDS",
            "how long a server that is shutting down keeps serving while `/readyz` answers 503, "
            "so that load balancers leave it",
        ),
    ] = 0.0
    recounts: bool = False
    """Count the workloads anew at this start."""
    rebuilds_usage: bool = False
    """Account usage anew from the steps that are still there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Which cluster to watch and where to report. `kubeconfig` None = in-cluster credentials; `ca_file`:
    certificates to trust for the server beside the system's."""

    server_url: str
    credential: str
    ca_file: Path | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    excluded_namespaces: frozenset[str] = frozenset(
        {
            "kube-system",
            "kube-public",
            "kube-node-lease",
            "kai-scheduler",
            "kai-resource-reservation",
            "kai-scale-adjust",
            "runai-reservation",
            "gpu-operator",
            "watchbill",
        }
    )
    kinds_dir: Path | None = None
    settings_file: Path | None = None
    """The cluster's own labels, categories and degree of redaction."""
    resync_seconds: float = 900.0
    debounce_seconds: float = 1.0
    scrape_seconds: Annotated[
        float,
        Meta(ge=0, le=60),
        Setting("WATCHBILL_AGENT_SCRAPE_SECONDS", "how often exporters are asked; 0 = never"),
    ] = 30.0
    """A figure older than two minutes is no longer the present one: hence the upper bound."""
    pushes_samples: Annotated[
        bool,
        Setting(
            "WATCHBILL_AGENT_PUSH_SAMPLES",
            "`false` where a metrics store keeps the samples; idle GPUs are still observed",
        ),
    ] = True
    asks_pods_directly: Annotated[
        bool,
        Setting(
            "WATCHBILL_AGENT_ASK_PODS_DIRECTLY",
            "`true`: pods are asked at their own addresses, not through the API server",
        ),
    ] = False
    exporter_namespaces: Annotated[
        frozenset[str],
        Setting(
            "WATCHBILL_AGENT_EXPORTER_NAMESPACES",
            "namespaces, separated by commas, whose GPU exporters are believed",
        ),
    ] = frozenset(
        {
            "dcgm-exporter",
            "gke-managed-system",
            "gpu-operator",
            "kube-system",
            "monitoring",
            "nvidia-gpu-operator",
        }
    )
    idle_window_seconds: Annotated[
        float,
        Meta(ge=1, le=86_400),
        Setting(
            "WATCHBILL_AGENT_IDLE_WINDOW_SECONDS", "how long a GPU does nothing until it is idle"
        ),
    ] = 300.0
    idle_threshold_percent: Annotated[
        float,
        Meta(ge=0, le=100),
        Setting(
            "WATCHBILL_AGENT_IDLE_THRESHOLD_PERCENT", "utilization that still counts as nothing"
        ),
    ] = 0.0
    metrics_port: Annotated[
        Annotated[int, Meta(ge=1, le=65_535)] | None,
        Setting(
            "WATCHBILL_AGENT_METRICS_PORT", "port of the agent's own metrics; not served unless set"
        ),
    ] = None
    metrics_host: str = "0.0.0.0"  # noqa: S104 - a Prometheus asks from outside the pod


PROMETHEUS_VARIABLES = {
    "WATCHBILL_PROMETHEUS_URL": "metrics store of every cluster that has none of its own",
    "WATCHBILL_PROMETHEUS_MATCHERS": 'labels that its series carry, such as `cluster="east"`',
    "WATCHBILL_PROMETHEUS_TOKEN_FILE": "file with a bearer token for it",
    "WATCHBILL_PROMETHEUS_USERNAME": "user name for it",
    "WATCHBILL_PROMETHEUS_PASSWORD_FILE": "file with the password",
    "WATCHBILL_PROMETHEUS_TENANT": "sent to it as `X-Scope-OrgID`",
    CONFIG_VARIABLE: "YAML file with a metrics store for each cluster",
}
CLIENT_VARIABLES = {
    "WATCHBILL_URL": "address of the server that commands ask",
    "WATCHBILL_CLIENT_ID": "service account that commands log in as",
    "WATCHBILL_CLIENT_SECRET": "its secret",
    "WATCHBILL_CREDENTIALS": "file with these three",
    "WATCHBILL_CA_FILE": "PEM file of authorities that commands and agents trust beside the system's",
    "WATCHBILL_LOGIN_FILE": "file that `watchbill login` keeps its login in",
    "WATCHBILL_CONTEXT": "context that commands use",
    "WATCHBILL_CONTEXTS": "file with the contexts",
    "WATCHBILL_PROJECT": "project that commands narrow to",
    "WATCHBILL_TIME_ZONE": "time zone that commands show times in: local, UTC or a name",
    "WATCHBILL_SERVER_URL": "address of the server that an agent reports to",
    "WATCHBILL_AGENT_CREDENTIAL": "file with an agent's credential",
    "WATCHBILL_LOG_LEVEL": "debug, info, warning or error",
    "WATCHBILL_DEBUG": "where it is set, commands show where an error came from",
}
"""What the command line reads by itself."""


def default_data_dir(environ: Mapping[str, str], *, is_root: bool | None = None) -> Path:
    """Where the platform keeps a program's data: /var/lib for root, else the user's own folder."""
    if "WATCHBILL_DATA_DIR" in environ:
        return Path(environ["WATCHBILL_DATA_DIR"])
    if is_root if is_root is not None else os.geteuid() == 0:
        return Path("/var/lib/watchbill")
    if environ.get("XDG_DATA_HOME") and sys.platform != "darwin":
        return Path(environ["XDG_DATA_HOME"]) / "watchbill"
    if sys.platform == "darwin":
        return _home() / "Library" / "Application Support" / "watchbill"
    return _home() / ".local" / "share" / "watchbill"


def _home() -> Path:
    """Raises Invalid where this user has none: no HOME, and no line in the system's list of users."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise Invalid(
            f"The user {os.geteuid()} has no home folder to keep the data in.",
            details="Name a folder with --data-dir or WATCHBILL_DATA_DIR.",
        ) from error


def server_settings(environ: Mapping[str, str], **overrides: object) -> ServerSettings:
    """Settings from `WATCHBILL_*`; `overrides` (command-line flags) that are not None win. Raises Invalid."""
    values: dict[str, Any] = {"data_dir": default_data_dir(environ)}
    values |= _from_variables(ServerSettings, environ)
    values |= _from_flags(ServerSettings, overrides)
    if values.get("database_url_file") is not None and "database_url" not in values:
        values["database_url"] = _first_line(values["database_url_file"])
    settings = ServerSettings(**values, prometheus=prometheus_settings(environ))
    if settings.database_url is not None:
        check_database_url(settings.database_url)
    if settings.public_url is not None:
        check_http_url("WATCHBILL_PUBLIC_URL", settings.public_url)
    if not settings.host:
        raise Invalid("--host must name an address, such as 127.0.0.1 or 0.0.0.0.")
    return settings


def agent_settings(environ: Mapping[str, str], **overrides: object) -> AgentSettings:
    """Settings from `WATCHBILL_AGENT_*`; `overrides` that are not None win. Raises Invalid."""
    values = _from_variables(AgentSettings, environ) | _from_flags(AgentSettings, overrides)
    settings = AgentSettings(**values)
    check_http_url("The server's address (--server, WATCHBILL_SERVER_URL)", settings.server_url)
    if 0 < settings.scrape_seconds < 1:
        raise Invalid("WATCHBILL_AGENT_SCRAPE_SECONDS must be 0 (never) or a number from 1 to 60.")
    return settings


def settings_table() -> Iterator[tuple[str, str, str, str]]:
    """Every variable: name, purpose, what it may be, default. The documentation's table is made of it."""
    for owner in (ServerSettings, AgentSettings):
        for spec, hint, setting in _settings_of(owner):
            default = spec.default if spec.default is not dataclasses.MISSING else ""
            yield setting.variable, setting.purpose, _words_for(hint), _shown_default(default)
    for variable, purpose in (PROMETHEUS_VARIABLES | CLIENT_VARIABLES).items():
        yield variable, purpose, "text", ""


def unknown_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that begin like ours and are not, each with the one that was probably meant, or "".

    What Kubernetes puts into every pod beside a Service of our name is left out.
    """
    known = {variable for variable, *_ in settings_table()}
    for name in sorted(environ):
        is_ours = name.startswith("WATCHBILL_") and not name.startswith("WATCHBILL_TEST_")
        if is_ours and name not in known and not _SERVICE_LINK.search(name):
            yield name, next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.8)), "")


_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_[0-9]+_(TCP|UDP)")


def _settings_of(owner: type) -> Iterator[tuple[dataclasses.Field[Any], Any, Setting]]:
    hints = get_type_hints(owner, include_extras=True)
    for spec in dataclasses.fields(owner):
        for extra in getattr(hints[spec.name], "__metadata__", ()):
            if isinstance(extra, Setting):
                yield spec, hints[spec.name], extra


def _from_variables(owner: type, environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        spec.name: _value(setting.variable, hint, environ[setting.variable])
        for spec, hint, setting in _settings_of(owner)
        if setting.variable in environ
        and not (environ[setting.variable] == "" and _plain_type(hint) in (str, Path))
    }


def _from_flags(owner: type, overrides: Mapping[str, object]) -> dict[str, Any]:
    """Numbers from flags keep to the same ranges; everything else is passed on as it is."""
    hints = {spec.name: hint for spec, hint, _ in _settings_of(owner)}
    return {
        name: _value(f"--{name.replace('_', '-')}", hints[name], str(value))
        if name in hints and isinstance(value, int | float) and not isinstance(value, bool)
        else value
        for name, value in overrides.items()
        if value is not None
    }


def _value(source: str, hint: Any, text: str) -> Any:
    """Raises Invalid, naming where it comes from and what it may be."""
    plain = _plain_type(hint)
    if plain is Path:
        return Path(text)
    if get_origin(plain) in (tuple, frozenset):
        return get_origin(plain)(item.strip() for item in text.split(",") if item.strip())
    try:
        value = msgspec.convert(text.strip(), _with_bounds(hint), strict=False)
    except msgspec.ValidationError as error:
        is_link = text.startswith("tcp://")
        raise Invalid(
            f"{source} must be {_words_for(hint)}, got '{text[:80]}'.",
            details="Kubernetes sets it beside a Service of that name: use enableServiceLinks: false."
            if is_link
            else None,
        ) from error
    if isinstance(value, float) and value != value:
        raise Invalid(f"{source} must be {_words_for(hint)}, got '{text[:80]}'.")
    return value


def _arms(hint: Any) -> Iterator[Any]:
    """The type itself without annotations and None."""
    if get_origin(hint) is Annotated:
        yield from _arms(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for arm in get_args(hint):
            yield from _arms(arm)
    elif hint is not type(None):
        yield hint


def _plain_type(hint: Any) -> Any:
    return next(_arms(hint))


def _bounds(hint: Any) -> Meta | None:
    """The range, wherever among nested annotations and optionals it stands."""
    for part in (*getattr(hint, "__metadata__", ()), *get_args(hint)):
        found = part if isinstance(part, Meta) else _bounds(part)
        if found is not None:
            return found
    return None


def _with_bounds(hint: Any) -> Any:
    bounds = _bounds(hint)
    return Annotated[_plain_type(hint), bounds] if bounds is not None else _plain_type(hint)


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}


def _words_for(hint: Any) -> str:
    plain, bounds = _plain_type(hint), _bounds(hint)
    words = _WORDS.get(plain, "a list separated by commas")
    return f"{words} from {bounds.ge} to {bounds.le}" if bounds is not None else words


def _shown_default(value: object) -> str:
    if isinstance(value, tuple | frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"WATCHBILL_DATABASE_URL_FILE: {path} cannot be read.") from error

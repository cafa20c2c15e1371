"""Settings of metrics stores that speak Prometheus' API: one for all clusters, others for some. Read once.

Settings, read once from the environment and passed on as values. Nothing else reads `os.environ`.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from watchbill.errors import Invalid

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_MATCHER = re.compile(
    r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\["\\])*)"\s*(?:,|$)', re.ASCII
)
_CALLED = frozenset({"namespace", "pod", "container", "uuid", "instance"})
_MEMBERS = frozenset(
    {"url", "matchers", "labels", "tokenFile", "username", "passwordFile", "tenant"}
)
CONFIG_VARIABLE = "WATCHBILL_PROMETHEUS_CONFIG"
URL_VARIABLE = "WATCHBILL_PROMETHEUS_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusSettings:
    """`matchers`: label and value that every series of the cluster carries. `labels`: what this store calls
    `namespace`, `pod`, `container`, `uuid`, `instance`. `tenant`: sent as X-Scope-OrgID."""

    url: str
    matchers: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    token: str | None = None
    username: str | None = None
    password: str | None = None
    tenant: str | None = None


def prometheus_settings(environ: Mapping[str, str]) -> dict[str, PrometheusSettings]:
    """Stores by cluster name; "" = every other cluster. Raises Invalid."""
    found: dict[str, PrometheusSettings] = {}
    if environ.get(URL_VARIABLE):
        found[""] = _settings(URL_VARIABLE, _from_environment(environ))
    path = environ.get(CONFIG_VARIABLE)
    if path:
        document = _document(Path(path))
        if "default" in document:
            found[""] = _settings(f"{path}: default", document["default"])
        for name, entry in (document.get("clusters") or {}).items():
            found[str(name)] = _settings(f"{path}: {name}", entry)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    names = {
        "url": URL_VARIABLE,
        "tokenFile": "WATCHBILL_PROMETHEUS_TOKEN_FILE",
        "username": "WATCHBILL_PROMETHEUS_USERNAME",
        "passwordFile": "WATCHBILL_PROMETHEUS_PASSWORD_FILE",
        "tenant": "WATCHBILL_PROMETHEUS_TENANT",
    }
    found: dict[str, Any] = {
        member: environ[variable] for member, variable in names.items() if environ.get(variable)
    }
    found["matchers"] = _matchers(environ.get("WATCHBILL_PROMETHEUS_MATCHERS", ""))
    return found


def _matchers(text: str) -> dict[str, str]:
    """`cluster="a",env="b"`. Raises Invalid."""
    found: dict[str, str] = {}
    position = 0
    while position < len(text.rstrip()):
        match = _MATCHER.match(text, position)
        if match is None:
            raise Invalid('WATCHBILL_PROMETHEUS_MATCHERS is written as cluster="a",env="b".')
        found[match[1]] = re.sub(r"\\(.)", r"\1", match[2])
        position = match.end()
    return found


def _document(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{CONFIG_VARIABLE} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.keys() - {"default", "clusters"}:
        raise Invalid(f"{path} holds `default` and `clusters`, nothing else.")
    if not isinstance(document.get("clusters") or {}, dict):
        raise Invalid(f"{path}: clusters are named, one entry each.")
    return document


def _settings(where: str, entry: Any) -> PrometheusSettings:
    if not isinstance(entry, dict) or entry.keys() - _MEMBERS:
        raise Invalid(f"{where} may hold {', '.join(sorted(_MEMBERS))}.")
    labels = _pairs(where, entry.get("labels"))
    if unknown := dict(labels).keys() - _CALLED:
        raise Invalid(f"{where}: labels has no {', '.join(sorted(unknown))}.")
    if not all(_LABEL.fullmatch(name) for _, name in labels):
        raise Invalid(f"{where}: labels names something that is no label.")
    return PrometheusSettings(
        url=_url(where, entry.get("url")),
        matchers=_pairs(where, entry.get("matchers")),
        labels=labels,
        token=_secret(where, entry.get("tokenFile")),
        username=_text(entry.get("username")),
        password=_secret(where, entry.get("passwordFile")),
        tenant=_text(entry.get("tenant")),
    )


def _url(where: str, url: Any) -> str:
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise Invalid(f"{where}: url is an http or https address.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Invalid(f"{where}: url holds neither login nor query; name a file for the login.")
    return str(url).rstrip("/")


def _pairs(where: str, found: Any) -> tuple[tuple[str, str], ...]:
    pairs = found or {}
    if not isinstance(pairs, dict) or not all(_LABEL.fullmatch(str(name)) for name in pairs):
        raise Invalid(f"{where}: labels and matchers are names with a value each.")
    return tuple(sorted((str(name), str(value)) for name, value in pairs.items()))


def _secret(where: str, path: Any) -> str | None:
    if not path:
        return None
    try:
        text = Path(str(path)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{where}: {path} cannot be read.") from error
    if not text or not text.isprintable():
        raise Invalid(f"{where}: {path} holds no secret on one line.")
    return text


def _text(value: Any) -> str | None:
    return str(value) if value else None


__all__ = [
    "AgentSettings",
    "PrometheusSettings",
    "ServerSettings",
    "agent_measuring",
    "server_settings",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`database_url` None = the embedded PostgreSQL in `data_dir`."""

    data_dir: Path
    database_url: str | None = None
    host: str = "127.0.0.1"
    port: int = 8600
    deleted_retention_days: int = 90
    metrics_retention_days: int = 7
    prometheus: Mapping[str, PrometheusSettings] = field(default_factory=dict)
    """Metrics stores by cluster name; "" = every cluster that is not named."""
    statement_timeout_seconds: float = 5.0
    pool_size: int = 10
    system_user: str | None = None
    document_cache_bytes: int = 256 * 1024 * 1024
    token_lifetime_seconds: int = 3600
    session_lifetime_seconds: int = 12 * 3600
    requests_per_second: int = 200
    requests_burst: int = 400
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose `X-Forwarded-…` counts."""
    public_url: str | None = None
    """Where people reach the server; logins through an issuer come back there."""
    access_config: Path | None = None
    """File with issuers and roles of one's own."""
    key_file: Path | None = None
    """Holds the secret that the signing keys are sealed with."""
    refresh_lifetime_seconds: int = 30 * 24 * 3600
    groups_lifetime_seconds: int = 30 * 24 * 3600
    """What an issuer told of somebody's groups counts for so long."""
    audit_retention_days: int = 365
    recounts: bool = False
    """Count the workloads anew at this start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Which cluster to watch and where to report. `kubeconfig` None = in-cluster credentials."""

    server_url: str
    credential: str
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
    scrape_seconds: float = 30.0
    """How often exporters are asked; 0 = never."""
    pushes_samples: bool = True
    """False where a Prometheus keeps the samples; idle GPUs are still told."""
    asks_pods_directly: bool = False
    """At their own addresses, instead of through the API server."""
    exporter_namespaces: frozenset[str] = frozenset(
        {
            "dcgm-exporter",
            "gke-managed-system",
            "gpu-operator",
            "kube-system",
            "monitoring",
            "nvidia-gpu-operator",
        }
    )
    """Where an exporter's word on devices is believed."""
    idle_window_seconds: float = 300.0
    idle_threshold_percent: float = 0.0
    metrics_port: int | None = None
    """Where the agent serves metrics of its own; None = nowhere."""
    metrics_host: str = "0.0.0.0"  # noqa: S104 - a Prometheus asks from outside the pod


def default_data_dir(environ: Mapping[str, str], *, is_root: bool | None = None) -> Path:
    """Where the platform keeps a program's data: /var/lib for root, else the user's own folder."""
    if "WATCHBILL_DATA_DIR" in environ:
        return Path(environ["WATCHBILL_DATA_DIR"])
    if is_root if is_root is not None else os.geteuid() == 0:
        return Path("/var/lib/watchbill")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "watchbill"
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "watchbill"


def server_settings(environ: Mapping[str, str], **overrides: object) -> ServerSettings:
    """Settings from `WATCHBILL_*`; `overrides` (command-line flags) that are not None win. Raises Invalid."""
    found: dict[str, object] = {"data_dir": default_data_dir(environ)}
    for name, (variable, read) in _SERVER_VARIABLES.items():
        if variable in environ:
            try:
                found[name] = read(environ[variable])
            except ValueError as error:
                raise Invalid(f"{variable} is not understood: {error}") from error
    found["prometheus"] = prometheus_settings(environ)
    found |= {name: value for name, value in overrides.items() if value is not None}
    return ServerSettings(**found)  # type: ignore[arg-type]


def agent_measuring(environ: Mapping[str, str]) -> dict[str, Any]:
    """What `WATCHBILL_AGENT_*` says of measuring, as members of AgentSettings. Raises Invalid."""
    found: dict[str, Any] = {}
    for name, (variable, read) in _AGENT_VARIABLES.items():
        if variable in environ:
            try:
                found[name] = read(environ[variable])
            except ValueError as error:
                raise Invalid(f"{variable} is not understood: {error}") from error
    seconds = found.get("scrape_seconds", 30.0)
    if seconds and not 1 <= seconds <= MOST_SCRAPE_SECONDS:
        raise Invalid(
            f"WATCHBILL_AGENT_SCRAPE_SECONDS is 0 (never) or from 1 to {MOST_SCRAPE_SECONDS:g}."
        )
    return found


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("it is true or false")
    return text == "true"


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


MOST_SCRAPE_SECONDS = 60.0
"""A figure older than two minutes is no longer the present one."""

_AGENT_VARIABLES: dict[str, tuple[str, Callable[[str], object]]] = {
    "scrape_seconds": ("WATCHBILL_AGENT_SCRAPE_SECONDS", float),
    "pushes_samples": ("WATCHBILL_AGENT_PUSH_SAMPLES", _truth),
    "asks_pods_directly": ("WATCHBILL_AGENT_ASK_PODS_DIRECTLY", _truth),
    "exporter_namespaces": (
        "WATCHBILL_AGENT_EXPORTER_NAMESPACES",
        lambda text: frozenset(_items(text)),
    ),
    "idle_window_seconds": ("WATCHBILL_AGENT_IDLE_WINDOW_SECONDS", float),
    "idle_threshold_percent": ("WATCHBILL_AGENT_IDLE_THRESHOLD_PERCENT", float),
    "metrics_port": ("WATCHBILL_AGENT_METRICS_PORT", int),
}

_SERVER_VARIABLES: dict[str, tuple[str, Callable[[str], object]]] = {
    "database_url": ("WATCHBILL_DATABASE_URL", str),
    "host": ("WATCHBILL_HOST", str),
    "port": ("WATCHBILL_PORT", int),
    "deleted_retention_days": ("WATCHBILL_DELETED_RETENTION_DAYS", int),
    "metrics_retention_days": ("WATCHBILL_METRICS_RETENTION_DAYS", int),
    "statement_timeout_seconds": ("WATCHBILL_STATEMENT_TIMEOUT_SECONDS", float),
    "system_user": ("WATCHBILL_SYSTEM_USER", str),
    "pool_size": ("WATCHBILL_POOL_SIZE", int),
    "document_cache_bytes": ("WATCHBILL_DOCUMENT_CACHE_BYTES", int),
    "token_lifetime_seconds": ("WATCHBILL_TOKEN_LIFETIME_SECONDS", int),
    "requests_per_second": ("WATCHBILL_REQUESTS_PER_SECOND", int),
    "requests_burst": ("WATCHBILL_REQUESTS_BURST", int),
    "trusted_proxies": ("WATCHBILL_TRUSTED_PROXIES", _items),
    "public_url": ("WATCHBILL_PUBLIC_URL", str),
    "access_config": ("WATCHBILL_ACCESS_CONFIG", Path),
    "key_file": ("WATCHBILL_KEY_FILE", Path),
    "session_lifetime_seconds": ("WATCHBILL_SESSION_LIFETIME_SECONDS", int),
    "refresh_lifetime_seconds": ("WATCHBILL_REFRESH_LIFETIME_SECONDS", int),
    "groups_lifetime_seconds": ("WATCHBILL_GROUPS_LIFETIME_SECONDS", int),
    "audit_retention_days": ("WATCHBILL_AUDIT_RETENTION_DAYS", int),
}

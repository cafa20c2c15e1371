"""Settings, read once from the environment and passed on as values. Nothing else reads `os.environ`."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from watchbill.config_prometheus import PrometheusSettings, prometheus_settings
from watchbill.errors import Invalid

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

"""Settings of the server."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from msgspec import Meta

from watchbill.addresses import check_database_url, check_http_url
from watchbill.errors import Invalid
from watchbill.settings.prometheus import PrometheusSettings, prometheus_settings
from watchbill.settings.variables import (
    Days,
    Lifetime,
    Port,
    Setting,
    from_flags,
    from_variables,
)

_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")


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
    database_direct_url: Annotated[
        str | None,
        Setting(
            "WATCHBILL_DATABASE_DIRECT_URL",
            "the same database without the pooler that `WATCHBILL_DATABASE_URL` leads to, for migrations "
            "and live changes",
        ),
    ] = None
    database_direct_url_file: Annotated[
        Path | None,
        Setting("WATCHBILL_DATABASE_DIRECT_URL_FILE", "file that holds that address"),
    ] = None
    database_read_url: Annotated[
        str | None,
        Setting(
            "WATCHBILL_DATABASE_READ_URL",
            "a standby of that database, which reads go to while it is not too far behind",
        ),
    ] = None
    database_read_url_file: Annotated[
        Path | None,
        Setting("WATCHBILL_DATABASE_READ_URL_FILE", "file that holds that address"),
    ] = None
    read_staleness_seconds: Annotated[
        float,
        Meta(ge=1, le=3600),
        Setting(
            "WATCHBILL_READ_STALENESS_SECONDS",
            "how old what a standby shows may be; older, and reads go to the primary",
        ),
    ] = 5.0
    host: Annotated[str, Setting("WATCHBILL_HOST", "address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Setting("WATCHBILL_PORT", "port to listen on; 0 = any free one")] = 8600
    socket: Annotated[
        Path | None,
        Setting(
            "WATCHBILL_SOCKET",
            "unix socket to listen on, in place of an address and a port, for a proxy on this machine",
        ),
    ] = None
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
        Setting(
            "WATCHBILL_POOL_SIZE",
            "connections to the database at most; agents' messages have half as many of their own",
        ),
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
    cluster_stored_bytes: Annotated[
        int,
        Meta(ge=2**20, le=2**50),
        Setting(
            "WATCHBILL_CLUSTER_STORED_BYTES",
            "bytes of workloads (live and deleted, with pods, events, usage steps and samples), nodes "
            "and queues of one cluster",
        ),
    ] = 64 * 1024**3
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
            "address that people use, with its path where a proxy has others beside it; "
            "identity providers send them back there",
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
    retention_file: Annotated[
        Path | None,
        Setting("WATCHBILL_RETENTION_FILE", "file with other days for tenants that it names"),
    ] = None
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

    @property
    def base_path(self) -> str:
        """The path of the public address, without a slash at its end; "" where it has none."""
        return urlsplit(self.public_url or "").path.rstrip("/")


_NO_FOLDER = Path(os.devnull)
"""Of a server with another database: in a container its user may have no home."""


def server_settings(environ: Mapping[str, str], **overrides: object) -> ServerSettings:
    """Settings from `WATCHBILL_*`; `overrides` (command-line flags) that are not None win. Raises Invalid."""
    values: dict[str, Any] = from_variables(ServerSettings, environ)
    values |= from_flags(ServerSettings, overrides)
    for name in ("database_url", "database_direct_url", "database_read_url"):
        if (file := values.get(f"{name}_file")) is None or overrides.get(name) is not None:
            continue
        if name in values:
            setting = f"WATCHBILL_{name.upper()}"
            raise Invalid(f"{setting} and {setting}_FILE are both set; keep one of them.")
        values[name] = _first_line(name, file)
    if "data_dir" not in values:
        is_embedded = values.get("database_url") is None
        values["data_dir"] = default_data_dir(environ) if is_embedded else _NO_FOLDER
    settings = ServerSettings(**values, prometheus=prometheus_settings(environ))
    _check_databases(settings)
    if settings.public_url is not None:
        check_http_url("WATCHBILL_PUBLIC_URL", settings.public_url)
        if not _BASE_PATH.fullmatch(settings.base_path):
            raise Invalid(
                f"WATCHBILL_PUBLIC_URL has a path that cannot be served, got '{settings.base_path[:80]}'.",
                details="A path is made of letters, digits and . _ ~ - between slashes.",
            )
    if not settings.host:
        raise Invalid("--host must name an address, such as 127.0.0.1 or 0.0.0.0.")
    return settings


def _check_databases(settings: ServerSettings) -> None:
    """Raises Invalid."""
    if settings.database_url is not None:
        check_database_url(settings.database_url)
    if settings.database_direct_url is not None:
        check_database_url(settings.database_direct_url, "WATCHBILL_DATABASE_DIRECT_URL")
    if settings.database_read_url is not None:
        check_database_url(settings.database_read_url, "WATCHBILL_DATABASE_READ_URL")


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


def _first_line(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"WATCHBILL_{name.upper()}_FILE: {path} cannot be read.") from error

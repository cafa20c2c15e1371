"""Settings of metrics stores that speak Prometheus' API: one for all clusters, others for some."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from watchbill.errors import Invalid
from watchbill.files import read_text

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
PROMETHEUS_VARIABLES = {
    URL_VARIABLE: "metrics store of every cluster that has none of its own",
    "WATCHBILL_PROMETHEUS_MATCHERS": 'labels that its series carry, such as `cluster="east"`',
    "WATCHBILL_PROMETHEUS_TOKEN_FILE": "file with a bearer token for it",
    "WATCHBILL_PROMETHEUS_USERNAME": "user name for it",
    "WATCHBILL_PROMETHEUS_PASSWORD_FILE": "file with the password",
    "WATCHBILL_PROMETHEUS_TENANT": "sent to it as `X-Scope-OrgID`",
    CONFIG_VARIABLE: "YAML file with a metrics store for each cluster",
}


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
    stores: dict[str, PrometheusSettings] = {}
    if environ.get(URL_VARIABLE):
        stores[""] = _settings(URL_VARIABLE, _from_environment(environ))
    path = environ.get(CONFIG_VARIABLE)
    if path:
        document = _document(Path(path))
        if "default" in document:
            stores[""] = _settings(f"{path}: default", document["default"])
        for name, entry in (document.get("clusters") or {}).items():
            stores[str(name)] = _settings(f"{path}: {name}", entry)
    return stores


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    names = {
        "url": URL_VARIABLE,
        "tokenFile": "WATCHBILL_PROMETHEUS_TOKEN_FILE",
        "username": "WATCHBILL_PROMETHEUS_USERNAME",
        "passwordFile": "WATCHBILL_PROMETHEUS_PASSWORD_FILE",
        "tenant": "WATCHBILL_PROMETHEUS_TENANT",
    }
    entry: dict[str, Any] = {
        member: environ[variable] for member, variable in names.items() if environ.get(variable)
    }
    entry["matchers"] = _matchers(environ.get("WATCHBILL_PROMETHEUS_MATCHERS", ""))
    return entry


def _matchers(text: str) -> dict[str, str]:
    """`cluster="a",env="b"`. Raises Invalid."""
    matchers: dict[str, str] = {}
    position = 0
    while position < len(text.rstrip()):
        match = _MATCHER.match(text, position)
        if match is None:
            raise Invalid('WATCHBILL_PROMETHEUS_MATCHERS is written as cluster="a",env="b".')
        matchers[match[1]] = re.sub(r"\\(.)", r"\1", match[2])
        position = match.end()
    return matchers


def _document(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise Invalid(f"{CONFIG_VARIABLE}: {path} is not YAML.", details=str(error)) from error
    if not isinstance(document, dict) or document.keys() - {"default", "clusters"}:
        raise Invalid(f"{path} may contain `default` and `clusters` only.")
    if not isinstance(document.get("clusters") or {}, dict):
        raise Invalid(f"{path}: `clusters` must be a mapping of names to entries.")
    return document


def _settings(where: str, entry: Any) -> PrometheusSettings:
    if not isinstance(entry, dict) or entry.keys() - _MEMBERS:
        raise Invalid(f"{where} may contain {', '.join(sorted(_MEMBERS))} only.")
    labels = _pairs(where, entry.get("labels"))
    if unknown := dict(labels).keys() - _CALLED:
        raise Invalid(f"{where}: labels has no {', '.join(sorted(unknown))}.")
    if not all(_LABEL.fullmatch(name) for _, name in labels):
        raise Invalid(f"{where}: labels contains a name that is not a valid label.")
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
        raise Invalid(f"{where}: url must be an http or https address.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise Invalid(
            f"{where}: url must contain neither login nor query; name a file for the login."
        )
    return str(url).rstrip("/")


def _pairs(where: str, entry: Any) -> tuple[tuple[str, str], ...]:
    pairs = entry or {}
    if not isinstance(pairs, dict) or not all(_LABEL.fullmatch(str(name)) for name in pairs):
        raise Invalid(f"{where}: labels and matchers must be mappings of names to values.")
    return tuple(sorted((str(name), str(value)) for name, value in pairs.items()))


def _secret(where: str, path: Any) -> str | None:
    if not path:
        return None
    try:
        text = Path(str(path)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{where}: {path} cannot be read.") from error
    if not text or not text.isprintable():
        raise Invalid(f"{where}: {path} does not contain a secret on one line.")
    return text


def _text(value: Any) -> str | None:
    return str(value) if value else None

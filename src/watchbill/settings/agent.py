"""Settings of the agent."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from watchbill.addresses import check_http_url
from watchbill.errors import Invalid
from watchbill.settings.variables import Setting, from_flags, from_variables


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Which cluster to watch and where to report. `kubeconfig` None = in-cluster credentials; `ca_file`:
    certificates to trust for the server in addition to the system's."""

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
            "namespaces, separated by commas, whose GPU exporters are trusted",
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
            "WATCHBILL_AGENT_METRICS_PORT",
            "port of the agent's own metrics and `/livez`; not served unless set",
        ),
    ] = None
    metrics_host: str = "0.0.0.0"  # noqa: S104 - a Prometheus asks from outside the pod


def agent_settings(environ: Mapping[str, str], **overrides: object) -> AgentSettings:
    """Settings from `WATCHBILL_AGENT_*`; `overrides` that are not None win. Raises Invalid."""
    values = from_variables(AgentSettings, environ) | from_flags(AgentSettings, overrides)
    settings = AgentSettings(**values)
    check_http_url("The server's address (--server, WATCHBILL_SERVER_URL)", settings.server_url)
    if 0 < settings.scrape_seconds < 1:
        raise Invalid("WATCHBILL_AGENT_SCRAPE_SECONDS must be 0 (never) or a number from 1 to 60.")
    return settings

"""What a silent cluster means for what is shown of it: never an error, always said."""

from collections.abc import Sequence
from datetime import datetime

from watchbill.cli.output.columns import JSON
from watchbill.cli.output.humanize import since
from watchbill.cli.output.terminal import Terminal

SILENT = frozenset({"degraded", "disconnected"})


def silent_clusters(clusters: Sequence[JSON], workloads: Sequence[JSON]) -> list[JSON]:
    """Those that have not been heard of for a while and that live workloads are shown of."""
    shown = {workload.get("clusterId") for workload in workloads if not workload.get("deletedAt")}
    return [one for one in clusters if one["id"] in shown and one["state"] in SILENT]


def remark_silent_clusters(
    terminal: Terminal, clusters: Sequence[JSON], workloads: Sequence[JSON], now: datetime
) -> None:
    for cluster in silent_clusters(clusters, workloads):
        terminal.remark(silence(cluster, now))


def silence(cluster: JSON, now: datetime) -> str:
    return (
        f"note: cluster {cluster['name']} is {cluster['state']}: nothing heard for "
        f"{since(cluster.get('lastContactAt'), now)}, its workloads are shown as last seen"
    )

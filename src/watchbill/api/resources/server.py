"""The server about itself: health, readiness, the documents that describe it, and its metrics.

Beside the process's own, `/metrics` has figures of the fleet, as far as the login that scrapes it may see them.
Names of workloads and people are not among the labels.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from watchbill import __version__
from watchbill.api.http.call import Call
from watchbill.api.http.endpoint import Handler
from watchbill.api.http.reply import Answer, Reply, encode, json_reply
from watchbill.api.http.server_metrics import ServerMetrics
from watchbill.errors import Unavailable
from watchbill.query import TelemetryQuery, UsageQuery
from watchbill.responses.access import Health, Version
from watchbill.responses.fleet import Cluster
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.postgres.storage import (
    TableSize,
    check_disk,
    disk_space,
    table_sizes,
    transaction_id_age,
)
from watchbill.store.usage.report import usage_report
from watchbill.store.workloads.telemetry import PENDING_TIME, telemetry_query

_FLEET_GAUGES = (
    ("watchbill_workloads", "Live workloads by phase.", "WORKLOADS_COUNT", "Phase", "phase"),
    (
        "watchbill_gpus_allocated",
        "GPUs allocated to workloads.",
        "GPU_ALLOCATION",
        "ClusterId",
        "cluster",
    ),
    (
        "watchbill_gpus_idle",
        "Allocated GPUs that are idle; absent where no exporter measures them.",
        "IDLE_ALLOCATED_GPUS",
        "ClusterId",
        "cluster",
    ),
    (
        "watchbill_workloads_pending",
        "Pending workloads by time since creation.",
        PENDING_TIME,
        "",
        "waited",
    ),
)
"""Name, help, telemetry type, grouping and label of each gauge."""


async def fleet_metrics(call: Call) -> bytes:
    """Text in Prometheus' exposition format; empty where the database does not answer."""
    registry = CollectorRegistry()
    try:
        clusters = await cluster_list(call.db, call.access, call.now)
        registry.register(
            _Families(
                [
                    *_cluster_gauges(clusters),
                    *await _fleet_gauges(call, clusters),
                    await _usage_gauge(call),
                    *await _storage_gauges(call),
                ]
            )
        )
    except Unavailable:
        return b""
    return generate_latest(registry)


class _Families(Collector):
    """Metrics that were read already."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Sequence[Metric]:
        return self._families


async def _fleet_gauges(call: Call, clusters: Sequence[Cluster]) -> list[Metric]:
    cluster_names = {str(cluster.id): cluster.name for cluster in clusters}
    families: list[Metric] = []
    for name, help_text, telemetry_type, group, label in _FLEET_GAUGES:
        gauge = GaugeMetricFamily(name, help_text, labels=(label,))
        query = TelemetryQuery(telemetry_type=telemetry_type, group_by=(group,) if group else ())
        result = await telemetry_query(call.db, call.access, query, call.now)
        for value in result.values:
            if value.groups:
                key = value.groups[0].value
                gauge.add_metric((cluster_names.get(key, key),), float(value.value))
        families.append(gauge)
    return families


async def _usage_gauge(call: Call) -> Metric:
    """Of the current UTC day, as far as it is accounted."""
    gauge = GaugeMetricFamily(
        "watchbill_usage_today_gpu_hours",
        "GPU-hours of the current UTC day: allocated, idle (absent where not measured), or pending.",
        labels=("cluster", "state"),
    )
    today = call.now.astimezone(UTC).date()
    query = UsageQuery(
        start=today,
        end=today + timedelta(days=1),
        groups=("cluster",),
    )
    page = await usage_report(call.db, call.access, query, None, call.now)
    for row in page.rows:
        cluster = row.group["cluster"] or ""
        gauge.add_metric((cluster, "allocated"), row.allocated_gpu_hours)
        gauge.add_metric((cluster, "pending"), row.pending_gpu_hours)
        if row.idle_gpu_hours is not None:
            gauge.add_metric((cluster, "idle"), row.idle_gpu_hours)
    return gauge


_TABLE_GAUGES: tuple[tuple[str, str, Callable[[TableSize], float | None]], ...] = (
    (
        "watchbill_table_bytes",
        "Bytes of a table with its indexes.",
        lambda table: table.size_bytes,
    ),
    ("watchbill_table_rows", "Rows of a table, estimated.", lambda table: table.rows),
    (
        "watchbill_table_dead_rows",
        "Rows of a table that autovacuum has not made room of yet.",
        lambda table: table.dead_rows,
    ),
    (
        "watchbill_table_growth_bytes_per_day",
        "Bytes that a table grew by each day of the last week; absent on the first day.",
        lambda table: table.growth_bytes_per_day,
    ),
)


async def _storage_gauges(call: Call) -> list[Metric]:
    tables = await table_sizes(call.db, call.now)
    gauges = [
        GaugeMetricFamily(
            "watchbill_database_transaction_id_age",
            "Transactions since the oldest row was frozen; PostgreSQL stops at two thousand million.",
            value=await transaction_id_age(call.db),
        )
    ]
    for name, help_text, value_of in _TABLE_GAUGES:
        gauge = GaugeMetricFamily(name, help_text, labels=("table",))
        for table in tables:
            value = value_of(table)
            if value is not None:
                gauge.add_metric((table.name,), value)
        gauges.append(gauge)
    return [*gauges, *_disk_gauges(call)]


def _disk_gauges(call: Call) -> list[Metric]:
    """Of the embedded database; of another the server does not see the disk."""
    settings = call.services.settings
    space = disk_space(settings.data_dir) if settings.database_url is None else None
    if space is None:
        return []
    disk = "of the disk that holds the embedded database."
    free_bytes = GaugeMetricFamily("watchbill_disk_free_bytes", f"Free bytes {disk}")
    free_bytes.add_metric((), space.free_bytes)
    size_bytes = GaugeMetricFamily("watchbill_disk_size_bytes", f"Bytes {disk}")
    size_bytes.add_metric((), space.size_bytes)
    return [free_bytes, size_bytes]


def _unix(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


_CLUSTER_GAUGES: tuple[tuple[str, str, Callable[[Cluster], float | None]], ...] = (
    (
        "watchbill_cluster_last_contact_timestamp_seconds",
        "Unix time until which the cluster was observed.",
        lambda cluster: _unix(cluster.last_contact_at),
    ),
    (
        "watchbill_cluster_up",
        "1 while the cluster is connected.",
        lambda cluster: float(cluster.state == "connected"),
    ),
    (
        "watchbill_cluster_last_change_timestamp_seconds",
        "Unix time of the last change of a workload that was applied.",
        lambda cluster: _unix(cluster.last_change_at),
    ),
    (
        "watchbill_cluster_last_inventory_timestamp_seconds",
        "Unix time of the last inventory: agent and server compared all workloads.",
        lambda cluster: _unix(cluster.last_inventory_at),
    ),
    (
        "watchbill_cluster_backlog",
        "Workloads with changes that the agent has not sent yet.",
        lambda cluster: float(cluster.backlog),
    ),
    (
        "watchbill_cluster_digest_mismatches",
        "How often agent and server held different records; an inventory followed each time.",
        lambda cluster: float(cluster.digest_mismatches),
    ),
    (
        "watchbill_cluster_held_deletions",
        "Workloads that disappeared, too many at once: their deletion waits.",
        lambda cluster: float(cluster.held_deletions.count if cluster.held_deletions else 0),
    ),
    (
        "watchbill_cluster_unreadable_kinds",
        "Kinds that the agent cannot read.",
        lambda cluster: float(
            sum(kind.state in ("forbidden", "failing") for kind in cluster.kinds)
        ),
    ),
)


def _cluster_gauges(clusters: Sequence[Cluster]) -> Iterator[Metric]:
    for name, help_text, value_of in _CLUSTER_GAUGES:
        gauge = GaugeMetricFamily(name, help_text, labels=("cluster",))
        for cluster in clusters:
            value = value_of(cluster)
            if value is not None:
                gauge.add_metric((cluster.name,), value)
        yield gauge


CACHED_BRIEFLY = ((b"cache-control", b"public, max-age=300"),)


async def get_health(call: Call) -> Answer:
    return json_reply(Health(status="ok"))


async def get_liveness(call: Call) -> Answer:
    return json_reply(Health(status="ok"))


async def get_version(call: Call) -> Answer:
    return json_reply(Version(version=__version__))


async def get_readiness(call: Call) -> Answer:
    try:
        await _check_readiness(call)
    except Unavailable as error:
        if not call.services.background.is_draining:
            call.services.readiness.note(error.message)
        raise
    call.services.readiness.note(None)
    return json_reply(Health(status="ok"))


async def _check_readiness(call: Call) -> None:
    """Raises Unavailable, with the reason."""
    if call.services.settings.database_url is None:
        check_disk(call.services.settings.data_dir)  # the cause, before what comes of it
    await call.services.readiness.check(call.db)
    if call.services.background.is_draining:
        raise Unavailable("The server is stopping.", retry_after_seconds=2)
    if stale := call.services.background.stale():
        raise Unavailable(
            "Background tasks are overdue: " + ", ".join(state.name for state in stale) + ".",
            details="The log says why; /metrics says when each task last succeeded.",
            retry_after_seconds=60,
        )


def server_handlers(
    *, contract: dict[str, Any], merged: dict[str, Any], meters: ServerMetrics
) -> tuple[Handler, ...]:
    """These answer from what was made at start, so they are made with it."""

    async def get_server_metrics(call: Call) -> Answer:
        body = generate_latest(meters.registry) + await fleet_metrics(call)
        return Reply(body=body, media_type=CONTENT_TYPE_LATEST)

    return (
        get_health,
        get_liveness,
        get_version,
        get_readiness,
        get_server_metrics,
        _document("get_openapi", merged),
        _document("get_contract", contract),
    )


def _document(name: str, document: dict[str, Any]) -> Handler:
    reply = Reply(body=encode(document), headers=CACHED_BRIEFLY)

    async def answer(call: Call) -> Answer:
        return reply

    answer.__name__ = name
    return answer

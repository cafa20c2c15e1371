"""What a Prometheus is told of the fleet: clusters and their silence, workloads by phase, waiting, idle GPUs.

It sees what the login that it scrapes with may see. Names of workloads and people are not among the labels.

The server about itself: health, readiness, its metrics, and the documents that describe it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from watchbill.api.http.call import Call
from watchbill.api.http.endpoint import Handler
from watchbill.api.http.reply import Answer, Reply, encode, json_reply
from watchbill.api.http.server_metrics import ServerMetrics
from watchbill.errors import Unavailable
from watchbill.query import TelemetryQuery
from watchbill.store.fleet.clusters import Cluster, cluster_list
from watchbill.store.workloads.telemetry import PENDING_TIME, telemetry_query

Line = tuple[dict[str, str], str]
_TELEMETRY = (
    ("watchbill_workloads", "Live workloads by phase.", "WORKLOADS_COUNT", "Phase", "phase"),
    ("watchbill_gpus_allocated", "GPUs that workloads hold.", "GPU_ALLOCATION", "ClusterId", ""),
    (
        "watchbill_gpus_idle",
        "GPUs that workloads hold and that stand idle; absent where no exporter measures them.",
        "IDLE_ALLOCATED_GPUS",
        "ClusterId",
        "",
    ),
    ("watchbill_workloads_pending", "Workloads by how long they wait.", PENDING_TIME, "", "waited"),
)


async def fleet_metrics(call: Call) -> bytes:
    """Text of Prometheus' format; empty where the database does not answer."""
    try:
        clusters = await cluster_list(call.db, call.access, call.now)
        names = {str(cluster.id): cluster.name for cluster in clusters}
        families = [_family(*family) for family in _clusters(clusters)]
        for name, meaning, kind, group, label in _TELEMETRY:
            query = TelemetryQuery(telemetry_type=kind, group_by=(group,) if group else ())
            values = await telemetry_query(call.db, call.access, query, call.now)
            lines = [
                (
                    {label or "cluster": names.get(one.groups[0].value, one.groups[0].value)},
                    one.value,
                )
                for one in values
                if one.groups
            ]
            families.append(_family(name, meaning, lines))
    except Unavailable:
        return b""
    return b"".join(families)


def _clusters(clusters: Iterable[Cluster]) -> Iterator[tuple[str, str, list[Line]]]:
    known = list(clusters)
    yield (
        "watchbill_cluster_last_contact_timestamp_seconds",
        "When a cluster's agent was last heard of.",
        [
            ({"cluster": one.name}, f"{one.last_contact_at.timestamp():.3f}")
            for one in known
            if one.last_contact_at is not None
        ],
    )
    yield (
        "watchbill_cluster_up",
        "Whether a cluster is connected.",
        [({"cluster": one.name}, str(int(one.state == "connected"))) for one in known],
    )


def _family(name: str, meaning: str, lines: Iterable[Line]) -> bytes:
    text = [f"# HELP {name} {meaning}", f"# TYPE {name} gauge"]
    for labels, value in lines:
        inside = ",".join(f'{key}="{_escaped(told)}"' for key, told in labels.items())
        text.append(f"{name}{{{inside}}} {value}")
    return ("\n".join(text) + "\n").encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


CACHED_BRIEFLY = ((b"cache-control", b"public, max-age=300"),)


async def get_health(call: Call) -> Answer:
    return json_reply({"status": "ok"})


async def get_readiness(call: Call) -> Answer:
    if not await call.db.is_ready():
        raise Unavailable("The database does not answer.", retry_after_seconds=2)
    if stale := call.services.background.stale():
        raise Unavailable(
            "Background work stands still: " + ", ".join(state.name for state in stale) + ".",
            details="The log says why; /metrics says when each task last succeeded.",
            retry_after_seconds=60,
        )
    return json_reply({"status": "ok"})


def server_handlers(
    *, contract: dict[str, Any], merged: dict[str, Any], meters: ServerMetrics
) -> tuple[Handler, ...]:
    """These answer from what was made at start, so they are made with it."""

    async def get_server_metrics(call: Call) -> Answer:
        body = generate_latest(meters.registry) + await fleet_metrics(call)
        return Reply(body=body, media_type=CONTENT_TYPE_LATEST)

    return (
        get_health,
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

"""Metrics over time, as JSON or CSV, and what a partial or a whole failure is answered with.

Of a workload; and of a node, a node pool or a cluster, for who sees the cluster as a whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from watchbill.api.http.call import Call
from watchbill.api.http.parameters import check_years
from watchbill.api.http.reply import CSV, Answer, Reply, json_reply
from watchbill.api.resources.workloads import workload_not_found
from watchbill.errors import Invalid, NotFound, Unavailable
from watchbill.metric_types import MetricType
from watchbill.metrics.cluster import cluster_outcomes
from watchbill.metrics.pods_and_nodes import node_outcomes
from watchbill.metrics.source import (
    FailedType,
    Histogram,
    Measurement,
    MetricsQuery,
    Outcome,
    Utilization,
)
from watchbill.query import NodeQuery, Predicate
from watchbill.responses.contract import (
    HistogramSample,
    HistogramSeries,
    MetricGroup,
    MetricSample,
    MetricSeries,
    MetricsResponse,
)
from watchbill.responses.workloads import UtilizationList, UtilizationSeries
from watchbill.store.fleet.nodes import cluster_names, node_count, node_get, sees_whole
from watchbill.tabular import CsvCell, instant, rows_as_csv

MAX_RANGE = timedelta(days=90)
RETRY_AFTER_SECONDS = 5
UTILIZATION_RANGE = timedelta(hours=3)
UTILIZATION_SAMPLES = 36
CSV_TYPE = "text/csv; charset=utf-8; header=present"
ATTACHMENT = ((b"content-disposition", b'attachment; filename="metrics.csv"'),)


async def get_workload_metrics(call: Call) -> Answer:
    query = metrics_query(call.values)
    workload_id = call.values["workloadId"]
    outcomes = await call.services.metrics.measure(call.access, workload_id, query, call.now)
    if outcomes is None:
        raise workload_not_found(workload_id)
    return metrics_reply(call, outcomes)


def metrics_reply(call: Call, outcomes: Sequence[Outcome]) -> Answer:
    """What could be answered, with status 207 where a type could not. Raises Unavailable where none could."""
    failed = [outcome for outcome in outcomes if isinstance(outcome, FailedType)]
    if len(failed) == len(outcomes):
        raise _nothing(failed)
    if call.media_type == CSV and not failed:
        return Reply(body=rows_as_csv(_table(outcomes)), media_type=CSV_TYPE, headers=ATTACHMENT)
    stamps = _Stamps()
    answer = MetricsResponse(
        measurements=tuple(
            _series(outcome, stamps) for outcome in outcomes if not isinstance(outcome, Histogram)
        ),
        histogram=tuple(
            _histogram(outcome, stamps) for outcome in outcomes if isinstance(outcome, Histogram)
        ),
    )
    return json_reply(answer, status=207 if failed else 200)


async def get_workload_utilization(call: Call) -> Answer:
    query = MetricsQuery(
        types=(MetricType.GPU_UTILIZATION,),
        start=call.now - UTILIZATION_RANGE,
        end=call.now,
        number_of_samples=UTILIZATION_SAMPLES,
    )
    ids = call.values["ids"]
    measured = await call.services.metrics.utilization(call.access, ids, query, call.now)
    return json_reply(
        UtilizationList(
            start=query.instants()[0],
            step_seconds=int(query.step.total_seconds()),
            workloads=tuple(
                UtilizationSeries(id=workload_id, values=_rounded(measured[workload_id]))
                for workload_id in ids
                if workload_id in measured
            ),
        )
    )


def _rounded(figures: Utilization | None) -> Utilization | None:
    if figures is None:
        return None
    return tuple(None if figure is None else round(figure, 1) for figure in figures)


def metrics_query(values: Mapping[str, Any]) -> MetricsQuery:
    """Raises Invalid where the range is empty or too long."""
    start, end = values["start"], values["end"]
    check_years(start=start, end=end)
    if start >= end:
        raise Invalid("start must lie before end.")
    if end - start > MAX_RANGE:
        raise Invalid(f"The range may span {MAX_RANGE.days} days at most.")
    return MetricsQuery(
        types=tuple(dict.fromkeys(values["metricType"])),
        start=start,
        end=end,
        number_of_samples=values["numberOfSamples"],
    )


def _nothing(failed: Sequence[FailedType]) -> Unavailable:
    reasons = ", ".join(f"{failure.type}: {failure.reason}" for failure in failed)
    may_pass = any(failure.reason.may_pass for failure in failed)
    return Unavailable(
        "None of these metrics is available.",
        details=f"{reasons}.",
        retry_after_seconds=RETRY_AFTER_SECONDS if may_pass else None,
    )


class _Stamps(dict[datetime, str]):
    """Instants as text. All series of an answer share theirs, so each is written once."""

    def __missing__(self, at: datetime) -> str:
        text = self[at] = instant(at)
        return text


def _histogram(outcome: Histogram, stamps: _Stamps) -> HistogramSeries:
    return HistogramSeries(
        type=outcome.type,
        values=tuple(
            HistogramSample(timestamp=stamps[spread.at], data=spread.counts)
            for spread in outcome.spreads
        ),
    )


def _series(outcome: Measurement | FailedType, stamps: _Stamps) -> MetricSeries:
    if isinstance(outcome, FailedType):
        return MetricSeries(type=outcome.type, labels={"reason": outcome.reason}, values=None)
    return MetricSeries(
        type=outcome.type,
        labels=dict(outcome.labels) or None,
        values=tuple(
            MetricSample(value=sample.value, timestamp=stamps[sample.at])
            for sample in outcome.samples
        ),
        groups=tuple(MetricGroup(key=key, value=value) for key, value in outcome.groups),
    )


def _table(outcomes: Sequence[Outcome]) -> Iterator[Sequence[CsvCell]]:
    yield ["type", "labels", "timestamp", "value"]
    for outcome in outcomes:
        if isinstance(outcome, Measurement):
            named = sorted((*outcome.labels.items(), *outcome.groups))
            labels = ",".join(f"{name}={value}" for name, value in named)
            for sample in outcome.samples:
                yield [outcome.type, labels, sample.at, Decimal(sample.value)]
        elif isinstance(outcome, Histogram):
            for spread in outcome.spreads:
                for bound, count in spread.counts.items():
                    yield [outcome.type, f"le={bound}", spread.at, Decimal(count)]


async def get_node_metrics(call: Call) -> Answer:
    """Raises NotFound also for a node of which only a part is in scope: its figures tell of others."""
    query = metrics_query(call.values)
    node_id = call.values["nodeId"]
    node = await node_get(call.db, call.access, node_id, call.now)
    if node is None or node.is_partial:
        raise NotFound(f"There is no node {node_id}.")
    return metrics_reply(call, await node_outcomes(call.db, call.access, node, query, call.now))


async def get_cluster_metrics(call: Call) -> Answer:
    """Raises NotFound also for a cluster of which only a part is in scope."""
    query = metrics_query(call.values)
    cluster_id = await _whole_cluster(call)
    outcomes = await cluster_outcomes(
        call.db,
        call.access.tenant_id,
        cluster_id,
        query,
        call.now,
        group_by=call.values["groupBy"] or None,
        node_pool=call.values["nodepoolName"],
    )
    return metrics_reply(call, outcomes)


async def get_nodepool_metrics(call: Call) -> Answer:
    """Raises NotFound where no node is in the pool, or only a part of the cluster is in scope."""
    query = metrics_query(call.values)
    cluster_id, name = await _whole_cluster(call), call.values["nodepoolName"]
    nodes = NodeQuery(cluster_id=cluster_id, predicates=(Predicate("nodePool", "==", name),))
    if not await node_count(call.db, call.access, nodes, call.now):
        raise NotFound(f"There is no node pool {name[:100]}.")
    outcomes = await cluster_outcomes(
        call.db, call.access.tenant_id, cluster_id, query, call.now, node_pool=name
    )
    return metrics_reply(call, outcomes)


async def _whole_cluster(call: Call) -> UUID:
    cluster_id: UUID = call.values["clusterUuid"]
    names = await cluster_names(call.db, call.access)
    if cluster_id not in names or not sees_whole(call.access, cluster_id):
        raise NotFound(f"There is no cluster {cluster_id}.")
    return cluster_id


HANDLERS = (
    get_workload_metrics,
    get_workload_utilization,
    get_node_metrics,
    get_cluster_metrics,
    get_nodepool_metrics,
)

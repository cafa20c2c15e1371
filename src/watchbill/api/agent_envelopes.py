"""Messages of agents before their entries are decoded, so that they can be one by one: what cannot be is left
out alone, and others get their turn in between."""

from datetime import datetime
from typing import Annotated

import msgspec

from watchbill.cluster_node import MAX_NODES
from watchbill.protocol import (
    BATCH_EVENTS,
    BATCH_ITEMS,
    BATCH_READINGS,
    MAX_NODE_POOLS,
    Count,
    Hash,
    Instant,
    KindState,
    NodeNames,
    Sequence,
    StreamId,
    UnobservedTimes,
)
from watchbill.scheduler_queue import MAX_QUEUES
from watchbill.workload import Wire


class ScrapeEnvelope(Wire, frozen=True):
    """A scrape without its figures."""

    at: Instant
    counted_since: Instant
    workloads: tuple[msgspec.Raw, ...]


class BatchEnvelope(Wire, frozen=True):
    """A batch without its items, figures and events."""

    stream_id: StreamId
    seq: Sequence
    items: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=2 * BATCH_ITEMS)]
    scrapes: Annotated[tuple[ScrapeEnvelope, ...], msgspec.Meta(max_length=BATCH_READINGS)] = ()
    events: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=BATCH_EVENTS)] = ()


class NodeChangesEnvelope(Wire, frozen=True):
    """Changes of nodes without the nodes."""

    digest: Annotated[str, msgspec.Meta(max_length=32)]
    since: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    changed: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_NODES)] = ()
    removed: NodeNames = ()
    names: NodeNames = ()


class HeartbeatEnvelope(Wire, frozen=True):
    """A heartbeat without its node pools, nodes and queues."""

    stream_id: StreamId
    seq: Sequence
    kinds: Annotated[tuple[KindState, ...], msgspec.Meta(max_length=2_000)] = ()
    node_pools: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_NODE_POOLS)] = ()
    observed_seconds_ago: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = 0.0
    backlog: Count = 0
    sent_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    cluster_clock_ahead_seconds: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)] | None = None
    digest: Hash | None = None
    nodes: NodeChangesEnvelope | None = None
    queues: Annotated[tuple[msgspec.Raw, ...], msgspec.Meta(max_length=MAX_QUEUES)] | None = None
    unobserved: UnobservedTimes = ()
    unbroken_seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None

"""The fleet's figures and the clusters that report here."""

from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from watchbill.protocol import (
    DEGRADED_AFTER_SECONDS,
    DISCONNECTED_AFTER_SECONDS,
    KindState,
    NodePoolCapacity,
    RefusedItem,
)
from watchbill.responses.contract import Amount, Count, Instant, PositiveCount
from watchbill.workload import Wire

ClusterState = Literal["waiting", "connected", "degraded", "disconnected"]


def cluster_state(last_contact_at: datetime | None, now: datetime) -> ClusterState:
    """What the time of its last contact says of a cluster, by the server's clock."""
    if last_contact_at is None:
        return "waiting"
    since_contact = now - last_contact_at
    if since_contact < timedelta(seconds=DEGRADED_AFTER_SECONDS):
        return "connected"
    if since_contact < timedelta(seconds=DISCONNECTED_AFTER_SECONDS):
        return "degraded"
    return "disconnected"


class FleetGpus(Wire, frozen=True, kw_only=True):
    allocated: Amount
    measured: Annotated[
        float,
        msgspec.Meta(
            ge=0, description="Allocated GPUs of which it is known whether they are idle."
        ),
    ]
    idle: Annotated[
        float | None,
        msgspec.Meta(description="Null where GPUs are allocated and nothing measures them."),
    ]
    total: Annotated[
        float | None,
        msgspec.Meta(
            description="GPUs of all clusters in scope. Null where a cluster has not reported its capacity, or "
            "where the caller sees only parts of clusters."
        ),
    ]


class FleetPending(Wire, frozen=True, kw_only=True):
    count: Count
    median_wait_seconds: Annotated[
        int | None,
        msgspec.Meta(
            description="Half of them have been pending for longer. Null where nothing is pending. In the "
            "series it is read from counts and off by a fifth at most."
        ),
    ]


class FleetMoment(Wire, frozen=True, kw_only=True):
    """The fleet at one instant. Null is not known, which is not 0."""

    at: Instant
    workloads: Annotated[int, msgspec.Meta(ge=0, description="Live ones.")]
    phases: Annotated[
        dict[str, PositiveCount],
        msgspec.Meta(description="Live workloads by phase; a phase that nothing is in is absent."),
    ]
    gpus: FleetGpus
    pending: FleetPending
    failed_in_last_day: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            description="Workloads whose last phase is Failed since 24 hours or less, deleted ones included.",
        ),
    ]


class Fleet(Wire, frozen=True, kw_only=True):
    now: FleetMoment
    step_seconds: Annotated[int, msgspec.Meta(ge=300)]
    series: Annotated[tuple[FleetMoment, ...], msgspec.Meta(description="Oldest first.")]


class Gap(Wire, frozen=True, kw_only=True):
    """A time in which nobody observed the cluster: workloads may have lived and died unseen."""

    from_at: Instant = msgspec.field(name="from")
    to_at: Instant = msgspec.field(name="to")


class HeldDeletions(Wire, frozen=True, kw_only=True):
    """Workloads that an inventory did not show any more, too many at once to be deleted unconfirmed."""

    count: PositiveCount
    since: Instant
    is_refused: Annotated[
        bool,
        msgspec.Meta(
            description="Whether an administrator refused all of them: they stay until they are released."
        ),
    ]


class ClusterPlatform(Wire, frozen=True, kw_only=True):
    kube_version: str | None = None


class ClusterStatus(Wire, frozen=True, kw_only=True):
    """The cluster's state in the words of Run:ai."""

    state: Literal["WaitingToConnect", "Connected", "ServiceIssues", "Disconnected"]
    platform: ClusterPlatform


class Cluster(Wire, frozen=True, kw_only=True):
    """A cluster's state by the server's own clock; `since` = when it entered the state.

    Connected since the last gap of a minute or more ended, or since it was registered.
    """

    uuid: UUID
    tenant_id: int
    id: UUID
    name: str
    state: Annotated[
        ClusterState,
        msgspec.Meta(
            description="waiting = no contact yet; degraded = nothing is known to be current for 60 s; "
            "disconnected = for 300 s, because there is no contact with the agent or it cannot read its "
            "cluster. The phases of its workloads are kept as they were."
        ),
    ]
    since: Instant
    created_at: Instant
    workloads: Annotated[int, msgspec.Meta(ge=0, description="Live ones.")]
    takeovers: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            description="How often another agent took over the stream. Two that run with one credential make "
            "it grow, a restart does not.",
        ),
    ]
    kinds: tuple[KindState, ...]
    node_pools: tuple[NodePoolCapacity, ...]
    refused: Annotated[
        tuple[RefusedItem, ...], msgspec.Meta(description="Records that were rejected.")
    ]
    gaps: Annotated[
        tuple[Gap, ...],
        msgspec.Meta(
            description="Intervals in which nothing was observed; what lived only inside one is not known."
        ),
    ]
    last_contact_at: Annotated[
        Instant | None,
        msgspec.Meta(description="Until when the cluster was observed; totals stop here."),
    ] = None
    last_message_at: Annotated[
        Instant | None,
        msgspec.Meta(description="The newest message of its agent, whatever that can read."),
    ] = None
    last_change_at: Annotated[
        Instant | None, msgspec.Meta(description="When a change of a workload was last applied.")
    ] = None
    last_takeover_at: Annotated[
        Instant | None, msgspec.Meta(description="When another agent last took over the stream.")
    ] = None
    last_inventory_at: Annotated[
        Instant | None,
        msgspec.Meta(description="When agent and server last compared all workloads."),
    ] = None
    backlog: Annotated[
        int, msgspec.Meta(ge=0, description="Workloads with changes that are not applied yet.")
    ] = 0
    stored_bytes: Annotated[
        int | None,
        msgspec.Meta(
            description="Bytes of its workloads in the database, live and deleted. Null for who sees only a "
            "part of the cluster; so is the limit.",
        ),
    ] = None
    stored_bytes_limit: Annotated[
        int | None,
        msgspec.Meta(description="Beyond it records are rejected until some are removed."),
    ] = None
    agent_clock_ahead_seconds: Annotated[
        float | None,
        msgspec.Meta(description="Of the agent's clock against the server's; negative = behind."),
    ] = None
    cluster_clock_ahead_seconds: Annotated[
        float | None,
        msgspec.Meta(
            description="Of the clock of the cluster's API server against the server's, to the second."
        ),
    ] = None
    digest_compared_at: Annotated[
        Instant | None,
        msgspec.Meta(
            description="When agent and server last compared the digests of all their records."
        ),
    ] = None
    digest_mismatches: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            description="How often the digests differed; each time an inventory followed and repaired it.",
        ),
    ] = 0
    reason: Annotated[
        str | None, msgspec.Meta(description="Why it is degraded or disconnected.")
    ] = None
    held_deletions: HeldDeletions | None = None
    agent_version: str | None = None
    kubernetes_version: str | None = None
    updated_at: Instant | None = None
    last_liveness: Instant | None = None
    status: Annotated[
        ClusterStatus | None, msgspec.Meta(description="Absent with `verbosity=metadata`.")
    ] = None


class CreatedCluster(Wire, frozen=True, kw_only=True):
    id: UUID
    name: str
    credential: Annotated[
        str, msgspec.Meta(description="One line, `wba.<cluster id>.<secret>`; shown only once.")
    ]


ROOTS: tuple[type[msgspec.Struct], ...] = (Fleet, Cluster, CreatedCluster)

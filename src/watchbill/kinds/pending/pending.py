"""Why a workload is pending: the reasons of all schedulers in one list, the dominant one first.

A reason's `user_message` has one form: what is short – how much is requested and free – what would help.
"""

from datetime import UTC, datetime

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.pending.kai import QUOTA_REASONS, kai_reasons, scheduling_messages
from watchbill.kinds.pending.kueue import kueue_reasons
from watchbill.kinds.pending.scheduler import pod_reasons, volcano_reasons
from watchbill.workload import PendingReason, PendingSchedulingMessage

MAX_REASONS = 20
_SOURCES = {"kai": 0, "kueue": 1, "volcano": 2, "scheduler": 3}
_EPOCH = datetime.fromtimestamp(0, UTC)


def pending_reasons(view: WorkloadView) -> tuple[PendingReason, ...]:
    """Every reason, dominant first: quota before the rest, queues before nodes, the newest first."""
    reasons: list[PendingReason] = []
    for reason in (
        *kai_reasons(view),
        *kueue_reasons(view),
        *volcano_reasons(view),
        *pod_reasons(view),
    ):
        # A scheduler writes the same sentence on the group and on each of its pods.
        if all(
            (reason.source, reason.message) != (other.source, other.message) for other in reasons
        ):
            reasons.append(reason)
    return tuple(sorted(reasons, key=_dominance)[:MAX_REASONS])


def _dominance(reason: PendingReason) -> tuple[bool, int, float, str, str]:
    age = (reason.since - _EPOCH).total_seconds()
    return (
        reason.reason not in QUOTA_REASONS,
        _SOURCES[reason.source],
        -age,
        reason.node_pool or "",
        reason.message,
    )


def pending_scheduling_messages(view: WorkloadView) -> tuple[PendingSchedulingMessage, ...]:
    """The reasons that the contract's enum can carry."""
    return tuple(scheduling_messages(view))[:MAX_REASONS]

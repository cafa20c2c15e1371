"""Why a workload is pending: the reasons of all schedulers in one list, the dominant one first.

A reason's `user_message` has one form: what is short – how much is requested and free – what would help.
"""

from datetime import UTC, datetime
from itertools import islice

import msgspec

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.pending.kai import QUOTA_REASONS, kai_reasons, scheduling_messages
from watchbill.kinds.pending.kueue import kueue_reasons
from watchbill.kinds.pending.no_capacity import StatedReason
from watchbill.kinds.pending.scheduler import pod_reasons, volcano_reasons
from watchbill.workload import PendingReason, PendingSchedulingMessage

MAX_REASONS = 20
_SOURCES = {"kai": 0, "kueue": 1, "volcano": 2, "scheduler": 3}
_EPOCH = datetime.fromtimestamp(0, UTC)


def pending_reasons(view: WorkloadView) -> tuple[PendingReason, ...]:
    """Every reason, dominant first: quota before the rest, queues before nodes, the newest first."""
    reasons: dict[tuple[str, str], StatedReason] = {}
    for stated in (
        *kai_reasons(view),
        *kueue_reasons(view),
        *volcano_reasons(view),
        *pod_reasons(view),
    ):
        # A scheduler writes the same sentence on the group and on each of its pods.
        reasons.setdefault((stated[0].source, stated[0].message), stated)
    shown = sorted(reasons.values(), key=_dominance)[:MAX_REASONS]
    return tuple(msgspec.structs.replace(reason, user_message=write()) for reason, write in shown)


def _dominance(stated: StatedReason) -> tuple[bool, int, float, str, str]:
    reason, _ = stated
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
    return tuple(islice(scheduling_messages(view), MAX_REASONS))

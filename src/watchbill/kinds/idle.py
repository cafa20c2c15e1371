"""What a record says of idle GPUs. Pure; the measuring is the agent's.

Nothing here moves with the clock: a record changes when a device begins or ends to idle, not while it does.
"""

from datetime import datetime
from typing import Any

from watchbill.kinds.objects import IdleGpus


def idle_millionths(measured: IdleGpus | None, *, allocated: int) -> int | None:
    """The idle part of what is allocated. None = GPUs are allocated and nothing measures them."""
    if not allocated:
        return 0
    if measured is None or measured.millionths is None:
        return None
    return min(measured.millionths, allocated)


def idle_fields(measured: IdleGpus | None, idle: int | None) -> dict[str, Any]:
    """Since when, and the GPU-hours of spells that are over; readers add those of the open ones."""
    if measured is None or (not idle and not measured.gpu_hours):
        return {}
    fields: dict[str, Any] = {
        "idleGpuHours": round(measured.gpu_hours, 4),
        "idleMeasuredSince": _instant(measured.measured_since),
    }
    if idle and measured.since is not None and measured.mean_since is not None:
        fields["idleSince"] = _instant(measured.since)
        fields["idleMeanSince"] = _instant(measured.mean_since)
    return fields


def _instant(at: datetime) -> str:
    return at.replace(microsecond=0).isoformat().replace("+00:00", "Z")

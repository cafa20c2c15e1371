"""Which pods of a workload changed since the server's last acknowledgement. Pure.

Of each pod that was sent its id and a hash are remembered, as one run of bytes: pods are the many.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from watchbill.protocol import PodChanges
from watchbill.workload_pod import MAX_PODS, WorkloadPod, pod_hash

_ID_BYTES = 16
_ENTRY_BYTES = _ID_BYTES + 8


@dataclass(frozen=True, slots=True)
class PodHashes:
    """The pods that the server holds once it has the record of this hash."""

    record_hash: str
    packed: bytes

    def unpacked(self) -> dict[bytes, bytes]:
        """Hashes by the bytes of the pods' ids."""
        starts = range(0, len(self.packed), _ENTRY_BYTES)
        return {
            self.packed[start : start + _ID_BYTES]: self.packed[
                start + _ID_BYTES : start + _ENTRY_BYTES
            ]
            for start in starts
        }


def pod_changes(
    pods: Sequence[WorkloadPod],
    record_hash: str,
    acknowledged_hash: str | None,
    acknowledged: PodHashes | None,
) -> tuple[PodChanges, PodHashes]:
    """What to send of the pods, and what the server then holds. All of them unless it is known what the server
    has: the pods of the record that it acknowledged last."""
    hashes = {pod.id.bytes: pod_hash(pod) for pod in pods}
    packed = PodHashes(record_hash, b"".join(key + value for key, value in hashes.items()))
    if acknowledged is None or acknowledged.record_hash != acknowledged_hash:
        return PodChanges(changed=tuple(pods)), packed
    before = acknowledged.unpacked()
    removed = _removed(before, hashes)
    if len(removed) > MAX_PODS:
        return PodChanges(changed=tuple(pods)), packed
    changed = tuple(pod for pod in pods if before.get(pod.id.bytes) != hashes[pod.id.bytes])
    return PodChanges(changed=changed, removed=removed, since=acknowledged.record_hash), packed


def _removed(before: Mapping[bytes, bytes], now: Mapping[bytes, bytes]) -> tuple[UUID, ...]:
    return tuple(UUID(bytes=key) for key in before if key not in now)

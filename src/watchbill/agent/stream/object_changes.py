"""Which nodes, and which pods of a workload, changed since the server's last acknowledgement. Pure.

The server keeps one digest of the nodes that it holds. A difference says which digest it starts from; where
the server holds another, it asks for all, which is sent as a beginning and as many differences as it takes.
Of each pod that was sent its id and a hash are remembered, as one run of bytes: pods are the many.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from watchbill.agent.cache.nodes import PresentedNode
from watchbill.cluster_node import nodes_digest
from watchbill.protocol import NodeChanges, PodChanges
from watchbill.workload_pod import MAX_PODS, WorkloadPod, pod_hash

MESSAGE_BYTES = 1024 * 1024
"""Of the nodes in one heartbeat."""


class NodeChangeTracker:
    """What the server holds, as far as is known; None = it has not answered yet."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] | None = None
        self._is_wanted = False
        self._sent: dict[str, bytes] = {}
        self._named: frozenset[str] = frozenset()
        """What the server was allowed to keep when all was sent, and may hold as it was before."""
        self.has_more = False
        """Changes that did not fit wait for the next heartbeat."""

    def changes(self, nodes: Mapping[str, PresentedNode]) -> NodeChanges:
        """What to send next. An agent that has just started asks first whether the server needs anything."""
        now = {name: each.hash for name, each in nodes.items()}
        if self._held is None and not self._is_wanted:
            self._sent, self.has_more = now, False
            digest = nodes_digest(now)
            return NodeChanges(digest=digest, since=digest)
        held = {} if self._is_wanted or self._held is None else self._held
        chosen, self.has_more = _fitting(nodes, held)
        self._named = frozenset(now) if self._is_wanted else self._named
        removed = tuple(name for name in sorted(held.keys() | self._named) if name not in now)
        self._sent = {name: held[name] for name in held if name in now}
        self._sent |= {name: now[name] for name in chosen}
        return NodeChanges(
            digest=nodes_digest(self._sent),
            since=None if self._is_wanted else nodes_digest(held),
            changed=tuple(nodes[name].node for name in chosen),
            removed=removed,
            names=tuple(now) if self._is_wanted else (),
        )

    def acknowledge(self, *, wants_nodes: bool) -> None:
        """The server answered the last changes."""
        self._is_wanted = wants_nodes
        self._held = None if wants_nodes else self._sent
        if not self.has_more:
            self._named = frozenset()
        self.has_more = self.has_more or wants_nodes


def _fitting(
    nodes: Mapping[str, PresentedNode], held: Mapping[str, bytes]
) -> tuple[list[str], bool]:
    """Names of changed nodes, as many as one message holds, and whether there are more."""
    chosen: list[str] = []
    left = MESSAGE_BYTES
    for name, each in nodes.items():
        if held.get(name) == each.hash:
            continue
        left -= each.size
        if left < 0 and chosen:
            return chosen, True
        chosen.append(name)
    return chosen, False


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

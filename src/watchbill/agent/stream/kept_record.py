"""A record that is derived and not yet sent, as it is kept until then. Pure.

Most are sent within a second: the newest stay as they are, neither compressed nor decoded again.
While a server does not answer many wait, and those are compressed.
"""

import zlib

import msgspec

from watchbill.kinds.derive import Derived
from watchbill.protocol import Record
from watchbill.workload import Wire
from watchbill.workload_pod import WorkloadPod

MAX_LOOSE_BYTES = 4 * 1024 * 1024
"""Of records that are kept as they are, by their encoded size; in memory they take several times as much."""
_POD_BYTES = 1_000
"""About what a pod takes, encoded."""


class UnsentRecord(Wire, frozen=True):
    """A record and its pods, as they were derived."""

    record: Record
    pods: tuple[WorkloadPod, ...]


_DECODER = msgspec.json.Decoder(UnsentRecord)
_ENCODER = msgspec.json.Encoder()


class KeptRecord:
    """`loose_bytes`: its size while it is kept as it is, 0 where it is compressed."""

    __slots__ = ("_kept", "loose_bytes", "size_bytes")

    def __init__(self, derived: Derived, encoded: bytes, *, loose_bytes_left: int) -> None:
        """`encoded`: the record."""
        size = len(encoded) + _POD_BYTES * len(derived.pods)
        self._kept: UnsentRecord | bytes
        if size <= loose_bytes_left:
            self._kept, self.loose_bytes, self.size_bytes = unsent_record(derived), size, size
        else:
            pods = _ENCODER.encode(derived.pods)
            self._kept = zlib.compress(b'{"record":' + encoded + b',"pods":' + pods + b"}", 1)
            self.loose_bytes, self.size_bytes = 0, len(self._kept)

    def unsent(self) -> UnsentRecord:
        kept = self._kept
        return _DECODER.decode(zlib.decompress(kept)) if isinstance(kept, bytes) else kept


def unsent_record(derived: Derived) -> UnsentRecord:
    return UnsentRecord(record=derived.record, pods=derived.pods)

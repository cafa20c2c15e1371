"""The stored document: a workload's JSON as the API sends it, encoded once at ingest.

It is the server's own members followed by the agent's, and has no closing brace: a reply appends the two
running totals, and GET its details. Nothing in it moves with the clock. Equal revision = equal bytes, which is
what makes the cache right without any invalidation.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

import msgspec

from watchbill.responses.contract import DeletedBetween
from watchbill.store.postgres.database import Connection
from watchbill.workload import Phase, Wire, Workload

DOCUMENT_FORMAT = 2
"""Raised when the encoding changes, or agents tell something new: the next inventory asks for rows of an older
format again, since an older server ignored what it did not know (2: pods)."""

PAGE_BYTES = 8 * 1024 * 1024
"""Of one page's documents: a page that would hold more ends earlier, and its `next` goes on from there."""

Pieces = tuple[bytes | memoryview, ...]
"""A document that is finished but not copied yet: memory for each of 500 costs more than all the rest."""

_ENCODER = msgspec.json.Encoder()
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Stamp(Wire, frozen=True):
    """What only the server knows of a workload."""

    tenant_id: int
    cluster_id: UUID
    project_id: str
    department_id: str
    updated_at: datetime
    phase_updated_at: datetime
    k8s_phase_updated_at: datetime
    deleted_at: datetime | None


def encode_document(stamp: Stamp, workload: Workload) -> bytes:
    return _ENCODER.encode(stamp)[:-1] + b"," + _ENCODER.encode(workload)[1:-1]


class LastState(Wire, frozen=True):
    """The members that a deletion changes: the workload is shown as it was before it began to leave."""

    phase: Phase
    phase_updated_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


def replace_members(
    document: bytes,
    state: LastState,
    between: DeletedBetween | None,
    *,
    without: tuple[str, ...] = (),
) -> bytes:
    """The same document in its last state; for the change that comes without a record.

    An inferred deletion leaves its interval in `additionalFields.deletedBetween`.
    """
    members = _MEMBERS.decode(document + b"}")
    members |= _MEMBERS.decode(_ENCODER.encode(state))
    for name in without:
        members.pop(name, None)
    if between is not None:
        fields = _MEMBERS.decode(members["additionalFields"])
        fields["deletedBetween"] = msgspec.Raw(_ENCODER.encode(between))
        members["additionalFields"] = msgspec.Raw(_ENCODER.encode(fields))
    return _ENCODER.encode(members)[:-1]


def revision_of(document: bytes) -> bytes:
    return hashlib.sha256(document).digest()[:16]


_TOTALS = b',"totalPendingTimeSeconds":%d,"totalRunningTimeSeconds":%d}'
_ADDITIONAL = b'"additionalFields":{'
"""Nowhere else in a document: within a text the quotes would be escaped, and no map of ours holds maps."""


def finish_document(
    document: bytes,
    pending_seconds: int,
    running_seconds: int,
    observed_until: datetime | None = None,
) -> bytes:
    """The document as an element of a list reply. `observed_until`: of a cluster whose data is old."""
    return b"".join(document_pieces(document, pending_seconds, running_seconds, observed_until))


def document_pieces(
    document: bytes,
    pending_seconds: int,
    running_seconds: int,
    observed_until: datetime | None = None,
) -> Pieces:
    """The same, to be copied once, into the reply."""
    end = _TOTALS % (pending_seconds, running_seconds)
    if observed_until is None:
        return document, end
    return *_with_member(document, _observed_until(observed_until.timestamp())), end


def finished_pieces(
    documents: Iterable[bytes | None],
    pending_seconds: Sequence[int],
    running_seconds: Sequence[int],
    observed_until: Sequence[datetime | None] | None,
) -> list[Pieces]:
    """Those that are there; `observed_until` None = of all of them to this moment, which is what matters."""
    totals = zip(pending_seconds, running_seconds, strict=True)
    if observed_until is None:
        return [
            (document, _TOTALS % seconds)
            for document, seconds in zip(documents, totals, strict=False)
            if document is not None
        ]
    return [
        document_pieces(document, *seconds, until)
        for document, seconds, until in zip(documents, totals, observed_until, strict=False)
        if document is not None
    ]


def with_additional_field(document: bytes, name: str, value: object) -> bytes:
    """The document with one more member of its `additionalFields`."""
    return b"".join(_with_member(document, _member(name, value)))


def _member(name: str, value: object) -> bytes:
    return _ENCODER.encode(name) + b":" + _ENCODER.encode(value)


@lru_cache(maxsize=1024)
def _observed_until(seconds: float) -> bytes:
    """The same for all workloads of a cluster. A number is the key, since hashing a time takes too long."""
    return _member("observedUntil", datetime.fromtimestamp(seconds, UTC))


def _with_member(document: bytes, member: bytes) -> Pieces:
    begin = document.rindex(_ADDITIONAL) + len(_ADDITIONAL)
    comma = b"" if document[begin : begin + 1] == b"}" else b","
    whole = memoryview(document)
    return whole[:begin], member, comma, whole[begin:]


class DocumentCache:
    """Documents by their revision, of which the tenant is a part. There are two halves: what is asked for lies
    in the young one, and once that is full the old one is dropped, with what nobody asked for meanwhile."""

    def __init__(self, capacity_bytes: int) -> None:
        self._half_bytes = capacity_bytes // 2
        self._young_bytes = 0
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}

    def find(self, revisions: Sequence[bytes]) -> list[bytes | None]:
        """In their order; None = not here."""
        documents = list(map(self._young.get, revisions))
        if self._old and None in documents:
            for place, document in enumerate(documents):
                if document is None and (older := self._old.get(revisions[place])) is not None:
                    documents[place] = older
                    self.put(revisions[place], older)
        return documents

    def put(self, revision: bytes, document: bytes) -> None:
        if revision in self._young or len(document) > self._half_bytes:
            return
        if self._young_bytes + len(document) > self._half_bytes:
            self._old, self._young, self._young_bytes = self._young, {}, 0
        self._young[revision] = document
        self._young_bytes += len(document)


async def document_list(
    connection: Connection,
    cache: DocumentCache,
    tenant_id: int,
    ids: Sequence[UUID],
    revisions: Sequence[bytes],
) -> list[bytes | None]:
    """In the order of the ids; of those in the cache the database is not asked. None = gone since."""
    documents = cache.find(revisions)
    missing = [number for number, document in enumerate(documents) if document is None]
    if not missing:
        return documents
    rows = await connection.fetch(
        "SELECT id, revision, document FROM workload WHERE tenant_id = $1 AND id = ANY($2::uuid[])",
        tenant_id,
        [ids[number] for number in missing],
    )
    places = {ids[number]: number for number in missing}
    for workload_id, revision, document in rows:
        documents[places[workload_id]] = document
        cache.put(revision, document)
    return documents


def fitting(sizes: Iterable[int]) -> int:
    """How many of these documents a page holds: at least the first, whatever its size."""
    total = 0
    for number, size in enumerate(sizes):
        total += size
        if total > PAGE_BYTES:
            return max(1, number)
    return number + 1 if total else 0

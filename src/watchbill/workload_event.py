"""The domain: what Kubernetes reported about a workload or an object that belongs to it. No I/O, no clock."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from watchbill.workload import Wire

MAX_EVENTS = 200
"""Kept of one workload: the newest."""

Name = Annotated[str, msgspec.Meta(max_length=253)]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class InvolvedObject(Wire, frozen=True):
    """The object that an event is about; `namespace` is "" where it has none."""

    uid: UUID
    kind: Name
    name: Name
    namespace: Name


class WorkloadEvent(Wire, frozen=True):
    """One event; equal ones are counted. `last_at`: when it happened last."""

    id: UUID
    workload_id: UUID
    type: Name
    reason: Name
    message: Annotated[str, msgspec.Meta(max_length=1_024)]
    source: Name
    count: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
    first_at: Instant
    last_at: Instant
    involved_object: InvolvedObject

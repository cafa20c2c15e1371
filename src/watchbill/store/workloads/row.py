"""One row of the table `workload`, made from a record. Pure; the fields stand in the table's column order."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import msgspec

from watchbill.protocol import Record
from watchbill.store.workloads.document import DOCUMENT_FORMAT, Stamp, encode_document, revision_of
from watchbill.store.workloads.phase_intervals import PhaseState
from watchbill.store.workloads.select import SEPARATOR, ascii_lower
from watchbill.workload import Workload, gpu_millionths

MAX_TEXT_LENGTH = 600
"""Characters of a text column; an index entry holds about 2,700 bytes. The document keeps all of it."""


class WorkloadRow(NamedTuple):
    tenant_id: int
    id: UUID
    cluster_id: UUID
    project_id: int
    department_id: int | None
    name: str
    type: str
    namespace: str
    project_name: str
    department_name: str | None
    submitted_by: str | None
    phase: str
    category: str | None
    priority_class_name: str | None
    distributed_framework: str | None
    ai_application_id: str | None
    ai_application_name: str | None
    search: str
    current_node_pools: list[str] | None
    requested_node_pools: list[str] | None
    gpu_node_pools: list[str] | None
    gpu_node_pool_shares: list[int] | None
    priority: int | None
    allocated_gpu: int
    idle_allocated_gpu: int | None
    idle_gpus: int | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    deleted_at: datetime | None
    phase_updated_at: datetime
    guaranteed_runtime_ends_at: datetime | None
    k8s_phase: str
    k8s_phase_updated_at: datetime
    resting_phase: str
    resting_phase_at: datetime
    transition_count: int
    pending_ms: int
    pending_since: datetime | None
    running_ms: int
    running_since: datetime | None
    witness_group: str
    witness_kind: str
    witness_namespace: str
    record_hash: bytes
    document_format: int
    revision: bytes
    document: bytes
    details: bytes | None
    idle_gpu_hours: float | None
    idle_mean_since: datetime | None


class OrganisationIds(NamedTuple):
    """The numbers that the server gave to a project and its department."""

    project_id: int
    department_id: int | None


def make_row(
    record: Record,
    *,
    record_hash: bytes,
    life: PhaseState,
    organisation: OrganisationIds,
    tenant_id: int,
    cluster_id: UUID,
    k8s_phase_updated_at: datetime,
    now: datetime,
) -> WorkloadRow:
    """A live workload's row; `now` becomes its updatedAt."""
    workload = record.workload
    department_id = organisation.department_id
    document = encode_document(
        Stamp(
            tenant_id=tenant_id,
            cluster_id=cluster_id,
            project_id=str(organisation.project_id),
            department_id="" if department_id is None else str(department_id),
            updated_at=now,
            phase_updated_at=life.phase_updated_at,
            k8s_phase_updated_at=k8s_phase_updated_at,
            deleted_at=None,
        ),
        workload,
    )
    shares = sorted(record.gpu_millionths_by_node_pool.items())
    messages = record.pending_scheduling_messages
    return WorkloadRow(
        tenant_id=tenant_id,
        id=workload.id,
        cluster_id=cluster_id,
        project_id=organisation.project_id,
        department_id=department_id,
        name=_text(workload.name),
        type=_text(workload.type),
        namespace=_text(workload.namespace),
        project_name=_text(workload.project_name),
        department_name=_text(workload.department_name) or None,
        submitted_by=_text(workload.submitted_by) or None,
        phase=workload.phase.value,
        category=_text(workload.category) or None,
        priority_class_name=_text(workload.priority_class_name) or None,
        distributed_framework=_text(workload.distributed_framework) or None,
        ai_application_id=_text(workload.ai_application_id) or None,
        ai_application_name=_text(workload.ai_application_name) or None,
        search=search_text(workload),
        current_node_pools=sorted(map(_text, workload.current_node_pools)) or None,
        requested_node_pools=sorted(map(_text, workload.requested_node_pools)) or None,
        gpu_node_pools=[_text(pool) for pool, _ in shares] or None,
        gpu_node_pool_shares=[share for _, share in shares] or None,
        priority=workload.priority,
        allocated_gpu=record.usage.gpu_millionths,
        idle_allocated_gpu=_millionths(workload.idle_allocated_gpus),
        idle_gpus=workload.idle_gpus,
        created_at=workload.created_at,
        updated_at=now,
        completed_at=workload.completed_at,
        deleted_at=None,
        phase_updated_at=life.phase_updated_at,
        guaranteed_runtime_ends_at=workload.guaranteed_runtime_ends_at,
        k8s_phase=_text(workload.k8s_phase),
        k8s_phase_updated_at=k8s_phase_updated_at,
        resting_phase=life.resting_phase.value,
        resting_phase_at=life.resting_phase_at,
        transition_count=life.transition_count,
        pending_ms=life.pending_ms,
        pending_since=life.pending_since,
        running_ms=life.running_ms,
        running_since=life.running_since,
        witness_group=record.witness.group,
        witness_kind=record.witness.kind,
        witness_namespace=record.witness.namespace,
        record_hash=record_hash,
        document_format=DOCUMENT_FORMAT,
        revision=revision_of(document),
        document=document,
        details=msgspec.json.encode(messages) if messages else None,
        idle_gpu_hours=_number(workload.additional_fields.get("idleGpuHours")),
        idle_mean_since=_instant(workload.additional_fields.get("idleMeanSince")),
    )


def search_text(workload: Workload) -> str:
    """What `search` looks into besides phase and id, lowered once.

    Never environment variables, command or arguments: a search would spell them out letter by letter.
    """
    fields = (
        workload.name,
        workload.type,
        workload.project_name,
        workload.department_name,
        workload.submitted_by,
        *workload.current_node_pools,
    )
    return ascii_lower(SEPARATOR.join(_text(field) for field in fields))


def _text(value: str | None) -> str:
    """Text as a column can hold it: without NUL, and short enough for an index entry."""
    return (value or "").replace("\0", "\ufffd")[:MAX_TEXT_LENGTH]


def _number(value: object) -> float | None:
    """A finite number of hours, as far as anyone can have idled."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < 1e12 else None


def _instant(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _millionths(gpus: float | None) -> int | None:
    return None if gpus is None else gpu_millionths(gpus)

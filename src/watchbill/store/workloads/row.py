"""One row of the table `workload`, made from a record. Pure.

The columns of `workload_fields` follow from that table; those that are the server's own stand here.
"""

import re
from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from watchbill.history import PhaseState
from watchbill.protocol import MAX_GPUS, HostResources, Record
from watchbill.query import ascii_lower
from watchbill.store.workloads.document import DOCUMENT_FORMAT, Stamp, encode_document, revision_of
from watchbill.store.workloads.select import SEPARATOR
from watchbill.workload import Workload, gpu_millionths, idle_hours, instant
from watchbill.workload_fields import QUERY_FIELDS, FieldKind, Storage, WorkloadField

MAX_NAMES = 1_000
"""Of one field of a workload."""
MAX_TEXT_LENGTH = 600
"""Characters of a text column; an index entry holds about 2,700 bytes. The document keeps all of it."""


Columns = dict[str, Any]
"""The values of one row by column."""


def _reader(field: WorkloadField) -> Callable[[Workload], Any]:
    """Reads the field of a record's workload."""
    if field.is_beyond_contract:
        name = field.json_path[-1]
        read = _names if field.kind is FieldKind.NAMES else _text_or_none
        return lambda workload: read(workload.additional_fields.get(name))
    return attrgetter(re.sub("([A-Z])", r"_\1", ".".join(field.json_path)).lower())


def _text_or_none(value: object) -> str | None:
    """`additionalFields` holds whatever an agent sends."""
    return value if isinstance(value, str) else None


def _names(value: object) -> list[str]:
    """Texts of a list, and of an object `KEY=VALUE`."""
    if isinstance(value, dict):
        value = [f"{key}={text}" for key, text in value.items() if isinstance(text, str)]
    if not isinstance(value, list):
        return []
    return [name for name in value[:MAX_NAMES] if isinstance(name, str)]


_RECORD_FIELDS = {
    field: _reader(field) for field in QUERY_FIELDS.values() if not field.is_server_owned
}
"""Fields whose columns follow from the record's workload, and how they are read from it."""


class OrganisationIds(NamedTuple):
    """The numbers that the server gave to a project and its department."""

    project_id: int
    department_id: int | None


def make_row(
    record: Record,
    *,
    record_hash: bytes,
    state: PhaseState,
    organisation: OrganisationIds,
    tenant_id: int,
    cluster_id: UUID,
    k8s_phase_updated_at: datetime,
    now: datetime,
) -> Columns:
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
            phase_updated_at=state.phase_updated_at,
            k8s_phase_updated_at=k8s_phase_updated_at,
            deleted_at=None,
        ),
        workload,
    )
    messages = record.pending_scheduling_messages
    return (
        {str(field.column): _value(field, read(workload)) for field, read in _RECORD_FIELDS.items()}
        | _node_pool_columns(record)
        | _host_columns(record.host_resources)
        | _phase_columns(state)
        | {
            "tenant_id": tenant_id,
            "id": workload.id,
            "cluster_id": cluster_id,
            "project_id": organisation.project_id,
            "department_id": department_id,
            "namespace": stored_text(workload.namespace),
            "search": search_text(workload),
            "allocated_gpu": record.usage.gpu_millionths,
            "requested_gpu": requested_gpu_millionths(workload),
            "preemptible": workload.preemptible,
            "idle_gpu_hours": idle_hours(workload.additional_fields.get("idleGpuHours")),
            "idle_mean_since": instant(workload.additional_fields.get("idleMeanSince")),
            "idle_measured_since": instant(workload.additional_fields.get("idleMeasuredSince")),
            "updated_at": now,
            "deleted_at": None,
            "k8s_phase": stored_text(workload.k8s_phase),
            "k8s_phase_updated_at": k8s_phase_updated_at,
            "witness_group": record.witness.group,
            "witness_kind": record.witness.kind,
            "witness_namespace": record.witness.namespace,
            "record_hash": record_hash,
            "document_format": DOCUMENT_FORMAT,
            "revision": revision_of(document),
            "document": document,
            "details": msgspec.json.encode(messages) if messages else None,
        }
    )


def _value(field: WorkloadField, value: Any) -> Any:
    """A member of the workload as its column stores it."""
    match field.kind:
        case FieldKind.TEXT:
            return stored_text(value) or (None if field.is_nullable else "")
        case FieldKind.NAMES:
            return sorted(set(map(stored_text, value)) - {""}) or None
    if field.storage is Storage.MILLIONTHS:
        return None if value is None else gpu_millionths(value)
    return value


def _node_pool_columns(record: Record) -> Columns:
    shares = sorted(record.gpu_millionths_by_node_pool.items())
    requested = sorted(map(stored_text, record.workload.requested_node_pools))
    return {
        "requested_node_pools": requested or None,
        "gpu_node_pools": [stored_text(pool) for pool, _ in shares] or None,
        "gpu_node_pool_shares": [share for _, share in shares] or None,
    }


def requested_gpu_millionths(workload: Workload) -> int:
    """0 where it asks for none."""
    gpu = workload.workload_requested_resources.gpu
    return gpu_millionths(min(max(0.0, (gpu.request if gpu else None) or 0.0), MAX_GPUS))


def _host_columns(host: HostResources | None) -> Columns:
    return {
        "requested_cpu": host.requested_cpu_millicores if host else None,
        "requested_memory": host.requested_memory_bytes if host else None,
        "allocated_cpu": host.allocated_cpu_millicores if host else None,
        "allocated_memory": host.allocated_memory_bytes if host else None,
    }


def _phase_columns(state: PhaseState) -> Columns:
    return {
        "phase_updated_at": state.phase_updated_at,
        "resting_phase": state.resting_phase.value,
        "resting_phase_at": state.resting_phase_at,
        "transition_count": state.transition_count,
        "pending_ms": state.pending_ms,
        "pending_since": state.pending_since,
        "running_ms": state.running_ms,
        "running_since": state.running_since,
    }


def search_text(workload: Workload) -> str:
    """What `search` looks into besides phase and id, lowered once.

    Never environment variables, command or arguments: a search would reveal them letter by letter.
    """
    fields = (
        workload.name,
        workload.type,
        workload.project_name,
        workload.department_name,
        workload.submitted_by,
        *workload.current_node_pools,
    )
    return ascii_lower(SEPARATOR.join(stored_text(field) for field in fields))


def stored_text(value: str | None) -> str:
    """Text as an indexed column can hold it: without NUL, and short enough for an entry."""
    return without_nul(value or "")[:MAX_TEXT_LENGTH]


def without_nul(value: str) -> str:
    """Text as any column can hold it."""
    return value.replace("\0", "\ufffd")

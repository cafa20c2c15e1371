"""The audit log, for those who may read it."""

from uuid import UUID

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.responses.access import AuditEntry, AuditEvents
from watchbill.store.identity.audit import AuditEvent, AuditQuery, audit_list


async def list_audit(call: Call) -> Answer:
    await call.services.audit.flush()
    values = call.values
    query = AuditQuery(
        since=values["since"],
        until=values["until"],
        subject=values["subject"],
        operation=values["operation"],
        limit=values["limit"],
    )
    events = await audit_list(call.db, call.tenant_id, query)
    return json_reply(
        AuditEvents(events=tuple(_entry(event_id, event) for event_id, event in events))
    )


def _entry(event_id: UUID, event: AuditEvent) -> AuditEntry:
    return AuditEntry(
        id=event_id,
        at=event.at,
        last_at=event.last_at,
        count=event.count,
        subject_kind=event.subject_kind,
        subject=event.subject,
        operation=event.operation,
        target=event.target,
        rules=tuple(event.rules),
        address=event.address,
        outcome=event.outcome,
        request_id=event.request_id,
        details=event.details,
    )


HANDLERS = (list_audit,)

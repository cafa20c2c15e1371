"""The audit log, for those who may read it."""

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.store.identity.audit import AuditQuery, audit_list


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
    return json_reply(
        {
            "events": [
                {
                    "id": event_id,
                    "at": event.at,
                    "lastAt": event.last_at,
                    "count": event.count,
                    "subjectKind": event.subject_kind,
                    "subject": event.subject,
                    "operation": event.operation,
                    "target": event.target,
                    "rules": event.rules,
                    "address": event.address,
                    "outcome": event.outcome,
                    "requestId": event.request_id,
                    "details": event.details,
                }
                for event_id, event in await audit_list(call.db, call.tenant_id, query)
            ]
        }
    )


HANDLERS = (list_audit,)

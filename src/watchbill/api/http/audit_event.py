"""What a request leaves in the audit log. No header and no body; of a path only ids; of a query the names of
what was asked by, and values only where they are ids or words of the contract: anything else may be a secret.

What changes something, and every login, is an event of its own; equal reads are counted together, and so are
refusals that nobody stands behind, noted by where they came from: a flood of them must not become a flood here.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from starlette.types import Scope

from watchbill.access.audit import Audit
from watchbill.access.caller import Caller
from watchbill.api.http.contract import Operation
from watchbill.api.limits import address_unit
from watchbill.errors import Invalid
from watchbill.identity import FIRST_TENANT_ID, AgentIdentity
from watchbill.query import parse_filters
from watchbill.store.identity.audit import AuditEvent
from watchbill.workload import Phase

OPERATION = "watchbill.operation"
SUBJECT = "watchbill.subject"
REQUEST_ID = "watchbill.request_id"
ADMITTED = "watchbill.admitted"
ANNOTATION = "watchbill.noted"
VALUES = "watchbill.values"

REFUSED = frozenset({401, 429})
_TARGET = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|wbc-[0-9a-f]{16}"
)
DETAILS_CHARACTERS = 500
_IDS = frozenset({"clusterId", "projectId", "departmentId"})
_ID = re.compile(r"[0-9]{1,10}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_PHASES = frozenset(Phase)
_WORDS = ("telemetryType", "metricType", "groupBy", "filterByPhases", "fields", "format")
"""Parameters whose values the contract lists."""
_NAMES = ("clusterId", "departmentId", "nodepoolName", "search", "deleted")


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who was let in; at most one of the two."""

    caller: Caller | None = None
    agent: AgentIdentity | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditAnnotation:
    """What a handler adds: who logged in, what was changed."""

    tenant_id: int | None = None
    kind: str = ""
    subject: str = ""
    target: str = ""
    details: str = ""


_NO_ANNOTATION = AuditAnnotation()


def record_audit(audit: Audit, scope: Scope, operation_id: str, status: int) -> None:
    admitted: tuple[Admitted, Operation] | None = scope.get(ADMITTED)
    noted: AuditAnnotation | None = scope.get(ANNOTATION)
    caller = admitted[0].caller if admitted is not None else None
    if caller is None and noted is None and status not in REFUSED:
        return
    operation = admitted[1] if admitted is not None else None
    is_unauthenticated = caller is None and status in REFUSED
    is_read = is_unauthenticated or (noted is None and scope["method"] in ("GET", "HEAD"))
    now = datetime.now(UTC)
    annotation = noted or _NO_ANNOTATION
    audit.note(
        AuditEvent(
            tenant_id=caller.tenant_id if caller else annotation.tenant_id or FIRST_TENANT_ID,
            at=now,
            last_at=now,
            count=1,
            subject_kind=caller.kind if caller else annotation.kind,
            subject=caller.subject if caller else annotation.subject,
            operation=operation_id,
            target=annotation.target or ("" if is_unauthenticated else _target(scope)),
            rules=_rules(caller, operation),
            address=address_unit(client_address(scope))
            if is_unauthenticated
            else client_address(scope),
            outcome=status,
            request_id="" if is_read else scope[REQUEST_ID],
            details=(annotation.details or describe_query(tuple(scope.get(VALUES, {}).items())))[
                :DETAILS_CHARACTERS
            ],
        ),
        is_read=is_read or (caller is None and noted is None),
        is_unauthenticated=is_unauthenticated,
    )


@lru_cache(maxsize=512)
def describe_query(parameters: tuple[tuple[str, Any], ...]) -> str:
    """What a read was narrowed by: `clusterId==… name=@* search=*`. Whoever watches something asks the same
    again and again."""
    values = dict(parameters)
    try:
        predicates = parse_filters(list(values.get("filterBy") or ()))
    except Invalid:
        return "a filter that is not understood"
    parts = [
        f"{predicate.field}{predicate.operator}{_shown(predicate.field, predicate.value)}"
        for predicate in predicates
    ]
    parts += [
        f"{name}={','.join([given] if isinstance(given, str) else map(str, given))}"
        for name in _WORDS
        if (given := values.get(name))
    ]
    parts += [f"{name}={_shown(name, values[name])}" for name in _NAMES if values.get(name)]
    return " ".join(parts)


def _shown(field: str, value: object) -> str:
    text = str(value)
    is_open = (field in _IDS and _ID.fullmatch(text)) or (field == "phase" and text in _PHASES)
    return text if is_open or value is True else "*"


def client_address(scope: Scope) -> str:
    """ "" of a unix socket without a proxy in front."""
    client = scope.get("client")
    address: str = client[0] if client else ""
    return address


def _rules(caller: Caller | None, operation: Operation | None) -> tuple[str, ...]:
    if caller is None or operation is None or operation.permission is None:
        return ()
    return caller.rules.get(operation.permission, ())


def _target(scope: Scope) -> str:
    """The id in the path, if it is one: anything else may be somebody's secret, pasted in the wrong place."""
    for value in scope.get("path_params", {}).values():
        if isinstance(value, str) and _TARGET.fullmatch(value.lower()):
            return value.lower()
    return ""

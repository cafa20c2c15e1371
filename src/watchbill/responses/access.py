"""Who the caller is, logins, and administration: accounts, users, rules, roles, the audit log."""

from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from watchbill.responses.contract import Instant
from watchbill.workload import Wire

PrincipalKind = Annotated[
    str, msgspec.Meta(extra_json_schema={"enum": ["service-account", "user"]})
]
SubjectKind = Annotated[
    str, msgspec.Meta(extra_json_schema={"enum": ["user", "group", "service-account"]})
]
ScopeKind = Annotated[
    str,
    msgspec.Meta(extra_json_schema={"enum": ["tenant", "cluster", "department", "project"]}),
]
BEARER: Final = "Bearer"


class ReadScope(Wire, frozen=True, kw_only=True):
    """What the caller may read; either the whole tenant or the union of the lists."""

    tenant: bool
    cluster_ids: tuple[UUID, ...]
    department_ids: tuple[str, ...]
    project_ids: tuple[str, ...]


class Me(Wire, frozen=True, kw_only=True):
    """The caller as the server sees it."""

    subject: Annotated[
        str, msgspec.Meta(description="The user's name or the service account's client id.")
    ]
    name: str
    kind: PrincipalKind
    tenant_id: int
    is_administrator: bool
    permissions: Annotated[
        tuple[str, ...], msgspec.Meta(description="Held anywhere in the tenant.")
    ]
    scope: ReadScope
    version: Annotated[str, msgspec.Meta(description="The server's.")]


class TokenGrant(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """RFC 6749: the names are the standard's own."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, msgspec.Meta(ge=1, description="Seconds.")]
    refresh_token: str | None = None


class TokenPair(Wire, frozen=True, kw_only=True):
    access_token: Annotated[str, msgspec.Meta(description="A compact JWT, signed with ES256.")]
    refresh_token: Annotated[
        str | None, msgspec.Meta(description="Only where one was exchanged. Valid once.")
    ] = None
    expires_in: Annotated[int, msgspec.Meta(ge=1, description="Seconds.")]


class DeviceAuthorization(msgspec.Struct, frozen=True, kw_only=True):
    """RFC 8628: a login that waits to be confirmed."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class IssuerEntry(Wire, frozen=True, kw_only=True):
    """An identity provider to log in with."""

    name: str
    title: str


class IssuerList(Wire, frozen=True, kw_only=True):
    issuers: tuple[IssuerEntry, ...]


class Credential(Wire, frozen=True, kw_only=True):
    """Shown only once."""

    client_id: str
    client_secret: str
    name: str | None = None
    expires_at: Instant | None = None
    id: Annotated[int | None, msgspec.Meta(description="Of a new tenant.")] = None


class AccountEntry(Wire, frozen=True, kw_only=True):
    """A service account or an access key."""

    client_id: str
    name: str
    created_at: Instant
    is_disabled: bool
    created_by: str | None = None
    expires_at: Instant | None = None
    user_id: UUID | None = None


class AccountList(Wire, frozen=True, kw_only=True):
    accounts: tuple[AccountEntry, ...]
    access_keys: tuple[AccountEntry, ...]


class AccessKeyList(Wire, frozen=True, kw_only=True):
    access_keys: tuple[AccountEntry, ...]


class UserEntry(Wire, frozen=True, kw_only=True):
    """A user from an identity provider."""

    id: UUID
    name: str
    issuer: str
    groups: tuple[str, ...]
    first_seen_at: Instant
    last_seen_at: Instant
    is_disabled: bool
    email: str | None = None


class UserList(Wire, frozen=True, kw_only=True):
    users: tuple[UserEntry, ...]


class RuleEntry(Wire, frozen=True, kw_only=True):
    """An access rule: subject, role, scope."""

    id: UUID | None = None
    subject_kind: SubjectKind
    subject: str
    role: str
    scope_kind: ScopeKind
    scope_id: str
    created_at: Instant | None = None
    created_by: str | None = None
    managed_by: Annotated[
        str | None, msgspec.Meta(description="The document that declares it.")
    ] = None


class RuleList(Wire, frozen=True, kw_only=True):
    rules: tuple[RuleEntry, ...]


class RoleEntry(Wire, frozen=True, kw_only=True):
    name: str
    title: str
    permissions: tuple[str, ...]
    description: str
    is_predefined: bool


class RoleList(Wire, frozen=True, kw_only=True):
    roles: tuple[RoleEntry, ...]


class AccessDifference(Wire, frozen=True, kw_only=True):
    """What applying a document changes, or would change."""

    dry_run: bool
    new_service_accounts: tuple[str, ...]
    added: tuple[RuleEntry, ...]
    removed: tuple[RuleEntry, ...]
    unchanged: int
    left_alone: Annotated[
        int, msgspec.Meta(description="Number of rules that no document of this name declared.")
    ]
    credentials: tuple[Credential, ...]


class RotatedKey(Wire, frozen=True, kw_only=True):
    kid: str
    active_at: Instant


class AuditEntry(Wire, frozen=True, kw_only=True):
    """Equal reads are one entry, counted from `at` to `last_at`."""

    id: UUID
    at: Instant
    last_at: Instant
    count: Annotated[int, msgspec.Meta(ge=1)]
    subject_kind: str
    subject: str
    operation: str
    target: str
    rules: tuple[str, ...]
    address: str
    outcome: int
    request_id: str
    details: str


class AuditEvents(Wire, frozen=True, kw_only=True):
    events: tuple[AuditEntry, ...]


class Health(Wire, frozen=True, kw_only=True):
    status: Literal["ok"]


class Version(Wire, frozen=True, kw_only=True):
    version: str


ROOTS: tuple[type[msgspec.Struct], ...] = (
    *(Me, TokenGrant, TokenPair, DeviceAuthorization, IssuerList, Credential),
    *(AccountList, AccessKeyList, UserList, RuleList, RuleEntry, RoleList, AccessDifference),
    *(RotatedKey, AuditEvents, Health, Version),
)

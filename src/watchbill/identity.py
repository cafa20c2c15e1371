"""Who there is: principals, accounts, users, access rules, agents. What a role allows is not known here."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

FIRST_TENANT_ID = 1

ADMINISTRATOR = "administrator"
"""The role that may do everything in its scope."""

SERVICE_ACCOUNT = "service-account"
USER = "user"
GROUP = "group"
"""Kinds of subjects, as access rules name them."""

ACCOUNT_PRINCIPAL = "account"
USER_PRINCIPAL = "person"
"""Kinds of principals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """What a token or a session stands for: an account (a user's access key included) or a user.

    `family`: the login whose refresh tokens it came from, if any.
    """

    tenant_id: int
    kind: str
    id: UUID
    family: UUID | None = None


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """The cluster whose agent is calling, known from its credential alone."""

    tenant_id: int
    cluster_id: UUID


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret as it is stored: salted and hashed."""

    salt: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A service account, or where `user_id` names one, that user's access key."""

    tenant_id: int
    id: UUID
    client_id: str
    name: str
    secret: StoredSecret
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    user_id: UUID | None
    is_disabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user as stored after the first login with an identity provider."""

    id: UUID
    issuer: str
    name: str
    email: str | None
    groups: tuple[str, ...]
    created_at: datetime
    seen_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalLogin:
    """What an identity provider states about a user, mapped to our names."""

    tenant_id: int
    issuer: str
    external_id: str
    name: str
    email: str | None
    groups: tuple[str, ...]
    stated_at: datetime
    """When the identity provider stated it: the latest statement counts, whichever arrives last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A role in a scope. `scope_kind`: tenant, cluster, department or project."""

    role: str
    scope_kind: str
    scope_id: str


NewGrant = tuple[str, str, Rule]
"""Kind and name of the subject, and the rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A rule with the subject that it is for. `managed_by`: the file that declares it, if one does."""

    id: UUID
    subject_kind: str
    subject: str
    rule: Rule
    created_at: datetime | None
    created_by: str | None
    managed_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectNames:
    """Every name under which rules can apply to one caller."""

    kind: str
    subject: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who is behind a principal, with everything that was granted."""

    principal: Principal
    kind: str
    subject: str
    """As rules name it: a client id or a user."""
    name: str
    groups: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


def administrator_rule(tenant_id: int) -> Rule:
    """The administrator of a whole tenant."""
    return Rule(role=ADMINISTRATOR, scope_kind="tenant", scope_id=str(tenant_id))

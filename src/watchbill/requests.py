"""The bodies of requests to our own operations, as structs: decoded by the API, and described by the document
that is made from them (`api/http/components.py`), as the answers in `responses` are.

What agents send is in `protocol`; forms and tokens' members in any case, which existing clients send, are
described in the API's document alone.
"""

from typing import Annotated, Literal, TypeVar

import msgspec

from watchbill.errors import Invalid
from watchbill.responses.contract import Instant

Body = TypeVar("Body")

ClusterName = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z"
    ),
]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
ShortText = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
MAX_RULES = 2_000


class RequestBody(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A member that is not known is refused, so that a typing error does not pass."""


class ClusterCreation(msgspec.Struct, frozen=True):
    name: ClusterName


class SessionCreation(msgspec.Struct, frozen=True, rename="camel"):
    client_id: ShortText
    client_secret: ShortText


class AccessKeyCreation(RequestBody, frozen=True):
    name: Name
    expires_at: Instant | None = None


class KeyRotation(RequestBody, frozen=True):
    at_once: bool = False


class TenantCreation(RequestBody, frozen=True):
    name: Name


class RuleSubject(RequestBody, frozen=True):
    """Exactly one of them."""

    user: ShortText | None = None
    group: ShortText | None = None
    service_account: Annotated[ShortText | None, msgspec.Meta(description="Client id or name.")] = (
        None
    )


class RuleScope(RequestBody, frozen=True):
    """The narrowest counts; a cluster beside a project tells equal names apart. Names or ids."""

    tenant: Literal[True] | None = None
    cluster: ShortText | None = None
    department: ShortText | None = None
    project: ShortText | None = None


class RuleCreation(RequestBody, frozen=True):
    subject: RuleSubject
    role: ShortText
    scope: RuleScope


class AccountCreation(RequestBody, frozen=True):
    """`role` and `scope`: its first rule, made with it or not at all; both or none."""

    name: Name
    expires_at: Instant | None = None
    role: ShortText | None = None
    scope: RuleScope | None = None


class DeclaredAccount(RequestBody, frozen=True):
    name: ShortText


class DeclaredAccess(RequestBody, frozen=True):
    """A whole file. What it declared before and no longer does is removed; what it never declared stays."""

    name: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^[a-z0-9][a-z0-9-]{0,39}\Z",
            description="Tells documents apart; default `access`.",
        ),
    ] = "access"
    service_accounts: tuple[DeclaredAccount, ...] = ()
    rules: Annotated[tuple[RuleCreation, ...], msgspec.Meta(max_length=MAX_RULES)] = ()


class AccessApplication(RequestBody, frozen=True):
    document: DeclaredAccess
    dry_run: bool = False


ROOTS = (
    ClusterCreation,
    SessionCreation,
    AccountCreation,
    AccessKeyCreation,
    KeyRotation,
    TenantCreation,
    AccessApplication,
)


def decode_json(body: bytes, kind: type[Body]) -> Body:
    """Raises Invalid; its details name the member by its path."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise invalid_shape(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("The body is not JSON.") from error


def invalid_shape(reason: str) -> Invalid:
    return Invalid("The body does not have the expected shape.", details=reason[:300])

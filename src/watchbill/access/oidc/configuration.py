"""The access configuration: a file that names issuers and roles of one's own. Read once, at start."""

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
import yaml

from watchbill.access.roles import Roles, with_custom
from watchbill.errors import Invalid
from watchbill.files import read_text

ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
"""What an issuer may be configured to sign with. No HMAC: a key that verifies could also sign."""

Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}\Z")]


class ClaimNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Which claim tells what. `tenant` names none where all the issuer's people belong to one tenant."""

    user: str = "email"
    email: str = "email"
    groups: str = "groups"
    tenant: str | None = None


class Issuer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An OpenID provider, and what it may vouch for."""

    name: Name
    issuer: str
    audience: str | None = None
    """Of tokens that open the API; without one the issuer's tokens open nothing, only logins work."""
    client_id: str | None = None
    """Of the page's login; without one there is none."""
    client_secret_file: Path | None = None
    title: str | None = None
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    claims: ClaimNames = ClaimNames()
    tenant: Annotated[int, msgspec.Meta(gt=0)] = 1
    tenants: dict[str, Annotated[int, msgspec.Meta(gt=0)]] = {}
    """By the value of the tenant claim, where that is named."""
    user_prefix: str = ""
    group_prefix: str = ""
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    requires_verified_email: bool = True
    takes_untyped_tokens: bool = False
    """Whether access tokens need not say `typ: at+jwt`, as those of older providers do not."""

    @property
    def shown(self) -> str:
        return self.title or self.name

    def secret(self) -> str | None:
        return read_text(self.client_secret_file).strip() if self.client_secret_file else None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuers: tuple[Issuer, ...] = ()
    roles: dict[Name, tuple[str, ...]] = {}


@dataclass(frozen=True, slots=True)
class AccessConfiguration:
    issuers: tuple[Issuer, ...] = ()
    roles: Roles = field(default_factory=Roles)


def read_access_configuration(path: Path | None) -> AccessConfiguration:
    """Raises Invalid, naming what is wrong."""
    if path is None:
        return AccessConfiguration()
    try:
        file = msgspec.convert(yaml.safe_load(read_text(path)) or {}, _File, dec_hook=_decode)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise Invalid(
            f"The access configuration {path} cannot be read.", details=str(error)
        ) from error
    for issuer in file.issuers:
        _check(issuer, file)
    return AccessConfiguration(file.issuers, with_custom(file.roles))


def _decode(kind: type, value: object) -> object:
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)


def is_safe_url(text: str) -> bool:
    """HTTPS; plain HTTP only to this very machine."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if parts.username is not None or parts.fragment or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def is_loopback_url(text: str) -> bool:
    return _is_loopback(urlsplit(text).hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


_CHECKS: tuple[tuple[Callable[[Issuer], object], str], ...] = (
    (lambda issuer: is_safe_url(issuer.issuer), "its address must be https"),
    (
        lambda issuer: not issuer.issuer.endswith("/.well-known/openid-configuration"),
        "name the issuer",
    ),
    (
        lambda issuer: issuer.audience or issuer.client_id,
        "it needs an audience, a clientId or both",
    ),
    (
        lambda issuer: issuer.audience is None or issuer.audience != issuer.client_id,
        "audience and clientId must differ, or a login's ID token would open the API",
    ),
    (
        lambda issuer: issuer.algorithms and set(issuer.algorithms) <= set(ALGORITHMS),
        f"algorithms are among {', '.join(ALGORITHMS)}",
    ),
    (
        lambda issuer: issuer.claims.tenant is None or issuer.tenants,
        "a tenant claim needs the table `tenants`",
    ),
)


def _check(issuer: Issuer, file: _File) -> None:
    for holds, why in _CHECKS:
        if not holds(issuer):
            raise Invalid(f"The identity provider '{issuer.name}' cannot be used: {why}.")
    same = [
        other
        for other in file.issuers
        if other.name == issuer.name or other.issuer == issuer.issuer
    ]
    if len(same) > 1:
        raise Invalid(f"The identity provider '{issuer.name}' is listed twice.")

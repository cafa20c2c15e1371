"""An identity provider over the network: its endpoints and its keys, fetched seldom and kept while it is away.

Requests go to addresses that an administrator configured, follow no redirects, and are small and short.
"""

import asyncio
import base64
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from watchbill.access.oidc.configuration import Issuer, is_loopback_url, is_safe_url
from watchbill.access.tokens.jose import unique_json
from watchbill.background import LoopState
from watchbill.errors import Unavailable

TOTAL_SECONDS = 5.0
MAX_BYTES = 256 * 1024


class ProviderRefused(Unavailable):
    """The provider answered 4xx. Its reasons may quote what was sent, so they are not read."""


async def get_json(url: str, *, bearer: str | None = None) -> Any:
    """Raises Unavailable for whatever is no small JSON response in time; ProviderRefused for a 4xx."""
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    return await _request("GET", url, headers=headers)


async def post_form(
    url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
) -> Any:
    """Raises Unavailable; ProviderRefused for a 4xx."""
    headers = {}
    if basic is not None:
        pair = base64.b64encode(":".join(basic).encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    return await _request("POST", url, data=dict(form), headers=headers)


async def _request(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, **options: Any
) -> Any:
    timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.request(
                method,
                url,
                allow_redirects=False,
                headers={"Accept": "application/json", **(headers or {})},
                **options,
            ) as response,
        ):
            if 400 <= response.status < 500:
                raise ProviderRefused(f"The identity provider answered {response.status}.")
            if response.status != 200:
                raise Unavailable(f"The identity provider answered {response.status}.")
            body = bytearray()
            async for chunk in response.content.iter_chunked(16 * 1024):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise Unavailable("The identity provider's answer is too large.")
            return unique_json(bytes(body))
    except ValueError as error:
        raise Unavailable("The identity provider's answer is not JSON.") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable("The identity provider does not answer.") from error


FRESH = timedelta(minutes=10)
RETRY = timedelta(seconds=30)
MAX_KEYS = 100
MIN_RSA_BITS = 2048
PUBLIC_MEMBERS: tuple[str, ...] = ("kty", "n", "e", "crv", "x", "y")

Key = RSAKey | ECKey | OKPKey

log = structlog.get_logger(__name__)

KEY_TYPES: Mapping[str, tuple[type[Any], str | None]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), (RSAKey, None)),
    "ES256": (ECKey, "P-256"),
    "ES384": (ECKey, "P-384"),
    "ES512": (ECKey, "P-521"),
    "EdDSA": (OKPKey, "Ed25519"),
}
"""The kind of key, and its curve, that an algorithm takes. No other key will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    authorization: str | None
    token: str | None
    userinfo: str | None
    jwks: str
    token_methods: frozenset[str]
    sends_issuer: bool
    """Whether the authorization response names the issuer (RFC 9207)."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    key: Key
    algorithm: str | None
    """The one that the issuer binds the key to, if it says."""

    def fits(self, algorithm: str) -> bool:
        kind, curve = KEY_TYPES[algorithm]
        if not isinstance(self.key, kind) or self.algorithm not in (None, algorithm):
            return False
        return curve is None or self.key.curve_name == curve


class Provider:
    """One identity provider. Keys are fetched again when they are old, and for an unknown key id at most every
    half minute, since anybody can invent one; while a fetch fails, the known keys stay valid."""

    def __init__(self, issuer: Issuer, clock: Callable[[], datetime]) -> None:
        self.issuer = issuer
        self._clock = clock
        self._endpoints: Endpoints | None = None
        self._keys: dict[str, PublicKey] = {}
        self._fetched_at: datetime | None = None
        self._attempted_at: datetime | None = None
        self._lock = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self.renewal = LoopState(
            f"identity provider {issuer.name}", FRESH, started_at=clock(), is_required=False
        )
        """How fetching its keys goes."""

    async def endpoints(self) -> Endpoints:
        """Raises Unavailable. While it is away, anybody's logins cause one question every half minute."""
        if self._endpoints is None and self._may_fetch():
            async with self._lock:
                if self._endpoints is None and self._may_fetch():
                    await self._fetch()
        if self._endpoints is None:
            raise Unavailable(
                "The identity provider does not answer.", retry_after_seconds=RETRY.seconds
            )
        return self._endpoints

    async def key(self, kid: str) -> PublicKey | None:
        """None = the issuer has no such key. Raises Unavailable where it never answered."""
        if self._fetched_at is not None and self._clock() - self._fetched_at > FRESH:
            self._renew_in_background()
        if kid not in self._keys and self._may_fetch():
            async with self._lock:
                if kid not in self._keys and self._may_fetch():
                    await self._fetch()
        if self._fetched_at is None:
            raise Unavailable(
                "The identity provider does not answer.", retry_after_seconds=RETRY.seconds
            )
        return self._keys.get(kid)

    async def only_kid(self) -> str | None:
        """The id of the issuer's key, where it has one and no more. Raises Unavailable."""
        if not self._keys:
            await self.key("")  # no key has this id: it only makes us look
        return next(iter(self._keys)) if len(self._keys) == 1 else None

    def _may_fetch(self) -> bool:
        return self._attempted_at is None or self._clock() - self._attempted_at >= RETRY

    def _renew_in_background(self) -> None:
        """Old keys serve meanwhile: no request waits for an issuer that may be away."""
        if self._may_fetch() and (self._renewal is None or self._renewal.done()):
            self._attempted_at = self._clock()
            self._renewal = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        self._attempted_at = self._clock()
        try:
            endpoints = await self._discover()
            keys = read_keys(await get_json(endpoints.jwks), self.issuer.algorithms)
        except Exception as error:
            self.renewal.fail(error)
            return
        self._endpoints, self._keys, self._fetched_at = endpoints, keys, self._clock()
        self.renewal.succeed(self._fetched_at)

    async def _discover(self) -> Endpoints:
        """Raises Unavailable, also where the document names another issuer."""
        address = self.issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await get_json(address)
        if not isinstance(document, dict) or document.get("issuer") != self.issuer.issuer:
            raise Unavailable("The identity provider's discovery document names another issuer.")
        jwks = self._url(document, "jwks_uri")
        if jwks is None:
            raise Unavailable("The identity provider's discovery document has no usable jwks_uri.")
        methods = document.get("token_endpoint_auth_methods_supported")
        return Endpoints(
            authorization=self._url(document, "authorization_endpoint"),
            token=self._url(document, "token_endpoint"),
            userinfo=self._url(document, "userinfo_endpoint"),
            jwks=jwks,
            token_methods=frozenset(methods if isinstance(methods, list) else ()),
            sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _url(self, document: Mapping[str, Any], member: str) -> str | None:
        """An address that the issuer may send us to: never this very machine, unless the issuer is on it."""
        value = document.get(member)
        if not isinstance(value, str) or not is_safe_url(value):
            return None
        return None if is_loopback_url(value) and not is_loopback_url(self.issuer.issuer) else value


def read_keys(document: Any, algorithms: tuple[str, ...]) -> dict[str, PublicKey]:
    """The keys that may verify signatures, by id; an id that occurs twice is nobody's. Raises Unavailable."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise Unavailable("The identity provider's keys cannot be read.")
    keys: dict[str, PublicKey] = {}
    ambiguous: set[str] = set()
    for raw in listed:
        kid = raw.get("kid") if isinstance(raw, dict) else None
        if not isinstance(kid, str) or not kid:
            continue
        if kid in keys:
            ambiguous.add(kid)
        key = _read_key(raw, algorithms)
        if key is not None:
            keys[kid] = key
    return {kid: key for kid, key in keys.items() if kid not in ambiguous}


def _read_key(raw: dict[str, Any], algorithms: tuple[str, ...]) -> PublicKey | None:
    if raw.get("use", "sig") != "sig" or raw.get("kty") not in ("RSA", "EC", "OKP"):
        return None
    algorithm = raw.get("alg")
    if algorithm is not None and algorithm not in algorithms:
        return None
    public: dict[str, Any] = {name: raw[name] for name in PUBLIC_MEMBERS if name in raw}
    with contextlib.suppress(JoseError, ValueError, TypeError, KeyError):
        key = JWKRegistry.import_key(public)
        if isinstance(key, RSAKey) and key.public_key.key_size < MIN_RSA_BITS:
            return None
        if isinstance(key, RSAKey | ECKey | OKPKey):
            return PublicKey(key, algorithm)
    return None

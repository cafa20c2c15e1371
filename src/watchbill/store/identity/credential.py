"""How secrets are kept: as salted hashes. Pure; knows no SQL and no tokens.

All secrets are made here, from 256 random bits, so one round of SHA-256 is sound: a slow hash is for what
people choose, and would let anybody who sends wrong secrets keep the processor busy and others waiting.
"""

import hashlib
import hmac
import re
import secrets
from uuid import UUID

from watchbill.errors import Unauthenticated
from watchbill.identity import StoredSecret

SALT_BYTES = 16
SECRET_BYTES = 32
_AGENT_CREDENTIAL = re.compile(
    r"wba\.([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\.([A-Za-z0-9_-]{20,100})"
)


def new_secret() -> str:
    """URL-safe text that no one can guess."""
    return secrets.token_urlsafe(SECRET_BYTES)


def store_secret(secret: str) -> StoredSecret:
    salt = secrets.token_bytes(SALT_BYTES)
    return StoredSecret(salt, _hash(secret, salt))


def is_secret(secret: str, stored: StoredSecret) -> bool:
    return hmac.compare_digest(_hash(secret, stored.salt), stored.hash)


def new_agent_credential(cluster_id: UUID) -> tuple[str, StoredSecret]:
    """The line to hand out, once, and what to keep of it."""
    secret = new_secret()
    return f"wba.{cluster_id}.{secret}", store_secret(secret)


def read_agent_credential(text: str) -> tuple[UUID, str]:
    """Cluster id and secret. Raises Unauthenticated."""
    match = _AGENT_CREDENTIAL.fullmatch(text)
    if match is None:
        raise Unauthenticated("This is not an agent credential.")
    return UUID(match[1]), match[2]


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.sha256(salt + secret.encode()).digest()

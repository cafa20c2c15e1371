"""The signing keys: shared by all servers through the database, encrypted there where a secret is given."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey

from watchbill.errors import Invalid, Unavailable
from watchbill.store.identity.signing import (
    SigningKey,
    signing_key_add_first,
    signing_key_encrypt,
    signing_key_list,
    signing_key_rotate,
)
from watchbill.store.postgres.database import Database

ALGORITHM = "ES256"
KEYS_CACHE_SECONDS = 60
KEYS_REFETCH_SECONDS = 10
KEYS_SWITCH_SECONDS = KEYS_CACHE_SECONDS + KEYS_REFETCH_SECONDS
FOREVER = timedelta(days=3650)

MIN_SECRET_BYTES = 32
_ALGORITHMS = ["dir", "A256GCM"]


class KeyEncryption:
    """Without a secret keys are stored in plain text, and encrypted ones cannot be read."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = None if secret is None else OctKey.import_key(hashlib.sha256(secret).digest())

    def encrypt(self, kid: str, private_jwk: str) -> str:
        if self._key is None:
            return private_jwk
        header = {"alg": "dir", "enc": "A256GCM", "kid": kid}
        return jwe.encrypt_compact(header, private_jwk.encode(), self._key, _ALGORITHMS)

    def needs_encryption(self, stored: str) -> bool:
        """Whether the key is stored in plain text although there is a secret."""
        return self._key is not None and _is_plain(stored)

    def decrypt(self, kid: str, stored: str) -> str:
        """Raises Unavailable where this is not the secret, and for a key that was put in another's place."""
        if _is_plain(stored):
            return stored
        if self._key is None:
            raise Unavailable(
                "The signing keys in the database are encrypted.",
                details="Set WATCHBILL_KEY_FILE to the file they were encrypted with.",
            )
        try:
            decrypted = jwe.decrypt_compact(stored, self._key, _ALGORITHMS)
        except (JoseError, ValueError) as error:
            raise Unavailable(
                "WATCHBILL_KEY_FILE is not the file that the signing keys were encrypted with."
            ) from error
        if decrypted.headers().get("kid") != kid or decrypted.plaintext is None:
            raise Unavailable(
                "A signing key in the database does not have the id it is stored under."
            )
        return decrypted.plaintext.decode()


def read_key_encryption(path: Path | None) -> KeyEncryption:
    """Raises Invalid where the file cannot be read or holds too little."""
    if path is None:
        return KeyEncryption()
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise Invalid(f"Cannot read {path}: {error.strerror}.") from error
    if len(secret) < MIN_SECRET_BYTES:
        raise Invalid(
            f"{path} holds fewer than {MIN_SECRET_BYTES} bytes.",
            details=f"Make one with: openssl rand -hex 32 > {path}",
        )
    return KeyEncryption(secret)


def _is_plain(stored: str) -> bool:
    return stored.startswith("{")


@dataclass(frozen=True, slots=True)
class VerificationKey:
    kid: str
    key: ECKey
    active_at: datetime
    retired_at: datetime | None


class Keyring:
    """The signing keys, made by whichever server starts first and read again from time to time."""

    def __init__(
        self,
        db: Database,
        clock: Callable[[], datetime],
        *,
        encryption: KeyEncryption | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._encryption = encryption or KeyEncryption()
        self._keys: dict[str, VerificationKey] = {}
        self._read_at: datetime | None = None
        self._lock = asyncio.Lock()

    async def signing(self) -> VerificationKey:
        """The newest key that is active; before the first one is, that."""
        await self._refresh(KEYS_CACHE_SECONDS)
        now = self._clock()
        usable = [
            key for key in self._keys.values() if key.retired_at is None or now < key.retired_at
        ]
        return next((key for key in usable if key.active_at <= now), usable[-1])

    async def rotate(self, *, at_once: bool) -> SigningKey:
        """A new key. Others learn of it before it signs, and the old one verifies until its last token has
        ended; or `at_once`: every token signed so far ends with the old key, within a minute."""
        now = self._clock()
        switch = now if at_once else now + timedelta(seconds=KEYS_SWITCH_SECONDS)
        key = replace(self._new(now), active_at=switch)
        retire_at = now - FOREVER if at_once else switch
        await signing_key_rotate(self._db, key, retire_others_at=retire_at)
        self._read_at = None
        return key

    async def verifying(self, kid: str) -> VerificationKey | None:
        """A key of ours. An unknown id makes us look again, but seldom: it may be anybody's invention."""
        await self._refresh(KEYS_CACHE_SECONDS)
        if kid not in self._keys:
            await self._refresh(KEYS_REFETCH_SECONDS)
        return self._keys.get(kid)

    async def _refresh(self, older_than_seconds: int) -> None:
        if self._is_fresh(older_than_seconds):
            return
        async with self._lock:
            if self._is_fresh(older_than_seconds):
                return
            stored = await signing_key_list(self._db)
            if all(
                key.retired_at is not None and key.retired_at <= self._clock() for key in stored
            ):
                await signing_key_add_first(self._db, self._new(self._clock()))
                stored = await signing_key_list(self._db)
            self._keys = {key.kid: self._decrypted(key) for key in stored}
            for key in stored:
                if self._encryption.needs_encryption(key.private_jwk):
                    encrypted = self._encryption.encrypt(key.kid, key.private_jwk)
                    await signing_key_encrypt(self._db, key.kid, encrypted)
            self._read_at = self._clock()

    def _decrypted(self, key: SigningKey) -> VerificationKey:
        jwk = json.loads(self._encryption.decrypt(key.kid, key.private_jwk))
        return VerificationKey(key.kid, ECKey.import_key(jwk), key.active_at, key.retired_at)

    def _new(self, now: datetime) -> SigningKey:
        key = _new_signing_key(now)
        return replace(key, private_jwk=self._encryption.encrypt(key.kid, key.private_jwk))

    def _is_fresh(self, older_than_seconds: int) -> bool:
        age = None if self._read_at is None else self._clock() - self._read_at
        return age is not None and age < timedelta(seconds=older_than_seconds)


def _new_signing_key(now: datetime) -> SigningKey:
    kid = uuid4().hex
    key = ECKey.generate_key("P-256", {"kid": kid, "alg": ALGORITHM, "use": "sig"})
    return SigningKey(
        kid=kid,
        private_jwk=json.dumps(key.as_dict(private=True)),
        created_at=now,
        active_at=now,
        retired_at=None,
    )

"""The signing keys' second lock: a secret that the database does not hold, where one is given."""

import hashlib
from pathlib import Path

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from watchbill.errors import Invalid, Unavailable

LEAST_SECRET_BYTES = 32
_ALGORITHMS = ["dir", "A256GCM"]


class KeyEncryption:
    """Without a secret keys are kept as they are, and sealed ones cannot be opened."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = None if secret is None else OctKey.import_key(hashlib.sha256(secret).digest())

    def close(self, kid: str, private_jwk: str) -> str:
        if self._key is None:
            return private_jwk
        header = {"alg": "dir", "enc": "A256GCM", "kid": kid}
        return jwe.encrypt_compact(header, private_jwk.encode(), self._key, _ALGORITHMS)

    def lacks(self, kept: str) -> bool:
        """Whether the key is kept open although it could be sealed."""
        return self._key is not None and _is_open(kept)

    def open(self, kid: str, kept: str) -> str:
        """Raises Unavailable where this is not the secret, and for a key that was put in another's place."""
        if _is_open(kept):
            return kept
        if self._key is None:
            raise Unavailable(
                "The signing keys in the database are sealed.",
                details="Set WATCHBILL_KEY_FILE to the file they were sealed with.",
            )
        try:
            opened = jwe.decrypt_compact(kept, self._key, _ALGORITHMS)
        except (JoseError, ValueError) as error:
            raise Unavailable(
                "WATCHBILL_KEY_FILE is not what the signing keys were sealed with."
            ) from error
        if opened.headers().get("kid") != kid or opened.plaintext is None:
            raise Unavailable("A signing key in the database is not the one that it says.")
        return opened.plaintext.decode()


def read_key_encryption(path: Path | None) -> KeyEncryption:
    """Raises Invalid where the file cannot be read or holds too little."""
    if path is None:
        return KeyEncryption()
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise Invalid(f"Cannot read {path}: {error.strerror}.") from error
    if len(secret) < LEAST_SECRET_BYTES:
        raise Invalid(
            f"{path} holds fewer than {LEAST_SECRET_BYTES} bytes.",
            details=f"Make one with: openssl rand -hex 32 > {path}",
        )
    return KeyEncryption(secret)


def _is_open(kept: str) -> bool:
    return kept.startswith("{")

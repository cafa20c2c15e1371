"""The server's own certificate: read at start, and again whenever its files have changed.

New connections get the new one; a file that cannot be used leaves the old one in place.
"""

import ssl
from datetime import datetime
from pathlib import Path

import structlog

from watchbill.errors import Invalid

RELOAD_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Certificate:
    """A chain and its key, each a PEM file."""

    def __init__(self, chain: Path, key: Path) -> None:
        """Raises Invalid where they cannot be used."""
        self._files = (chain, key)
        self._seen = self._state()
        self.context = self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    async def reload(self, _: datetime) -> None:
        """Raises Invalid where the files have changed into something that cannot be used."""
        present = self._state()
        if present == self._seen:
            return
        self._loaded(
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        )  # a pair that does not fit changes nothing
        self._loaded(self.context)
        self._seen = present
        log.info("reloaded the certificate", file=str(self._files[0]))

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        chain, key = self._files
        try:
            context.load_cert_chain(chain, key, password=_no_password)
        except (OSError, ValueError) as error:
            reason = (
                getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            )
            raise Invalid(
                f"The certificate {chain} with the key {key} cannot be used: {reason}.",
                details="Both are PEM files, the chain begins with the server's own certificate, and the key "
                "has no passphrase.",
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _state(self) -> tuple[object, ...]:
        """Differs when a file was written or, as Kubernetes does, replaced behind a link."""
        try:
            return tuple(
                (entry.st_ino, entry.st_mtime_ns, entry.st_size)
                for entry in (file.stat() for file in self._files)
            )
        except OSError as error:
            raise Invalid(f"{error.filename} cannot be read: {error.strerror}.") from error


def _no_password() -> str:
    """Instead of asking on the terminal, as OpenSSL would."""
    raise ValueError("the key has a passphrase")

"""A credential plugin of a kubeconfig's user, run as kubectl runs it (`client.authentication.k8s.io`)."""

import asyncio
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

PLUGIN_SECONDS = 60.0
RENEW_BEFORE = timedelta(seconds=30)
_CLUSTER_MEMBERS = (
    *("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data"),
    *("proxy-url", "disable-compression"),
)


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str = ""
    client_certificate_data: str = ""
    client_key_data: str = ""
    expiration_timestamp: datetime | None = None


class _ExecCredential(msgspec.Struct, frozen=True, rename="camel"):
    api_version: str
    kind: str
    status: _Status


class ExecPlugin:
    """Gives a token, a client certificate or both; runs again shortly before they end."""

    def __init__(
        self, section: Mapping[str, Any], cluster: Mapping[str, Any], folder: Path
    ) -> None:
        """`section`: the user's `exec`; `cluster`: the context's cluster; `folder`: the kubeconfig's."""
        self._section = section
        self._cluster = cluster
        self._folder = folder
        self._status: _Status | None = None
        self._files: tempfile.TemporaryDirectory[str] | None = None

    @property
    def is_due(self) -> bool:
        ends = self._status.expiration_timestamp if self._status is not None else None
        is_over = ends is not None and ends - RENEW_BEFORE <= datetime.now(UTC)
        return self._status is None or is_over

    async def apply(self, loader: Any) -> bool:
        """Give the library's loader what the plugin says. Raises ValueError, OSError, TimeoutError."""
        if self.is_due:
            self._status = await self._run()
        assert self._status is not None
        if self._status.token:
            loader.token = f"Bearer {self._status.token}"
        if self._status.client_certificate_data:
            loader.cert_file, loader.key_file = self._write(self._status)
        return True

    async def _run(self) -> _Status:
        process = await asyncio.create_subprocess_exec(
            self._command(),
            *(str(argument) for argument in self._section.get("args") or ()),
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PLUGIN_SECONDS):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            error_output = errors.decode(errors="replace").strip()[-500:]
            raise ValueError(
                f"its credential plugin ended with {process.returncode}: {error_output}"
            )
        return self._read(output)

    def _read(self, output: bytes) -> _Status:
        try:
            credential = msgspec.json.decode(output, type=_ExecCredential)
        except msgspec.DecodeError as error:
            raise ValueError(f"its credential plugin's output cannot be read: {error}") from error
        expected, status = self._section["apiVersion"], credential.status
        if (credential.kind, credential.api_version) != ("ExecCredential", expected):
            raise ValueError(f"its credential plugin does not speak {expected}")
        if bool(status.client_certificate_data) != bool(status.client_key_data):
            raise ValueError("its credential plugin gave a certificate without key, or the reverse")
        if not status.token and not status.client_certificate_data:
            raise ValueError("its credential plugin gave neither token nor certificate")
        return status

    def _command(self) -> str:
        """A path is relative to the kubeconfig, a bare name is looked up in PATH."""
        command = str(self._section["command"])
        is_path = os.sep in command and not os.path.isabs(command)
        return str(self._folder / command) if is_path else command

    def _environment(self) -> dict[str, str]:
        spec: dict[str, Any] = {"interactive": False}
        if self._section.get("provideClusterInfo"):
            spec["cluster"] = {
                name: self._cluster[name] for name in _CLUSTER_MEMBERS if name in self._cluster
            }
        info = {
            "apiVersion": self._section["apiVersion"],
            "kind": "ExecCredential",
            "spec": spec,
        }
        more = {item["name"]: item["value"] for item in self._section.get("env") or ()}
        return {**os.environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(info)}

    def _write(self, status: _Status) -> tuple[str, str]:
        """As files, which is all that TLS reads; in a folder that only this user may enter."""
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="watchbill-agent-")
        certificate, key = (Path(self._files.name) / name for name in ("tls.crt", "tls.key"))
        certificate.write_text(status.client_certificate_data)
        key.write_text(status.client_key_data)
        return str(certificate), str(key)

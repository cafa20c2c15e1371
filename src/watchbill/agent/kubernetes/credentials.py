"""How the agent gets into a cluster: kubeconfig or in-cluster credentials, and their renewal.

Reading both is left to kubernetes-asyncio's config module; nothing else of that library is used.
"""

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

from watchbill.errors import Invalid

_RELOAD_SECONDS = 30.0


class Credentials:
    """Address, TLS and token of one API server, renewed when they run out or are turned down."""

    def __init__(self, kubeconfig: Path | None, context: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._configuration: Any = None
        self._loader: Any = None
        self._loaded_at = 0.0
        self._lock = asyncio.Lock()
        self._tls: ssl.SSLContext | bool = True

    @property
    def server(self) -> str:
        return str(self._configuration.host).rstrip("/")

    @property
    def proxy(self) -> str | None:
        return self._configuration.proxy or None

    @property
    def tls(self) -> ssl.SSLContext | bool:
        return self._tls

    @property
    def tls_server_name(self) -> str | None:
        return self._configuration.tls_server_name or None

    async def load(self) -> None:
        """Read everything anew. Raises Invalid, saying what is wrong and what to do."""
        from kubernetes_asyncio import config
        from kubernetes_asyncio.client import Configuration  # slow to import, needed here alone

        configuration: Any = Configuration()
        library: Any = config
        try:
            if self._kubeconfig is None:
                library.load_incluster_config(client_configuration=configuration)
            else:
                self._check_readable(self._kubeconfig)
                self._loader = await library.load_kube_config(
                    config_file=str(self._kubeconfig),
                    context=self._context,
                    client_configuration=configuration,
                )
            self._tls = _tls_context(configuration)
        except Invalid:
            raise
        except Exception as error:  # the library raises whatever the file's mistake leads to
            raise self._invalid(error) from error
        self._configuration = configuration
        self._loaded_at = time.monotonic()

    async def authorization(self) -> str | None:
        """The Authorization header's value; near its end a token is renewed first."""
        if self._loader is not None and _runs_out(self._loader):
            async with self._lock:
                await self._loader.load_and_set(self._configuration)
        key: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        return key

    async def renew(self) -> bool:
        """After a 401: read everything anew, now and then. True where the token is another one."""
        async with self._lock:
            if time.monotonic() - self._loaded_at < _RELOAD_SECONDS:
                return False
            before = self._configuration.api_key.get("BearerToken")
            await self.load()
            return bool(before != self._configuration.api_key.get("BearerToken"))

    @staticmethod
    def _check_readable(path: Path) -> None:
        try:
            path.read_bytes()
        except OSError as error:
            raise Invalid(
                f"The kubeconfig {path} cannot be read: {error.strerror}.",
                details="Name an existing file with --kubeconfig, or leave it out inside a cluster.",
            ) from error

    def _invalid(self, error: Exception) -> Invalid:
        if self._kubeconfig is None:
            return Invalid(
                f"There are no in-cluster credentials: {error}",
                details="Outside a cluster name a kubeconfig with --kubeconfig; inside one the pod "
                "needs a service account whose token is mounted.",
            )
        where = f"{self._kubeconfig}" + (f", context {self._context}" if self._context else "")
        return Invalid(
            f"The kubeconfig {where} cannot be used: {type(error).__name__}: {error}",
            details="`kubectl --kubeconfig FILE config get-contexts` shows what it holds.",
        )


def _runs_out(loader: Any) -> bool:
    """Whether the library itself knows when this token ends and renews it in time."""
    return loader.provider is not None or hasattr(loader, "exec_plugin_expiry")


def _tls_context(configuration: Any) -> ssl.SSLContext | bool:
    if not str(configuration.host).startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file or None)
    return context

"""How the agent gets into a cluster: kubeconfig or in-cluster credentials, and their renewal.

Reading both is left to kubernetes-asyncio's config module; nothing else of that library is used. Its client is
some 800 modules of generated models and calls, which take seconds to import and more memory than a small
cluster's pods; the readers need nothing of it but its `Configuration`, so they find a bare package in its place
while they are imported. Credential
plugins are run here, as kubectl runs them (`client.authentication.k8s.io`), because it takes a token or a
certificate of them, never both.
"""

import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import structlog

from watchbill.client.proxies import proxy_for
from watchbill.errors import Invalid

_LIBRARY = "kubernetes_asyncio"
_CLIENT = f"{_LIBRARY}.client"


def _imported() -> tuple[Any, Any, Any]:
    """`Configuration`, and the modules that read a kubeconfig and in-cluster credentials."""
    before = {name: module for name, module in sys.modules.items() if _is_of_library(name)}
    for name in before:
        del sys.modules[name]
    try:
        client: Any = _bare_package(_CLIENT, _bare_package(_LIBRARY, None))
        client.ApiClient = None
        configuration = import_module(f"{_CLIENT}.configuration").Configuration
        client.Configuration = configuration
        return (
            configuration,
            import_module(f"{_LIBRARY}.config.kube_config"),
            import_module(f"{_LIBRARY}.config.incluster_config"),
        )
    finally:
        # Whoever wants all of the library, such as a test, imports it whole.
        for name in list(filter(_is_of_library, sys.modules)):
            del sys.modules[name]
        sys.modules.update(before)


def _is_of_library(name: str) -> bool:
    return name == _LIBRARY or name.startswith(f"{_LIBRARY}.")


def _bare_package(name: str, parent: ModuleType | None) -> ModuleType:
    """A package whose modules can be imported, its own code left out."""
    if parent is None:
        spec = find_spec(name)
        assert spec is not None  # it is among the package's requirements
        paths = list(spec.submodule_search_locations or ())
    else:
        paths = [str(Path(path) / name.rpartition(".")[2]) for path in parent.__path__]
    package = ModuleType(name)
    package.__path__ = paths
    sys.modules[name] = package
    return package


Configuration, kube_config, incluster_config = _imported()


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


log = structlog.get_logger(__name__)

_RELOAD_SECONDS = 30.0
LOOK_SECONDS = 10.0
"""How often it is looked whether the files have changed: a new authority, certificate, token or proxy."""
_FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Members of clusters and users that name files."""

_Stamp = tuple[tuple[str, int, int], ...]


class Credentials:
    """Address, TLS and token of one API server, read anew when they run out, change or are turned down."""

    def __init__(self, kubeconfig: Path | None, context: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._configuration: Any = None
        self._loader: Any = None
        self._plugin: ExecPlugin | None = None
        self._files: tuple[Path, ...] = ()
        self._stamp: _Stamp = ()
        self._loaded_at = 0.0
        self._looked_at = 0.0
        self._lock = asyncio.Lock()
        self._tls: ssl.SSLContext | bool = True

    @property
    def server(self) -> str:
        return str(self._configuration.host).rstrip("/")

    @property
    def proxy(self) -> str | None:
        """The kubeconfig's, else the environment's."""
        return self._configuration.proxy or proxy_for(self.server)

    @property
    def tls(self) -> ssl.SSLContext | bool:
        return self._tls

    @property
    def tls_server_name(self) -> str | None:
        return self._configuration.tls_server_name or None

    async def load(self) -> None:
        """Read everything anew. Raises Invalid, saying what is wrong and what to do."""
        configuration: Any = Configuration()
        try:
            if self._kubeconfig is None:
                self._load_in_cluster(configuration)
            else:
                self._check_readable(self._kubeconfig)
                await self._load_kubeconfig(self._kubeconfig, configuration)
            tls = _tls_context(configuration)
        except Invalid:
            raise
        except Exception as error:  # the library raises whatever the file's mistake leads to
            raise self._invalid(error) from error
        self._configuration, self._tls = configuration, tls
        self._stamp = _stamp(self._files)
        self._loaded_at = self._looked_at = time.monotonic()

    async def authorization(self) -> str | None:
        """The Authorization header's value, after what has changed or ends soon was read anew."""
        if self._is_due():
            async with self._lock:
                if self._is_due():
                    await self._reload()
        elif self._loader is not None and self._loader.provider is not None:
            async with self._lock:
                await self._loader.load_and_set(self._configuration)
        key: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        return key

    async def renew(self) -> bool:
        """After they were turned down: read everything anew, now and then. True where that was done."""
        async with self._lock:
            if time.monotonic() - self._loaded_at < _RELOAD_SECONDS:
                return False
            return await self._reload()

    def _is_due(self) -> bool:
        if self._plugin is not None and self._plugin.is_due:
            return True
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = time.monotonic()
        return _stamp(self._files) != self._stamp

    async def _reload(self) -> bool:
        """False where that failed: a file may be half written, so what was read before goes on."""
        self._loaded_at = time.monotonic()
        try:
            await self.load()
        except Invalid as error:
            log.warning("credentials cannot be read anew", reason=error.message)
            return False
        log.info("credentials read anew", api_server=self.server)
        return True

    def _load_in_cluster(self, configuration: Any) -> None:
        incluster_config.load_incluster_config(client_configuration=configuration)
        names = (incluster_config.SERVICE_TOKEN_FILENAME, incluster_config.SERVICE_CERT_FILENAME)
        self._files = tuple(map(Path, names))

    async def _load_kubeconfig(self, path: Path, configuration: Any) -> None:
        merged = kube_config.KubeConfigMerger(str(path))
        loader = kube_config.KubeConfigLoader(
            config_dict=merged.config,
            active_context=self._context,
            config_base_path=None,
            config_persister=merged.save_changes,
        )
        folder = _folder_of(path)
        (content,) = merged.config_files.values()
        plugin = _plugin(content, loader.current_context["context"], folder)
        if plugin is not None:
            loader.load_from_exec_plugin = lambda: plugin.apply(loader)
        await loader.load_and_set(configuration)
        self._loader, self._plugin = loader, plugin
        self._files = (path, *_named_files(content, folder))

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


def _folder_of(path: Path) -> Path:
    return path.absolute().parent


def _plugin(
    content: Mapping[str, Any], context: Mapping[str, Any], folder: Path
) -> ExecPlugin | None:
    users = {entry["name"]: entry.get("user") or {} for entry in content.get("users") or ()}
    section = users.get(context.get("user"), {}).get("exec")
    if section is None:
        return None
    clusters = {entry["name"]: entry.get("cluster") or {} for entry in content["clusters"]}
    return ExecPlugin(section, clusters.get(context["cluster"], {}), folder)


def _named_files(content: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """The files that a kubeconfig names, relative to itself."""
    for kind in ("cluster", "user"):
        for entry in content.get(f"{kind}s") or ():
            members = entry.get(kind) or {}
            yield from (folder / members[name] for name in _FILES if members.get(name))


def _stamp(files: tuple[Path, ...]) -> _Stamp:
    """What changes with a file's content; a file that is missing for now has none."""
    stamps = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        stamps.append((str(file), status.st_mtime_ns, status.st_ino))
    return tuple(stamps)


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

"""A simulated cluster's API server: the Kubernetes REST protocol over HTTP, read-only, on a `Store`.

It knows requests, users and answers; what happens in the cluster is up to the scenario, what goes wrong
is up to `Faults`. Forms and texts follow recorded answers of real API servers.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Final, NoReturn, Protocol

from aiohttp import web

from simulator.apiserver import discovery, errors
from simulator.apiserver.discovery import V1_36, ServerVersion, version_document
from simulator.apiserver.encoding import MediaType, negotiate, object_bytes, partial_bytes
from simulator.apiserver.faults import AnswerVariation, Faults, send, write_kubeconfig
from simulator.apiserver.listing import (
    ListRequest,
    Options,
    answer_list,
    known_revision,
    read_options,
    read_selector,
)
from simulator.apiserver.store import Ending, ResourceTable, Store
from simulator.apiserver.tls import CertificateAuthority
from simulator.apiserver.watching import Watch, WatchRequest, check_watch
from simulator.model.framework import SERVED
from simulator.resources import BUILT_IN, QUEUE_ORDERS, ResourceType


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """What a path names."""

    group: str
    version: str
    namespace: str | None = None
    plural: str | None = None
    name: str | None = None
    subresource: str | None = None
    tail: str = ""
    """What follows the subresource: the path that is proxied."""


def read_path(path: str) -> RequestTarget | None:
    """Read a path below /api/v1 or /apis; None where it is neither."""
    segments = path.strip("/").split("/")
    if segments[:2] == ["api", "v1"]:
        group, version, rest = "", "v1", segments[2:]
    elif segments[0] == "apis" and len(segments) > 1:
        group, version, rest = segments[1], "".join(segments[2:3]), segments[3:]
    else:
        return None
    namespace: str | None = None
    if rest[:1] == ["namespaces"] and len(rest) >= 3:
        namespace, rest = rest[1], rest[2:]
    plural, name, subresource = (*rest[:3], None, None, None)[:3]
    return RequestTarget(group, version, namespace, plural, name, subresource, "/".join(rest[3:]))


AGENT: Final = "system:serviceaccount:watchbill:watchbill-agent"
ANONYMOUS: Final = "system:anonymous"
_VERBS: Final = {
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


def user_of(authorization: str | None, users: Mapping[str, str]) -> str | None:
    """None = anonymous. A wrong token is refused everywhere, no token only where rights are needed."""
    if authorization is None:
        return None
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or token not in users:
        raise errors.unauthorized()
    return users[token]


def reject_anonymous(method: str, path: str) -> NoReturn:
    """Raises ApiError."""
    target = read_path(path)
    if target is None or target.plural is None:
        raise errors.forbidden_path(ANONYMOUS, path)
    raise _forbidden(ANONYMOUS, _VERBS.get(method, "list"), target)


def authorize(
    target: RequestTarget,
    *,
    method: str,
    user: str,
    is_watch: bool,
    forbidden: set[tuple[str, str, str]],
) -> None:
    """Raises ApiError."""
    is_read = method == "GET"
    verb = _VERBS.get(method, "get")
    if is_read and target.name is None:
        verb = "watch" if is_watch else "list"
    if user != AGENT or not is_read or (target.group, target.plural, verb) in forbidden:
        raise _forbidden(user, verb, target)


def _forbidden(user: str, verb: str, target: RequestTarget) -> errors.ApiError:
    return errors.forbidden(
        user=user,
        verb=verb,
        group=target.group,
        plural=target.plural or "",
        namespace=target.namespace,
        name=target.name,
    )


_PUBLIC = ("/version", "/healthz", "/livez", "/readyz")
METRICS = "text/plain; version=0.0.4; charset=utf-8"
_POLL_SECONDS = 0.05


class ExporterPages(Protocol):
    """Pages of metrics; None where there is none."""

    def node_page(self, name: str, path: str) -> bytes | None: ...

    def pod_page(self, namespace: str, name: str, port: int, path: str) -> bytes | None: ...


@dataclass(slots=True)
class SimulatedCluster:
    """One API server on 127.0.0.1. `seed` varies what the protocol leaves open; None = plain answers."""

    store: Store = field(default_factory=Store)
    seed: int | None = None
    version: ServerVersion = V1_36
    custom: Iterable[ResourceType] = SERVED
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    exporters: ExporterPages | None = None
    """What serves metrics behind the proxies of nodes and pods."""
    intercept: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None = None
    """Is given every request first; what it answers is sent instead."""
    authority: CertificateAuthority | None = None
    """Whoever vouches for the server, which then speaks HTTPS; None = HTTP."""
    faults: Faults = field(init=False)
    users: dict[str, str] = field(init=False)
    """Bearer token → user. Users other than the agent have no rights."""
    requests: list[str] = field(init=False, default_factory=list)
    url: str = field(init=False, default="")
    _variation: AnswerVariation = field(init=False)
    _runner: web.AppRunner | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.faults = Faults(self.store)
        self.users = {self.token: AGENT}
        self._variation = AnswerVariation(self.seed)
        for resource in self.custom:
            if self.store.table(resource.group, resource.plural) is None:
                self.store.add_resource(resource)

    async def start(self, port: int = 0) -> str:
        """Listen; returns the address."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        app.on_response_prepare.append(self._set_date)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        context = self.authority.server_context() if self.authority is not None else None
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context)
        await site.start()
        host, bound = self._runner.addresses[0][:2]
        self.url = f"{'http' if context is None else 'https'}://{host}:{bound}"
        return self.url

    async def stop(self) -> None:
        """End open watches and stop listening; `start` may follow."""
        self.faults.end_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def exchange_authority(self) -> None:
        """Come back at the same address with a certificate of another authority."""
        port = int(self.url.rpartition(":")[2])
        await self.stop()
        self.authority = CertificateAuthority()
        await self.start(port)

    def kubeconfig(self, path: Path) -> Path:
        """Write a kubeconfig with the agent's token and the present authority."""
        ca = self.authority.pem if self.authority is not None else None
        return write_kubeconfig(path, url=self.url, token=self.token, ca=ca)

    async def remove_kind(self, resource: ResourceType) -> None:
        """Delete a custom kind's definition: its objects go, its watches end, then it is unknown."""
        self.store.empty_resource(resource)
        await asyncio.sleep(0.1)
        self.store.remove_resource(resource)

    async def _set_date(self, request: web.Request, response: web.StreamResponse) -> None:
        now = time.time() + self.faults.clock_skew_seconds
        response.headers["Date"] = formatdate(now, usegmt=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        del self.requests[:-1000]
        try:
            answer = await self.intercept(request) if self.intercept is not None else None
            return answer if answer is not None else await self._answer(request)
        except errors.ApiError as error:
            headers = {} if error.retry_after is None else {"Retry-After": "1"}
            return await send(
                request,
                error.body,
                self._variation,
                status=error.code,
                content_type=error.content_type,
                headers=headers,
            )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        await self._inject_faults()
        users = {} if self.faults.revokes_tokens else self.users
        user = user_of(request.headers.get("Authorization"), users)
        path = request.path
        if path in _PUBLIC:
            return await self._public(request, path)
        if user is None:
            reject_anonymous(request.method, path)
        if path in ("/api", "/apis"):
            return await self._discover(request, is_core=path == "/api")
        target = read_path(path)
        if target is None:
            raise errors.no_such_page()
        if target.plural is None:
            return await self._discover_group(request, target)
        return await self._objects(request, target, user or "")

    async def _inject_faults(self) -> None:
        faults = self.faults
        while faults.holds_requests:
            await asyncio.sleep(_POLL_SECONDS)
        if faults.delay_seconds:
            await asyncio.sleep(faults.delay_seconds)
        if faults.too_many_requests > 0:
            faults.too_many_requests -= 1
            raise errors.too_many()
        if faults.unavailable_requests > 0:
            faults.unavailable_requests -= 1
            raise errors.unavailable()

    async def _public(self, request: web.Request, path: str) -> web.StreamResponse:
        if path != "/version":
            return await self._send(request, b"ok", content_type=errors.TEXT)
        return await self._send(request, discovery.encode(version_document(self.version)))

    async def _discover(self, request: web.Request, *, is_core: bool) -> web.StreamResponse:
        accept = request.headers.get("Accept", "")
        resources = self._resources()
        if self.version.has_aggregated_discovery and "v=v2;as=APIGroupDiscoveryList" in accept:
            body = discovery.encode(discovery.aggregated(resources, is_core=is_core))
            tag = discovery.etag(body)
            headers = {"Etag": tag, "Vary": "Accept", "Cache-Control": "public"}
            if request.headers.get("If-None-Match") == tag:
                return web.Response(status=304, headers=headers)
            return await self._send(
                request, body, content_type=discovery.AGGREGATED, headers=headers
            )
        document = discovery.core_versions() if is_core else discovery.group_list(resources)
        return await self._send(request, discovery.encode(document))

    async def _discover_group(
        self, request: web.Request, target: RequestTarget
    ) -> web.StreamResponse:
        resources = self._resources()
        document = (
            discovery.resource_list(target.group, target.version, resources)
            if target.version
            else discovery.group(target.group, resources)
        )
        if document is None:
            raise self._unknown(target)
        return await self._send(request, discovery.encode(document))

    def _resources(self) -> list[ResourceType]:
        return [table.resource for table in self.store.tables()]

    def _unknown(self, target: RequestTarget) -> errors.ApiError:
        """Built-in groups know that a kind is missing; for others there is no such page."""
        is_built_in = any(r.group == target.group for r in BUILT_IN)
        return errors.no_such_kind() if is_built_in else errors.no_such_page()

    async def _objects(
        self, request: web.Request, target: RequestTarget, user: str
    ) -> web.StreamResponse:
        options = read_options(request.query) if request.method == "GET" else None
        await self.faults.until_answered(target.group, target.plural or "")
        authorize(
            target,
            method=request.method,
            user=user,
            is_watch=options is not None and options.is_watch,
            forbidden=self.faults.forbidden,
        )
        table = self.store.table(target.group, target.plural or "")
        if table is None or target.version not in table.resource.versions:
            raise self._unknown(target)
        if options is None:
            raise errors.not_allowed()
        if target.subresource == "proxy":
            return await self._proxy(request, target)
        if target.subresource == "pendingworkloads" and target.group == QUEUE_ORDERS.group:
            return await self._pending_workloads(request, target)
        if target.name is not None:
            known_revision(self.store, options)
            return await self._get(request, table, target)
        if not options.is_watch:
            return await self._list(request, table, target, options)
        return await self._watch(request, table, target, options)

    async def _get(
        self, request: web.Request, table: ResourceTable, target: RequestTarget
    ) -> web.StreamResponse:
        form = negotiate(request.headers.get("Accept", ""), table.resource.kind, "object")
        stored = self.store.get(table.resource, target.namespace, target.name or "")
        if stored is None:
            raise errors.not_found(table.resource, target.name or "")
        if target.subresource not in (None, "status"):
            raise errors.no_such_kind()
        if form is MediaType.PARTIAL:
            return await self._send(request, partial_bytes(stored) + b"\n")
        body = object_bytes(
            stored,
            self._variation.layout(),
            kind=table.resource.kind,
            api_version=table.resource.api_version_of(target.version),
        )
        return await self._send(request, body + b"\n")

    async def _proxy(self, request: web.Request, target: RequestTarget) -> web.StreamResponse:
        """Metrics pages through the proxy of a node or a pod."""
        name, _, port = (target.name or "").partition(":")
        page: bytes | None = None
        if self.exporters is not None and target.plural == "nodes":
            page = self.exporters.node_page(name, target.tail)
        elif self.exporters is not None and target.plural == "pods" and port.isdigit():
            page = self.exporters.pod_page(target.namespace or "", name, int(port), target.tail)
        if page is None:
            raise errors.no_such_page()
        return await self._send(request, page, content_type=METRICS)

    async def _pending_workloads(
        self, request: web.Request, target: RequestTarget
    ) -> web.StreamResponse:
        """What waits in a ClusterQueue, in order, as Kueue's own API server answers."""
        stored = self.store.get(QUEUE_ORDERS, None, target.name or "")
        if stored is None:
            raise errors.not_found(QUEUE_ORDERS, target.name or "")
        negotiate(request.headers.get("Accept", ""), "PendingWorkloadsSummary", "object")
        first, most = (
            int(request.query.get(*each)) for each in (("offset", "0"), ("limit", "1000"))
        )
        summary = {
            "kind": "PendingWorkloadsSummary",
            "apiVersion": QUEUE_ORDERS.api_version_of(target.version),
            "metadata": {"creationTimestamp": None},
            "items": stored.decode()["pendingWorkloadsSummary"]["items"][first : first + most],
        }
        return await self._send(request, discovery.encode(summary))

    async def _list(
        self, request: web.Request, table: ResourceTable, target: RequestTarget, options: Options
    ) -> web.StreamResponse:
        form = negotiate(request.headers.get("Accept", ""), table.resource.kind, "list")
        page_break = bool(options.token) and self.faults.page_breaks > 0
        if page_break:
            self.faults.page_breaks -= 1
        query = ListRequest(
            table=table,
            version=target.version,
            namespace=target.namespace,
            options=options,
            is_partial=form is MediaType.PARTIAL,
            counts_partial=self.version.counts_partial,
        )
        body = answer_list(self.store, query, page_break=page_break, variation=self._variation)
        return await self._send(request, body)

    async def _watch(
        self, request: web.Request, table: ResourceTable, target: RequestTarget, options: Options
    ) -> web.StreamResponse:
        form = negotiate(request.headers.get("Accept", ""), table.resource.kind, "watch")
        query = WatchRequest(
            table=table,
            version=target.version,
            namespace=target.namespace,
            options=options,
            selector=read_selector(table, options),
            is_partial=form is MediaType.PARTIAL,
            streams_lists=self.version.streams_lists,
        )
        revision = check_watch(query)
        response = web.StreamResponse(headers={"Content-Type": errors.JSON})
        response.enable_chunked_encoding()
        watch = Watch(self.store, query, faults=self.faults, variation=self._variation)
        try:
            await response.prepare(request)
            ending = await watch.run(response, revision)
        except ConnectionResetError:
            # The client has disconnected.
            return response
        if ending is Ending.CUT and request.transport is not None:
            request.transport.abort()
        return response

    async def _send(
        self,
        request: web.Request,
        body: bytes,
        *,
        content_type: str = errors.JSON,
        headers: dict[str, str] | None = None,
    ) -> web.StreamResponse:
        is_truncated = self.faults.truncated_answers > 0
        if is_truncated:
            self.faults.truncated_answers -= 1
        return await send(
            request,
            body,
            self._variation,
            content_type=content_type,
            headers=headers,
            is_truncated=is_truncated,
        )

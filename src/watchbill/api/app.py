"""The application: every operation of the merged document bound to its one handler, and nothing else served."""

from collections.abc import Iterable, Mapping
from functools import cache

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from watchbill.api.http.audit_event import client_address
from watchbill.api.http.call import Services, services_of
from watchbill.api.http.contract import (
    Document,
    LoginRequirement,
    Operation,
    contract_document,
    extensions_document,
    merged_document,
    operations,
    page_routes,
)
from watchbill.api.http.endpoint import Handler, OperationEndpoint
from watchbill.api.http.gate import Gate, Proxies
from watchbill.api.http.guard import Guard
from watchbill.api.http.listen import Certificate
from watchbill.api.http.server_metrics import ServerMetrics
from watchbill.api.limits import address_unit
from watchbill.api.login import device_login, oidc_login, token
from watchbill.api.resources import (
    admin,
    clusters,
    fleet,
    ingest,
    me,
    metrics,
    node_pools,
    nodes,
    organisation,
    pods,
    rules,
    stream,
    telemetry,
    usage,
    workload_properties,
    workloads,
)
from watchbill.api.resources.pages import Page, page_handlers, read_page, unknown_address
from watchbill.api.resources.server import server_handlers

__all__ = ["build_app", "services_of"]

RESOURCES = (
    workloads,
    workload_properties,
    pods,
    node_pools,
    nodes,
    organisation,
    telemetry,
    usage,
    metrics,
    fleet,
    stream,
    clusters,
    me,
    oidc_login,
    device_login,
    token,
    admin,
    rules,
    ingest,
)


@cache
def _served_documents() -> tuple[Document, Document, tuple[Operation, ...]]:
    """The contract, the document of everything, and its operations: of all apps, so nobody changes them."""
    contract, extensions = contract_document(), extensions_document()
    merged = merged_document(contract, extensions)
    return contract, merged, (*operations(merged), *_page_operations(page_routes(extensions)))


def build_app(services: Services, certificate: Certificate | None = None) -> ASGIApp:
    """Raises RuntimeError where an operation has no handler or a handler no operation."""
    meters = ServerMetrics(services.background, services.standby, certificate)
    page = read_page(base_path=services.settings.base_path)
    return Gate(
        _Dispatch(routes(services, meters, page), default=_no_route(page, services)),
        meters=meters,
        proxies=Proxies(
            services.settings.trusted_proxies,
            is_https=(services.settings.public_url or "").startswith("https://"),
        ),
        audit=services.audit,
        tracing=services.tracing,
        anonymous_rate=services.anonymous_rate,
        allowed_hosts=services.settings.allowed_hosts,
        base_path=services.settings.base_path,
    )


class _Dispatch:
    """To the endpoint of a path: at once where the path has no parameters, else as a router finds it among the
    few paths that have as many segments and the same third one. Asking them all is what an address that is none
    would cost most."""

    def __init__(self, routes: list[Route], *, default: ASGIApp) -> None:
        self._endpoints = {route.path: route.app for route in routes if "{" not in route.path}
        shapes = {_shape(route.path) for route in routes if not _has_any_shape(route)}
        self._routers = {shape: _router(routes, shape, default) for shape in shapes}
        self._others = _router(routes, None, default)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"])
        if endpoint is None:
            router = self._routers.get(_shape(scope["path"]), self._others)
            await router(scope, receive, send)
        else:
            scope["path_params"] = {}
            await endpoint(scope, receive, send)


_Shape = tuple[int, tuple[str, ...]]


def _shape(path: str) -> _Shape:
    return path.count("/"), tuple(path.split("/", 4)[3:4])


def _has_any_shape(route: Route) -> bool:
    return ":path}" in route.path or any("{" in part for part in route.path.split("/", 4)[:4])


def _router(routes: list[Route], shape: _Shape | None, default: ASGIApp) -> Router:
    fitting = [route for route in routes if _has_any_shape(route) or _shape(route.path) == shape]
    return Router(fitting, redirect_slashes=False, default=default)


def routes(services: Services, meters: ServerMetrics, page: Page) -> list[Route]:
    """All that is served. Raises RuntimeError as `build_app`."""
    contract, merged, served = _served_documents()
    base_path = services.settings.base_path
    if base_path:
        merged = merged | {"servers": [{"url": base_path}]}
    handlers = _by_name(
        *(resource.HANDLERS for resource in RESOURCES),
        workloads.ELEMENT_HANDLERS,
        server_handlers(contract=contract, merged=merged, meters=meters),
        page_handlers(page),
        device_login.PAGES,
    )
    check_complete(served, handlers)
    return _one_a_path(served, handlers, services)


def check_complete(served: Iterable[Operation], handlers: Mapping[str, Handler]) -> None:
    """Every operation has exactly one handler, and every handler an operation. Raises RuntimeError."""
    wanted = {operation.operation_id for operation in served}
    if wanted != handlers.keys():
        raise RuntimeError(
            f"operations without a handler: {sorted(wanted - handlers.keys())}; "
            f"handlers without an operation: {sorted(handlers.keys() - wanted)}"
        )


def _by_name(*groups: tuple[Handler, ...]) -> dict[str, Handler]:
    handlers_by_name: dict[str, Handler] = {}
    for handler in (handler for group in groups for handler in group):
        name: str = handler.__name__
        if name in handlers_by_name:
            raise RuntimeError(f"two handlers are named {name}")
        handlers_by_name[name] = handler
    return handlers_by_name


def _page_operations(routes: Mapping[str, str]) -> list[Operation]:
    return [
        Operation(
            operation_id=handler,
            method="GET",
            path=path,
            login=LoginRequirement.NONE,
            permission=None,
            takes_session=False,
            parameters=(),
            offers=(),
        )
        for path, handler in routes.items()
    ]


def _one_a_path(
    served: Iterable[Operation], handlers: Mapping[str, Handler], services: Services
) -> list[Route]:
    """One route a path, in the order of the operations, so that fixed paths come before templated ones."""
    by_path: dict[str, dict[str, tuple[Operation, Handler]]] = {}
    for operation in served:
        bound = (operation, handlers[operation.operation_id])
        by_path.setdefault(operation.path, {})[operation.method] = bound
    guard = Guard(services)
    return [
        Route(path, OperationEndpoint(bound, services, guard)) for path, bound in by_path.items()
    ]


def _no_route(page: Page, services: Services) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        accept = dict(scope["headers"]).get(b"accept")
        reply = unknown_address(page, scope["method"], scope["path"], accept)
        if reply is None:  # the gate answers every error; the framework's own has another shape
            raise HTTPException(404)
        await services.anonymous_rate.take(address_unit(client_address(scope)))
        await reply.send(scope, receive, send)

    return answer

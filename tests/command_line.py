"""Runs the command line in this process, against the real server or a fake one that holds what a test says."""

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock
from uuid import UUID

import msgspec
from aiohttp import web

from tests.records import workload
from watchbill.cli.app import run
from watchbill.store.document import Stamp, encode_document, finish
from watchbill.workload import Workload

CLUSTER_ID = UUID(int=0xC0)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class Screen(io.TextIOWrapper):
    """A stream that says it is a terminal, or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


async def watchbill(
    *arguments: str, environ: Mapping[str, str] | None = None, is_terminal: bool = False
) -> Outcome:
    """One command in a thread of its own, as the tests' loop may be the server's."""
    out, err = Screen(is_terminal=is_terminal), Screen(is_terminal=is_terminal)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WATCHBILL_", "RUNAI_", "NO_COLOR", "TERM"))
    }
    with (
        mock.patch.dict(os.environ, kept | dict(environ or {}), clear=True),
        mock.patch.object(sys, "stdout", out),
        mock.patch.object(sys, "stderr", err),
    ):
        code = await asyncio.to_thread(run, arguments)
    return Outcome(code, out.text(), err.text())


def document(made: Workload, *, deleted_at: datetime | None = None) -> dict[str, Any]:
    """What the API answers for this workload."""
    stamp = Stamp(
        tenant_id=1,
        cluster_id=CLUSTER_ID,
        project_id="11",
        department_id="10",
        updated_at=made.created_at,
        phase_updated_at=made.created_at,
        k8s_phase_updated_at=made.created_at,
        deleted_at=deleted_at,
    )
    body = finish(encode_document(stamp, made), 61, 7870)
    found: dict[str, Any] = msgspec.json.decode(body)
    return found


def aged(number: int, **members: Any) -> Workload:
    """A workload that is two hours and eleven minutes old, so that its age reads the same all test long."""
    created_at = datetime.now(UTC) - timedelta(hours=2, minutes=11, seconds=20)
    return workload(number, **({"created_at": created_at} | members))


def cluster(**members: Any) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    plain = {
        "id": str(CLUSTER_ID),
        "name": "west",
        "state": "connected",
        "since": now,
        "lastContactAt": now,
        "createdAt": now,
        "workloads": 3,
        "takeovers": 0,
        "kinds": [],
        "nodePools": [{"nodePool": "a100", "nodes": 4, "gpus": 32.0}],
        "refused": [],
        "gaps": [],
        "agentVersion": "0.1.0",
        "kubernetesVersion": "v1.36.0",
    }
    return plain | members


@dataclass
class FakeServer:
    """Answers the API's reading routes from what it holds; `filterBy` reaches only names and deletion."""

    live: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[dict[str, Any]] = field(default_factory=list)
    clusters: list[dict[str, Any]] = field(default_factory=lambda: [cluster()])
    history: list[dict[str, Any]] = field(default_factory=list)
    elements: list[dict[str, Any]] = field(default_factory=list)
    elements_total: int | None = None
    idle: list[dict[str, Any]] = field(default_factory=list)
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    measurements: list[dict[str, Any]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    export: bytes = b""
    requests: list[web.Request] = field(default_factory=list)
    url: str = ""

    @property
    def environ(self) -> dict[str, str]:
        return {
            "WATCHBILL_URL": self.url,
            "WATCHBILL_CLIENT_ID": "wbc-1",
            "WATCHBILL_CLIENT_SECRET": "secret",
        }

    async def __call__(self, *arguments: str, is_terminal: bool = False) -> Outcome:
        """Runs a command that is logged in here."""
        return await watchbill(*arguments, environ=self.environ, is_terminal=is_terminal)

    def asked(self, path: str) -> list[web.Request]:
        return [request for request in self.requests if request.path == path]

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._remember])
        workloads = "/api/v1/workloads"
        app.router.add_post("/api/v2/token", self._token)
        app.router.add_get("/api/v1/clusters", self._clusters)
        app.router.add_get(workloads, self._list)
        app.router.add_get(f"{workloads}/count", self._count)
        app.router.add_get(f"{workloads}/idle", self._idle)
        app.router.add_get(f"{workloads}/export", self._export)
        app.router.add_get(f"{workloads}/{{id}}", self._get)
        app.router.add_get(f"{workloads}/{{id}}/history", self._history)
        app.router.add_get(f"{workloads}/{{id}}/elements", self._elements)
        app.router.add_get(f"{workloads}/{{id}}/endpoints", self._endpoints)
        app.router.add_get(f"{workloads}/{{id}}/metrics", self._metrics)
        app.router.add_get(f"{workloads}/{{id}}/elements/count", self._element_count)
        return app

    @web.middleware
    async def _remember(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(request)
        response: web.StreamResponse = await handler(request)
        return response

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if form["client_secret"] != "secret":
            return _error(401, "The client id or the secret is wrong.")
        return web.json_response({"access_token": "t", "expires_in": 3600})

    async def _clusters(self, request: web.Request) -> web.Response:
        return web.json_response({"clusters": self.clusters})

    def _selected(self, request: web.Request) -> list[dict[str, Any]]:
        found = self.deleted if request.query.get("deleted") == "true" else self.live
        for parameter in request.query.getall("filterBy", []):
            items = msgspec.json.decode(parameter) if parameter.startswith("[") else [parameter]
            for one in items:
                if one.startswith("name=="):
                    found = [entry for entry in found if entry["name"] == one[6:]]
        return found

    async def _list(self, request: web.Request) -> web.Response:
        found = self._selected(request)
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 50))
        answer: dict[str, Any] = {"workloads": found[offset : offset + limit]}
        if offset + limit < len(found):
            answer["next"] = offset + limit
        return web.json_response(answer)

    async def _count(self, request: web.Request) -> web.Response:
        count = self.counts.pop(0) if self.counts else len(self._selected(request))
        return web.json_response({"count": count})

    async def _idle(self, request: web.Request) -> web.Response:
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 50))
        answer: dict[str, Any] = {
            "total": len(self.idle),
            "idleGpus": sum(one["idleAllocatedGpus"] for one in self.idle),
            "idleGpuHours": sum(one["idleGpuHours"] for one in self.idle),
            "workloads": self.idle[offset : offset + limit],
        }
        if offset + limit < len(self.idle):
            answer["next"] = offset + limit
        return web.json_response(answer)

    async def _get(self, request: web.Request) -> web.Response:
        for entry in (*self.live, *self.deleted):
            if entry["id"] == request.match_info["id"]:
                return web.json_response(entry)
        return _error(404, f"There is no workload {request.match_info['id']}.")

    async def _history(self, request: web.Request) -> web.Response:
        return web.json_response({"history": self.history})

    async def _elements(self, request: web.Request) -> web.Response:
        offset, limit = int(request.query["offset"]), int(request.query["limit"])
        answer: dict[str, Any] = {"elements": self.elements[offset : offset + limit]}
        if offset + limit < len(self.elements):
            answer["next"] = offset + limit
        return web.json_response(answer)

    async def _endpoints(self, request: web.Request) -> web.Response:
        return web.json_response({"endpoints": self.endpoints})

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self.measurements:
            return _error(404, "None of these metrics is available.")
        return web.json_response({"measurements": self.measurements})

    async def _element_count(self, request: web.Request) -> web.Response:
        stored = len(self.elements)
        total = stored if self.elements_total is None else self.elements_total
        return web.json_response({"totalElementsCount": total, "storedElementsCount": stored})

    async def _export(self, request: web.Request) -> web.Response:
        return web.Response(body=self.export, content_type="text/csv")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeServer"]:
        runner = web.AppRunner(self._application())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"code": status, "message": message}, status=status)

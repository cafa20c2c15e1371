"""What people's programs ask of the server: workloads and what belongs to them, clusters, who am I."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from watchbill.client.selection import (
    PAGE,
    ListedWorkloads,
    Selection,
    WorkloadDocument,
    narrowed_by,
    read_pages,
)
from watchbill.client.transport import Parameters, Reply, StreamEvent, Transport, decoded, events
from watchbill.errors import TooMany, Unauthenticated, Unavailable
from watchbill.query import UsageSort
from watchbill.responses.access import Health, Me, TokenGrant
from watchbill.responses.contract import (
    ElementCounts,
    ElementsResponse,
    EndpointsResponse,
    MetricsResponse,
    PodsResponse,
    TelemetryResponse,
    WorkloadCount,
    WorkloadResponse,
    WorkloadsResponse,
)
from watchbill.responses.fleet import Cluster, CreatedCluster, Fleet
from watchbill.responses.nodes import NodesResponse
from watchbill.responses.organisation import DepartmentList, ProjectList
from watchbill.responses.usage import UsageReport
from watchbill.responses.workloads import (
    EventsResponse,
    Facets,
    History,
    HistoryResponse,
    IdleWorkload,
    IdleWorkloadList,
)
from watchbill.workload import Element

Body = Mapping[str, Any]
"""A JSON object to send."""

SNAPSHOT_PAGE = 200
RENEW_BEFORE_SECONDS = 60
TRIES = 3
LONGEST_WAIT_SECONDS = 5

_USAGE_ROWS = 10_000
"""Of a report that one request asks for: each request for later rows sums up all of them."""


@dataclass(frozen=True, slots=True)
class Probe:
    """How long an answer took, and the server's clock, to the second, when it answered."""

    seconds: float
    clock: datetime | None


class Client:
    """Logs in by itself, with a service account, unless it is given a token. Use as
    `async with Client(url, id, secret)`."""

    def __init__(
        self,
        url: str,
        client_id: str = "",
        client_secret: str = "",
        *,
        token: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        """`ca_file`: certificates to trust in addition to the system's. Raises Invalid where it holds none."""
        self._transport = Transport(url, ca_file=ca_file)
        self._client_id = client_id
        self._client_secret = client_secret
        self._given_token = token
        self._token = ""
        self._token_ends = 0.0
        self._logging_in = asyncio.Lock()

    @property
    def url(self) -> str:
        return self._transport.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._transport.close()

    async def workload_list(
        self, selection: Selection, *, offset: int = 0, limit: int = 50
    ) -> ListedWorkloads:
        page = [("offset", str(offset)), ("limit", str(limit))]
        parameters = [*selection.parameters(), *selection.order(), *page]
        answer = await self._get("/api/v1/workloads", WorkloadsResponse, parameters)
        return ListedWorkloads(
            [WorkloadDocument.of(raw) for raw in answer.workloads], answer.next_offset
        )

    async def pages(
        self, selection: Selection, *, most: int | None = None
    ) -> AsyncIterator[ListedWorkloads]:
        """All pages, or as many as hold `most` workloads; a workload that moved between two comes once."""
        seen: set[UUID] = set()
        offset: int | None = selection.offset
        size = selection.page_size
        while offset is not None and (most is None or len(seen) < most):
            limit = size if most is None else min(size, most - len(seen))
            page = await self.workload_list(selection, offset=offset, limit=limit)
            fresh = {
                document.workload.id: document
                for document in page.documents
                if document.workload.id not in seen
            }
            seen.update(fresh)
            yield ListedWorkloads(list(fresh.values()), page.next_offset)
            offset = page.next_offset

    async def workloads(
        self, selection: Selection, *, most: int | None = None
    ) -> list[WorkloadResponse]:
        """All of them, or the first `most`."""
        return [
            document.workload
            async for page in self.pages(selection, most=most)
            for document in page.documents
        ]

    async def workload_get(self, workload_id: UUID) -> WorkloadDocument:
        answer = await self._read("GET", f"/api/v1/workloads/{workload_id}")
        return WorkloadDocument.of(msgspec.Raw(answer))

    async def workload_count(self, selection: Selection) -> int:
        path = "/api/v1/workloads/count"
        return (await self._get(path, WorkloadCount, selection.parameters())).count

    async def facets(self, selection: Selection, fields: tuple[str, ...]) -> Facets:
        parameters = [("fields", ",".join(fields)), *selection.parameters()]
        return await self._get("/api/v1/workloads/facets", Facets, parameters)

    async def history(self, workload_id: UUID) -> History:
        """All its phases as one page, without its `next`."""
        path = f"/api/v1/workloads/{workload_id}/phases"
        page = await self._get(path, History)
        intervals = [*page.history]
        while page.next_offset is not None:
            page = await self._get(path, History, [("offset", str(page.next_offset))])
            intervals += page.history
        return History(history=tuple(intervals))

    async def elements(self, workload_id: UUID, *, most: int | None = None) -> list[Element]:
        """All stored elements, or the first `most`, upper levels first."""
        elements: list[Element] = []
        offset: int | None = 0
        while offset is not None and (most is None or len(elements) < most):
            limit = PAGE if most is None else min(PAGE, most - len(elements))
            answer = await self._get(
                f"/api/v1/workloads/{workload_id}/elements",
                ElementsResponse,
                [("offset", str(offset)), ("limit", str(limit))],
            )
            elements += answer.elements
            offset = answer.next_offset
        return elements

    async def pods(
        self,
        workload_id: UUID | None = None,
        *,
        filters: tuple[str, ...] = (),
        search: str | None = None,
        is_deleted: bool = False,
        most: int | None = None,
    ) -> PodsResponse:
        """The pods of a workload, or of all; all of them or the first `most`. `next` where there are more."""
        path = (
            "/api/v1/workloads/pods"
            if workload_id is None
            else f"/api/v1/workloads/{workload_id}/pods"
        )
        wanted = [*narrowed_by(filters, search)]
        wanted += [("deleted", "true")] if is_deleted else []
        wanted += [("verbosity", "full")] if workload_id is None else []
        pods, following = await read_pages(
            lambda page: self._get(path, PodsResponse, [*wanted, *page]),
            lambda answer: answer.pods,
            most=most,
        )
        return PodsResponse(pods=pods, next_offset=following)

    async def nodes(
        self,
        *,
        filters: tuple[str, ...] = (),
        search: str | None = None,
        most: int | None = None,
    ) -> NodesResponse:
        """Nodes by name, all of them or the first `most`; `next_offset` where there are more."""
        wanted = narrowed_by(filters, search)
        nodes, following = await read_pages(
            lambda page: self._get("/api/v1/nodes", NodesResponse, [*wanted, *page]),
            lambda answer: answer.nodes,
            most=most,
        )
        return NodesResponse(nodes=nodes, next_offset=following)

    async def event_history(self, workload_id: UUID, *, most: int = PAGE) -> HistoryResponse:
        """Events and phases in one line of time, newest first."""
        path = f"/api/v1/workloads/{workload_id}/history"
        return await self._get(path, HistoryResponse, [("limit", str(min(PAGE, most)))])

    async def events(self, workload_id: UUID, *, most: int = PAGE) -> EventsResponse:
        """What Kubernetes reported about a workload, newest first."""
        path = f"/api/v1/workloads/{workload_id}/events"
        return await self._get(path, EventsResponse, [("limit", str(min(PAGE, most)))])

    async def element_count(self, workload_id: UUID) -> ElementCounts:
        return await self._get(f"/api/v1/workloads/{workload_id}/elements/count", ElementCounts)

    async def endpoints(self, workload_id: UUID) -> EndpointsResponse:
        return await self._get(f"/api/v1/workloads/{workload_id}/endpoints", EndpointsResponse)

    async def metrics(
        self,
        workload_id: UUID,
        types: Sequence[str],
        *,
        start: datetime,
        end: datetime,
        samples: int,
        pod_id: UUID | None = None,
    ) -> MetricsResponse:
        """Of a workload, or of one of its pods."""
        parameters = [
            ("metricType", ",".join(types)),
            ("start", start.isoformat()),
            ("end", end.isoformat()),
            ("numberOfSamples", str(samples)),
        ]
        pod = "" if pod_id is None else f"/pods/{pod_id}"
        path = f"/api/v1/workloads/{workload_id}{pod}/metrics"
        return await self._get(path, MetricsResponse, parameters)

    async def idle(self, selection: Selection, *, limit: int, offset: int = 0) -> IdleWorkloadList:
        """Workloads with idle GPUs, the most idle GPU-hours first, with the sums over all that match."""
        page = [("offset", str(offset)), ("limit", str(limit))]
        parameters = [*selection.parameters(), *page]
        return await self._get("/api/v1/workloads/idle", IdleWorkloadList, parameters)

    async def idle_workloads(
        self, selection: Selection, *, most: int | None = None
    ) -> IdleWorkloadList:
        """All of them, or the first `most`, as one page of `idle` without its `next`."""
        workloads: dict[UUID, IdleWorkload] = {}
        page = await self.idle(selection, limit=PAGE if most is None else min(PAGE, most))
        workloads |= {workload.id: workload for workload in page.workloads}
        while page.next_offset is not None and (most is None or len(workloads) < most):
            limit = PAGE if most is None else min(PAGE, most - len(workloads))
            page = await self.idle(selection, limit=limit, offset=page.next_offset)
            workloads |= {workload.id: workload for workload in page.workloads}
        return msgspec.structs.replace(page, workloads=tuple(workloads.values()), next_offset=None)

    async def telemetry(
        self, telemetry_type: str, *, group_by: tuple[str, ...] = ()
    ) -> TelemetryResponse:
        parameters = [("telemetryType", telemetry_type)]
        if group_by:
            parameters.append(("groupBy", ",".join(group_by)))
        return await self._get("/api/v1/workloads/telemetry", TelemetryResponse, parameters)

    async def snapshot(self, selection: Selection) -> AsyncIterator[ListedWorkloads]:
        """All that match, as they were at one moment, some hundred at a time."""
        documents: list[WorkloadDocument] = []
        rest = b""
        async for chunk in self.export(selection, as_format="ndjson"):
            *lines, rest = (rest + chunk).split(b"\n")
            documents += [WorkloadDocument.of(msgspec.Raw(line)) for line in lines if line]
            if len(documents) >= SNAPSHOT_PAGE:
                yield ListedWorkloads(documents, None)
                documents = []
        yield ListedWorkloads(documents, None)

    async def export(self, selection: Selection, *, as_format: str) -> AsyncIterator[bytes]:
        """Chunks of CSV or NDJSON, as they come."""
        headers = await self._headers()
        parameters = [("format", as_format), *selection.parameters(), *selection.order()]
        async with self._transport.open(
            "GET", "/api/v1/workloads/export", parameters=parameters, headers=headers
        ) as answer:
            async for chunk in answer.content.iter_any():
                yield chunk

    async def stream(self, selection: Selection) -> AsyncIterator[StreamEvent]:
        """What changes, until the server ends it or the connection breaks (Unavailable)."""
        async with self._transport.open(
            "GET",
            "/api/v1/workloads/stream",
            parameters=selection.parameters(),
            headers=await self._headers(),
        ) as answer:
            async for event in events(answer):
                yield event

    async def fleet(self, *, start: datetime | None = None, end: datetime | None = None) -> Fleet:
        """The fleet's figures: `now`, and `series` over a day where nothing else is asked for."""
        bounds = (("start", start), ("end", end))
        parameters = [(name, at.isoformat()) for name, at in bounds if at is not None]
        return await self._get("/api/v1/fleet", Fleet, parameters)

    async def usage(
        self,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        groups: Sequence[str] = (),
        filters: Sequence[str] = (),
        sort_by: UsageSort = "allocatedGpuHours",
    ) -> UsageReport:
        """A report of usage by day, all of its rows, the most of `sort_by` first."""
        bounds = (("start", start), ("end", end))
        parameters = [(name, at.isoformat()) for name, at in bounds if at is not None]
        if groups:
            parameters.append(("groupBy", ",".join(groups)))
        parameters += [("filterBy", item) for item in filters]
        parameters += [("sortBy", sort_by), ("limit", str(_USAGE_ROWS))]
        report = await self._get("/api/v1/usage", UsageReport, parameters)
        rows = list(report.rows)
        offset = report.next_offset
        while offset is not None:
            page = await self._get(
                "/api/v1/usage", UsageReport, [*parameters, ("offset", str(offset))]
            )
            rows += page.rows
            offset = page.next_offset
        return msgspec.structs.replace(report, rows=tuple(rows), next_offset=None)

    async def probe(self) -> Probe:
        """Whether the server answers at all; takes no login."""
        started_at = time.perf_counter()
        async with self._transport.open("GET", "/healthz") as answer:
            decoded(await answer.read(), Health)
            sent = answer.headers.get("Date")
        seconds = time.perf_counter() - started_at
        return Probe(seconds, parsedate_to_datetime(sent) if sent else None)

    async def ready(self) -> None:
        """Raises Unavailable where the server cannot answer questions."""
        await self._transport.send("GET", "/readyz")

    async def server_metrics(self) -> str:
        """In Prometheus' text format. Raises Forbidden for whoever is no metrics-reader."""
        return (await self._read("GET", "/metrics")).decode()

    async def me(self) -> Me:
        return await self._get("/api/v1/me", Me)

    async def clusters(self) -> tuple[Cluster, ...]:
        return await self._get("/api/v1/clusters", tuple[Cluster, ...])

    async def cluster_create(self, name: str) -> CreatedCluster:
        """The credential in it is shown only once."""
        return await self.post("/api/v1/clusters", CreatedCluster, body={"name": name})

    async def cluster_delete(self, cluster_id: UUID) -> None:
        await self.delete(f"/api/v1/clusters/{cluster_id}")

    async def cluster_repin(self, cluster_id: UUID) -> None:
        await self.post_without_answer(f"/api/v1/clusters/{cluster_id}/repin")

    async def held_release(self, cluster_id: UUID) -> None:
        await self.post_without_answer(f"/api/v1/clusters/{cluster_id}/held-deletions/release")

    async def held_refuse(self, cluster_id: UUID) -> None:
        await self.post_without_answer(f"/api/v1/clusters/{cluster_id}/held-deletions/refuse")

    async def get(self, path: str, kind: type[Reply], parameters: Parameters = ()) -> Reply:
        """A read that answers `kind`."""
        return await self._get(path, kind, parameters)

    async def post(self, path: str, kind: type[Reply], *, body: Body | None = None) -> Reply:
        """A change that answers `kind`."""
        return decoded(await self._authorized("POST", path, body=body), kind)

    async def post_without_answer(self, path: str) -> None:
        await self._authorized("POST", path)

    async def delete(self, path: str) -> None:
        await self._authorized("DELETE", path)

    async def _get(self, path: str, kind: type[Reply], parameters: Parameters = ()) -> Reply:
        return decoded(await self._read("GET", path, parameters), kind)

    async def _read(self, method: str, path: str, parameters: Parameters = ()) -> bytes:
        """A read is repeated where the server says that a later moment may answer."""
        for number in range(1, TRIES + 1):
            try:
                return await self._authorized(method, path, parameters)
            except (Unavailable, TooMany) as error:
                if number == TRIES or error.retry_after_seconds is None:
                    raise
                await asyncio.sleep(min(error.retry_after_seconds, LONGEST_WAIT_SECONDS))
        raise AssertionError("the last try returns or raises")

    async def _authorized(
        self, method: str, path: str, parameters: Parameters = (), body: Body | None = None
    ) -> bytes:
        """One call, with a new token where the old one is refused."""
        for is_last in (False, True):
            headers = await self._headers()
            try:
                return await self._transport.send(
                    method,
                    path,
                    parameters=parameters,
                    headers=headers | ({"Content-Type": "application/json"} if body else {}),
                    body=msgspec.json.encode(body) if body is not None else None,
                )
            except Unauthenticated:
                if is_last or self._given_token is not None:
                    raise
                self._token_ends = 0.0
        raise AssertionError("the last try returns or raises")

    async def token(self) -> str:
        """A bearer token that is good for a while; one that was given is good for as long as it is."""
        if self._given_token is not None:
            return self._given_token
        async with self._logging_in:
            if time.monotonic() >= self._token_ends:
                await self._log_in()
        return self._token

    async def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {await self.token()}"}

    async def _log_in(self) -> None:
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client_id,
            "client_secret": self._client_secret,
        }
        answer = await self._transport.send(
            "POST",
            "/api/v2/token",
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urlencode(form).encode(),
        )
        grant = decoded(answer, TokenGrant)
        self._token = grant.access_token
        self._token_ends = time.monotonic() + max(1.0, grant.expires_in - RENEW_BEFORE_SECONDS)


async def project_list(
    client: Client,
    *,
    filters: tuple[str, ...] = (),
    search: str | None = None,
    most: int | None = None,
) -> ProjectList:
    """Projects by name, all of them or the first `most`; `next_offset` where there are more."""
    wanted = narrowed_by(filters, search)
    projects, following = await read_pages(
        lambda page: client.get("/api/v1/org-unit/projects", ProjectList, [*wanted, *page]),
        lambda answer: answer.projects,
        most=most,
    )
    return ProjectList(projects=projects, next_offset=following)


async def department_list(
    client: Client, *, filters: tuple[str, ...] = (), most: int | None = None
) -> DepartmentList:
    """Departments by name with what is held of them, all or the first `most`."""
    wanted = [("verbosity", "verbose"), *narrowed_by(filters, None)]
    departments, following = await read_pages(
        lambda page: client.get("/api/v1/org-unit/departments", DepartmentList, [*wanted, *page]),
        lambda answer: answer.departments,
        most=most,
    )
    return DepartmentList(departments=departments, next_offset=following)

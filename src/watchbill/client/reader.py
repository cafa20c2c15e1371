"""What people's programs ask of the server: workloads and what belongs to them, clusters, who am I."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from watchbill.client.events import StreamEvent, events
from watchbill.client.transport import Parameters, Reply, Transport, decoded
from watchbill.errors import TooMany, Unauthenticated, Unavailable

JSON = dict[str, Any]
"""A document as the server sent it, unknown members included."""

PAGE = 500
RENEW_BEFORE_SECONDS = 60
TRIES = 3
LONGEST_WAIT_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which workloads; the words are the API's own."""

    filters: tuple[str, ...] = ()
    search: str | None = None
    is_deleted: bool = False
    sort_by: str | None = None
    is_descending: bool = False
    offset: int = 0
    """So many of the first are left out of a list."""
    page_size: int = PAGE

    def parameters(self) -> list[tuple[str, str]]:
        found = [("filterBy", item) for item in self.filters]
        if self.search:
            found.append(("search", self.search))
        if self.is_deleted:
            found.append(("deleted", "true"))
        return found

    def order(self) -> list[tuple[str, str]]:
        found = [("sortBy", self.sort_by)] if self.sort_by else []
        return [*found, ("sortOrder", "desc")] if self.is_descending else found


class ListedPage(msgspec.Struct):
    """`next_offset` is None on the last page."""

    workloads: list[JSON]
    next_offset: int | None = msgspec.field(default=None, name="next")


@dataclass(frozen=True, slots=True)
class Probe:
    """How long an answer took, and the server's clock, to the second, when it answered."""

    seconds: float
    clock: datetime | None


class _Count(msgspec.Struct):
    count: int


class _History(msgspec.Struct):
    history: list[JSON]


class _Elements(msgspec.Struct):
    elements: list[JSON]
    next_offset: int | None = msgspec.field(default=None, name="next")


class _Clusters(msgspec.Struct):
    clusters: list[JSON]


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 300.0


class Client:
    """Logs in by itself, with a service account, unless it is given a token. Use as
    `async with Client(url, id, secret)`."""

    def __init__(
        self, url: str, client_id: str = "", client_secret: str = "", *, token: str | None = None
    ) -> None:
        self._transport = Transport(url)
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
    ) -> ListedPage:
        page = [("offset", str(offset)), ("limit", str(limit))]
        parameters = [*selection.parameters(), *selection.order(), *page]
        return await self._get("/api/v1/workloads", ListedPage, parameters)

    async def pages(
        self, selection: Selection, *, most: int | None = None
    ) -> AsyncIterator[ListedPage]:
        """All pages, or as many as hold `most` workloads; a workload that moved between two comes once."""
        seen: set[str] = set()
        offset: int | None = selection.offset
        size = selection.page_size
        while offset is not None and (most is None or len(seen) < most):
            limit = size if most is None else min(size, most - len(seen))
            page = await self.workload_list(selection, offset=offset, limit=limit)
            fresh = {found["id"]: found for found in page.workloads if found["id"] not in seen}
            seen.update(fresh)
            yield ListedPage(list(fresh.values()), page.next_offset)
            offset = page.next_offset

    async def workloads(self, selection: Selection, *, most: int | None = None) -> list[JSON]:
        """All of them, or the first `most`."""
        return [
            found async for page in self.pages(selection, most=most) for found in page.workloads
        ]

    async def workload_get(self, workload_id: UUID) -> JSON:
        return await self._get(f"/api/v1/workloads/{workload_id}", JSON)

    async def workload_count(self, selection: Selection) -> int:
        answer = await self._get("/api/v1/workloads/count", _Count, selection.parameters())
        return answer.count

    async def facets(self, selection: Selection, fields: tuple[str, ...]) -> JSON:
        parameters = [("fields", ",".join(fields)), *selection.parameters()]
        return await self._get("/api/v1/workloads/facets", JSON, parameters)

    async def history(self, workload_id: UUID) -> list[JSON]:
        answer = await self._get(f"/api/v1/workloads/{workload_id}/history", _History)
        return answer.history

    async def elements(self, workload_id: UUID, *, most: int | None = None) -> list[JSON]:
        """All stored elements, or the first `most`, upper levels first."""
        found: list[JSON] = []
        offset: int | None = 0
        while offset is not None and (most is None or len(found) < most):
            limit = PAGE if most is None else min(PAGE, most - len(found))
            answer = await self._get(
                f"/api/v1/workloads/{workload_id}/elements",
                _Elements,
                [("offset", str(offset)), ("limit", str(limit))],
            )
            found += answer.elements
            offset = answer.next_offset
        return found

    async def element_count(self, workload_id: UUID) -> JSON:
        return await self._get(f"/api/v1/workloads/{workload_id}/elements/count", JSON)

    async def endpoints(self, workload_id: UUID) -> JSON:
        return await self._get(f"/api/v1/workloads/{workload_id}/endpoints", JSON)

    async def metrics(
        self,
        workload_id: UUID,
        types: Sequence[str],
        *,
        start: datetime,
        end: datetime,
        samples: int,
    ) -> JSON:
        parameters = [
            ("metricType", ",".join(types)),
            ("start", start.isoformat()),
            ("end", end.isoformat()),
            ("numberOfSamples", str(samples)),
        ]
        return await self._get(f"/api/v1/workloads/{workload_id}/metrics", JSON, parameters)

    async def idle(self, selection: Selection, *, limit: int, offset: int = 0) -> JSON:
        """Who holds GPUs that do nothing, the most idle GPU-hours first, with the sums over all of them."""
        page = [("offset", str(offset)), ("limit", str(limit))]
        parameters = [*selection.parameters(), *page]
        return await self._get("/api/v1/workloads/idle", JSON, parameters)

    async def idle_workloads(self, selection: Selection, *, most: int | None = None) -> JSON:
        """All of them, or the first `most`, as one page of `idle` without its `next`."""
        found: JSON = {}
        workloads: dict[str, JSON] = {}
        offset: int | None = 0
        while offset is not None and (most is None or len(workloads) < most):
            limit = PAGE if most is None else min(PAGE, most - len(workloads))
            found = await self.idle(selection, limit=limit, offset=offset)
            workloads |= {one["id"]: one for one in found["workloads"]}
            offset = found.pop("next", None)
        return found | {"workloads": list(workloads.values())}

    async def telemetry(self, telemetry_type: str, *, group_by: tuple[str, ...] = ()) -> JSON:
        parameters = [("telemetryType", telemetry_type)]
        if group_by:
            parameters.append(("groupBy", ",".join(group_by)))
        return await self._get("/api/v1/workloads/telemetry", JSON, parameters)

    async def export(self, selection: Selection, *, as_format: str) -> AsyncIterator[bytes]:
        """Chunks of CSV or NDJSON, as they come."""
        headers = await self._headers()
        parameters = [("format", as_format), *selection.parameters()]
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

    async def fleet(self, *, start: datetime | None = None, end: datetime | None = None) -> JSON:
        """The headline figures: `now`, and `series` over a day where nothing else is asked for."""
        bounds = (("start", start), ("end", end))
        parameters = [(name, at.isoformat()) for name, at in bounds if at is not None]
        return await self._get("/api/v1/fleet", JSON, parameters)

    async def probe(self) -> Probe:
        """Whether the server answers at all; takes no login."""
        started_at = time.perf_counter()
        async with self._transport.open("GET", "/healthz") as answer:
            decoded(await answer.read(), JSON)
            sent = answer.headers.get("Date")
        seconds = time.perf_counter() - started_at
        return Probe(seconds, parsedate_to_datetime(sent) if sent else None)

    async def ready(self) -> None:
        """Raises Unavailable where the server cannot answer questions."""
        await self._transport.send("GET", "/readyz")

    async def me(self) -> JSON:
        return await self._get("/api/v1/me", JSON)

    async def clusters(self) -> list[JSON]:
        return (await self._get("/api/v1/clusters", _Clusters)).clusters

    async def cluster_create(self, name: str) -> JSON:
        """`id`, `name` and `credential`; the credential is shown this once."""
        return decoded(
            await self._authorized("POST", "/api/v1/clusters", body={"name": name}), JSON
        )

    async def cluster_delete(self, cluster_id: UUID) -> None:
        await self._authorized("DELETE", f"/api/v1/clusters/{cluster_id}")

    async def request(
        self, method: str, path: str, *, parameters: Parameters = (), body: JSON | None = None
    ) -> JSON:
        """Any operation that answers an object, or nothing."""
        answer = await self._authorized(method, path, parameters, body)
        return decoded(answer, JSON) if answer else {}

    async def _get(self, path: str, kind: type[Reply], parameters: Parameters = ()) -> Reply:
        """A read is repeated where the server says that a later moment may answer."""
        for number in range(1, TRIES + 1):
            try:
                return decoded(await self._authorized("GET", path, parameters), kind)
            except (Unavailable, TooMany) as error:
                if number == TRIES or error.retry_after_seconds is None:
                    raise
                await asyncio.sleep(min(error.retry_after_seconds, LONGEST_WAIT_SECONDS))
        raise AssertionError("the last try returns or raises")

    async def _authorized(
        self, method: str, path: str, parameters: Parameters = (), body: JSON | None = None
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
        granted = decoded(answer, _Token)
        self._token = granted.access_token
        self._token_ends = time.monotonic() + max(1.0, granted.expires_in - RENEW_BEFORE_SECONDS)

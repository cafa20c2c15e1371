"""How exporters' pages are reached: through the API server's proxy, or pods directly at their addresses.

Directly, no credentials go along. No redirect is ever followed, every page is bounded in bytes and seconds.

Asks many exporters of one kind at once, and says how well they answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import aiohttp

from watchbill import __version__
from watchbill.agent.cache.targets import ScrapeTarget
from watchbill.agent.kubernetes.client import KubeClient, bounded_body
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind, failure_of_response
from watchbill.agent.metrics.exposition import ExpositionParser, ParsedSample, looks_like_metrics
from watchbill.protocol import KindState

PAGE_BYTES = 32 * 1024 * 1024
PAGE_SECONDS = 10.0
_ERROR_BYTES = 4 * 1024


class Fetcher:
    """`is_direct`: pods are asked at their own addresses; nodes always through the proxy."""

    def __init__(self, kube: KubeClient, *, is_direct: bool) -> None:
        self._kube = kube
        self._is_direct = is_direct
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PAGE_SECONDS),
            headers={"User-Agent": f"watchbill-agent/{__version__}", "Accept": "text/plain"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def node(self, name: str, path: str) -> bytes:
        """A page of the node's kubelet. Raises ApiFailure."""
        return await self._proxied(f"/api/v1/nodes/{quote(name, safe='')}/proxy{path}")

    async def pod(self, target: ScrapeTarget, path: str) -> bytes:
        """A page of a pod. Raises ApiFailure."""
        if self._is_direct:
            return await self._direct(target, path)
        namespace, pod = quote(target.namespace, safe=""), quote(target.pod, safe="")
        root = f"/api/v1/namespaces/{namespace}/pods/{pod}:{target.port}/proxy"
        return await self._proxied(root + path)

    async def _proxied(self, path: str) -> bytes:
        return await self._kube.read(path, max_bytes=PAGE_BYTES, seconds=PAGE_SECONDS)

    async def _direct(self, target: ScrapeTarget, path: str) -> bytes:
        assert self._session is not None  # entered before use
        host = f"[{target.address}]" if ":" in target.address else target.address
        try:
            async with self._session.get(
                f"http://{host}:{target.port}{path}", allow_redirects=False
            ) as response:
                if response.status != 200:
                    body = await response.content.read(_ERROR_BYTES)
                    raise failure_of_response(response.status, response.headers, body)
                return await bounded_body(response, PAGE_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = str(error) or type(error).__name__
            raise ApiFailure(ErrorKind.UNREACHABLE, text) from error


GROUP = "metrics"
"""The group of the kinds whose states tell how well exporters can be read."""
_LARGE_BYTES = 512 * 1024
"""A page from which on reading it would hold up everything else for too long."""

Ask = Callable[[], Awaitable[bytes]]
State = Literal["complete", "forbidden", "absent", "failing"]


class ScrapePool:
    """`is_strict`: one that does not answer makes the whole count as failing."""

    def __init__(
        self,
        kind: str,
        metrics: Iterable[str],
        slots: asyncio.Semaphore,
        *,
        is_strict: bool = True,
        has_always: bool = False,
    ) -> None:
        self._kind = kind
        self._pages = ExpositionParser(metrics)
        self._slots = slots
        self._is_strict = is_strict
        self._has_always = has_always
        """Where there is none to ask, that is an answer too."""
        self._state: KindState | None = None

    @property
    def state(self) -> KindState | None:
        """None before the first round."""
        return self._state

    async def scrape(
        self, wanted: Mapping[str, Ask], *, hint: str | None = None
    ) -> "ScrapeResults":
        """Ask all of them, some at a time. Whoever does not answer is among the failures."""
        answers = ScrapeResults()

        async def one(name: str, ask: Ask) -> None:
            async with self._slots:
                try:
                    answers.pages[name] = await self._read(await ask())
                except ApiFailure as failure:
                    answers.failures[name] = failure

        await asyncio.gather(*(one(name, ask) for name, ask in wanted.items()))
        self._update_state(answers, hint)
        return answers

    async def _read(self, body: bytes) -> list[ParsedSample]:
        if not looks_like_metrics(body):
            raise ApiFailure(ErrorKind.REFUSED, "the page is not one of metrics")
        if len(body) < _LARGE_BYTES:
            return list(self._pages.samples(body))
        return await asyncio.to_thread(lambda: list(self._pages.samples(body)))

    def _update_state(self, answers: "ScrapeResults", hint: str | None) -> None:
        state, message = self._evaluate(answers)
        message = message or hint
        before = self._state
        if before is None or (before.state, before.message) != (state, message):
            same = before is not None and before.state == state
            since = before.since if same and before is not None else datetime.now(UTC)
            self._state = KindState(
                group=GROUP, kind=self._kind, state=state, since=since, message=message
            )

    def _evaluate(self, answers: "ScrapeResults") -> tuple[State, str | None]:
        asked, failures = len(answers.pages) + len(answers.failures), answers.failures
        if not asked:
            return ("complete" if self._has_always else "absent"), None
        if not failures:
            return "complete", None
        name, first = min(failures.items())
        message = f"{len(failures)} of {asked} do not answer, such as {name}: {first.message}"[:300]
        if (
            all(found.kind is ErrorKind.FORBIDDEN for found in failures.values())
            and not answers.pages
        ):
            return "forbidden", message
        return ("failing" if self._is_strict else "complete"), message


class ScrapeResults:
    """Samples by whom they came from, and who did not answer."""

    def __init__(self) -> None:
        self.pages: dict[str, list[ParsedSample]] = {}
        self.failures: dict[str, ApiFailure] = {}

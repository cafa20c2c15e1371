"""How exporters' pages are reached: through the API server's proxy, or pods directly at their addresses.

Directly, no credentials go along. No redirect is ever followed, every page is bounded in bytes and seconds.
"""

from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp

from watchbill import __version__
from watchbill.agent.failure import ApiFailure, Trouble, failure_of_response
from watchbill.agent.kube import KubeClient, bounded_body
from watchbill.agent.targets import Target

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

    async def pod(self, target: Target, path: str) -> bytes:
        """A page of a pod. Raises ApiFailure."""
        if self._is_direct:
            return await self._direct(target, path)
        namespace, pod = quote(target.namespace, safe=""), quote(target.pod, safe="")
        root = f"/api/v1/namespaces/{namespace}/pods/{pod}:{target.port}/proxy"
        return await self._proxied(root + path)

    async def _proxied(self, path: str) -> bytes:
        return await self._kube.read(path, most_bytes=PAGE_BYTES, seconds=PAGE_SECONDS)

    async def _direct(self, target: Target, path: str) -> bytes:
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
            raise ApiFailure(Trouble.UNREACHABLE, text) from error

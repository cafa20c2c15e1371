"""HTTP to a store that speaks Prometheus' API, bounded in number, bytes and time. Knows no PromQL.

Two constant paths below the address that an administrator set; no redirect is followed. A question that the
store cannot even read is our own fault, and no failure of the store's.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import structlog

from watchbill.config import PrometheusSettings
from watchbill.metrics.source import Reason

log = structlog.get_logger(__name__)

RANGE_PATH = "/api/v1/query_range"
INSTANT_PATH = "/api/v1/query"
ANSWER_SECONDS = 4.5
"""For all types of one request together: a whole failure is told within five seconds."""
ASKED_AT_ONCE = 8
SILENT_SECONDS = 2.0
"""A question in vain for so long, while no other was answered, and the store counts as silent."""
PROBE_SECONDS = 0.5
"""How long a question waits for the answer to another one of a store that was silent before."""
ANSWER_BYTES = 32 * 1024 * 1024
_FORM = {
    "timeout": f"{round(1000 * ANSWER_SECONDS)}ms",
    "nocache": "1",  # else VictoriaMetrics moves the instants to multiples of the step
}


class Series(msgspec.Struct):
    metric: dict[str, str] = {}
    values: list[tuple[float, str]] = []
    value: tuple[float, str] | None = None


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error_type: str = ""
    error: str = ""
    warnings: list[str] = []


_ANSWER = msgspec.json.Decoder(_Answer)
_SERIES = msgspec.json.Decoder(list[Series])
_RESULTS = frozenset({"matrix", "vector"})


class Unanswered(Exception):
    """The store did not say what was asked for."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class QueryRefused(RuntimeError):
    """The store cannot read a question of ours. Not a failure of the store's: a mistake of this program."""


class Session:
    """One pool of connections for all stores; so many questions at a time to each of them.

    A store that hangs fills its own places: the clusters of another one do not wait for it.
    """

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._slots: dict[str, asyncio.Semaphore] = {}

    async def post(
        self, store: str, path: str, *, form: Mapping[str, str], headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Status and body. Raises aiohttp's errors, also for a body that is too large."""
        async with self._slots.setdefault(store, asyncio.Semaphore(ASKED_AT_ONCE)):
            if self._session is None:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0),  # the places are the limit
                    timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
                    cookie_jar=aiohttp.DummyCookieJar(),
                )
            async with self._session.post(
                store + path, data=dict(form), headers=dict(headers), allow_redirects=False
            ) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > ANSWER_BYTES:
                        raise aiohttp.ClientPayloadError("the answer is too large")
                return response.status, bytes(body)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class Silence:
    """Keeps a store that hangs from taking everybody's time: after one question in vain the others wait for
    the next one's answer, and but a moment, until the store speaks again."""

    def __init__(self) -> None:
        self._answered = 0
        self._is_silent = False
        self._probe: asyncio.Event | None = None

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Around one question. Raises TimeoutError where it need not be asked."""
        if self._is_silent and self._probe is not None:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._probe.wait()
            if self._is_silent:
                raise TimeoutError
        heard, probe = self._answered, asyncio.Event()
        began = asyncio.get_running_loop().time()
        if self._is_silent:
            self._probe = probe
        try:
            yield
            self._heard()
        except (TimeoutError, asyncio.CancelledError):  # who asked may just have left
            has_waited = asyncio.get_running_loop().time() - began >= SILENT_SECONDS
            if has_waited and self._answered == heard:
                self._is_silent = True
            raise
        except (aiohttp.ClientError, OSError):  # a refusal, too, is an answer
            self._heard()
            raise
        finally:
            if self._probe is probe:
                self._probe = None
            probe.set()

    def _heard(self) -> None:
        self._answered += 1
        self._is_silent = False


class PrometheusStore:
    """One store and the login to it."""

    def __init__(self, settings: PrometheusSettings, session: Session) -> None:
        self._url = settings.url
        self._session = session
        self._silence = Silence()
        self._headers = {"Accept": "application/json"}
        if settings.token is not None:
            self._headers["Authorization"] = f"Bearer {settings.token}"
        elif settings.username is not None:
            login = f"{settings.username}:{settings.password or ''}".encode()
            self._headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        if settings.tenant is not None:
            self._headers["X-Scope-OrgID"] = settings.tenant

    async def ask(self, path: str, form: Mapping[str, str]) -> list[Series]:
        """The series of an answer. Raises Unanswered, and QueryRefused for a question that is no PromQL."""
        form = {**_FORM, **form}
        try:
            async with self._silence.asking():
                status, body = await self._session.post(
                    self._url, path, form=form, headers=self._headers
                )
        except TimeoutError as error:
            log.warning("the metrics store answers too slowly")
            raise Unanswered(Reason.TIMEOUT) from error
        except (aiohttp.ClientError, OSError) as error:
            log.warning("the metrics store does not answer", reason=type(error).__name__)
            raise Unanswered(Reason.SOURCE_ERROR) from error
        return self._read(status, body)

    def _read(self, status: int, body: bytes) -> list[Series]:
        try:
            answer = _ANSWER.decode(body)
            if status == 400 and answer.error_type == "bad_data":
                log.error("the metrics store cannot read a question", error=answer.error[:300])
                raise QueryRefused(answer.error[:300])
            if status != 200 or answer.status != "success" or answer.data is None:
                log.warning("the metrics store failed", status=status, error=answer.error[:300])
                reason = Reason.TIMEOUT if answer.error_type == "timeout" else Reason.SOURCE_ERROR
                raise Unanswered(reason)
            if answer.data.result_type not in _RESULTS:
                raise Unanswered(Reason.SOURCE_ERROR)
            if answer.warnings:
                log.warning("the metrics store warns", warnings=answer.warnings[:3])
            return _SERIES.decode(answer.data.result)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("the metrics store's answer cannot be read", status=status)
            raise Unanswered(Reason.SOURCE_ERROR) from error

"""From a matched path to its handler: method, credentials, media type, parameters, deadline. In that order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import replace
from functools import partial

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from watchbill.access.roles import Permission
from watchbill.api.http.audit_event import OPERATION, SUBJECT, VALUES, Admitted
from watchbill.api.http.call import Call, Services
from watchbill.api.http.contract import LoginRequirement, Operation
from watchbill.api.http.gate import begin_span
from watchbill.api.http.guard import Guard
from watchbill.api.http.parameters import parse_path, parse_query
from watchbill.api.http.reply import JSON, Answer, negotiate
from watchbill.errors import TooLarge, Unavailable
from watchbill.query import Scope as AccessScope

Handler = Callable[[Call], Awaitable[Answer]]

ANSWER_SECONDS = 10.0
STANDBY_ANSWER_SECONDS = 6.0
"""Longer, and the primary is asked, or a change is answered, while there is time."""
AGENT_ANSWER_SECONDS = 60.0
MEASURING = frozenset({"get_workload_metrics"})
READING = frozenset({"GET", "HEAD"})
LIVE = frozenset({"stream_workloads"})
"""Tells of changes as the primary has them."""
STALENESS = b"x-staleness-seconds"
"""How old what was read may be, where a standby answered."""
BODILESS = frozenset({"GET", "HEAD", "DELETE"})


class OperationEndpoint:
    """All operations of one path. HEAD is GET without its body."""

    def __init__(
        self, operations: Mapping[str, tuple[Operation, Handler]], services: Services, guard: Guard
    ) -> None:
        self._operations = dict(operations)
        self._services = services
        self._guard = guard
        if "GET" in self._operations:
            self._operations["HEAD"] = self._operations["GET"]
        self._allow = ", ".join(sorted(self._operations))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        entry = self._operations.get(scope["method"])
        if entry is None:
            raise HTTPException(405, headers={"Allow": self._allow})
        operation, handler = entry
        scope[OPERATION] = operation.operation_id
        headers = dict(scope["headers"])
        admitted = await self._guard.admit(scope, headers, operation)
        scope[SUBJECT] = subject = _subject(admitted)
        begin_span(scope, is_caller_trusted=subject is not None)
        if scope["method"] in BODILESS:
            _refuse_body(headers)
        call = self._call(scope, receive, headers, operation, admitted)
        scope[VALUES] = call.values
        answer = await self._shared(partial(_ask, handler, call, operation), call, operation)
        await answer.send(scope, receive, send)

    async def _shared(
        self, ask: Callable[[], Awaitable[Answer]], call: Call, operation: Operation
    ) -> Answer:
        """Reads of what agents report depend on the question and on what may be seen, on nothing else."""
        if operation.method not in READING or not _may_be_stale(operation):
            return await ask()
        path, query = call.scope["path"], call.scope["query_string"]
        held = call.headers.get(b"if-none-match")
        key = (operation.operation_id, path, query, call.access, call.media_type, held)
        return await self._services.shared_answers.answer(key, ask)

    def _call(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        operation: Operation,
        admitted: Admitted,
    ) -> Call:
        accept = headers.get(b"accept")
        parameters = operation.parameters
        return Call(
            services=self._services,
            scope=scope,
            receive=receive,
            now=self._services.clock(),
            values={
                **parse_path(parameters, scope["path_params"]),
                **parse_query(parameters, scope["query_string"]),
            },
            headers=headers,
            media_type=negotiate(accept.decode("latin-1") if accept else None, operation.offers)
            if operation.offers
            else JSON,
            caller=admitted.caller,
            agent=admitted.agent,
            access_again=partial(self._access, scope, headers, operation),
        )

    async def _access(
        self, scope: Scope, headers: Mapping[bytes, bytes], operation: Operation
    ) -> AccessScope:
        admitted = await self._guard.admit(scope, headers, operation)
        assert admitted.caller is not None, "only callers' answers last"
        return admitted.caller.scope


async def _ask(handler: Handler, call: Call, operation: Operation) -> Answer:
    async with _turn(call, operation):
        return await _in_time(_answer(handler, call, operation), operation)


async def _answer(handler: Handler, call: Call, operation: Operation) -> Answer:
    """Reads of what agents report go to the standby, where there is one, and to the primary where it fails; a
    change is answered once whoever asks for it next sees it, or when there is no more time to wait for that."""
    standby = call.services.standby
    if standby is None or operation.permission is None:
        return await handler(call)
    if operation.method not in READING:
        give_up_at = asyncio.get_running_loop().time() + STANDBY_ANSWER_SECONDS
        answer = await handler(call)
        with suppress(TimeoutError):  # it is done: too late an answer would say that it is not
            async with asyncio.timeout_at(give_up_at):
                await standby.catch_up()
        return answer
    read = standby.read() if _may_be_stale(operation) else None
    if read is not None:
        try:
            async with asyncio.timeout(STANDBY_ANSWER_SECONDS):
                answer = await handler(replace(call, standby=read))
        except TimeoutError:
            standby.leave("It does not answer.")
        except Unavailable as error:
            if error.retry_after_seconds is None:
                raise  # too slow a question is no better asked again
            standby.leave(error.message)
        else:
            stale = (STALENESS, f"{read.staleness_seconds:.1f}".encode())
            return replace(answer, headers=(*answer.headers, stale))
    return await handler(call)


def _may_be_stale(operation: Operation) -> bool:
    return operation.permission is Permission.WORKLOADS_READ and operation.operation_id not in LIVE


def _turn(call: Call, operation: Operation) -> AbstractAsyncContextManager[None]:
    """Reads of one tenant take turns, so that none can keep all connections to itself."""
    if operation.permission is not Permission.WORKLOADS_READ or call.caller is None:
        return nullcontext()
    services = call.services
    turns = (
        services.metrics_limiter if operation.operation_id in MEASURING else services.read_limiter
    )
    return turns.hold(call.caller.tenant_id)


async def _in_time(answer: Awaitable[Answer], operation: Operation) -> Answer:
    """Raises Unavailable when there is no answer before the deadline."""
    seconds = AGENT_ANSWER_SECONDS if operation.login is LoginRequirement.AGENT else ANSWER_SECONDS
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError as error:
        raise Unavailable("The request timed out.", retry_after_seconds=5) from error


def _refuse_body(headers: Mapping[bytes, bytes]) -> None:
    """A body that would be ignored hides a misunderstanding; one that is parsed hides worse."""
    if headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers:
        raise TooLarge("This method takes no request body.")


def _subject(admitted: Admitted) -> str | None:
    if admitted.agent is not None:
        return f"cluster {admitted.agent.cluster_id}"
    return admitted.caller.subject if admitted.caller is not None else None

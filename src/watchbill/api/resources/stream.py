"""The live stream: server-sent events that say which workloads changed, so that clients ask for those anew."""

import time
from collections.abc import AsyncGenerator

from watchbill.api.changes import ChangeEvent, ChangeSubscription, Resync
from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, StreamingReply, encode
from watchbill.api.resources.workloads import workload_query
from watchbill.errors import TooMany, Unavailable, WatchbillError
from watchbill.query import WorkloadQuery
from watchbill.responses.workloads import ChangeCounts, StreamChange, StreamReady, StreamReason

HEARTBEAT_SECONDS = 15.0
UNCHECKED_SECONDS = 60.0
"""For longer than this nothing is sent to callers whose access could not be checked."""
SEND_SECONDS = 30.0
RETRY_MILLISECONDS = 3_000

HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))


async def stream_workloads(call: Call) -> Answer:
    query = workload_query(call.values)
    return StreamingReply(
        pieces=_events(call, query, call.values["timeoutSeconds"]),
        media_type="text/event-stream",
        headers=HEADERS,
        send_seconds=SEND_SECONDS,
    )


async def _events(
    call: Call, query: WorkloadQuery, timeout_seconds: int | None
) -> AsyncGenerator[bytes, None]:
    assert call.caller is not None, "the route lets nobody in without a login"
    streams, caller = call.services.streams, call.caller
    ends_at = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    principal = (caller.tenant_id, caller.subject)
    with streams.subscribe(principal, caller.scope, query) as subscription:
        await streams.wait_until_listening()
        await subscription.take(
            0
        )  # what came before is in whatever the client asks for from now on
        yield b"retry: %d\n\n" % RETRY_MILLISECONDS + _event(
            "ready", StreamReady(at=call.services.clock())
        )
        grant = _Grant(call, subscription)
        while not subscription.is_closed:
            left = HEARTBEAT_SECONDS if ends_at is None else ends_at - time.monotonic()
            if left <= 0:
                yield _end(call, "timeout")
                return
            event = await subscription.take(min(left, HEARTBEAT_SECONDS))
            scope = subscription.scope
            refusal = await grant.refusal()
            if refusal is not None:
                yield _end(call, "access", refusal)
                return
            if subscription.scope != scope:
                await subscription.take(0)
                event = ChangeEvent(
                    resync=Resync.ACCESS
                )  # what is at hand was chosen by the old scope
            yield _change(call, event) if event else b": heartbeat\n\n"
        yield _end(call, "stopping")


class _Grant:
    """Whether the caller may still listen, and to what: checked again every few seconds."""

    def __init__(self, call: Call, subscription: ChangeSubscription) -> None:
        self._call = call
        self._subscription = subscription
        self._checked_at = time.monotonic()

    async def refusal(self) -> str | None:
        """Why not any more; None where there is nothing against it."""
        now = time.monotonic()
        if now - self._checked_at < HEARTBEAT_SECONDS:
            return None
        try:
            scope = await self._call.access_again()
        except (Unavailable, TooMany) as error:
            return error.message if now - self._checked_at > UNCHECKED_SECONDS else None
        except WatchbillError as error:
            return error.message
        self._checked_at = now
        self._subscription.scope = scope
        return None


def _change(call: Call, event: ChangeEvent) -> bytes:
    at = call.services.clock()
    if event.resync is not None:
        return _event("resync", StreamReason(at=at, reason=event.resync))
    counts = ChangeCounts(changed=len(event.changed), gone=len(event.gone))
    changed, gone = tuple(sorted(event.changed)), tuple(sorted(event.gone))
    return _event("change", StreamChange(at=at, counts=counts, changed=changed, gone=gone))


def _end(call: Call, reason: str, message: str | None = None) -> bytes:
    return _event("end", StreamReason(at=call.services.clock(), reason=reason, message=message))


def _event(name: str, members: StreamReady | StreamChange | StreamReason) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), encode(members))


HANDLERS = (stream_workloads,)

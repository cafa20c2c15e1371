"""The server about itself: health, readiness, its metrics, and the documents that describe it."""

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from watchbill.api.call import Call
from watchbill.api.endpoint import Handler
from watchbill.api.fleet_metrics import fleet_metrics
from watchbill.api.gate import Meters
from watchbill.api.reply import Answer, Reply, encode, json_reply
from watchbill.errors import Unavailable

CACHED_BRIEFLY = ((b"cache-control", b"public, max-age=300"),)


async def get_health(call: Call) -> Answer:
    return json_reply({"status": "ok"})


async def get_readiness(call: Call) -> Answer:
    if not await call.db.is_ready():
        raise Unavailable("The database does not answer.", retry_after_seconds=2)
    return json_reply({"status": "ok"})


def server_handlers(
    *, contract: dict[str, Any], merged: dict[str, Any], meters: Meters
) -> tuple[Handler, ...]:
    """These answer from what was made at start, so they are made with it."""

    async def get_server_metrics(call: Call) -> Answer:
        body = generate_latest(meters.registry) + await fleet_metrics(call)
        return Reply(body=body, media_type=CONTENT_TYPE_LATEST)

    return (
        get_health,
        get_readiness,
        get_server_metrics,
        _document("get_openapi", merged),
        _document("get_contract", contract),
    )


def _document(name: str, document: dict[str, Any]) -> Handler:
    reply = Reply(body=encode(document), headers=CACHED_BRIEFLY)

    async def answer(call: Call) -> Answer:
        return reply

    answer.__name__ = name
    return answer

"""What agents send. Who they are is known from the credential alone; the store applies it, in a process of its
own where the server has that.
"""

import msgspec

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.store.ingest.messages import AgentMessage


async def agent_hello(call: Call) -> Answer:
    return await _answer(call, "hello")


async def agent_batch(call: Call) -> Answer:
    return await _answer(call, "batch")


async def agent_inventory(call: Call) -> Answer:
    return await _answer(call, "inventory")


async def agent_inventory_entries(call: Call) -> Answer:
    return await _answer(call, "inventory entries")


async def agent_inventory_commit(call: Call) -> Answer:
    return await _answer(call, "inventory commit")


async def agent_heartbeat(call: Call) -> Answer:
    return await _answer(call, "heartbeat")


async def _answer(call: Call, operation: str) -> Answer:
    """Raises TooMany, Invalid, TooLarge, and what the operation does."""
    assert call.agent is not None, "the route lets nobody in but agents"
    limiter = call.services.agent_limiter
    async with (
        limiter.message(call.agent),
        limiter.slow_refusal() as size,
        limiter.body(call.agent, call.body_bytes()),
    ):
        is_gzip = call.is_gzip()
        body = await call.agent_body()
        message = AgentMessage(operation, call.agent, call.now, body, is_gzip)
        async with limiter.processing(call.agent):
            limiter.admit(call.agent, operation)
            try:
                answer = await call.services.ingest.apply(message, size)
            finally:
                limiter.charge(call.agent, size.bytes)
            return json_reply(msgspec.Raw(answer))


HANDLERS = (
    agent_hello,
    agent_batch,
    agent_inventory,
    agent_inventory_entries,
    agent_inventory_commit,
    agent_heartbeat,
)

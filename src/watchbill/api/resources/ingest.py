"""What agents send. Who speaks is known from the credential alone; the store does the rest."""

from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, json_reply
from watchbill.identity import AgentIdentity
from watchbill.protocol import (
    Batch,
    Heartbeat,
    HelloRequest,
    InventoryBegin,
    InventoryCommit,
    InventoryEntries,
)
from watchbill.store.ingest.inventory import inventory_begin, inventory_commit, inventory_entries
from watchbill.store.ingest.stream import batch_apply, heartbeat_apply, stream_open


async def agent_hello(call: Call) -> Answer:
    message = await call.agent_body(HelloRequest, may_hold_nul=False)
    return json_reply(await stream_open(call.db, _agent(call), message, call.now))


async def agent_batch(call: Call) -> Answer:
    message = await call.agent_body(Batch)
    return json_reply(await batch_apply(call.db, _agent(call), message, call.now))


async def agent_inventory(call: Call) -> Answer:
    message = await call.agent_body(InventoryBegin, may_hold_nul=False)
    return json_reply(await inventory_begin(call.db, _agent(call), message, call.now))


async def agent_inventory_entries(call: Call) -> Answer:
    message = await call.agent_body(InventoryEntries)
    return json_reply(await inventory_entries(call.db, _agent(call), message))


async def agent_inventory_commit(call: Call) -> Answer:
    message = await call.agent_body(InventoryCommit)
    return json_reply(await inventory_commit(call.db, _agent(call), message, call.now))


async def agent_heartbeat(call: Call) -> Answer:
    message = await call.agent_body(Heartbeat)
    return json_reply(await heartbeat_apply(call.db, _agent(call), message, call.now))


def _agent(call: Call) -> AgentIdentity:
    assert call.agent is not None, "the route lets nobody in but agents"
    return call.agent


HANDLERS = (
    agent_hello,
    agent_batch,
    agent_inventory,
    agent_inventory_entries,
    agent_inventory_commit,
    agent_heartbeat,
)

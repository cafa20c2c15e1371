"""Registers clusters in a test's database and speaks for their agents."""

from datetime import datetime
from uuid import UUID

from watchbill.store.clusters import cluster_create
from watchbill.store.database import Database
from watchbill.store.ingest import AgentIdentity, apply_batch, hello
from watchbill.sync import PROTOCOL_VERSION, Batch, BatchReply, HelloRequest, Item


class Agent:
    """An agent's side of a stream: it counts its batches."""

    def __init__(self, db: Database, identity: AgentIdentity) -> None:
        self.db = db
        self.identity = identity
        self.stream_id = ""
        self.seq = 0

    async def hello(self, now: datetime) -> None:
        request = HelloRequest(protocol=PROTOCOL_VERSION, agent_version="test")
        self.stream_id = (await hello(self.db, self.identity, request, now)).stream_id
        self.seq = 0

    async def send(self, *items: Item, now: datetime) -> BatchReply:
        self.seq += 1
        batch = Batch(stream_id=self.stream_id, seq=self.seq, items=items)
        return await apply_batch(self.db, self.identity, batch, now)


async def connected_agent(
    db: Database, now: datetime, *, number: int = 1, tenant_id: int = 1
) -> Agent:
    identity = AgentIdentity(tenant_id, UUID(int=0xC0 << 64 | number))
    await cluster_create(
        db,
        tenant_id,
        cluster_id=identity.cluster_id,
        name=f"cluster-{number}",
        credential_salt=b"salt",
        credential_hash=b"hash",
        now=now,
    )
    agent = Agent(db, identity)
    await agent.hello(now)
    return agent

"""Agents: a cluster's own credential opens the agent routes, and nothing else does."""

from watchbill.errors import Unauthenticated
from watchbill.store.access import cluster_credential
from watchbill.store.credential import is_secret, read_agent_credential
from watchbill.store.database import Database
from watchbill.store.ingest import AgentIdentity


async def identify_agent(db: Database, credential: str) -> AgentIdentity:
    """Raises Unauthenticated in the same words whatever is wrong."""
    cluster_id, secret = read_agent_credential(credential)
    found = await cluster_credential(db, cluster_id)
    if found is None or not is_secret(secret, found[1]):
        raise Unauthenticated("This is no agent credential.")
    return AgentIdentity(tenant_id=found[0], cluster_id=cluster_id)

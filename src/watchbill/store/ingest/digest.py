"""Whether agent and server hold the same records, compared by one number each instead of by all of them.

Both join the hashes of their records by exclusive or, in any order. Some rows the agent cannot know: of
kinds that it may not read, of deletions that are held. So what counts is not that the digests are equal but
that they differ as they did when agent and server had just compared every record: after an inventory the
first difference is kept, and a later one that is not the same leads to the next inventory.
"""

from datetime import datetime, timedelta

import structlog

from watchbill.identity import AgentIdentity
from watchbill.store.postgres.database import Connection

log = structlog.get_logger(__name__)

COMPARED_EVERY = timedelta(seconds=30)
"""At most: each comparison reads the hash of every live row, and an agent may ask with each heartbeat."""
_DIGEST = (
    "SELECT coalesce(bit_xor(('x' || encode(record_hash, 'hex'))::bit(128))::text, '0') FROM workload "
    "WHERE tenant_id = $1 AND cluster_id = $2 AND deleted_at IS NULL"
)


async def digest_compare(
    connection: Connection, agent: AgentIdentity, digest: str, now: datetime
) -> bool:
    """Compare the agent's digest with the stored records. Returns whether an inventory is due.

    Soon after the last comparison nothing is compared, and none is due.
    """
    last = await connection.fetchrow(
        "SELECT digest_difference, digest_compared_at FROM cluster WHERE tenant_id = $1 AND id = $2",
        agent.tenant_id,
        agent.cluster_id,
    )
    assert last is not None  # the caller holds the cluster's row
    known, compared_at = last["digest_difference"], last["digest_compared_at"]
    if known is not None and compared_at is not None and now - compared_at < COMPARED_EVERY:
        return False
    stored = int(await connection.fetchval(_DIGEST, agent.tenant_id, agent.cluster_id), 2)
    difference = (stored ^ int(digest, 16)).to_bytes(16)
    is_mismatch = known is not None and known != difference
    if is_mismatch:
        log.warning("agent and server hold different records", cluster_id=str(agent.cluster_id))
    await connection.execute(
        "UPDATE cluster SET digest_difference = $3, digest_compared_at = $4, "
        "digest_mismatches = digest_mismatches + $5::int WHERE tenant_id = $1 AND id = $2",
        agent.tenant_id,
        agent.cluster_id,
        known if is_mismatch else difference,
        now,
        int(is_mismatch),
    )
    return is_mismatch

"""Whether agent and server hold the same records, told by one number each instead of by all of them.

Both join the hashes of their records by exclusive or, in any order. Some rows the agent cannot know: of
kinds that it may not read, of deletions that are held. So what counts is not that the digests are equal but
that they differ as they did when agent and server had just compared every record: after an inventory the
first difference is kept, and a later one that is not the same leads to the next inventory.
"""

from datetime import datetime

import structlog

from watchbill.identity import AgentIdentity
from watchbill.store.postgres.database import Connection

log = structlog.get_logger(__name__)

_DIGEST = (
    "SELECT coalesce(bit_xor(('x' || encode(record_hash, 'hex'))::bit(128))::text, '0') FROM workload "
    "WHERE tenant_id = $1 AND cluster_id = $2 AND deleted_at IS NULL"
)


async def digest_compare(
    connection: Connection, agent: AgentIdentity, digest: str, now: datetime
) -> bool:
    """Compare the agent's digest with the stored records. Returns whether an inventory is due."""
    stored = int(await connection.fetchval(_DIGEST, agent.tenant_id, agent.cluster_id), 2)
    difference = (stored ^ int(digest, 16)).to_bytes(16)
    known = await connection.fetchval(
        "SELECT digest_difference FROM cluster WHERE tenant_id = $1 AND id = $2",
        agent.tenant_id,
        agent.cluster_id,
    )
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

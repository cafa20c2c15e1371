"""What of an agent's messages could not be stored as it was sent, as the cluster's state lists it."""

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from watchbill.identity import AgentIdentity
from watchbill.protocol import BatchItem, Delete, RefusedItem
from watchbill.store.postgres.database import Connection
from watchbill.store.workloads.write import item_id

MAX_REFUSED_ITEMS = 1_000
"""Kept of a cluster, the newest: an agent that was taken over has ever new ids."""

_FORGET_PROBLEMS = (
    "DELETE FROM refused_item i USING inventory n WHERE i.tenant_id = $1 AND i.cluster_id = $2 "
    "AND n.tenant_id = $1 AND n.id = $3 AND i.at < n.started_at "
    "AND NOT EXISTS (SELECT 1 FROM inventory_entry e WHERE e.tenant_id = $1 "
    "AND e.inventory_id = $3 AND e.workload_id = i.workload_id OFFSET 0) "
    "AND (SELECT w.cluster_id = $2 AND w.deleted_at IS NULL FROM workload w "
    "WHERE w.tenant_id = $1 AND w.id = i.workload_id) IS NOT TRUE"
)
"""Of workloads that neither the agent nor the server has any more; looked up as in an inventory's commit."""


async def problems_show(
    connection: Connection,
    agent: AgentIdentity,
    items: Sequence[BatchItem],
    problems: Sequence[RefusedItem],
    now: datetime,
) -> None:
    """The cluster's state lists what could not be stored as it was sent, until it can be or has ended."""
    reasons = {problem.id: problem.reason for problem in problems}
    for id_ in await _ended(connection, agent, items, reasons.keys()):
        del reasons[id_]
    await connection.execute(
        "DELETE FROM refused_item "
        "WHERE tenant_id = $1 AND cluster_id = $2 AND workload_id = ANY($3::uuid[])",
        agent.tenant_id,
        agent.cluster_id,
        [id_ for item in items if (id_ := item_id(item)) not in reasons],
    )
    await connection.executemany(
        "INSERT INTO refused_item (tenant_id, cluster_id, workload_id, reason, at) "
        "VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT (tenant_id, cluster_id, workload_id) DO UPDATE SET reason = $4, at = $5",
        [(agent.tenant_id, agent.cluster_id, id_, reason, now) for id_, reason in reasons.items()],
    )
    if reasons:
        await connection.execute(
            "DELETE FROM refused_item WHERE tenant_id = $1 AND cluster_id = $2 AND workload_id IN "
            "(SELECT workload_id FROM refused_item WHERE tenant_id = $1 AND cluster_id = $2 "
            "ORDER BY at DESC, workload_id OFFSET $3)",
            agent.tenant_id,
            agent.cluster_id,
            MAX_REFUSED_ITEMS,
        )


async def _ended(
    connection: Connection,
    agent: AgentIdentity,
    items: Sequence[BatchItem],
    refused: Collection[UUID],
) -> set[UUID]:
    """Those of the refused that the same message ends, and that are not stored as live."""
    ended = {item.id for item in items if isinstance(item, Delete)} & set(refused)
    if not ended:
        return ended
    live = await connection.fetch(
        "SELECT id FROM workload "
        "WHERE tenant_id = $1 AND cluster_id = $2 AND id = ANY($3::uuid[]) AND deleted_at IS NULL",
        agent.tenant_id,
        agent.cluster_id,
        list(ended),
    )
    return ended - {row["id"] for row in live}


async def problems_forget(connection: Connection, agent: AgentIdentity, inventory_id: UUID) -> None:
    """An inventory is complete: what it does not have, and the server neither, is no problem any more."""
    await connection.execute(_FORGET_PROBLEMS, agent.tenant_id, agent.cluster_id, inventory_id)

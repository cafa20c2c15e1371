"""Writes the nodes that a heartbeat brings: those that changed, and the end of those that are gone.

The cluster keeps the digest of all nodes that were reported. A difference to any other is not taken.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

import msgspec

from watchbill.cluster_node import MAX_NODES, ClusterNode
from watchbill.identity import AgentIdentity
from watchbill.protocol import NodeChanges
from watchbill.store.postgres.database import Connection
from watchbill.store.workloads.row import without_nul
from watchbill.store.workloads.validation import EARLIEST, possible_time

_COLUMNS = {
    "name": "text",
    "id": "uuid",
    "status": "text",
    "node_pool": "text",
    "gpu_type": "text",
    "nv_link_domain_uid": "text",
    "nv_link_clique_id": "text",
    "created_at": "timestamptz",
    "document": "bytea",
}
_NAMES = ", ".join(_COLUMNS)
_ARRAYS = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(_COLUMNS.values(), 4))
_REPLACED = ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS if column != "name")
_UPSERT = (
    f"INSERT INTO cluster_node AS n (tenant_id, cluster_id, updated_at, {_NAMES}) "
    f"SELECT $1, $2, $3, r.* FROM unnest({_ARRAYS}) AS r "
    f"ON CONFLICT (tenant_id, cluster_id, name) DO UPDATE SET {_REPLACED}, updated_at = $3 "
    "WHERE n.document <> excluded.document"
)
_DELETE = "DELETE FROM cluster_node WHERE tenant_id = $1 AND cluster_id = $2 AND name "
_DROP_EXCESS = (
    f"{_DELETE} IN (SELECT name FROM cluster_node WHERE tenant_id = $1 AND cluster_id = $2 "
    f"ORDER BY updated_at DESC, name OFFSET {MAX_NODES})"
)
"""Agents tell no more than `MAX_NODES`; one that was taken over adds to them without end."""

_OUT_OF_ROOM = "-"
"""In place of a digest, where nodes were refused: no agent starts a difference from it."""


class NodeResult(NamedTuple):
    """`are_wanted`: nothing was taken, since it is a difference to other nodes than those that are stored.

    `are_refused`: for want of room, until there is some; then all nodes are wanted."""

    are_wanted: bool = False
    are_refused: bool = False


async def node_write(
    connection: Connection,
    agent: AgentIdentity,
    changes: NodeChanges,
    stored_digest: str | None,
    now: datetime,
    *,
    has_room: bool = True,
) -> NodeResult:
    """`stored_digest`: of what is stored; None = nothing was reported yet. Without `has_room` nodes are removed
    and none is written.
    """
    if changes.since is not None and changes.since != stored_digest:
        are_refused = stored_digest == _OUT_OF_ROOM and not has_room
        return NodeResult(are_wanted=not are_refused, are_refused=are_refused)
    cluster = (agent.tenant_id, agent.cluster_id)
    if changes.since is None:
        await connection.execute(f"{_DELETE} <> ALL($3::text[])", *cluster, _plain(changes.names))
    if changes.removed:
        await connection.execute(f"{_DELETE} = ANY($3::text[])", *cluster, _plain(changes.removed))
    are_refused = bool(changes.changed) and not has_room
    if changes.changed and has_room:
        held = await _ids_held(connection, agent, [each.id for each in changes.changed])
        nodes = (
            msgspec.structs.replace(each, id=uuid5(agent.cluster_id, str(each.id)))
            if each.id in held
            else each
            for each in changes.changed
        )
        rows = {row[0]: row for row in map(_row, nodes)}
        columns = map(list, zip(*rows.values(), strict=True))
        await connection.execute(_UPSERT, *cluster, now, *columns)
        await connection.execute(_DROP_EXCESS, *cluster)
    digest = _OUT_OF_ROOM if are_refused else changes.digest
    if digest != stored_digest:
        await connection.execute(
            "UPDATE cluster SET nodes_digest = $3 WHERE tenant_id = $1 AND id = $2",
            *cluster,
            without_nul(digest),
        )
    return NodeResult(are_refused=are_refused)


async def _ids_held(connection: Connection, agent: AgentIdentity, ids: Sequence[UUID]) -> set[UUID]:
    """Those that a workload or another cluster's node has. Samples are kept by id: a node under such an id
    would read theirs and write over them, so it gets another id, and no samples."""
    rows = await connection.fetch(
        "SELECT w.id FROM workload w WHERE w.tenant_id = $1 AND w.id = ANY($3::uuid[]) UNION "
        "SELECT n.id FROM cluster_node n WHERE n.tenant_id = $1 AND n.id = ANY($3::uuid[]) "
        "AND n.cluster_id <> $2",
        agent.tenant_id,
        agent.cluster_id,
        list(ids),
    )
    return {row["id"] for row in rows}


async def node_forget(connection: Connection, agent: AgentIdentity) -> None:
    """The nodes are not reported any more, as by an agent that went back to an older version: what was reported
    before may have changed since."""
    cluster = (agent.tenant_id, agent.cluster_id)
    await connection.execute(
        "DELETE FROM cluster_node WHERE tenant_id = $1 AND cluster_id = $2", *cluster
    )
    await connection.execute(
        "UPDATE cluster SET nodes_digest = NULL WHERE tenant_id = $1 AND id = $2", *cluster
    )


def _plain(names: Sequence[str]) -> list[str]:
    return [without_nul(name) for name in names]


def _row(node: ClusterNode) -> tuple[object, ...]:
    """In the order of `_COLUMNS`."""

    def optional(text: str | None) -> str | None:
        return without_nul(text) if text else None

    # Its pods are looked up by the name, and its pool's figures kept by the pool, that the document says.
    name, node_pool = without_nul(node.name), without_nul(node.node_pool)
    node = msgspec.structs.replace(node, name=name, node_pool=node_pool)
    return (
        node.name,
        node.id,
        node.status,
        node.node_pool,
        optional(node.gpu_info.gpu_type if node.gpu_info else None),
        optional(node.nv_link_domain_uid),
        optional(node.nv_link_clique_id),
        possible_time(node.created_at) or EARLIEST,
        msgspec.json.encode(node),
    )

"""Clusters: list, register, remove, pin anew; decide on deletions that are held."""

from uuid import uuid4

import msgspec

from watchbill.access.roles import Permission
from watchbill.api.http.call import Call
from watchbill.api.http.reply import Answer, Reply, json_reply
from watchbill.errors import NotFound
from watchbill.query import Scope
from watchbill.requests import ClusterCreation
from watchbill.responses.fleet import Cluster, CreatedCluster
from watchbill.store.fleet.clusters import (
    cluster_create,
    cluster_delete,
    cluster_list,
    cluster_repin,
)
from watchbill.store.identity.accounts import new_agent_credential
from watchbill.store.ingest.held_deletions import held_refuse, held_release


async def get_clusters(call: Call) -> Answer:
    """Nothing is ever requested for deletion: a removal takes effect at once."""
    return json_reply(await _list_clusters(call))


async def get_cluster_by_uuid(call: Call) -> Answer:
    cluster_id = call.values["clusterUuid"]
    for cluster in await _list_clusters(call):
        if cluster.id == cluster_id:
            return json_reply(cluster)
    raise NotFound(f"There is no cluster {cluster_id}.")


async def _list_clusters(call: Call) -> list[Cluster]:
    listed = await cluster_list(
        call.db,
        _clusters(call),
        call.now,
        workloads=call.access,
        most_bytes=call.services.settings.cluster_stored_bytes,
    )
    if call.values["verbosity"] == "metadata":
        return [msgspec.structs.replace(cluster, status=None) for cluster in listed]
    return listed


def _clusters(call: Call) -> Scope:
    assert call.caller is not None, "the route lets nobody in without a login"
    return call.caller.scope_for(Permission.CLUSTERS_READ)


async def create_cluster(call: Call) -> Answer:
    creation = await call.json_body(ClusterCreation)
    cluster_id = uuid4()
    credential, stored = new_agent_credential(cluster_id)
    await cluster_create(
        call.db,
        call.access.tenant_id,
        cluster_id=cluster_id,
        name=creation.name,
        credential_salt=stored.salt,
        credential_hash=stored.hash,
        now=call.now,
    )
    call.note(target=str(cluster_id), details=f"name={creation.name}")
    return json_reply(
        CreatedCluster(id=cluster_id, name=creation.name, credential=credential), status=201
    )


async def delete_cluster(call: Call) -> Answer:
    cluster_id = call.values["clusterUuid"]
    call.note()
    if not await cluster_delete(call.db, call.access, cluster_id, call.now):
        raise NotFound(f"There is no cluster {cluster_id}.")
    return Reply(status=204)


async def repin_cluster(call: Call) -> Answer:
    cluster_id = call.values["clusterUuid"]
    call.note()
    if not await cluster_repin(call.db, call.access, cluster_id):
        raise NotFound(f"There is no cluster {cluster_id}.")
    return Reply(status=204)


async def release_deletions(call: Call) -> Answer:
    call.note()
    count = await held_release(call.db, call.access, call.values["clusterUuid"], call.now)
    return _decided(call, count)


async def refuse_deletions(call: Call) -> Answer:
    call.note()
    count = await held_refuse(call.db, call.access, call.values["clusterUuid"], call.now)
    return _decided(call, count)


def _decided(call: Call, count: int) -> Answer:
    if not count:
        raise NotFound(f"Cluster {call.values['clusterUuid']} has no held deletions.")
    call.note(details=f"workloads={count}")
    return Reply(status=204)


HANDLERS = (
    get_clusters,
    get_cluster_by_uuid,
    create_cluster,
    delete_cluster,
    repin_cluster,
    release_deletions,
    refuse_deletions,
)

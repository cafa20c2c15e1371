"""Injected faults, over real HTTP: each does what it says, and passes when it is taken back."""

import asyncio
import ssl
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp
import pytest
import yaml

from simulator.apiserver.protocol import SimulatedCluster
from simulator.apiserver.tls import CertificateAuthority
from simulator.resources import NAMESPACES, PODS
from tests.fixtures.kubernetes.demo_cluster import Caller, calling

LIST = "/api/v1/pods"
GET = "/api/v1/namespaces/ns0/pods/p000"
WATCH = "/api/v1/pods?watch=1&resourceVersion=0&timeoutSeconds=1"


async def statuses(caller: Caller) -> dict[str, int]:
    paths = {"get": GET, "list": LIST, "watch": WATCH}
    return {verb: (await caller.get(path)).status for verb, path in paths.items()}


@pytest.mark.parametrize("verb", ["get", "list", "watch"])
async def test_one_verb_alone_can_be_forbidden(verb: str) -> None:
    async with calling(pods=1) as caller:
        caller.cluster.faults.forbid(PODS, verb)
        assert await statuses(caller) == {"get": 200, "list": 200, "watch": 200} | {verb: 403}
        caller.cluster.faults.allow(PODS)
        assert set((await statuses(caller)).values()) == {200}


async def test_a_kind_can_be_forbidden_as_a_whole() -> None:
    async with calling(pods=1) as caller:
        caller.cluster.faults.forbid(PODS)
        assert set((await statuses(caller)).values()) == {403}


async def test_revoked_tokens_are_unauthorized_until_they_count_again() -> None:
    async with calling(pods=1) as caller:
        caller.cluster.faults.revokes_tokens = True
        refused = await caller.get(LIST)
        assert (refused.status, refused.json["reason"]) == (401, "Unauthorized")
        caller.cluster.faults.revokes_tokens = False
        assert (await caller.get(LIST)).status == 200


async def test_held_requests_are_answered_once_they_are_released() -> None:
    async with calling(pods=1) as caller:
        caller.cluster.faults.holds_requests = True
        held = asyncio.create_task(caller.get(LIST))
        while not caller.cluster.requests:
            await asyncio.sleep(0)
        assert not held.done()
        caller.cluster.faults.holds_requests = False
        assert (await held).status == 200


async def test_truncated_answers_break_off_before_their_end() -> None:
    async with calling(pods=20) as caller:
        caller.cluster.faults.truncated_answers = 1
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.get(LIST)
        assert len((await caller.get(LIST)).json["items"]) == 20


async def test_a_skewed_clock_shows_in_dates() -> None:
    async with calling() as caller:
        caller.cluster.faults.clock_skew_seconds = -86_400.0
        answer = await caller.get("/version")
        reported_at = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        assert reported_at < time.time() - 80_000


async def test_another_cluster_has_another_kube_system() -> None:
    async with calling() as caller:
        uids = set()
        for _ in range(2):
            caller.cluster.faults.replace_cluster()
            answer = await caller.get("/api/v1/namespaces/kube-system")
            uids.add(answer.json["metadata"]["uid"])
        assert len(uids) == 2
        assert caller.cluster.store.table(NAMESPACES.group, NAMESPACES.plural) is not None


async def test_lost_changes_are_seen_by_lists_alone() -> None:
    async with calling(pods=1) as caller:
        store, faults = caller.cluster.store, caller.cluster.faults
        revision = store.revision
        with faults.losing_changes():
            store.delete(PODS, "ns0", "p000")
        assert (await caller.get(LIST)).json["items"] == []
        watched = await caller.get(f"{LIST}?watch=1&resourceVersion={revision}&timeoutSeconds=1")
        assert watched.lines == []


async def test_an_exchanged_authority_is_not_trusted_by_who_knew_the_old_one(
    tmp_path: Path,
) -> None:
    cluster = SimulatedCluster(authority=CertificateAuthority())
    await cluster.start()
    try:
        assert await version_by(cluster, cluster.authority) == 200
        before, url = cluster.authority, cluster.url
        await cluster.exchange_authority()
        assert cluster.url == url
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await version_by(cluster, before)
        assert await version_by(cluster, cluster.authority) == 200
        written = yaml.safe_load(cluster.kubeconfig(tmp_path / "config").read_text())
        assert written["clusters"][0]["cluster"].keys() == {"server", "certificate-authority-data"}
    finally:
        await cluster.stop()


async def version_by(cluster: SimulatedCluster, trusted: CertificateAuthority | None) -> int:
    """The status that a client gets which trusts that authority."""
    assert trusted is not None
    context = ssl.create_default_context(cadata=trusted.pem.decode())
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{cluster.url}/version", ssl=context) as response,
    ):
        return response.status

"""The agent's end of the stream against a server that is strict, slow, forgetful or gone."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from tests.fixtures.agents import until
from tests.fixtures.receiver import receiver
from tests.fixtures.records import node
from tests.sync.streaming import Cluster, streaming
from watchbill.agent.cache.owner_tree import OwnerKey
from watchbill.agent.kubernetes.backoff import Backoff
from watchbill.agent.stream import pending_changes
from watchbill.agent.stream import stream as stream_module
from watchbill.background import SLICE_SECONDS, TimeSlice
from watchbill.errors import Invalid, Unauthenticated
from watchbill.kinds.derive import Derived
from watchbill.protocol import digest_of
from watchbill.workload import Phase


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "INVENTORY_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(stream_module, "HELD_SECONDS", 0.1)
    monkeypatch.setattr(stream_module, "REFUSED_CREDENTIAL_SECONDS", 0.05)

    class Quick(Backoff):
        def next_seconds(self, *, at_least_seconds: float | None = None) -> float:
            super().next_seconds()
            return 0.01 if at_least_seconds is None else min(0.05, at_least_seconds)

    monkeypatch.setattr(stream_module, "Backoff", Quick)


async def test_hello_inventory_then_changes() -> None:
    async with receiver() as server:
        cluster = Cluster()
        uid = cluster.put(1)
        async with streaming(server, cluster) as stream:
            await stream.drained()
            assert server.rows[uid].record.workload.phase is Phase.RUNNING
            assert len(server.inventories) == 1
            cluster.put(1, Phase.FAILED)
            await until(lambda: server.rows[uid].record.workload.phase is Phase.FAILED)
            cluster.delete(1)
            await until(lambda: server.rows[uid].deleted_at is not None)
            assert not server.rows[uid].is_inferred
            assert server.rows[uid].deletions == 1


async def test_a_heartbeat_tells_that_nothing_was_missed_once_all_is_reported() -> None:
    """Neither before, nor of the time in which something was dropped."""
    async with receiver() as server:
        cluster = Cluster(unbroken=500.0)
        cluster.put(1)
        async with streaming(server, cluster):
            await until(lambda: server.beats and server.beats[-1].unbroken_seconds == 500.0)
            assert server.beats[0].unbroken_seconds is None, "the first one comes before all else"
            cluster.pending.dropped_deletions += 1
            await until(lambda: (server.beats[-1].unbroken_seconds or 500.0) < 500.0)
            cluster.unbroken = None
            await until(lambda: server.beats[-1].unbroken_seconds is None)


async def test_heartbeats_tell_kinds_and_capacity() -> None:
    async with receiver() as server, streaming(server):
        await until(lambda: len(server.beats) >= 2)
        assert server.beats[0].kinds[0].kind == "Pod"
        assert server.beats[0].node_pools[0].gpus == 8.0


async def test_nodes_come_once_the_server_asks_for_them() -> None:
    async with receiver() as server, streaming(server):
        await until(lambda: len(server.beats) >= 3)
    asked, begun, quiet = (beat.nodes for beat in server.beats[:3])
    assert asked is not None
    assert begun is not None
    assert quiet is not None
    assert (asked.changed, asked.since) == ((), asked.digest)
    assert (begun.changed, begun.names, begun.since) == ((node(),), ("node-1",), None)
    assert (quiet.changed, quiet.since) == ((), begun.digest)


async def test_a_lost_reply_is_answered_again_and_applied_once() -> None:
    async with receiver() as server:
        cluster = Cluster()
        uid = cluster.put(1)
        server.loses_replies = 3
        async with streaming(server, cluster) as stream:
            await stream.drained()
            assert server.rows[uid].changes == 1
            assert len(server.streams) == 1


async def test_during_an_outage_heartbeats_and_batches_are_tried_and_nothing_is_lost() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        server.fault = lambda *_: web.Response(status=503, headers={"Retry-After": "1"})
        uid = stream.cluster.put(1, Phase.PENDING)
        await asyncio.sleep(0.2)
        stream.cluster.put(1, Phase.RUNNING)
        short = stream.cluster.put(2)
        stream.cluster.delete(2)
        await asyncio.sleep(0.2)
        server.fault = lambda *_: None
        await stream.drained()
        phases = [transition.phase for transition in server.rows[uid].transitions]
        assert phases == [Phase.PENDING, Phase.RUNNING]
        assert server.rows[short].deleted_at is not None
        assert len(server.streams) == 1, "an outage is no reason for another hello"


@pytest.mark.parametrize("status", [409, 410])
async def test_another_stream_or_a_gap_leads_to_a_hello(status: int) -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        lost = []

        def once(path: str, _: Any) -> web.Response | None:
            if path == "batch" and not lost:
                lost.append(path)
                return web.json_response({"code": status, "message": "no"}, status=status)
            return None

        server.fault = once
        uid = stream.cluster.put(1)
        await until(lambda: uid in server.rows)
        assert len(server.streams) == 2
        proofs = [begun for begun in server.inventories if begun.coverage]
        assert len(proofs) == 2, "every hello leads to an inventory"


async def test_a_server_restored_from_a_backup_is_healed() -> None:
    async with receiver() as server, streaming(server) as stream:
        kept = stream.cluster.put(1)
        gone = stream.cluster.put(2)
        await stream.drained()
        await until(lambda: len(server.rows) == 2)
        row = server.rows[gone]
        stream.cluster.delete(2)
        await until(lambda: row.deleted_at is not None)
        row.deleted_at, server.seq = None, 1
        del server.rows[kept]
        await until(lambda: kept in server.rows and row.deleted_at is not None)
        assert row.is_inferred


async def test_what_the_agent_does_not_have_is_deleted_by_the_inventory_alone() -> None:
    async with receiver() as server:
        async with streaming(server) as stream:
            old = stream.cluster.put(1)
            await stream.drained()
            await until(lambda: old in server.rows)
        commits = server.commits
        async with streaming(server):
            await until(lambda: server.commits > commits)
            assert server.rows[old].is_inferred


async def test_without_complete_lists_there_is_no_inventory_and_no_deletion() -> None:
    async with receiver() as server:
        async with streaming(server) as stream:
            old = stream.cluster.put(1)
            await until(lambda: old in server.rows)
        blind = Cluster(proves=False)
        async with streaming(server, blind) as stream:
            await until(lambda: len(server.beats) >= 2)
            await asyncio.sleep(0.2)
            assert server.rows[old].deleted_at is None
            blind.proves = True
            blind.changed.set()
            await until(lambda: server.rows[old].deleted_at is not None)


async def test_what_may_exist_is_in_the_inventory() -> None:
    async with receiver() as server:
        async with streaming(server) as stream:
            old = stream.cluster.put(1)
            await until(lambda: old in server.rows)
            namespace = server.rows[old].record.witness.namespace
        commits = server.commits
        async with streaming(server, Cluster(possible=[OwnerKey(namespace, str(UUID(int=1)))])):
            await until(lambda: server.commits > commits)
            assert server.rows[old].deleted_at is None
        async with streaming(server, Cluster(possible=[OwnerKey("other", str(UUID(int=1)))])):
            await until(lambda: server.rows[old].deleted_at is not None)


async def test_known_ends_are_reported_before_an_inventory_could_infer_them() -> None:
    async with receiver() as server, streaming(server) as stream:
        uid = stream.cluster.put(1)
        await until(lambda: uid in server.rows)
        server.fault = lambda *_: web.Response(status=503)
        stream.cluster.delete(1)
        stream.stream.request_inventory(after_seconds=0.0)
        await asyncio.sleep(0.1)
        server.fault = lambda *_: None
        await until(lambda: server.commits >= 2)
        assert not server.rows[uid].is_inferred


async def test_the_server_may_ask_for_an_inventory() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        server.wants_resync = True
        await until(lambda: server.commits >= 2)


async def test_an_inventory_is_taken_now_and_then_though_nothing_asks_for_it() -> None:
    async with receiver() as server, streaming(server, resync_seconds=1.0) as stream:
        uid = stream.cluster.put(1)
        await stream.drained()
        await until(lambda: uid in server.rows)
        del server.rows[uid]
        await until(lambda: uid in server.rows)
        assert len(server.streams) == 1


async def test_an_inventory_that_could_prove_more_is_taken_again() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        commits = server.commits
        stream.cluster.kinds.append("Job")
        await until(lambda: server.commits > commits)
        assert {kind.kind for kind in server.inventories[-1].coverage} == {"Pod", "Job"}


async def test_one_bad_item_is_set_aside_and_the_rest_arrives() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        bad = UUID(int=7)

        def too_bad(path: str, message: Any) -> web.Response | None:
            if path == "batch" and any(
                getattr(item, "record", None) and item.record.workload.id == bad
                for item in message.items
            ):
                return web.json_response({"code": 400, "message": "bad"}, status=400)
            return None

        server.fault = too_bad
        for number in range(1, 11):
            stream.cluster.put(number)
        await until(lambda: len(server.rows) == 9)
        await stream.drained()
        assert bad not in server.rows
        server.fault = lambda *_: None
        stream.cluster.put(7, name="mended")
        await until(lambda: bad in server.rows)


async def test_a_heartbeat_that_is_too_large_ends_no_agent() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        hellos = stream.stream.hellos

        def too_large(path: str, _: Any) -> web.Response | None:
            if path != "heartbeat":
                return None
            return web.json_response({"code": 413, "message": "large"}, status=413)

        server.fault = too_large
        await until(lambda: stream.stream.hellos > hellos)
        server.fault = lambda *_: None
        stream.cluster.put(1)
        await until(lambda: UUID(int=1) in server.rows)


async def test_a_refused_item_is_not_repeated() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        server.refused.add(UUID(int=1))
        stream.cluster.put(1)
        await until(lambda: len(server.batches) == 1)
        await asyncio.sleep(0.2)
        assert len(server.batches) == 1


async def test_many_changes_go_in_batches_one_at_a_time() -> None:
    async with receiver() as server:
        cluster = Cluster()
        for number in range(1, 451):
            cluster.put(number)
        async with streaming(server, cluster) as stream:
            await stream.drained()
            await until(lambda: len(server.rows) == 450)
            assert [len(batch.items) for batch in server.batches] == [200, 200, 50]


async def test_a_wrong_credential_ends_the_run_at_once() -> None:
    async with receiver() as server, streaming(server, credential="wba.x.y") as stream:
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(stream.task, 120)


async def test_a_credential_that_once_worked_is_tried_again() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        server.fault = lambda *_: web.json_response({"code": 401, "message": "no"}, status=401)
        uid = stream.cluster.put(1)
        await asyncio.sleep(0.2)
        assert not stream.task.done()
        server.fault = lambda *_: None
        await until(lambda: uid in server.rows)


async def test_an_address_that_is_no_server_of_ours_ends_the_run() -> None:
    async with receiver() as server:
        server.fault = lambda *_: web.Response(status=400, text="<html>")
        async with streaming(server) as stream:
            with pytest.raises(Invalid):
                await asyncio.wait_for(stream.task, 120)


async def test_an_answer_that_is_no_json_is_an_outage() -> None:
    async with receiver() as server:
        server.fault = lambda *_: web.Response(text="<html>under maintenance</html>")
        async with streaming(server) as stream:
            uid = stream.cluster.put(1)
            await asyncio.sleep(0.2)
            server.fault = lambda *_: None
            await until(lambda: uid in server.rows)


async def test_requests_for_an_inventory_never_postpone_the_one_that_is_due() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        commits = server.commits

        async def keep_requesting() -> None:
            while True:
                stream.stream.request_inventory()
                await asyncio.sleep(0.01)

        requests = asyncio.create_task(keep_requesting())
        uid = stream.cluster.put(1)
        await until(lambda: uid in server.rows and server.commits > commits + 1)
        requests.cancel()


async def test_changes_are_sent_at_once_though_no_inventory_can_be_taken() -> None:
    async with receiver() as server:
        cluster = Cluster(proves=False)
        early = cluster.put(1)
        async with streaming(server, cluster) as stream:
            await until(lambda: early in server.rows)
            stream.cluster.put(1, Phase.FAILED)
            await until(lambda: server.rows[early].record.workload.phase is Phase.FAILED)
            assert not server.commits


async def test_changes_pass_an_inventory_in_progress() -> None:
    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        late: list[UUID] = []
        passed = []

        def change_meanwhile(path: str, _: Any) -> web.Response | None:
            if path == "inventory" and not late:
                late.append(stream.cluster.put(2))
            if path == "inventory/commit":
                passed.append(late[0] in server.rows)
            return None

        server.fault = change_meanwhile
        stream.stream.request_inventory(after_seconds=0.0)
        await until(lambda: server.commits >= 2)
        assert passed[0], "the change did not wait for the commit"
        assert server.rows[late[0]].deleted_at is None


async def test_what_the_server_has_is_not_sent_again_by_a_restarted_agent() -> None:
    async with receiver() as server:
        cluster = Cluster()
        for number in range(1, 451):
            cluster.put(number)
        async with streaming(server, cluster) as stream:
            await stream.drained()
        batches = len(server.batches)
        again = Cluster(proves=False)
        for number in range(1, 451):
            again.put(number)
        new = again.put(451)
        async with streaming(server, again) as stream:
            await until(lambda: stream.stream.is_drained)
        assert new in server.rows
        items = [item for sent in server.batches[batches:] for item in sent.items]
        assert len(items) == 1
        assert len(server.rows) == 451


async def test_a_server_that_is_back_gets_the_changes_with_the_next_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Long(Backoff):
        def next_seconds(self, *, at_least_seconds: float | None = None) -> float:
            return 3600.0

    async with receiver() as server, streaming(server) as stream:
        await stream.drained()
        monkeypatch.setattr(stream_module, "Backoff", Long)
        failed = []

        def once(path: str, _: Any) -> web.Response | None:
            if path == "batch" and not failed:
                failed.append(path)
                # The next one is due now, and the one after it in an hour.
                stream.stream._heartbeat_due, stream.stream._heartbeat_seconds = 0.0, 3600.0
                return web.Response(status=503)
            return None

        server.fault = once
        uid = stream.cluster.put(1)
        await until(lambda: uid in server.rows)


async def test_a_cluster_that_answers_late_is_identified_before_anything_is_sent() -> None:
    async with receiver() as server:
        cluster = Cluster(proves=False, uid="")
        async with streaming(server, cluster):
            await until(lambda: server.beats)
            assert [hello.cluster_uid for hello in server.hellos] == [""]
            cluster.uid = "the-uid"
            uid = cluster.put(1)
            await until(lambda: uid in server.rows)
            assert [hello.cluster_uid for hello in server.hellos] == ["", "the-uid"]


async def test_preparing_a_batch_never_holds_the_event_loop_for_longer_than_a_slice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a clock that only derivations move: ten of them take a slice."""
    now = 0.0
    monkeypatch.setattr(pending_changes, "MAX_KEPT_BYTES", 0)
    monkeypatch.setattr(stream_module, "TimeSlice", lambda: TimeSlice(lambda: now))
    derived_since_turn = [0]
    most = 0

    class Counting(Cluster):
        def derive_now(self, root: str) -> Derived | None:
            nonlocal most, now
            now += SLICE_SECONDS / 9.9
            derived_since_turn[0] += 1
            most = max(most, derived_since_turn[0])
            return super().derive_now(root)

    async def turns() -> None:
        while True:
            derived_since_turn[0] = 0
            await asyncio.sleep(0)

    async with receiver() as server:
        cluster = Counting()
        for number in range(1, 401):
            cluster.put(number)
        ticker = asyncio.create_task(turns())
        async with streaming(server, cluster) as stream:
            await stream.drained()
        ticker.cancel()
        assert len(server.rows) == 400
        assert 0 < most <= 20


async def test_a_heartbeat_tells_the_digest_once_all_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "DIGEST_SECONDS", 0.0)
    async with receiver() as server, streaming(server) as stream:
        for number in range(3):
            stream.cluster.put(number)
        await stream.drained()
        beats_before = len(server.beats)
        await until(lambda: any(beat.digest for beat in server.beats[beats_before:]))
        reported = next(beat.digest for beat in server.beats[beats_before:] if beat.digest)
        assert reported == digest_of(row.hash for row in server.live().values())
        assert not any(beat.digest for beat in server.beats[:1]), "no inventory was taken before"

"""What an agent can take of the server, be it taken over: one message at a time, a share of the connections,
bounded memory; and no figure of it breaks a sum. What it may say at all is in test_agent_attack.py."""

import asyncio
import gzip
import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.api.http.test_errors import assert_is_error
from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.large_items import NOW, flapping, nested
from tests.fixtures.records import pod, upsert, workload
from tests.fixtures.serving import Answer, Served
from watchbill.api import limits
from watchbill.api.http import guard
from watchbill.api.limits import MAX_AGENT_QUEUED, AgentLimiter, ConcurrencyLimiter
from watchbill.errors import Invalid, TooMany
from watchbill.identity import AgentIdentity
from watchbill.protocol import (
    BATCH_ITEMS,
    Batch,
    Delete,
    Heartbeat,
    HeartbeatReply,
    InventoryEntries,
    KindState,
    Measured,
    Reading,
    Scrape,
    Upsert,
)
from watchbill.query import Scope
from watchbill.requests import decode_json
from watchbill.store.fleet.clusters import cluster_list
from watchbill.store.ingest import messages, problems, stream
from watchbill.store.ingest.left_out import MESSAGES_CHARACTERS
from watchbill.store.workloads import quotas
from watchbill.store.workloads.quotas import MAX_RETRIES, MAX_RETRIES_AMONG_UNITS
from watchbill.store.workloads.write import ITEMS_PER_TURN, runs_of


async def credential(served: Served, name: str = "north") -> str:
    made = await served.ask("POST", "/api/v1/clusters", json={"name": name})
    return str(made.json["credential"])


async def post(served: Served, token: str, path: str, body: bytes, **headers: str) -> Answer:
    sent = {"Content-Type": "application/json"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    return await served.ask("POST", f"/agent/v1/{path}", data=body, headers=sent, token=token)


# Sizes


async def test_small_messages_that_grow_are_not_read_whole(server: Served) -> None:
    """32 MiB of a hello that travels as 47 KiB stalled every tenant for seconds."""
    token = await credential(server)
    capabilities = b'{"protocol":1,"agentVersion":"x","capabilities":[%b"a"]}' % (
        b'"a",' * 8_000_000
    )
    bomb = gzip.compress(capabilities)
    assert len(bomb) < 64 * 1024
    assert_is_error(await post(server, token, "hello", bomb, Content_Encoding="gzip"), 413)


async def test_a_digest_that_is_none_is_refused(server: Served) -> None:
    """It was read as a number when it was compared: a 500, and a traceback in the log."""
    token = await credential(server)
    hello = await post(server, token, "hello", b'{"protocol":1,"agentVersion":"x"}')
    for digest in ("x" * 32, "f" * 200, "F" * 32, "\u0663" * 32, "-1", ""):
        beat = {"streamId": hello.json["streamId"], "seq": 0, "digest": digest}
        assert_is_error(await post(server, token, "heartbeat", msgspec.json.encode(beat)), 400)


async def test_little_text_that_takes_much_memory_is_refused(server: Served) -> None:
    token = await credential(server)
    lists = b'{"streamId":"x","seq":1,"items":[{"a":[%b[]]}]}' % (b"[]," * 1_000_000)
    answer = await post(server, token, "batch", gzip.compress(lists), Content_Encoding="gzip")
    assert_is_error(answer, 413)


@pytest.mark.parametrize("name", ["hello", "batch"])
async def test_whoever_sends_much_in_vain_waits_before_the_next(
    server: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an agent that was taken over keeps the server inflating and decoding without end."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(limits, "asyncio", SimpleNamespace(**vars(asyncio) | {"sleep": sleep}))
    token = await credential(server)
    await post(server, token, name, b"[]")
    assert waited == []
    much = gzip.compress(b"[" + b" " * 100_000 + b"]")
    await post(server, token, name, much, Content_Encoding="gzip")
    assert waited == [limits.REFUSED_MESSAGE_SECONDS]


@pytest.mark.parametrize("mark", [b",", b"[", b"{"])
def test_values_are_counted_across_pieces(mark: bytes) -> None:
    text = mark + b" " * messages._PIECE_BYTES + mark
    assert messages.has_more_values(text, 1)
    assert not messages.has_more_values(text, 2)


def test_counts_stand_in_the_messages() -> None:
    entry = '["00000000-0000-0000-0000-000000000001","x"]'
    too_many = ",".join([entry] * 5_001)
    body = f'{{"streamId":"x","inventoryId":"{"0" * 8}-0000-0000-0000-{"0" * 12}","entries":[{too_many}]}}'
    with pytest.raises(Invalid):
        decode_json(body.encode(), InventoryEntries)
    items = ",".join(["{}"] * (2 * BATCH_ITEMS + 1))
    with pytest.raises(Invalid):
        messages.decode_batch(f'{{"streamId":"x","seq":1,"items":[{items}]}}'.encode())


def test_a_batch_decodes_to_what_was_sent() -> None:
    scrape = Scrape(
        at=NOW, counted_since=NOW, workloads=(Measured(workload(1).id, (Reading("X", 1.0),)),)
    )
    batch = Batch(
        stream_id="s", seq=7, items=(upsert(workload(1)), upsert(workload(2))), scrapes=(scrape,)
    )
    assert messages.decode_batch(msgspec.json.encode(batch)) == batch


async def test_large_messages_are_decoded_beside_the_event_loop(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[bool] = []
    decode = messages.decode_batch

    def recorded(body: bytes) -> Batch:
        threads.append(threading.current_thread() is threading.main_thread())
        return decode(body)

    monkeypatch.setattr(messages, "decode_batch", recorded)
    token = await credential(server)
    small = msgspec.json.encode(Batch(stream_id="x", seq=1, items=(upsert(workload(1)),)))
    await post(server, token, "batch", small)
    await post(server, token, "batch", small + b" " * messages.SMALL_MESSAGE_BYTES)
    assert threads == [True, False]


# Turns


class Stuck:
    """Stands in for what applies a message: waits until it may go on, and counts."""

    def __init__(self) -> None:
        self.running = self.peak = 0
        self.go_on = asyncio.Event()
        self.entered = asyncio.Semaphore(0)

    async def __call__(self, *_: Any, **__: Any) -> HeartbeatReply:
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.entered.release()
        await self.go_on.wait()
        self.running -= 1
        return HeartbeatReply(seq=0, resync=False)


BEAT = b'{"streamId":"x","seq":0}'


async def test_an_agent_has_one_message_at_a_time(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    monkeypatch.setattr(messages, "heartbeat_apply", stuck)
    token = await credential(server)
    beats = [asyncio.create_task(post(server, token, "heartbeat", BEAT)) for _ in range(10)]
    await stuck.entered.acquire()
    done, waiting = await asyncio.wait(beats, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    while len(waiting) > 1 + MAX_AGENT_QUEUED:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert {task.result().status for task in done} == {429}
    stuck.go_on.set()
    assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
    assert stuck.peak == 1


async def test_agents_leave_connections_to_everybody_else(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many clusters of a tenant are stuck in the database, its users and other tenants go on."""
    stuck = Stuck()
    monkeypatch.setattr(messages, "heartbeat_apply", stuck)
    tokens = [await credential(server, f"cluster-{number}") for number in range(8)]
    beats = [asyncio.create_task(post(server, token, "heartbeat", BEAT)) for token in tokens]
    await stuck.entered.acquire()
    assert (await server.get("/api/v1/workloads")).status == 200
    share = max(1, server.services.settings.pool_size // 2)
    assert stuck.running <= max(1, share // 2)
    stuck.go_on.set()
    assert {answer.status for answer in await asyncio.gather(*beats)} == {200}
    assert stuck.peak <= max(1, share // 2)


async def test_one_tenants_agents_have_half_of_the_share() -> None:
    limiter = AgentLimiter(8)
    entered: list[int] = []

    async def process(tenant_id: int, number: int, go_on: asyncio.Event) -> None:
        async with limiter.processing(AgentIdentity(tenant_id, workload(number).id)):
            entered.append(tenant_id)
            await go_on.wait()

    go_on = asyncio.Event()
    tasks = [asyncio.create_task(process(1, number, go_on)) for number in range(6)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert entered == [1, 1]
    tasks += [asyncio.create_task(process(tenant, 9, go_on)) for tenant in (2, 3, 4)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert sorted(entered) == [1, 1, 2, 3], "and all of them half of the connections"
    go_on.set()
    await asyncio.gather(*tasks)


async def test_large_bodies_of_one_tenants_agents_take_turns() -> None:
    """Bodies of 4 MiB of a hundred agents, each sent but for its last byte, took all memory."""
    limiter = AgentLimiter(4)
    entered: list[tuple[int, int | None]] = []

    async def send(tenant_id: int, number: int, sent_bytes: int | None) -> None:
        agent = AgentIdentity(tenant_id, workload(number).id)
        async with limiter.message(agent), limiter.body(agent, sent_bytes):
            entered.append((tenant_id, sent_bytes))
            await asyncio.Event().wait()

    sizes = (4 * 1024 * 1024, None)
    tasks = [asyncio.create_task(send(1, number, sizes[number % 2])) for number in range(40)]
    await asyncio.sleep(0)
    assert len(entered) == limits.AGENT_LARGE_BODIES
    small = messages.SMALL_MESSAGE_BYTES
    tasks += [asyncio.create_task(send(1, 50, small)), asyncio.create_task(send(2, 51, small + 1))]
    await asyncio.sleep(0)
    assert entered[limits.AGENT_LARGE_BODIES :] == [(1, small), (2, small + 1)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_more_messages_of_an_agent_than_may_wait_are_refused_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once, sixteen connections asked as often as they could."""
    late: list[int] = []

    async def wait(_: limits.RefusalDelay) -> None:
        late.append(1)

    monkeypatch.setattr(limits.RefusalDelay, "wait", wait)
    limiter, agent = AgentLimiter(4), AgentIdentity(1, workload(1).id)

    async def send() -> None:
        async with limiter.message(agent):
            await asyncio.Event().wait()

    tasks = [asyncio.create_task(send()) for _ in range(1 + limits.MAX_AGENT_QUEUED)]
    await asyncio.sleep(0)
    for _ in range(3):
        with pytest.raises(Exception, match="Too many concurrent messages"):
            await send()
    assert len(late) == 3
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with limiter.message(agent):
        pass


async def test_whoever_waits_too_long_gets_retry_after() -> None:
    limiter = ConcurrencyLimiter(1, "messages", queue_seconds=0.01, max_queued=1)
    async with limiter.hold("agent"):
        with pytest.raises(Exception, match="Too many concurrent messages"):
            async with limiter.hold("agent"):
                pass


async def test_a_known_agent_is_counted_before_the_database_is_asked(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    identify = guard.identify_agent

    async def counted(*arguments: Any) -> AgentIdentity:
        nonlocal calls
        calls += 1
        return await identify(*arguments)

    monkeypatch.setattr(guard, "identify_agent", counted)
    token = await credential(server)
    for _ in range(5):
        assert_is_error(await post(server, token, "heartbeat", BEAT), 410)
    assert calls == 1
    cluster_id = token.split(".")[1]
    assert (await server.ask("DELETE", f"/api/v1/clusters/{cluster_id}")).status == 204
    assert_is_error(await post(server, token, "heartbeat", BEAT), 401)


# Figures


# Texts


# Work in one turn of the loop


async def test_others_are_answered_while_a_batch_is_looked_at() -> None:
    items = [upsert(workload(n)) for n in range(1, 201)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await stream._valid_items(items, NOW)
    task.cancel()
    assert turns >= len(items) // ITEMS_PER_TURN - 1


def test_rows_are_written_a_few_hundred_at_a_time() -> None:
    """Items of a single row go together; what brings many rows goes with fewer others, in the same order."""
    small = [upsert(workload(n)) for n in range(1, 201)]
    assert [len(run) for run in runs_of(small)] == [200]
    large = [flapping(n, 200) for n in range(1, 11)]
    runs = runs_of(large)
    assert [item for run in runs for item in run] == large
    assert {len(run) for run in runs} == {2}
    with_pods = [upsert(workload(n), pods=[pod(each) for each in range(600)]) for n in (1, 2)]
    assert [len(run) for run in runs_of(with_pods)] == [1, 1]


def test_records_and_ends_of_many_lives_are_written_together() -> None:
    """Each life's in its order, whatever that is: here one began again, and another was only ended."""
    born = [upsert(workload(n)) for n in range(1, 4)]
    ends = [Delete(id=UUID(int=n), deleted_at=NOW) for n in range(1, 5)]
    lives = [born[0], ends[0], born[1], ends[1], ends[2], born[2], ends[3]]
    assert runs_of(lives) == [[ends[2], ends[3]], born, ends[:2]]
    again = [born[0], ends[0], born[0], born[0], ends[0]]
    assert runs_of(again) == [[item] for item in again]


# Nesting


@pytest.mark.parametrize("path", ["hello", "batch", "heartbeat", "inventory", "inventory/entries"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
async def test_json_without_a_floor_is_refused(server: Served, path: str, opening: bytes) -> None:
    token = await credential(server)
    for body in (opening * 12_000, b'{"streamId":"x","seq":1,"items":[' + opening * 12_000):
        assert_is_error(await post(server, token, path, body), 400)


@pytest.mark.parametrize(
    "path", ["/api/v1/token", "/api/v1/session", "/api/v1/clusters", "/api/v1/accounts"]
)
async def test_a_clients_json_without_a_floor_is_refused(server: Served, path: str) -> None:
    body = b'{"clientId":' + b'[{"a":' * 2_000
    headers = {"Content-Type": "application/json"}
    answer = await server.ask("POST", path, data=body, headers=headers)
    assert answer.status in (400, 404, 405), answer.body


# What a cluster says of itself


async def test_messages_of_kinds_are_cut_to_a_share(server: Served) -> None:
    agent = await connected_agent(server.db, NOW)
    kinds = tuple(
        KindState(group="g", kind=f"K{n}", state="failing", since=NOW, message="x" * 10_000)
        for n in range(400)
    )
    beat = Heartbeat(stream_id=agent.stream_id, seq=0, kinds=kinds)
    await stream.heartbeat_apply(server.db, agent.identity, beat, NOW)
    (cluster,) = await cluster_list(server.db, Scope(1, is_whole_tenant=True), NOW)
    assert len(cluster.kinds) == 400
    shown = sum(len(kind.message or "") for kind in cluster.kinds)
    assert shown == MESSAGES_CHARACTERS


# Quotas of a cluster


async def room(server: Served, agent: Agent, *, most_bytes: int = 2**40) -> int:
    """For how many refused workloads the reply to a heartbeat says that there is room."""
    beat = Heartbeat(stream_id=agent.stream_id, seq=agent.seq)
    reply = await stream.heartbeat_apply(
        server.db, agent.identity, beat, NOW, most_bytes=most_bytes
    )
    return reply.room


async def test_a_cluster_has_so_many_live_workloads(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "MAX_LIVE_WORKLOADS", 3)
    agent = await connected_agent(server.db, NOW)
    reply = await agent.send(*(upsert(workload(n)) for n in range(1, 6)), now=NOW)
    assert {refused.id for refused in reply.refused} == {workload(4).id, workload(5).id}
    assert all(refused.is_out_of_room for refused in reply.refused)
    assert await room(server, agent) == 0
    changed = upsert(workload(2, name="renamed"))
    assert (await agent.send(changed, now=NOW)).refused == (), "those that it has may change"
    await agent.send(Delete(id=workload(1).id, deleted_at=NOW), now=NOW)
    assert await room(server, agent) == 1
    assert (await agent.send(upsert(workload(4)), now=NOW)).refused == (), "there is room again"
    other = await connected_agent(server.db, NOW, number=2)
    assert (await other.send(upsert(workload(9)), now=NOW)).refused == ()


@pytest.mark.parametrize("member", ["project_key", "department_key"])
async def test_a_cluster_has_so_many_projects_and_departments(
    server: Served, monkeypatch: pytest.MonkeyPatch, member: str
) -> None:
    """Their numbers are kept for ever."""
    monkeypatch.setattr(quotas, "MAX_PROJECTS", 2)
    agent = await connected_agent(server.db, NOW)

    def named(number: int, key: str) -> Upsert:
        item = upsert(workload(number))
        return msgspec.structs.replace(
            item, record=msgspec.structs.replace(item.record, **{member: key})
        )

    reply = await agent.send(*(named(n, f"queue-{n}") for n in range(1, 5)), now=NOW)
    assert {refused.id for refused in reply.refused} == {workload(3).id, workload(4).id}
    assert (await agent.send(named(5, "queue-1"), now=NOW)).refused == ()
    assert all(refused.is_out_of_room for refused in reply.refused)
    assert await room(server, agent) == MAX_RETRIES_AMONG_UNITS, "a few are tried again"
    monkeypatch.setattr(quotas, "MAX_PROJECTS", 4)
    assert await room(server, agent) == MAX_RETRIES, "as where an upgrade permits more"
    assert (await agent.send(named(3, "queue-3"), now=NOW)).refused == ()


async def test_bytes_beyond_an_agents_rate_wait() -> None:
    limiter, agent = AgentLimiter(4), AgentIdentity(1, workload(1).id)
    limiter.charge(agent, limits.AGENT_BYTES_BURST + 10 * limits.AGENT_BYTES_PER_SECOND)
    with pytest.raises(TooMany) as refused:
        limiter.admit(agent, "batch")
    assert refused.value.retry_after_seconds in (10, 11)
    limiter.admit(AgentIdentity(1, workload(2).id), "batch")


def test_an_agent_that_starts_again_and_again_waits() -> None:
    """Each start has the server search all pods that the cluster ever had."""
    limiter, agent = AgentLimiter(4), AgentIdentity(1, workload(1).id)
    for _ in range(limits.AGENT_STARTS_BURST):
        limiter.admit(agent, "hello")
    with pytest.raises(TooMany):
        limiter.admit(agent, "hello")
    limiter.admit(agent, "batch")
    limiter.admit(AgentIdentity(1, workload(2).id), "hello")


async def test_so_many_refusals_of_a_cluster_are_kept(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(problems, "MAX_REFUSED_ITEMS", 10)
    agent = await connected_agent(server.db, NOW)
    for number in range(1, 8):
        impossible = [
            upsert(workload(10 * number + n, additional_fields={"a": nested(50)})) for n in range(5)
        ]
        await agent.send(*impossible, now=NOW + timedelta(seconds=number))
    (cluster,) = await cluster_list(server.db, Scope(1, is_whole_tenant=True), NOW)
    assert {refused.id.int // 10 for refused in cluster.refused} == {6, 7}
    assert len(cluster.refused) == 10

"""Pods in the database: what a record brings of them, what it takes away, and how long they stay."""

import json
from contextlib import ExitStack
from dataclasses import replace as replace_query
from datetime import timedelta
from typing import Any
from unittest import mock
from uuid import UUID

import pytest
from msgspec.structs import replace

from tests.fixtures.clusters import Agent, connected_agent
from tests.fixtures.records import START, pod, record, upsert, workload
from watchbill.protocol import (
    PROTOCOL_VERSION,
    Delete,
    HelloRequest,
    PodChanges,
    Upsert,
    record_hash,
)
from watchbill.query import POD_FIELDS, PodQuery, Scope, parse_pod_filters
from watchbill.store.ingest.stream import stream_open
from watchbill.store.postgres.database import Database, Session
from watchbill.store.workloads import pod_search, pod_write
from watchbill.store.workloads import pods as pods_module
from watchbill.store.workloads.pod_write import KEEP_GONE, pod_purge
from watchbill.store.workloads.pods import pod_count, pod_list
from watchbill.workload_pod import WorkloadPod, pod_hash, pods_digest

SCOPE = Scope(1, is_whole_tenant=True)
SECOND = timedelta(seconds=1)


async def listed(db: Database, *, deleted: bool = False, **members: Any) -> list[dict[str, Any]]:
    page = await pod_list(db, SCOPE, PodQuery(is_deleted=deleted, **members), START)
    assert page is not None
    return [json.loads(document) for document in page.documents]


async def names(db: Database, **members: Any) -> list[str]:
    return [entry["name"] for entry in await listed(db, **members)]


def difference(
    base: Upsert, *, changed: tuple[WorkloadPod, ...] = (), removed: tuple[int, ...] = ()
) -> Upsert:
    """The record after `base` whose pods changed so."""
    assert base.pods is not None
    gone = {UUID(int=number) for number in removed}
    pods = {each.id: each for each in base.pods.changed} | {each.id: each for each in changed}
    left = [each for each in pods.values() if each.id not in gone]
    digest = pods_digest((each.id, pod_hash(each)) for each in left)
    entry = replace(base.record, pods_digest=digest)
    changes = PodChanges(changed=changed, removed=tuple(gone), since=base.record_hash)
    return replace(
        base,
        record=entry,
        record_hash=record_hash(entry),
        transitions=(),
        observed_at=base.observed_at + SECOND,
        pods=changes,
    )


@pytest.fixture
async def agent(db: Database) -> Agent:
    return await connected_agent(db, START)


async def test_a_pod_is_answered_as_it_was_reported(db: Database, agent: Agent) -> None:
    await agent.send(upsert(workload(1), pods=[pod(7, ip="10.0.0.7")]), now=START)
    (result,) = await listed(db, with_names=True)
    assert result["id"] == str(UUID(int=7))
    assert result["workloadId"] == str(UUID(int=1))
    assert result["clusterId"] == str(agent.identity.cluster_id)
    assert (result["tenantId"], result["projectName"]) == (1, "vision")
    assert (result["workloadName"], result["ip"]) == ("llama-sft-1", "10.0.0.7")
    assert (result["nodeName"], result["currentNodePool"]) == ("node-1", "a100")
    assert result["containers"] == [
        {"name": "main", "image": "registry.example.com/train:1", "state": "running"}
    ]
    assert "deletedAt" not in result


async def test_a_difference_leaves_the_other_pods_alone(db: Database, agent: Agent) -> None:
    first = upsert(workload(1), pods=[pod(1), pod(2), pod(3)])
    await agent.send(first, now=START)
    changed = pod(2, k8s_phase="Failed", reason="OOMKilled", is_ready=False)
    second = difference(first, changed=(changed, pod(4)), removed=(3,))
    reply = await agent.send(second, now=START + SECOND)
    assert reply.refused == ()
    assert await names(db) == ["llama-sft-1", "llama-sft-2", "llama-sft-4"]
    (gone,) = await listed(db, deleted=True)
    assert (gone["name"], gone["deletedAt"]) == ("llama-sft-3", "2026-11-20T08:00:01Z")
    (failed,) = await listed(db, is_completed=True)
    assert (failed["reason"], failed["k8sPhaseUpdatedAt"]) == ("OOMKilled", "2026-11-20T08:00:01Z")


async def test_all_pods_end_those_that_are_not_among_them(db: Database, agent: Agent) -> None:
    await agent.send(upsert(workload(1), pods=[pod(1), pod(2)]), now=START)
    await agent.send(upsert(workload(2), pods=[pod(1)]), now=START)
    await agent.send(upsert(workload(1), pods=[pod(2), pod(3)]), now=START)
    assert await names(db, workload_id=UUID(int=1)) == ["llama-sft-2", "llama-sft-3"]
    assert await names(db, workload_id=UUID(int=2)) == ["llama-sft-1"]
    await agent.send(upsert(workload(1), pods=[]), now=START)
    assert await names(db) == ["llama-sft-1"]


async def test_a_pod_that_comes_back_is_live_again(db: Database, agent: Agent) -> None:
    await agent.send(upsert(workload(1), pods=[pod(1)]), now=START)
    await agent.send(upsert(workload(1), pods=[]), now=START)
    await agent.send(upsert(workload(1), pods=[pod(1)]), now=START)
    assert await names(db) == ["llama-sft-1"]
    assert await names(db, deleted=True) == []


async def test_the_phase_keeps_its_time_while_it_lasts(db: Database, agent: Agent) -> None:
    entered = START - timedelta(hours=1)
    await agent.send(upsert(workload(1), pods=[pod(1, k8s_phase_updated_at=entered)]), now=START)
    restarted = pod(1, k8s_phase_updated_at=START, restarts=1)
    await agent.send(upsert(workload(1), pods=[restarted]), now=START)
    (result,) = await listed(db)
    assert (result["restarts"], result["k8sPhaseUpdatedAt"]) == (1, "2026-11-20T07:00:00Z")


async def test_a_difference_from_another_record_is_refused(db: Database, agent: Agent) -> None:
    first = upsert(workload(1), pods=[pod(1)])
    await agent.send(first, now=START)
    other = upsert(workload(1, name="renamed"), pods=[pod(1)])
    reply = await agent.send(difference(other, changed=(pod(2),)), now=START)
    assert [entry.id for entry in reply.refused] == [UUID(int=1)]
    assert await names(db) == ["llama-sft-1"]
    unseen = difference(upsert(workload(9), pods=[]), changed=(pod(2),))
    assert len((await agent.send(unseen, now=START)).refused) == 1


async def test_pods_go_with_their_workload(db: Database, agent: Agent) -> None:
    await agent.send(upsert(workload(1), pods=[pod(1), pod(2)]), now=START)
    await agent.send(Delete(id=UUID(int=1), deleted_at=START + SECOND), now=START + SECOND)
    assert await names(db) == []
    gone = await listed(db, deleted=True)
    assert [entry["deletedAt"] for entry in gone] == ["2026-11-20T08:00:01Z"] * 2
    later = START + KEEP_GONE + 2 * SECOND
    assert await pod_purge(db, 1, now=later - 2 * SECOND) == 0
    assert await pod_purge(db, 1, now=later) == 2
    assert await names(db, deleted=True) == []


async def test_what_never_existed_leaves_no_pods(db: Database, agent: Agent) -> None:
    await agent.send(upsert(workload(1, gpus=0), pods=[pod(1)]), now=START)
    await agent.send(Delete(id=UUID(int=1), deleted_at=START, never_existed=True), now=START)
    assert await names(db, deleted=True) == []


async def test_of_the_gone_only_the_newest_stay(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = pod_write._DROP_EXCESS
    monkeypatch.setattr(pod_write, "_DROP_EXCESS", statement.replace("OFFSET 2000", "OFFSET 2"))
    for number in range(1, 6):
        single = upsert(workload(1), pods=[pod(number)], observed_at=START + number * SECOND)
        await agent.send(single, now=START + number * SECOND)
    assert await names(db) == ["llama-sft-5"]
    assert sorted(await names(db, deleted=True)) == ["llama-sft-3", "llama-sft-4"]


async def test_differences_without_end_make_no_more_than_a_workload_may_have(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that was taken over adds pods and takes none away."""
    for name in ("_END_EXCESS", "_DROP_EXCESS"):
        statement = getattr(pod_write, name)
        assert "OFFSET 2000" in statement
        monkeypatch.setattr(pod_write, name, statement.replace("OFFSET 2000", "OFFSET 2"))
    last = upsert(workload(1), pods=[pod(1)])
    await agent.send(last, now=START)
    for number in range(2, 8):
        last = difference(last, changed=(pod(number),))
        reply = await agent.send(last, now=START + number * SECOND)
        assert reply.refused == ()
    assert sorted(await names(db)) == ["llama-sft-6", "llama-sft-7"]
    assert sorted(await names(db, deleted=True)) == ["llama-sft-4", "llama-sft-5"]


async def test_filters_search_order_and_pages(db: Database, agent: Agent) -> None:
    pods = [
        pod(number, created_at=START - number * SECOND, node_name=f"node-{number % 2}")
        for number in range(1, 6)
    ]
    await agent.send(upsert(workload(1), pods=[*pods, pod(6, node_name=None)]), now=START)
    await agent.send(upsert(workload(2, name="other"), pods=[pod(7)]), now=START)

    async def matching(*filters: str, **members: Any) -> list[int]:
        query = PodQuery(predicates=parse_pod_filters(filters), **members)
        page = await pod_list(db, SCOPE, query, START)
        assert page is not None
        assert await pod_count(db, SCOPE, query, START) == len(page.documents)
        return [int(json.loads(document)["name"].rpartition("-")[2]) for document in page.documents]

    assert await matching() == [5, 4, 3, 2, 1, 6, 7]
    assert await matching("nodeName==node-0") == [4, 2]
    assert await matching("nodeName!=node-1") == [4, 2, 6]
    assert await matching(f"workloadId=={UUID(int=2)}") == [7]
    assert await matching("createdAt>=2026-11-20T07:59:58Z", "currentNodepool==a100") == [
        2,
        1,
        6,
        7,
    ]
    assert await matching("revisionId==x") == []
    assert await matching(search="NODE-0") == [4, 2]
    assert await matching(search="other") == [7]
    assert await matching(sort_by="nodeName", is_descending=True) == [7, 5, 3, 1, 4, 2, 6]
    page = await pod_list(db, SCOPE, PodQuery(offset=2, limit=2), START)
    assert page is not None
    assert (len(page.documents), page.next_offset) == (2, 4)


async def test_an_order_has_no_gap_and_no_double_over_its_pages(db: Database, agent: Agent) -> None:
    """Whatever is sorted by, whichever way, with and without values: pages of two are the whole."""
    pods = [
        pod(
            number,
            node_name=f"node-{number % 2}" if number % 3 else None,
            current_node_pool="a100" if number % 4 else None,
            completed_at=START if number % 2 else None,
        )
        for number in range(1, 8)
    ]
    await agent.send(upsert(workload(1), pods=pods), now=START)
    await agent.send(upsert(workload(2), pods=pods[:3]), now=START)
    await agent.send(upsert(workload(1), pods=pods[4:]), now=START + SECOND)
    await agent.send(upsert(workload(2), pods=[]), now=START + 2 * SECOND)
    for field in POD_FIELDS:
        for is_descending in (False, True):
            for is_deleted, many in ((False, 3), (True, 7)):
                order = PodQuery(sort_by=field, is_descending=is_descending, is_deleted=is_deleted)
                whole = await pod_list(db, SCOPE, order, START)
                assert whole is not None
                paged: list[bytes] = []
                offset: int | None = 0
                while offset is not None:
                    part = replace_query(order, offset=offset, limit=2)
                    page = await pod_list(db, SCOPE, part, START)
                    assert page is not None
                    paged += page.documents
                    offset = page.next_offset
                assert paged == whole.documents, (field, is_descending)
                assert len(whole.documents) == many
                shown = [json.loads(document).get(_MEMBERS.get(field, field)) for document in paged]
                values = [value for value in shown if value is not None]
                assert shown == [*values, *[None] * (many - len(values))], "no value last"
                assert values == sorted(values, reverse=is_descending), (field, is_descending)


@pytest.mark.parametrize(("most", "first"), [(0, 5), (3, 2), (10_000, 5)])
async def test_a_search_of_what_is_gone_is_that_of_what_lives(
    db: Database, agent: Agent, monkeypatch: pytest.MonkeyPatch, most: int, first: int
) -> None:
    """Whether the indexes tell few candidates or too many, and the first rows of the order a page or less; also
    where only the workload's name matches."""
    monkeypatch.setattr(pod_search, "MAX_CANDIDATES", most)
    monkeypatch.setattr(pod_search, "FEW_LIVE", most)
    monkeypatch.setattr(pods_module, "FIRST_ROWS", first)
    pods = [
        pod(number, name=f"Ab_{number % 3}%-{number}", node_name=f"node-{number % 2}")
        for number in range(1, 7)
    ]
    await agent.send(
        upsert(workload(1, name="ab-main"), pods=[*pods, pod(7, node_name=None)]), now=START
    )
    await agent.send(upsert(workload(2, name="other"), pods=pods), now=START)
    texts = (
        "ab_1",
        "B_1%-4",
        "node-1",
        "other",
        "vision",
        "7\x1fnode",
        "%",
        "\0",
        "AB-MAIN",
        "7",
        "sft-7",
    )

    async def searched(*, is_deleted: bool) -> dict[str, list[str]]:
        names = {}
        for text in texts:
            query = PodQuery(search=text, is_deleted=is_deleted, sort_by="workloadId")
            page = await pod_list(db, SCOPE, query, START)
            assert page is not None
            assert await pod_count(db, SCOPE, query, START) == len(page.documents)
            names[text] = [json.loads(document)["name"] for document in page.documents]
            page = await pod_list(db, SCOPE, replace_query(query, offset=1, limit=2), START)
            assert page is not None
            paged = [json.loads(document)["name"] for document in page.documents]
            assert paged == names[text][1:3]
        return names

    live = await searched(is_deleted=False)
    await agent.send(upsert(workload(1, name="ab-main"), pods=[]), now=START + SECOND)
    await agent.send(Delete(id=UUID(int=2), deleted_at=START + SECOND), now=START + SECOND)
    assert await searched(is_deleted=True) == live
    assert {text: len(names) for text, names in live.items()} == {
        "ab_1": 4,
        "B_1%-4": 2,
        "node-1": 6,
        "other": 6,
        "vision": 0,
        "7\x1fnode": 0,
        "%": 12,
        "\0": 0,
        "AB-MAIN": 7,
        "7": 1,
        "sft-7": 1,
    }


_MEMBERS = {"currentNodepool": "currentNodePool"}
"""Where a pod's member is not named as the field."""


async def test_a_change_costs_no_more_statements_than_a_hundred_pods(
    db: Database, agent: Agent
) -> None:
    """What a batch brings is written by statements whose number does not grow with it."""
    many = [pod(number) for number in range(1, 101)]
    await agent.send(
        *(upsert(workload(number), pods=many) for number in (1, 2, 3)),
        now=START,
    )
    changed = tuple(pod(number, k8s_phase="Failed", restarts=1) for number in range(1, 101))
    bases = [upsert(workload(number), pods=many) for number in (1, 2, 3)]
    few = await statements(agent, difference(bases[0], changed=changed[:1]))
    crowd = await statements(agent, *(difference(base, changed=changed) for base in bases[1:]))
    assert len(crowd) == len(few)
    assert sum("INSERT INTO workload_pod" in sql for sql in crowd) == 1


async def statements(agent: Agent, *items: Upsert) -> list[str]:
    """What the server sends to the database for one batch."""
    sent: list[str] = []
    set_up = Session.fetch, Session.execute, Session.fetchrow, Session.fetchval
    names = ("fetch", "execute", "fetchrow", "fetchval")
    with ExitStack() as stack:
        for name, original in zip(names, set_up, strict=True):

            def logged(
                session: Session, sql: str, *arguments: Any, _original: Any = original, **more: Any
            ) -> Any:
                sent.append(sql)
                return _original(session, sql, *arguments, **more)

            stack.enter_context(mock.patch.object(Session, name, logged))
        reply = await agent.send(*items, now=START + SECOND)
    assert reply.refused == ()
    return sent


async def test_hostile_pods_are_bounded(db: Database, agent: Agent) -> None:
    """Times that cannot be, and amounts that nothing has, cost their member; the workload stays."""
    held = replace(record(workload(1)).workload.allocated_resources, gpu=float("inf"))
    wrong = pod(
        1,
        created_at=START + timedelta(days=4000),
        completed_at=START + timedelta(days=4000),
        allocated_resources=held,
        name="a\0b",
    )
    await agent.send(upsert(workload(1), pods=[wrong]), now=START)
    (result,) = await listed(db)
    assert result["createdAt"] == "2026-11-20T08:00:00Z"
    assert "completedAt" not in result
    assert "allocatedResources" not in result


async def test_pods_of_which_an_older_agent_says_nothing_are_shown_no_longer(
    db: Database, agent: Agent
) -> None:
    """Whether they still live nobody knows; a newer agent tells all of them again."""
    first = upsert(workload(1), pods=[pod(1), pod(2)])
    await agent.send(first, upsert(workload(2), pods=[pod(3)]), now=START)
    older = replace(first, record=replace(first.record, pods_digest=""), transitions=(), pods=None)
    await agent.send(replace(older, record_hash=record_hash(older.record)), now=START + SECOND)
    assert await names(db) == [pod(3).name]
    assert await names(db, deleted=True) == []
    await agent.send(first, now=START + 2 * SECOND)
    assert sorted(await names(db)) == sorted(pod(number).name for number in (1, 2, 3))


async def test_an_agent_that_starts_hears_which_pods_stand_for_others(
    db: Database, agent: Agent
) -> None:
    group = workload(1, type="Pod")
    alone, job = workload(9, type="Pod"), workload(5)
    await agent.send(
        upsert(group, pods=[pod(1), pod(2), pod(3)]),
        upsert(alone, pods=[pod(9)]),
        upsert(job, pods=[pod(6), pod(7)]),
        now=START,
    )
    request = HelloRequest(protocol=PROTOCOL_VERSION, agent_version="test")
    reply = await stream_open(db, agent.identity, request, START + SECOND)
    (root,) = reply.pod_groups
    assert (root.id, root.name, root.created_at) == (UUID(int=1), group.name, group.created_at)
    assert set(root.pods) == {UUID(int=2), UUID(int=3)}
    with (
        mock.patch.object(pods_module, "_MIN_GROUPED", 1),
        mock.patch.object(pods_module, "_MAX_GROUPED_IN_ALL", 1),
    ):  # of very many groups fewer pods each
        reply = await stream_open(db, agent.identity, request, START + SECOND)
    assert [len(each.pods) for each in reply.pod_groups] == [1]
    again = replace(request, previous_stream_id=reply.stream_id)
    assert (await stream_open(db, agent.identity, again, START + SECOND)).pod_groups == ()


@pytest.mark.parametrize("statement", [pod_write._END_EXCESS, pod_write._DROP_EXCESS])
async def test_bounding_a_workload_takes_no_look_at_all_of_its_pods_for_each(
    db: Database, agent: Agent, statement: str
) -> None:
    """Before the table's first statistics a workload of 2,000 pods was read 2,000 times for every change."""
    many = 200
    await agent.send(upsert(workload(1), pods=[pod(n + 1) for n in range(many)]), now=START)
    if "$4" not in statement:
        await agent.send(upsert(workload(1), pods=[]), now=START + SECOND)
    arguments = [START, [UUID(int=1)], [START]] if "$4" in statement else [[UUID(int=1)]]
    async with db.acquire(1) as connection:
        (row,) = await connection.fetch(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", 1, *arguments
        )

    def rows_read(node: dict[str, Any]) -> float:
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        return own + sum(rows_read(part) for part in node.get("Plans", []))

    assert many <= rows_read(json.loads(row[0])[0]["Plan"]) <= 20 * many

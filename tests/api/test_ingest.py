"""What agents send, over HTTP: shapes, sizes, compression, streams."""

import gzip
import io
import zlib
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.api.http.test_errors import assert_is_error
from tests.conftest import Engine, fresh_database
from tests.fixtures.records import upsert, workload
from tests.fixtures.samples import OPERATIONS, SAMPLES, of_login
from tests.fixtures.serving import Answer, Served, serving
from watchbill.api.http import guard
from watchbill.api.http.call import AGENT_BODY_BYTES
from watchbill.api.http.contract import LoginRequirement
from watchbill.errors import Invalid, TooLarge
from watchbill.protocol import Batch, Heartbeat, KindState
from watchbill.store.ingest.messages import BATCH_BYTES, inflate

JSON = {"Content-Type": "application/json"}


class AgentOverHttp:
    def __init__(self, served: Served, credential: str) -> None:
        self.served = served
        self.credential = credential
        self.stream_id = ""

    async def post(self, path: str, body: bytes, **headers: str) -> Answer:
        sent = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.served.ask(
            "POST", f"/agent/v1/{path}", data=io.BytesIO(body), headers=sent, token=self.credential
        )

    async def hello(self) -> None:
        answer = await self.post("hello", b'{"protocol":1,"agentVersion":"test"}')
        assert answer.status == 200, answer.body
        self.stream_id = answer.json["streamId"]

    def batch(self, seq: int, *items: Any) -> bytes:
        return msgspec.json.encode(Batch(stream_id=self.stream_id, seq=seq, items=items))


@pytest_asyncio.fixture
async def agent(server: Served) -> AgentOverHttp:
    made = await server.ask("POST", "/api/v1/clusters", json={"name": "north"})
    result = AgentOverHttp(server, made.json["credential"])
    await result.hello()
    return result


async def test_what_an_agent_sends_is_what_callers_read(agent: AgentOverHttp) -> None:
    body = agent.batch(1, upsert(workload(1)), upsert(workload(2)))
    answer = await agent.post("batch", gzip.compress(body), Content_Encoding="gzip")
    assert (answer.status, answer.json) == (200, {"seq": 1, "refused": []})
    listed = (await agent.served.get("/api/v1/workloads")).json["workloads"]
    assert [row["name"] for row in listed] == ["llama-sft-1", "llama-sft-2"]
    assert listed[0]["clusterId"] == agent.credential.split(".")[1]


async def test_duplicates_gaps_and_takeovers(agent: AgentOverHttp) -> None:
    first = agent.batch(1, upsert(workload(1)))
    assert (await agent.post("batch", first)).status == 200
    assert (await agent.post("batch", first)).json == {"seq": 1, "refused": []}
    gap = await agent.post("batch", agent.batch(3))
    assert_is_error(gap, 409)
    assert gap.json["details"] == "2"
    old = agent.batch(2)
    await agent.hello()
    assert_is_error(await agent.post("batch", old), 410)


async def test_an_inventory(agent: AgentOverHttp) -> None:
    entry = upsert(workload(1))
    await agent.post("batch", agent.batch(1, entry, upsert(workload(2))))
    begun = await agent.post(
        "inventory",
        msgspec.json.encode(
            {
                "streamId": agent.stream_id,
                "coverage": [{"group": "kubeflow.org", "kind": "PyTorchJob"}],
            }
        ),
    )
    named = {"streamId": agent.stream_id, "inventoryId": begun.json["inventoryId"]}
    id_ = str(entry.record.workload.id)
    answer = await agent.post(
        "inventory/entries",
        msgspec.json.encode({**named, "entries": [[id_, entry.record_hash]]}),
    )
    assert answer.json == {"missing": []}
    ended = await agent.post("inventory/commit", msgspec.json.encode({**named, "count": 1}))
    assert ended.json == {"deleted": 1, "held": False}
    assert (await agent.served.get("/api/v1/workloads/count")).json == {"count": 1}


async def test_a_heartbeat_shows_what_can_be_observed(agent: AgentOverHttp) -> None:
    kind = KindState(group="ray.io", kind="RayJob", state="forbidden", since=datetime.now(UTC))
    beat = msgspec.json.encode(Heartbeat(stream_id=agent.stream_id, seq=0, kinds=(kind,)))
    assert (await agent.post("heartbeat", beat)).json == {"seq": 0, "resync": False}
    (cluster,) = (await agent.served.get("/api/v1/clusters")).json
    assert cluster["kinds"][0]["state"] == "forbidden"


@pytest.mark.parametrize("name", of_login(LoginRequirement.AGENT))
async def test_shapes_that_are_wrong_are_named(agent: AgentOverHttp, name: str) -> None:
    path = OPERATIONS[name].path.removeprefix("/agent/v1/")
    for member, value in SAMPLES[name].options["json"].items():
        wrong = SAMPLES[name].options["json"] | {member: {"no": "such"}}
        answer = await agent.post(path, msgspec.json.encode(wrong))
        assert_is_error(answer, 400)
        assert f"$.{member}" in answer.json["details"], value
    for body in (b"", b"{", b"[]", b"null", b"\xff", b"[" * 60_000, b'{"a":1}'):
        assert_is_error(await agent.post(path, body), 400)


async def test_a_wrong_item_is_named_by_its_path(agent: AgentOverHttp) -> None:
    body = agent.batch(1, upsert(workload(1)), upsert(workload(2)))
    spoilt = body.replace(b'"phase":"Running"', b'"phase":"Flying"', 1)
    answer = await agent.post("batch", spoilt)
    assert_is_error(answer, 400)
    assert "$.items[0].record.workload.phase" in answer.json["details"]


async def test_nul_is_never_a_failure_of_ours(agent: AgentOverHttp) -> None:
    hello = b'{"protocol":1,"agentVersion":"a\\u0000b"}'
    assert_is_error(await agent.post("hello", hello), 400)
    begin = {"streamId": agent.stream_id, "coverage": [{"group": "\0", "kind": "Pod"}]}
    assert_is_error(await agent.post("inventory", msgspec.json.encode(begin)), 400)
    taken = await agent.post("batch", agent.batch(1, upsert(workload(1, name="a\0b"))))
    assert taken.status == 200
    assert (await agent.served.get("/api/v1/workloads")).status == 200


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "x"])
async def test_encodings_that_are_not_taken(agent: AgentOverHttp, encoding: str) -> None:
    answer = await agent.post("batch", agent.batch(1), Content_Encoding=encoding)
    assert_is_error(answer, 415)


async def test_bodies_that_are_no_whole_gzip(agent: AgentOverHttp) -> None:
    whole = gzip.compress(agent.batch(1))
    for body in (b"", b"plain", whole[:-5], whole + b"x", whole + whole, zlib.compress(b"{}")):
        assert_is_error(await agent.post("batch", body, Content_Encoding="gzip"), 400)
    assert (await agent.post("batch", whole, Content_Encoding="GZIP")).status == 200


async def test_bodies_that_are_too_large(agent: AgentOverHttp) -> None:
    assert_is_error(await agent.post("batch", b" " * (AGENT_BODY_BYTES + 1)), 413)
    bomb = gzip.compress(b" " * (BATCH_BYTES + 1), compresslevel=1)
    assert len(bomb) < AGENT_BODY_BYTES
    assert_is_error(await agent.post("batch", bomb, Content_Encoding="gzip"), 413)


def test_a_bomb_is_never_inflated_whole() -> None:
    bomb = gzip.compress(b" " * 50_000_000, compresslevel=9)
    with pytest.raises(TooLarge):
        inflate(bomb, most=1000)
    assert inflate(gzip.compress(b"x" * 1000), most=1000) == b"x" * 1000
    with pytest.raises(Invalid):
        inflate(b"", most=1000)


async def test_more_batches_than_the_published_rate(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a rate that no machine is too slow to exceed; it is kept as the published one is."""
    monkeypatch.setattr(guard, "AGENT_REQUESTS_PER_SECOND", 0.01)
    monkeypatch.setattr(guard, "AGENT_REQUESTS_BURST", 4)
    async with serving(await fresh_database(embedded_engine)) as served:
        made = await served.ask("POST", "/api/v1/clusters", json={"name": "north"})
        agent = AgentOverHttp(served, made.json["credential"])
        await agent.hello()
        beat = msgspec.json.encode({"streamId": agent.stream_id, "seq": 0})
        answers = [await agent.post("heartbeat", beat) for _ in range(6)]
    assert [answer.status for answer in answers] == [200, 200, 200, 429, 429, 429]
    for answer in answers[3:]:
        assert_is_error(answer, 429)
        assert int(answer.headers["Retry-After"]) >= 1

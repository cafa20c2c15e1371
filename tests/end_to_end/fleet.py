"""A small fleet for the browser tests, sent to a real server as an agent sends it."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from tests.conftest import RunningServer
from tests.records import record, upsert, workload
from watchbill.client import AgentClient, Client
from watchbill.sync import PROTOCOL_VERSION, Batch, Delete, HelloRequest, Item, Record
from watchbill.workload import (
    Condition,
    Element,
    Endpoint,
    PendingReason,
    Phase,
    Workload,
)

RUNNING = 110
PENDING = 9
FAILED = 1
HOSTILE_NUMBER = 900
WHY = "Project vision is over its limit: 16 GPUs asked, 4 free. It starts when others end."
PAYLOADS = (
    "<img src=x onerror=window.owned=1>",
    "<script>window.owned=2</script>",
    '"><svg onload=window.owned=3>',
    "'-window.owned-'",
    "<iframe srcdoc='<script>parent.owned=4</script>'>",
    "{{constructor.constructor('window.owned=5')()}}",
    "<a href=javascript:window.owned=6>x</a>",
    "&lt;img src=x onerror=window.owned=7&gt;",
    "\u202egnp.exe<style>*{display:none}</style>",
)
BAD_URLS = (
    "javascript:window.owned=8",
    "JaVaScRiPt:window.owned=8",
    "java\tscript:window.owned=8",
    "java\nscript:window.owned=8",
    " javascript:window.owned=8",
    "data:text/html,<script>parent.owned=9</script>",
    "vbscript:msgbox(1)",
    "//evil.example.com/",
    "https:evil.example.com",
    "https://good.example.com@evil.example.com/",
    "https://user:pass@evil.example.com/",
    "https://good.example.com\\@evil.example.com/",
)
GOOD_URL = "https://good.example.com/v1?a=1"


class Fleet:
    """One cluster's agent, and the workloads that it has told of."""

    def __init__(self, agent: AgentClient, now: datetime) -> None:
        self.agent = agent
        self.now = now
        self.stream_id = ""
        self.seq = 0

    async def hello(self) -> None:
        request = HelloRequest(protocol=PROTOCOL_VERSION, agent_version="test")
        self.stream_id = (await self.agent.hello(request)).stream_id

    async def send(self, *items: Item) -> None:
        self.seq += 1
        reply = await self.agent.batch(Batch(stream_id=self.stream_id, seq=self.seq, items=items))
        assert reply.refused == ()

    async def delete(self, number: int) -> None:
        await self.send(Delete(id=UUID(int=number), deleted_at=datetime.now(UTC)))

    def running(self, number: int, **members: object) -> Workload:
        return workload(
            number, **({"created_at": self.now - timedelta(minutes=number + 10)} | members)
        )

    def pending(self, number: int, **members: object) -> Workload:
        since = self.now - timedelta(minutes=number)
        reason = PendingReason(
            source="kai",
            node_pool="a100",
            reason="OverLimit",
            message="the scheduler's own words",
            user_message=WHY,
            since=since,
        )
        made: dict[str, object] = {
            "phase": Phase.PENDING,
            "running_pods": 0,
            "current_node_pools": (),
            "phase_message": WHY,
            "additional_fields": {"pendingReasons": [reason]},
            "project_name": "speech",
        }
        return self.running(number, **(made | members))


async def make_fleet(server: RunningServer, agent: AgentClient) -> Fleet:
    """Numbers 1… run, 201… wait with a reason, 301 failed, 401 was deleted, 900 is hostile."""
    fleet = Fleet(agent, datetime.now(UTC).replace(microsecond=0))
    await fleet.hello()
    await fleet.send(*(upsert(fleet.running(number)) for number in range(1, RUNNING + 1)))
    waiting = [fleet.pending(number) for number in range(201, 201 + PENDING)]
    await fleet.send(*(upsert(made, *_life(made)) for made in waiting))
    failed = fleet.running(
        301, phase=Phase.FAILED, running_pods=0, phase_message="Container main ended with code 137."
    )
    gone = fleet.running(401, name="gone-and-kept", phase=Phase.COMPLETED, running_pods=0)
    await fleet.send(upsert(failed), upsert(gone), upsert(hostile(fleet)))
    await fleet.delete(401)
    return fleet


def _life(made: Workload) -> tuple[tuple[Phase, datetime], ...]:
    return (
        (Phase.CREATING, made.created_at),
        (Phase.PENDING, made.created_at + timedelta(minutes=1)),
    )


def hostile(fleet: Fleet) -> Record:
    """Every text that a cluster can bring, made of markup and of addresses that lie."""
    text = " ".join(PAYLOADS)
    short = PAYLOADS[0]
    reason = PendingReason(
        source="kai", node_pool=short, reason=text, message=text, user_message=text, since=fleet.now
    )
    made = fleet.pending(
        HOSTILE_NUMBER,
        name=text,
        type=short,
        namespace=short,
        project_name=short,
        department_name=short,
        category=short,
        priority_class_name=short,
        submitted_by=short,
        phase_message=text,
        command=text,
        arguments=text,
        distributed_framework=short,
        ai_application_name=short,
        images=PAYLOADS,
        requested_node_pools=PAYLOADS,
        current_node_pools=PAYLOADS,
        environment_variables={name: name for name in PAYLOADS},
        conditions=tuple(
            Condition(type=payload, status=payload, reason=payload, message=payload)
            for payload in PAYLOADS
        ),
        endpoints=(
            *(Endpoint(url=url, host=short, path=short, protocol=short) for url in BAD_URLS),
            Endpoint(url=GOOD_URL),
        ),
        urls=BAD_URLS,
        additional_fields={"pendingReasons": [reason, reason], short: text},
    )
    elements = tuple(
        Element(id=UUID(int=7_000 + index), name=payload, hierarchy_level=1)
        for index, payload in enumerate(PAYLOADS)
    )
    return record(made, elements=elements, elements_total=len(elements))


async def new_credential(server: RunningServer) -> str:
    async with Client(server.url, server.client_id, server.client_secret) as client:
        return str((await client.cluster_create("aurora"))["credential"])

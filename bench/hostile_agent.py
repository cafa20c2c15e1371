"""An agent that was taken over, with every attack at once: URL of the server, its credential, which parts.

Bombs of gzip, little text that takes much memory, batches as large as they may be, heartbeats with digests and
inventories without end, numbers and texts at and beyond their bounds, ever new workloads in ever new projects
with long histories, pods, events, images, labels and GPU models that are taken back or deleted at once, records
that are refused, and connections whose answers nobody reads.
"""

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiohttp
import msgspec

from tests.fixtures.records import pod, record, upsert, workload
from watchbill.protocol import BATCH_EVENTS, Delete
from watchbill.workload import InvolvedObject, Phase, Transition, WorkloadEvent

CONNECTIONS = 16
PAUSE_SECONDS = 0.02
UNREAD = 20
REFUSED, VALID, UNREAD_ANSWERS = "refused", "valid", "unread"
PARTS = (REFUSED, VALID, UNREAD_ANSWERS)
"""What is refused; batches as they should be; connections whose answers nobody reads."""
WORKLOADS = 100
PHASES = 50
PODS = 20


def bodies(stream_id: str, sequence: int) -> dict[str, tuple[str, bytes]]:
    """What is sent in one round: a path and a body by what it attacks."""
    begun = f'{{"streamId":"{stream_id}","seq":{sequence},"items":['
    text = "".join(chr(0x10000 + byte) for byte in os.urandom(600))
    return {
        "a bomb": (
            "hello",
            b'{"protocol":1,"agentVersion":"x","capabilities":[' + b'"a",' * 8_000_000 + b'"a"]}',
        ),
        "many values": ("batch", begun.encode() + b"[]," * 3_000_000 + b"[]]}"),
        "as large as may be": ("batch", f'{begun}{{"a":"'.encode() + b"x" * 11_000_000 + b'"}]}'),
        "numbers": (
            "heartbeat",
            b'{"streamId":"%b","seq":0,"nodePools":[{"nodePool":"a","nodes":1,"gpus":1e308}]}'
            % stream_id.encode(),
        ),
        "texts": (
            "inventory",
            json.dumps(
                {
                    "streamId": stream_id,
                    "coverage": [{"group": text[:200], "kind": text[:200]}] * 500,
                }
            ).encode(),
        ),
        "entries": (
            "inventory/entries",
            json.dumps(
                {
                    "streamId": stream_id,
                    "inventoryId": str(uuid4()),
                    "entries": [[str(uuid4()), "x"] for _ in range(5_000)],
                }
            ).encode(),
        ),
        "heartbeats": ("heartbeat", b'{"streamId":"%b","seq":0}' % stream_id.encode()),
        "digests": (
            "heartbeat",
            b'{"streamId":"%b","seq":0,"digest":"%032x"}' % (stream_id.encode(), sequence),
        ),
    }


async def attack(session: aiohttp.ClientSession, url: str, number: int) -> None:
    """Round after round, until it is ended."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    hello = gzip.compress(b'{"protocol":1,"agentVersion":"x"}')
    stream_id = "x"
    async with session.post(f"{url}/agent/v1/hello", data=hello, headers=headers) as answer:
        if answer.status == 200:
            stream_id = (await answer.json())["streamId"]
    packed = {
        name: (path, gzip.compress(body)) for name, (path, body) in bodies(stream_id, 1).items()
    }
    names = list(packed)
    for turn in itertools.count(number):
        path, body = packed[names[turn % len(names)]]
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(f"{url}/agent/v1/{path}", data=body, headers=headers) as answer:
                await answer.read()
        await asyncio.sleep(PAUSE_SECONDS)


def workloads(number: int) -> list[object]:
    """A batch as it should be: new workloads in new projects, some of them impossible; then none of them."""
    now = datetime.now(UTC)
    items: list[object] = []
    for place in range(WORKLOADS):
        made = workload(
            WORKLOADS * number + place + 1,
            project_name=f"project-{number}-{place}",
            name="x" * 200,
            images=tuple(f"registry.example.com/{number}/{place}:{tag}" for tag in range(50)),
            additional_fields={
                "a": [[]] if place % 10 else _nested(60),
                "labels": [f"team-{tag}=vision" for tag in range(200)],
            },
        )
        phases = tuple(
            Transition(
                phase=Phase.PENDING if step % 2 else Phase.RUNNING,
                at=now - timedelta(hours=1) + timedelta(seconds=step),
                message="y" * 100,
            )
            for step in range(PHASES)
        )
        reported = upsert(
            record(made, gpu_millionths_by_model={f"model-{number}-{place}": 8_000_000}),
            pods=[pod(each, message="z" * 1_000) for each in range(PODS)],
        )
        items += [
            msgspec.structs.replace(reported, transitions=phases),
            Delete(id=made.id, deleted_at=now, never_existed=bool(place % 2)),
        ]
    return items


def events(number: int) -> list[WorkloadEvent]:
    """As many as a batch may have, of workloads that are there and of others."""
    now = datetime.now(UTC)
    return [
        WorkloadEvent(
            id=uuid4(),
            workload_id=UUID(int=WORKLOADS * number + place + 1),
            type="Warning",
            reason="FailedScheduling",
            message="e" * 1_000,
            source="default-scheduler",
            count=1,
            first_at=now,
            last_at=now,
            involved_object=InvolvedObject(uid=uuid4(), kind="Pod", name="p", namespace="n"),
        )
        for place in range(BATCH_EVENTS)
    ]


def _nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


async def grow(session: aiohttp.ClientSession, url: str) -> None:
    """Batches in the order that the server expects, as fast as it takes them."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    hello = gzip.compress(b'{"protocol":1,"agentVersion":"x"}')
    stream_id, sequence = "", 0
    for number in itertools.count():
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, KeyError):
            if not stream_id:
                async with session.post(
                    f"{url}/agent/v1/hello", data=hello, headers=headers
                ) as answer:
                    stream_id, sequence = (await answer.json())["streamId"], 0
            batch = {
                "streamId": stream_id,
                "seq": sequence + 1,
                "items": workloads(number),
                "events": events(number),
            }
            body = gzip.compress(msgspec.json.encode(batch))
            async with session.post(f"{url}/agent/v1/batch", data=body, headers=headers) as answer:
                await answer.read()
                if answer.status == 200:
                    sequence += 1
                elif answer.status in (409, 410):
                    stream_id = ""
        await asyncio.sleep(PAUSE_SECONDS)


async def send_unread(url: str) -> None:
    """Requests on one connection, the answers of which are not read; anew when it is closed."""
    address = urlsplit(url)
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            _, writer = await asyncio.open_connection(address.hostname, address.port)
            try:
                async with asyncio.timeout(5):
                    while True:
                        writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
                        await writer.drain()
            finally:
                writer.close()
        await asyncio.sleep(0.5)


async def main(url: str, credential: str, *parts: str) -> None:
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    headers = {"Authorization": f"Bearer {credential}"}
    timeout = aiohttp.ClientTimeout(total=90)
    async with (
        aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session,
        asyncio.TaskGroup() as tasks,
    ):
        chosen = parts or PARTS
        for number in range(CONNECTIONS if REFUSED in chosen else 0):
            tasks.create_task(attack(session, url, number))
        if VALID in chosen:
            tasks.create_task(grow(session, url))
        for _ in range(UNREAD if UNREAD_ANSWERS in chosen else 0):
            tasks.create_task(send_unread(url))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

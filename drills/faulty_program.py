"""`python faulty_program.py FOLDER …`: Watchbill's command line, harmed by files in FOLDER while it runs.

`clock` holds seconds by which the agent's wall clock is ahead; its timers are not moved, as on a machine whose
clock is set. `kill` names a point at which this process is killed, once.
"""

import functools
import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

Function = Callable[..., Awaitable[Any]]

BATCH_SENT = "batch sent, reply not read"
INVENTORY_SENT = "inventory sent, not committed"
BATCH_COMMITTED = "batch committed, nobody told"
INVENTORY_READ = "part of an inventory read"
MIGRATING = "in the middle of a migration"
MIDDLE_STATEMENT = 20
"""Of those that make or change the schema."""


def die_at(folder: Path, point: str) -> None:
    """SIGKILL to this process where the file names the point; the next one lives."""
    file = folder / "kill"
    if file.exists() and file.read_text() == point:
        file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def before(folder: Path, point: str, function: Function) -> Function:
    @functools.wraps(function)
    async def killed(*arguments: Any, **options: Any) -> Any:
        die_at(folder, point)
        return await function(*arguments, **options)

    return killed


def harm_agent(folder: Path) -> None:
    import aiohttp

    from watchbill.agent.kubernetes import client, steady_clock
    from watchbill.agent.stream import stream
    from watchbill.client import AgentClient

    class SkewedDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            ahead = float((folder / "clock").read_text() or 0)
            return datetime.now(tz) + timedelta(seconds=ahead)

    for module in (client, steady_clock, stream):
        module.datetime = SkewedDatetime  # type: ignore[attr-defined]

    read = aiohttp.ClientResponse.start

    async def read_or_die(reply: aiohttp.ClientResponse, connection: Any) -> aiohttp.ClientResponse:
        answer = await read(reply, connection)
        if reply.url.path == "/agent/v1/batch":
            die_at(folder, BATCH_SENT)
        return answer

    aiohttp.ClientResponse.start = read_or_die  # type: ignore[method-assign]
    AgentClient.inventory_commit = before(  # type: ignore[method-assign]
        folder, INVENTORY_SENT, AgentClient.inventory_commit
    )


def harm_server(folder: Path) -> None:
    from alembic.operations import Operations

    from watchbill.store.ingest.messages import AgentMessage, MessageSize
    from watchbill.store.ingest.process import IngestProcess

    apply = IngestProcess.apply
    points = {"batch": BATCH_COMMITTED, "inventory entries": INVENTORY_READ}

    async def apply_and_die(
        process: IngestProcess, message: AgentMessage, size: MessageSize
    ) -> bytes:
        answer = await apply(process, message, size)
        if message.operation in points:
            die_at(folder, points[message.operation])
        return answer

    IngestProcess.apply = apply_and_die  # type: ignore[method-assign]
    execute = Operations.execute
    statements = itertools.count(1)

    def execute_and_die(operations: Operations, *arguments: Any, **options: Any) -> None:
        execute(operations, *arguments, **options)
        if next(statements) == MIDDLE_STATEMENT:
            die_at(folder, MIGRATING)

    Operations.execute = execute_and_die  # type: ignore[method-assign]


if __name__ == "__main__":
    place = Path(sys.argv.pop(1))
    (harm_agent if sys.argv[1] == "agent" else harm_server)(place)
    from watchbill.__main__ import main

    main()

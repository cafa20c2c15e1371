"""A client that asks so many times a second, whatever it is answered: URL, token and rate are its words."""

import asyncio
import sys
import time

import aiohttp


async def main(url: str, token: str, rate: int) -> None:
    """Until it is ended."""
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=32)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        slots = asyncio.Semaphore(32)

        async def one() -> None:
            async with session.get(f"{url}/api/v1/workloads?limit=50") as answer:
                await answer.read()
            slots.release()

        began, sent, tasks = time.monotonic(), 0, set()
        while True:
            due = int((time.monotonic() - began) * rate) - sent
            for _ in range(min(due, 50)):
                await slots.acquire()
                task = asyncio.create_task(one())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

"""A client that asks so many times a second, whatever it is answered: method, URL, credential, rate."""

import asyncio
import sys
import time

import aiohttp

CONNECTIONS = 128


async def main(method: str, url: str, credential: str, rate: int) -> None:
    """Until it is ended."""
    headers = {"Authorization": f"Bearer {credential}"}
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        slots = asyncio.Semaphore(CONNECTIONS)

        async def send_request() -> None:
            async with session.request(method, url) as answer:
                await answer.read()
            slots.release()

        due, at, tasks = 0.0, time.monotonic(), set()
        while True:
            now = time.monotonic()
            due, at = due + min(now - at, 0.1) * rate, now  # what a pause left undone stays undone
            while due >= 1.0:
                await slots.acquire()
                task = asyncio.create_task(send_request())
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                due -= 1.0
            await asyncio.sleep(0.005)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))

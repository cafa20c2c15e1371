"""What many ask at the same time is asked of the database once.

Pages that hear of a change ask anew, all of them the same at the same moment, and most people may see the same.
Requests that have arrived before the first of them goes to the database share its answer; whoever comes later
asks again. So nobody learns anything older than the request itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from watchbill.api.http.reply import Answer, Reply

TURNS = 3
"""Of the event loop: what lies in the connections is read in one, its handlers begin in the next."""
LONG_SECONDS = 0.001
"""For these turns: of a loop that is busy, as in a flood, one is enough."""


class SharedAnswers:
    """Answers that are about to be asked for, by all that they depend on."""

    def __init__(self) -> None:
        self._gathering: dict[Hashable, list[asyncio.Future[Reply | None]]] = {}
        """Who waits for each answer, beside the one that asks."""

    async def answer(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `ask` answers, or what it answers to whoever asks the same just now; so with what it raises."""
        waiting = self._gathering.get(key)
        if waiting is None:
            return await self._ask_for_all(key, ask)
        turn: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        answer = await turn
        return await ask() if answer is None else answer

    async def _ask_for_all(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """One that cannot be shared, or never came, is None for the others: each asks alone."""
        waiting = self._gathering[key] = []
        shared: Reply | None = None
        failure: Exception | None = None
        try:
            try:
                await _turns()
            finally:
                del self._gathering[key]
            answer = await ask()
            shared = answer if isinstance(answer, Reply) else None
            return answer
        except Exception as error:
            failure = error
            raise
        finally:
            for turn in waiting:
                if turn.done():  # whoever waited has left
                    continue
                if failure is not None:
                    turn.set_exception(failure)
                else:
                    turn.set_result(shared)


async def _turns() -> None:
    """Let those begin that have arrived."""
    time = asyncio.get_running_loop().time
    until = time() + LONG_SECONDS
    for _ in range(TURNS):
        await asyncio.sleep(0)
        if time() > until:
            return

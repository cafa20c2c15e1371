"""Asks many exporters of one kind at once, and says how well they answer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Literal

from watchbill.agent.exposition import Pages, Sample, looks_like_metrics
from watchbill.agent.failure import ApiFailure, Trouble
from watchbill.sync import KindState

GROUP = "metrics"
"""The group of the kinds whose states tell how well exporters can be read."""
_LARGE_BYTES = 512 * 1024
"""A page from which on reading it would hold up everything else for too long."""

Ask = Callable[[], Awaitable[bytes]]
State = Literal["complete", "forbidden", "absent", "failing"]


class Poll:
    """`is_strict`: one that does not answer makes the whole count as failing."""

    def __init__(
        self,
        kind: str,
        metrics: Iterable[str],
        slots: asyncio.Semaphore,
        *,
        is_strict: bool = True,
        has_always: bool = False,
    ) -> None:
        self._kind = kind
        self._pages = Pages(metrics)
        self._slots = slots
        self._is_strict = is_strict
        self._has_always = has_always
        """Where there is none to ask, that is an answer too."""
        self._state: KindState | None = None

    @property
    def state(self) -> KindState | None:
        """None before the first round."""
        return self._state

    async def ask(self, wanted: Mapping[str, Ask], *, hint: str | None = None) -> "Answers":
        """Ask all of them, some at a time. Whoever does not answer is among the failures."""
        answers = Answers()

        async def one(name: str, ask: Ask) -> None:
            async with self._slots:
                try:
                    answers.pages[name] = await self._read(await ask())
                except ApiFailure as failure:
                    answers.failures[name] = failure

        await asyncio.gather(*(one(name, ask) for name, ask in wanted.items()))
        self._note(answers, hint)
        return answers

    async def _read(self, body: bytes) -> list[Sample]:
        if not looks_like_metrics(body):
            raise ApiFailure(Trouble.REFUSED, "the page is not one of metrics")
        if len(body) < _LARGE_BYTES:
            return list(self._pages.samples(body))
        return await asyncio.to_thread(lambda: list(self._pages.samples(body)))

    def _note(self, answers: "Answers", hint: str | None) -> None:
        state, message = self._judged(answers)
        message = message or hint
        before = self._state
        if before is None or (before.state, before.message) != (state, message):
            same = before is not None and before.state == state
            since = before.since if same and before is not None else datetime.now(UTC)
            self._state = KindState(
                group=GROUP, kind=self._kind, state=state, since=since, message=message
            )

    def _judged(self, answers: "Answers") -> tuple[State, str | None]:
        asked, failures = len(answers.pages) + len(answers.failures), answers.failures
        if not asked:
            return ("complete" if self._has_always else "absent"), None
        if not failures:
            return "complete", None
        name, first = min(failures.items())
        message = f"{len(failures)} of {asked} do not answer, such as {name}: {first.message}"[:300]
        if (
            all(found.trouble is Trouble.FORBIDDEN for found in failures.values())
            and not answers.pages
        ):
            return "forbidden", message
        return ("failing" if self._is_strict else "complete"), message


class Answers:
    """Samples by whom they came from, and who did not answer."""

    def __init__(self) -> None:
        self.pages: dict[str, list[Sample]] = {}
        self.failures: dict[str, ApiFailure] = {}

"""Who is scraped next: of one namespace nothing can be done that lets targets of another wait for long."""

import asyncio
import heapq
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchbill.agent.kubernetes.client import BodyTooLarge, CountBytes
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.agent.metrics.exposition import WORKLOADS, Limit
from watchbill.agent.metrics.figures import INFERENCE_METRICS, read_server
from watchbill.agent.metrics.scrape_pool import ScrapeJob, ScrapePool, ScrapeResults, ScrapeTurns

WORKERS = 16
PAGE = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n"


def finished_at(seconds: dict[str, list[float]]) -> dict[str, float]:
    """When the last target of each namespace was read, if targets take so long."""
    names = {namespace: [str(n) for n in range(len(each))] for namespace, each in seconds.items()}
    turns = ScrapeTurns(names, {}, most_seconds=WORKLOADS.target_seconds)
    running: list[tuple[float, str, float]] = []
    done: dict[str, float] = {}
    now = 0.0
    while True:
        while len(running) < WORKERS and (turn := turns.take()) is not None:
            took = seconds[turn[0]][int(turn[1])]
            heapq.heappush(running, (now + took, turn[0], took))
        if not running:
            return done
        now, namespace, took = heapq.heappop(running)
        turns.give_back(namespace, took)
        done[namespace] = now


@given(st.integers(1, 500), st.floats(0.0, 10.0), st.integers(1, 100))
def test_who_answers_late_makes_others_wait_for_one_answer_at_most(
    late: int, seconds: float, quick: int
) -> None:
    """500 targets that answer after 9.5 s took a minute of a round when turns were counted."""
    done = finished_at({"a-late": [seconds] * late, "own": [0.05] * quick})
    assert done["own"] <= WORKLOADS.target_seconds + 0.05 * quick
    assert done.keys() == {"a-late", "own"}


def test_who_took_most_time_of_a_round_comes_last_in_the_next() -> None:
    waiting = {"late": ["l"], "own": ["o"]}
    turns = ScrapeTurns(waiting, {"late": 10.0, "own": 0.1}, most_seconds=10.0)
    assert turns.take() == ("own", "o")
    assert turns.take() == ("late", "l")
    assert turns.take() is None


BROKEN_OFF = PAGE[:-1]


async def scraped(
    pool: ScrapePool[object], bodies: dict[str, bytes], *, seconds: float = 5.0
) -> ScrapeResults[object]:
    def job(name: str) -> ScrapeJob:
        async def fetch(count: CountBytes) -> bytes:
            await asyncio.sleep(0)
            count(min(len(bodies[name]), pool.limits.body_bytes))
            if len(bodies[name]) > pool.limits.body_bytes:
                raise BodyTooLarge(ErrorKind.REFUSED, "larger")
            if bodies[name] == BROKEN_OFF:
                raise ApiFailure(ErrorKind.UNREACHABLE, "broken off")
            return bodies[name]

        return ScrapeJob(fetch, name.partition("/")[0])

    return await pool.scrape({name: job(name) for name in bodies}, seconds=seconds)


async def test_where_a_round_has_no_time_for_all_targets_each_has_its_turn() -> None:
    """As long as the first ones by name came first, the last ones were never asked."""
    pool: ScrapePool[object] = ScrapePool(
        "x", INFERENCE_METRICS, read_server, limits=WORKLOADS, concurrency=1
    )
    measured: set[str] = set()
    for _ in range(20):
        asked: list[str] = []

        def job(name: str, asked: list[str] = asked) -> ScrapeJob:
            async def fetch(count: CountBytes) -> bytes:
                asked.append(name)
                if len(asked) > 2:
                    await asyncio.Event().wait()
                return PAGE

            return ScrapeJob(fetch, "a")

        results = await pool.scrape({name: job(name) for name in "abcdef"}, seconds=0.05)
        measured |= results.pages.keys()
        if len(measured) == 6:
            break
    assert measured == {*"abcdef"}


@pytest.mark.parametrize("concurrency", [1, 16])
async def test_a_namespace_has_so_many_bytes_in_a_round(concurrency: int) -> None:
    limits = replace(WORKLOADS, bytes_per_namespace=3 * len(PAGE))
    pool: ScrapePool[object] = ScrapePool(
        "x", INFERENCE_METRICS, read_server, limits=limits, concurrency=concurrency
    )
    bodies = {
        f"{namespace}/{n}": PAGE for namespace, count in (("a", 9), ("b", 3)) for n in range(count)
    }
    results = await scraped(pool, bodies)
    assert sorted(name.partition("/")[0] for name in results.pages) == ["a"] * 3 + ["b"] * 3
    assert results.exceeded == {Limit.NAMESPACE_BODY_SIZE: 6}


async def test_pages_that_are_too_large_use_up_the_bytes_of_their_namespace() -> None:
    """Each was read as far as its limit: 500 of them were 2 GB a round that nobody counted."""
    limits = replace(WORKLOADS, body_bytes=len(PAGE), bytes_per_namespace=3 * len(PAGE))
    pool: ScrapePool[object] = ScrapePool(
        "x", INFERENCE_METRICS, read_server, limits=limits, concurrency=1
    )
    results = await scraped(pool, {f"a/{n}": 2 * PAGE for n in range(9)} | {"b/0": PAGE})
    assert list(results.pages) == ["b/0"]
    assert results.exceeded == {Limit.BODY_SIZE: 4, Limit.NAMESPACE_BODY_SIZE: 5}


async def test_pages_that_break_off_use_up_the_bytes_of_their_namespace() -> None:
    """Each was read nearly as far as its limit, and then closed or kept waiting: nobody counted it."""
    limits = replace(WORKLOADS, bytes_per_namespace=3 * len(BROKEN_OFF))
    pool: ScrapePool[object] = ScrapePool(
        "x", INFERENCE_METRICS, read_server, limits=limits, concurrency=1
    )
    results = await scraped(pool, {f"a/{n}": BROKEN_OFF for n in range(9)} | {"b/0": PAGE})
    assert list(results.pages) == ["b/0"]
    assert results.exceeded == {Limit.NAMESPACE_BODY_SIZE: 5}

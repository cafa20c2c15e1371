"""Every kind of question that `bench.targets` measures is one that the server answers."""

from uuid import UUID

import pytest

from bench import growth
from bench.targets import Question, Taken, line, markdown, questions
from tests.fixtures.clusters import connected_agent
from tests.fixtures.records import START, upsert, workload
from tests.fixtures.serving import Served

FIRST = UUID(int=0xBE)


async def test_every_question_has_an_answer(shared: Served) -> None:
    agent = await connected_agent(shared.db, START, number=0xBE)
    await agent.send(upsert(workload(FIRST.int)), now=START)
    for question in questions(live=10, workload_id=str(FIRST)):
        answer = await shared.get(question.paths[-1])
        assert answer.status == 200, (question.name, answer.body)


def test_a_line_shows_the_address_that_takes_the_most_processor_time() -> None:
    question = Question("count", 100, ("/a", "/b"))
    shown = line(
        question,
        {
            "/a": [Taken(5.0, 4.0), Taken(900.0, 5.0), Taken(6.0, 3.0)],
            "/b": [Taken(120.0, 90.0), Taken(130.0, 80.0), Taken(110.0, 85.0)],
        },
    )
    assert shown["heaviest"] == "/b"
    assert (shown["best_ms"], shown["median_ms"], shown["worst_ms"]) == (110.0, 120.0, 130.0)
    assert shown["processor_ms"] == 80.0
    assert (shown["within"], shown["within_by_processor"]) == (1, 2)
    assert markdown([shown]).splitlines()[-1] == (
        "| count | 100 ms | 110 ms | 120 ms | 130 ms | 80 ms | 1 of 2 | 2 of 2 |"
    )


@pytest.mark.parametrize(
    ("taken", "exponent", "beyond"),
    [
        ({10: 4.0, 100: 4.0, 1000: 4.0}, 0.0, 4.0),
        ({10: 2.0, 100: 20.0, 1000: 200.0}, 1.0, 2000.0),
        ({10: 1.0, 1000: 100.0**0.5}, 0.5, 10 * 10**0.5),
        ({10: 9.0, 1000: 0.09}, -1.0, 0.09),  # what seems to shrink is not carried on
    ],
)
def test_growth_is_the_slope_of_the_logarithms(
    taken: dict[int, float], exponent: float, beyond: float
) -> None:
    assert growth.growth(taken) == pytest.approx((exponent, beyond))


def test_what_was_not_answered_or_is_not_there_has_no_growth() -> None:
    def lines(fleet: float) -> list[dict[str, object]]:
        each = {"fleet": fleet, "far page": float("inf"), "any sort, no filter, deleted": 1.0}
        return [
            {"question": question, "may_take_ms": 150, "processor_ms": ms}
            for question, ms in each.items()
        ]

    shown = growth.markdown({10_000: lines(2.0), 1_000_000: lines(200.0)})
    assert shown.splitlines()[2:] == [
        "| fleet | 150 ms | 2 ms | 200 ms | 1.00 | 2000 ms |",
    ]

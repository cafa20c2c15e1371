"""Every kind of question that `bench.targets` measures is one that the server answers."""

from uuid import UUID

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

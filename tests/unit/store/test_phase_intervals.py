"""From transitions to totals: retold, reordered and impossible histories included."""

import itertools
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.records import START
from watchbill.store.workloads.phase_intervals import (
    PhaseState,
    apply_transitions,
    finish_intervals,
    new_transitions,
    start_intervals,
)
from watchbill.workload import Phase, Transition


def told(*steps: tuple[Phase, float]) -> list[Transition]:
    return [Transition(phase=p, at=START + timedelta(seconds=s)) for p, s in steps]


def lived(transitions: list[Transition]) -> PhaseState:
    life = start_intervals(transitions[0])
    for transition in transitions[1:]:
        life = apply_transitions(life, transition)
    return life


histories = st.lists(
    st.tuples(st.sampled_from(list(Phase)), st.integers(0, 50)), min_size=1, max_size=8
).map(lambda steps: told(*((phase, at) for phase, at in sorted(steps, key=lambda s: s[1]))))


def test_every_spell_counts() -> None:
    life = lived(
        told(
            (Phase.PENDING, 0),
            (Phase.RUNNING, 10),
            (Phase.PENDING, 15),
            (Phase.RUNNING, 40),
            (Phase.COMPLETED, 45),
        )
    )
    assert (life.pending_ms, life.running_ms) == (35_000, 10_000)
    assert life.pending_since is None
    assert life.running_since is None


def test_leaving_keeps_what_it_rested_in() -> None:
    life = lived(told((Phase.RUNNING, 0), (Phase.TERMINATING, 5), (Phase.DELETING, 6)))
    assert life.phase is Phase.DELETING
    assert (life.resting_phase, life.resting_phase_at) == (Phase.RUNNING, START)


def test_a_clock_that_steps_back_never_makes_a_spell_negative() -> None:
    life = finish_intervals(lived(told((Phase.RUNNING, 100))), START)
    assert life.running_ms == 0


def test_the_records_phase_is_the_last_word() -> None:
    at = START + timedelta(seconds=9)
    fresh = new_transitions(None, told((Phase.PENDING, 0)), phase=Phase.RUNNING, observed_at=at)
    assert [(t.phase, t.at) for t in fresh] == [(Phase.PENDING, START), (Phase.RUNNING, at)]


@given(histories)
def test_telling_a_history_twice_adds_nothing(history: list[Transition]) -> None:
    first = new_transitions(None, history, phase=history[-1].phase, observed_at=history[-1].at)
    life = lived(first)
    again = new_transitions(life, history, phase=history[-1].phase, observed_at=history[-1].at)
    assert again == []


@given(histories, histories)
def test_what_is_new_is_in_order_and_never_repeats_a_phase(
    known: list[Transition], more: list[Transition]
) -> None:
    life = lived(new_transitions(None, known, phase=known[-1].phase, observed_at=known[-1].at))
    end = more[-1]
    fresh = new_transitions(life, more, phase=end.phase, observed_at=end.at)
    chain = [Transition(phase=life.phase, at=life.phase_updated_at), *fresh]
    for before, after in itertools.pairwise(chain):
        assert before.phase is not after.phase
        assert before.at <= after.at
    assert chain[-1].phase is end.phase

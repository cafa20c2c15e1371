"""From histories to transitions and totals: repeated, reordered and impossible histories included."""

import itertools
from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.records import START
from watchbill.history import (
    PhaseState,
    apply_transition,
    finish_intervals,
    new_transitions,
    not_after,
    start_intervals,
)
from watchbill.workload import Phase, Transition


def transitions_of(*steps: tuple[Phase, float]) -> list[Transition]:
    return [Transition(phase=p, at=START + timedelta(seconds=s)) for p, s in steps]


def state_after(transitions: list[Transition]) -> PhaseState:
    state = start_intervals(transitions[0])
    for transition in transitions[1:]:
        state = apply_transition(state, transition)
    return state


histories = st.lists(
    st.tuples(st.sampled_from(list(Phase)), st.integers(0, 50)), min_size=1, max_size=8
).map(
    lambda steps: transitions_of(*((phase, at) for phase, at in sorted(steps, key=lambda s: s[1])))
)


def test_every_interval_counts() -> None:
    state = state_after(
        transitions_of(
            (Phase.PENDING, 0),
            (Phase.RUNNING, 10),
            (Phase.PENDING, 15),
            (Phase.RUNNING, 40),
            (Phase.COMPLETED, 45),
        )
    )
    assert (state.pending_ms, state.running_ms) == (35_000, 10_000)
    assert state.pending_since is None
    assert state.running_since is None


def test_leaving_keeps_what_it_rested_in() -> None:
    state = state_after(
        transitions_of((Phase.RUNNING, 0), (Phase.TERMINATING, 5), (Phase.DELETING, 6))
    )
    assert state.phase is Phase.DELETING
    assert (state.resting_phase, state.resting_phase_at) == (Phase.RUNNING, START)


def test_a_clock_that_steps_back_never_makes_an_interval_negative() -> None:
    state = finish_intervals(state_after(transitions_of((Phase.RUNNING, 100))), START)
    assert state.running_ms == 0


def test_the_records_phase_is_the_last_word() -> None:
    at = START + timedelta(seconds=9)
    fresh = new_transitions(
        None, transitions_of((Phase.PENDING, 0)), phase=Phase.RUNNING, observed_at=at
    )
    assert [(t.phase, t.at) for t in fresh] == [(Phase.PENDING, START), (Phase.RUNNING, at)]


@given(histories)
def test_sending_a_history_twice_adds_nothing(history: list[Transition]) -> None:
    first = new_transitions(None, history, phase=history[-1].phase, observed_at=history[-1].at)
    state = state_after(first)
    again = new_transitions(
        state.last, history, phase=history[-1].phase, observed_at=history[-1].at
    )
    assert again == []


@given(histories, histories)
def test_what_is_new_is_in_order_and_never_repeats_a_phase(
    known: list[Transition], more: list[Transition]
) -> None:
    state = state_after(
        new_transitions(None, known, phase=known[-1].phase, observed_at=known[-1].at)
    )
    end = more[-1]
    fresh = new_transitions(state.last, more, phase=end.phase, observed_at=end.at)
    chain = [Transition(phase=state.phase, at=state.phase_updated_at), *fresh]
    for before, after in itertools.pairwise(chain):
        assert before.phase is not after.phase
        assert before.at <= after.at
    assert chain[-1].phase is end.phase


NOW = START


def step(phase: Phase, seconds: float) -> Transition:
    return Transition(phase=phase, at=NOW + timedelta(seconds=seconds))


def new_now(
    last: Transition | None, history: Sequence[Transition], *, phase: Phase
) -> list[Transition]:
    return not_after(new_transitions(last, history, phase=phase, observed_at=NOW), NOW, last)


def test_at_first_sight_the_whole_history_is_new() -> None:
    history = (step(Phase.CREATING, -9), step(Phase.PENDING, -9), step(Phase.RUNNING, -2))
    assert new_now(None, history, phase=Phase.RUNNING) == list(history)


def test_equal_times_keep_their_order_and_are_reported_once() -> None:
    history = (step(Phase.CREATING, -9), step(Phase.PENDING, -9), step(Phase.RUNNING, -9))
    assert new_now(history[1], history, phase=Phase.RUNNING) == [history[2]]
    assert new_now(history[2], history, phase=Phase.RUNNING) == []


def test_what_no_history_mentions_was_observed_now() -> None:
    history = (step(Phase.RUNNING, -9),)
    assert new_now(history[0], history, phase=Phase.DEGRADED) == [step(Phase.DEGRADED, 0)]
    known = step(Phase.DEGRADED, -1)
    assert new_now(known, history, phase=Phase.RUNNING) == [step(Phase.RUNNING, 0)]


def test_an_older_history_reported_again_adds_nothing() -> None:
    known = step(Phase.RUNNING, -2.5)
    history = (step(Phase.PENDING, -9), step(Phase.RUNNING, -3))
    assert new_now(known, history, phase=Phase.RUNNING) == []


def test_times_ahead_of_our_clock_are_now() -> None:
    transitions = new_now(None, (step(Phase.DELETING, 30),), phase=Phase.DELETING)
    assert transitions == [step(Phase.DELETING, 0)]


PHASES = st.sampled_from([Phase.PENDING, Phase.RUNNING, Phase.DEGRADED, Phase.FAILED])


@given(st.lists(st.tuples(PHASES, st.integers(-50, 10)), max_size=6), PHASES, st.integers(-50, 0))
def test_histories_never_go_back_and_always_arrive(
    steps: list[tuple[Phase, int]], phase: Phase, known_at: int
) -> None:
    history = tuple(step(phase_, seconds) for phase_, seconds in sorted(steps, key=lambda t: t[1]))
    known = step(Phase.PENDING, known_at)
    transitions = [
        known,
        *new_now(known, history, phase=phase),
    ]
    assert transitions[-1].phase is phase
    for before, after in itertools.pairwise(transitions):
        assert after.at >= before.at
        assert after.phase is not before.phase

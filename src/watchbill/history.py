"""The history of a workload's phases: which transitions are new, and what a history adds up to. Pure.

Agent and server decide with the same function what is new, so a history that is sent twice adds nothing.
A phase interval is the time between two transitions. The totals count every interval of Pending and of Running,
the open one included: closed ones are summed in milliseconds, the open one is stored as its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from watchbill.workload import LEAVING_PHASES, Phase, Transition


def new_transitions(
    last: Transition | None,
    history: Sequence[Transition],
    *,
    phase: Phase,
    observed_at: datetime,
) -> list[Transition]:
    """The transitions that follow the last known one, ending at the present phase.

    Objects state times in whole seconds, and a restarted agent reports a whole history again. So what follows
    `last` in the history is new or, where it is not in there, what is later. A phase that no history mentions
    was entered when it was observed.
    """
    fresh: list[Transition] = []
    previous = last
    for transition in _after(last, history):
        if previous is None or (
            transition.phase is not previous.phase and transition.at >= previous.at
        ):
            fresh.append(transition)
            previous = transition
    if previous is None or previous.phase is not phase:
        at = observed_at if previous is None else max(observed_at, previous.at)
        message = history[-1].message if history and history[-1].phase is phase else None
        fresh.append(Transition(phase=phase, at=at, message=message))
    return fresh


def not_after(
    transitions: Sequence[Transition], latest: datetime, last: Transition | None
) -> list[Transition]:
    """The transitions in times that a clock which shows `latest` has reached, and never before `last`.

    What is new is decided before this, by the times that the objects state: otherwise a clock that is behind
    would find the same transitions new again and again.
    """
    bounded = []
    for transition in transitions:
        at = min(transition.at, latest)
        last = msgspec.structs.replace(transition, at=at if last is None else max(at, last.at))
        bounded.append(last)
    return bounded


def _after(last: Transition | None, history: Sequence[Transition]) -> Sequence[Transition]:
    if last is None:
        return history
    for index in range(len(history) - 1, -1, -1):
        if history[index].phase is last.phase and history[index].at == last.at:
            return history[index + 1 :]
    return [transition for transition in history if transition.at > last.at]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseState:
    """A workload's present phase and its totals. `resting_*`: its last phase that is not one of leaving."""

    phase: Phase
    phase_updated_at: datetime
    resting_phase: Phase
    resting_phase_at: datetime
    transition_count: int = 1
    pending_ms: int = 0
    pending_since: datetime | None = None
    running_ms: int = 0
    running_since: datetime | None = None

    @property
    def last(self) -> Transition:
        """The transition into the present phase."""
        return Transition(phase=self.phase, at=self.phase_updated_at)


def start_intervals(first: Transition) -> PhaseState:
    """The state after a workload's first transition."""
    return PhaseState(
        phase=first.phase,
        phase_updated_at=first.at,
        resting_phase=first.phase,
        resting_phase_at=first.at,
        pending_since=first.at if first.phase is Phase.PENDING else None,
        running_since=first.at if first.phase is Phase.RUNNING else None,
    )


def apply_transition(state: PhaseState, transition: Transition) -> PhaseState:
    """The state after one more transition."""
    state = finish_intervals(state, transition.at)
    is_leaving = transition.phase in LEAVING_PHASES
    return replace(
        state,
        phase=transition.phase,
        phase_updated_at=transition.at,
        resting_phase=state.resting_phase if is_leaving else transition.phase,
        resting_phase_at=state.resting_phase_at if is_leaving else transition.at,
        transition_count=state.transition_count + 1,
        pending_since=transition.at if transition.phase is Phase.PENDING else None,
        running_since=transition.at if transition.phase is Phase.RUNNING else None,
    )


def finish_intervals(state: PhaseState, at: datetime) -> PhaseState:
    """Close the open interval, if there is one."""
    return replace(
        state,
        pending_ms=state.pending_ms + _milliseconds(state.pending_since, at),
        pending_since=None,
        running_ms=state.running_ms + _milliseconds(state.running_since, at),
        running_since=None,
    )


def _milliseconds(since: datetime | None, until: datetime) -> int:
    return 0 if since is None else max(0, round((until - since).total_seconds() * 1000))


def with_history(
    history: Sequence[Transition], pending: list[Transition], last: Transition | None
) -> list[Transition]:
    """What is pending after the objects' whole history before it, or else that up to the last transition."""
    until = pending[0] if pending else last
    if until is None:
        return pending
    earlier: list[Transition] = []
    for transition in history:
        if transition.at <= until.at and transition not in pending:
            earlier.append(transition)
    rest = pending or [until]
    while earlier and earlier[-1].phase is rest[0].phase:
        earlier.pop()
    return earlier + rest

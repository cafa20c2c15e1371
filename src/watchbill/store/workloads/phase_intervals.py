"""How recorded transitions become a workload's present phase and its two running totals. Pure.

A spell is the time between two transitions. Totals count every spell of Pending and of Running, the open one
included: what is closed is summed in milliseconds, what is open is kept as its beginning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from watchbill.workload import LEAVING_PHASES, Phase, Transition


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseState:
    """Where a workload stands in its phases. `resting_*`: its last phase that is not one of leaving."""

    phase: Phase
    phase_updated_at: datetime
    resting_phase: Phase
    resting_phase_at: datetime
    transition_count: int = 1
    pending_ms: int = 0
    pending_since: datetime | None = None
    running_ms: int = 0
    running_since: datetime | None = None


def start_intervals(first: Transition) -> PhaseState:
    """A life at its first transition."""
    return PhaseState(
        phase=first.phase,
        phase_updated_at=first.at,
        resting_phase=first.phase,
        resting_phase_at=first.at,
        pending_since=first.at if first.phase is Phase.PENDING else None,
        running_since=first.at if first.phase is Phase.RUNNING else None,
    )


def apply_transitions(life: PhaseState, transition: Transition) -> PhaseState:
    """The life after one more transition."""
    life = finish_intervals(life, transition.at)
    is_leaving = transition.phase in LEAVING_PHASES
    return replace(
        life,
        phase=transition.phase,
        phase_updated_at=transition.at,
        resting_phase=life.resting_phase if is_leaving else transition.phase,
        resting_phase_at=life.resting_phase_at if is_leaving else transition.at,
        transition_count=life.transition_count + 1,
        pending_since=transition.at if transition.phase is Phase.PENDING else None,
        running_since=transition.at if transition.phase is Phase.RUNNING else None,
    )


def finish_intervals(life: PhaseState, at: datetime) -> PhaseState:
    """End the open spell, if there is one."""
    return replace(
        life,
        pending_ms=life.pending_ms + _milliseconds(life.pending_since, at),
        pending_since=None,
        running_ms=life.running_ms + _milliseconds(life.running_since, at),
        running_since=None,
    )


def _milliseconds(since: datetime | None, until: datetime) -> int:
    return 0 if since is None else max(0, round((until - since).total_seconds() * 1000))


def new_transitions(
    life: PhaseState | None, told: Sequence[Transition], *, phase: Phase, observed_at: datetime
) -> list[Transition]:
    """Which of the transitions that an agent tells are new to us, ending at the record's phase.

    An agent that restarted tells a whole history again, in times of one second's resolution; so what follows
    our last transition in its list is new, or, where that is not in the list, what is later.
    """
    fresh = _after(life, told)
    last = fresh[-1] if fresh else None
    last_phase = last.phase if last else life.phase if life else None
    if last_phase is not phase:
        last_at = last.at if last else life.phase_updated_at if life else observed_at
        fresh.append(Transition(phase=phase, at=max(observed_at, last_at)))
    return fresh


def _after(life: PhaseState | None, told: Sequence[Transition]) -> list[Transition]:
    if life is None:
        candidates = list(told)
        previous = None
    else:
        known = [
            index
            for index, transition in enumerate(told)
            if transition.phase is life.phase and transition.at == life.phase_updated_at
        ]
        candidates = (
            list(told[known[-1] + 1 :])
            if known
            else [transition for transition in told if transition.at > life.phase_updated_at]
        )
        previous = Transition(phase=life.phase, at=life.phase_updated_at)
    fresh: list[Transition] = []
    for transition in candidates:
        if previous is None or (
            transition.phase is not previous.phase and transition.at >= previous.at
        ):
            fresh.append(transition)
            previous = transition
    return fresh

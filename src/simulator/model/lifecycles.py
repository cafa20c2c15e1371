"""The lifecycles of workloads, as tables: which events occur how often, and what follows by itself.

A *hazard* is the chance per workload and unit of activity; the scenario draws the next event in proportion
to hazard times the number of workloads it could happen to, so the mixture finds its own balance.
"""

from dataclasses import dataclass
from typing import Final

from simulator.model.framework import FRAMEWORKS

FINITE: Final = frozenset({"finite"})
SUSPENDABLE: Final = frozenset(key for key, framework in FRAMEWORKS.items() if framework.can_stop)
UPDATABLE: Final = frozenset(key for key, framework in FRAMEWORKS.items() if framework.can_update)
SCALABLE: Final = frozenset(key for key, framework in FRAMEWORKS.items() if framework.can_scale)


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """Something that happens to workloads in one of `stages`, of some families and kinds (empty = all)."""

    name: str
    hazard: float
    stages: tuple[str, ...]
    families: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


EVENTS: Final = (
    LifecycleEvent("complete", 1.0, ("running",), FINITE),
    LifecycleEvent("fail", 0.25, ("running",), FINITE),
    LifecycleEvent("fail", 3.0, ("degraded",), FINITE),
    LifecycleEvent("crash", 0.25, ("running",)),
    LifecycleEvent("recover", 6.0, ("degraded",)),
    LifecycleEvent("update", 0.4, ("running",), frozenset(), UPDATABLE),
    LifecycleEvent("scale", 0.3, ("running",), frozenset(), SCALABLE),
    LifecycleEvent("suspend", 0.12, ("running", "pending"), frozenset(), SUSPENDABLE),
    LifecycleEvent("resume", 2.0, ("stopped",)),
    LifecycleEvent("sleep", 0.8, ("running",), frozenset({"serverless"})),
    LifecycleEvent("wake", 2.0, ("idle",), frozenset({"serverless"})),
    LifecycleEvent("start_run", 3.0, ("idle",), frozenset({"recurring"})),
    LifecycleEvent("finish_run", 3.0, ("running",), frozenset({"recurring"})),
    LifecycleEvent("abandon_start", 4.0, ("stuck",)),
    LifecycleEvent("fix_image", 2.0, ("stuck",)),
    LifecycleEvent("delete", 2.0, ("completed", "failed")),
    LifecycleEvent(
        "delete", 0.15, ("running",), frozenset({"serving", "resident", "serverless", "recurring"})
    ),
    LifecycleEvent("delete", 0.7, ("running",), frozenset({"session"})),
    LifecycleEvent("delete", 0.15, ("pending",)),
    LifecycleEvent("delete", 0.3, ("stopped",)),
    LifecycleEvent("exit", 0.25, ("running",), frozenset({"session"})),
)

NEXT_STEPS: Final[dict[str, tuple[str, float, float]]] = {
    "creating": ("make_pods", 1.0, 4.0),
    "resuming": ("make_pods", 1.0, 4.0),
    "starting": ("become_ready", 3.0, 15.0),
    "updating": ("advance_update", 3.0, 8.0),
    "stopping": ("clear_pods", 2.0, 6.0),
    "evicting": ("recreate_pods", 2.0, 6.0),
    "completing": ("record_end", 1.0, 3.0),
    "failing": ("record_end", 1.0, 3.0),
    "deleting": ("remove_workload", 2.0, 8.0),
    "scaling": ("finish_scaling", 1.0, 4.0),
}
"""What controllers and kubelets do next of their own accord: step, and the seconds it takes."""

STUCK_SHARE: Final = 0.03
"""Starts that hang because the image cannot be pulled."""

INITIAL_STAGES: Final = {
    "finite": (("running", 60), ("completed", 26), ("failed", 9), ("stopped", 4), ("degraded", 1)),
    "session": (("running", 85), ("completed", 8), ("failed", 4), ("degraded", 3)),
    "serving": (("running", 86), ("stopped", 6), ("degraded", 4), ("updating", 2), ("failed", 2)),
    "resident": (("running", 85), ("stopped", 10), ("degraded", 5)),
    "serverless": (("running", 65), ("idle", 35)),
    "recurring": (("idle", 75), ("running", 20), ("stopped", 5)),
}
"""Where workloads stand when a world begins; what does not fit then waits."""

"""What happens to workloads, and what follows: one short function for each event and each step.

Each changes the world's state and leaves writing it to the caller.
"""

from collections.abc import Callable
from typing import Final

from simulator.model.framework import FRAMEWORKS
from simulator.model.lifecycles import STUCK_SHARE
from simulator.model.model import Seconds, SimulatedWorkload
from simulator.model.pod_layout import is_kept, slots
from simulator.simulation.world import World

Transition = Callable[[World, SimulatedWorkload, Seconds], None]

_FOREGROUND_SHARE = 0.4
_CRASH_REASONS = ("Error", "Error", "OOMKilled")
_KEPT_RUNS = 3
_OLD_REPLICA_SETS = 10
"""The revisionHistoryLimit of Deployments."""
_SCALE_LIMIT = 6


# Events


def complete(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """All pods succeed; the owner says so a moment later."""
    world.finish_pods(workload, workload.present_pods(), "succeeded", now)
    workload.finished_at = now
    world.enter_stage(workload, "completing", now)


def fail(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """One pod fails for good and takes the others with it."""
    pods = [pod for pod in workload.present_pods() if not pod.is_over]
    crashed = next((pod for pod in pods if pod.stage == "crashing"), world.rng.choice(pods))
    others = [pod for pod in pods if pod is not crashed]
    reason = crashed.reason or world.rng.choice(_CRASH_REASONS)
    world.finish_pods(workload, [crashed], "failed", now, reason)
    world.mark_deleted(others, now)
    workload.finished_at = now
    world.enter_stage(workload, "failing", now)


def exit_pod(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """A bare pod ends, mostly well."""
    is_well = world.rng.random() < 0.7
    stage, reason = ("succeeded", "") if is_well else ("failed", world.rng.choice(_CRASH_REASONS))
    world.finish_pods(workload, workload.present_pods(), stage, now, reason)
    workload.finished_at = now
    world.enter_stage(workload, "completed" if is_well else "failed", now)


def crash(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """One pod crashes again and again."""
    pod = world.rng.choice([pod for pod in workload.present_pods() if pod.stage == "running"])
    pod.stage, pod.since, pod.reason = "crashing", now, world.rng.choice(_CRASH_REASONS)
    pod.restarts += world.rng.randint(1, 4)
    world.enter_stage(workload, "degraded", now)


def recover(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    for pod in workload.present_pods():
        if pod.stage == "crashing":
            pod.stage, pod.since, pod.ready_at = "running", now, now
    world.enter_stage(workload, "running", now)


def update(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """A new revision rolls out, one group of pods after the other."""
    workload.revision += 1
    world.enter_stage(workload, "updating", now)


def scale(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """One replica more or less; the new one may have to wait."""
    role = workload.roles[-1]
    if role.replicas > 1 and (role.replicas >= _SCALE_LIMIT or world.rng.random() < 0.5):
        role.replicas -= 1
        last = max(pod.index for pod in workload.present_pods() if pod.role == role.shape.role)
        surplus = [p for p in workload.pods if p.role == role.shape.role and p.index == last]
        world.mark_deleted(surplus, now)
        world.enter_stage(workload, "scaling", now)
        return
    role.replicas += 1
    world.make_pods(workload, now)
    world.enter_stage(workload, "pending", now)


def suspend(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    workload.is_suspended = True
    workload.suspended_at = now
    world.mark_deleted(workload.pods, now)
    workload.refusals.clear()
    world.enter_stage(workload, "stopping", now)


def resume(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    workload.is_suspended = False
    workload.resumed_at = now
    world.enter_stage(workload, "resuming", now)


def sleep(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """Nobody asks: a serverless workload scales to zero."""
    world.mark_deleted(workload.pods, now)
    world.enter_stage(workload, "sleeping", now)
    world.schedule_step(workload, "clear_pods", now + world.rng.uniform(2.0, 6.0))


def wake(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    make_pods(world, workload, now)


def start_run(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """The schedule starts a run; old ones are cleared away."""
    workload.runs += 1
    oldest = workload.runs - _KEPT_RUNS
    for key in [key for key in workload.children if int(key[4:]) <= oldest]:
        del workload.children[key]
        world.remove_pods(workload, [pod for pod in workload.pods if pod.owner == key])
    make_pods(world, workload, now)


def finish_run(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    world.finish_pods(workload, workload.present_pods(), "succeeded", now)
    workload.finished_at = now
    world.enter_stage(workload, "idle", now)


def abandon_start(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """A start that hangs: some kinds fail at their deadline, the rest its user deletes."""
    if FRAMEWORKS[workload.kind].has_deadline:
        world.enter_stage(workload, "failed", now)
    else:
        delete(world, workload, now)


def fix_image(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """The image can be pulled after all."""
    world.start_pods(workload, now)
    world.enter_stage(workload, "running", now)


def delete(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """In the foreground the owner waits for its pods, in the background it goes first."""
    world.remove_pods(workload, [pod for pod in workload.pods if pod.is_over or not pod.node])
    world.mark_deleted(workload.pods, now)
    workload.refusals.clear()
    if workload.kind != "Pod" and world.rng.random() < _FOREGROUND_SHARE:
        workload.deleted_at = now
    elif workload.pods:
        workload.is_root_gone = workload.kind != "Pod"
    else:
        world.remove(workload)
        return
    world.enter_stage(workload, "deleting", now)


# What follows


def make_pods(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    for key in FRAMEWORKS[workload.kind].made_with_pods:
        workload.children.setdefault(key, now)
    world.make_pods(workload, now)
    # A schedule that has not come round yet calls for no pods.
    world.enter_stage(workload, "pending" if slots(workload) else "idle", now)


def become_ready(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """Containers come up, or hang at an image that is not there."""
    is_first = not workload.first_ready_at
    if workload.stage == "starting" and is_first and world.rng.random() < STUCK_SHARE:
        for pod in workload.present_pods():
            pod.stage, pod.since = "stuck", now
        world.enter_stage(workload, "stuck", now)
        return
    if workload.stage in ("starting", "pending"):
        world.start_pods(workload, now)
    if workload.stage == "starting":
        world.enter_stage(workload, "running", now)


def advance_update(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """Clear what is leaving, fill the gap with the new revision, then take the next group down."""
    world.remove_pods(workload, [pod for pod in workload.pods if pod.deleted_at])
    for pod in workload.pods:
        if pod.stage == "bound" and pod.since < now:
            pod.stage, pod.since, pod.started_at, pod.ready_at = "running", now, now, now
    world.make_pods(workload, now)
    outdated = [pod for pod in workload.pods if pod.revision < workload.revision]
    is_filling = any(pod.stage in ("bound", "waiting") for pod in workload.pods)
    if not outdated and not is_filling:
        oldest = f"rs-{workload.revision - _OLD_REPLICA_SETS - 1}"
        workload.children.pop(oldest, None)
        world.enter_stage(workload, "running", now)
        return
    if outdated and not is_filling:
        world.mark_deleted([pod for pod in outdated if pod.gang == outdated[0].gang], now)
    world.schedule_step(workload, "advance_update", now + world.rng.uniform(3.0, 8.0))


def clear_pods(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    world.remove_pods(workload, [pod for pod in workload.pods if pod.deleted_at])
    world.enter_stage(workload, "idle" if workload.stage == "sleeping" else "stopped", now)


def recreate_pods(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    world.remove_pods(workload, [pod for pod in workload.pods if pod.deleted_at])
    make_pods(world, workload, now)


def record_end(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    """The owner notes the end and clears away pods that it does not keep."""
    world.remove_pods(
        workload, [pod for pod in workload.pods if pod.deleted_at or not is_kept(pod, workload)]
    )
    world.enter_stage(
        workload, {"completing": "completed", "failing": "failed"}[workload.stage], now
    )


def finish_scaling(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    world.remove_pods(workload, [pod for pod in workload.pods if pod.deleted_at])
    world.enter_stage(workload, "running", now)


def remove_workload(world: World, workload: SimulatedWorkload, now: Seconds) -> None:
    world.remove(workload)


EVENT_TRANSITIONS: Final[dict[str, Transition]] = {
    "complete": complete,
    "fail": fail,
    "exit": exit_pod,
    "crash": crash,
    "recover": recover,
    "update": update,
    "scale": scale,
    "suspend": suspend,
    "resume": resume,
    "sleep": sleep,
    "wake": wake,
    "start_run": start_run,
    "finish_run": finish_run,
    "abandon_start": abandon_start,
    "fix_image": fix_image,
    "delete": delete,
}
STEPS: Final[dict[str, tuple[frozenset[str], Transition]]] = {
    "make_pods": (frozenset({"creating", "resuming"}), make_pods),
    "become_ready": (frozenset({"starting", "pending"}), become_ready),
    "advance_update": (frozenset({"updating"}), advance_update),
    "clear_pods": (frozenset({"stopping", "sleeping"}), clear_pods),
    "recreate_pods": (frozenset({"evicting"}), recreate_pods),
    "record_end": (frozenset({"completing", "failing"}), record_end),
    "finish_scaling": (frozenset({"scaling"}), finish_scaling),
    "remove_workload": (frozenset({"deleting"}), remove_workload),
}
"""Each step with the stages in which it still makes sense."""

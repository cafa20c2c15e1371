"""Where the pods of a workload that is played from a file belong: their names, owners and gangs."""

from simulator.model.framework import FRAMEWORKS
from simulator.model.model import SimulatedWorkload
from simulator.model.slot import Slot, template_hash


def words_of(workload: SimulatedWorkload, role: str = "", index: int = 0) -> dict[str, str]:
    """What stands in a file for the braces in names and labels."""
    return {
        "name": workload.name,
        "hash": template_hash(workload, 1),
        "run": str(workload.runs),
        "role": role,
        "index": str(index),
    }


def framework_slots(workload: SimulatedWorkload) -> list[Slot]:
    found = []
    framework = FRAMEWORKS[workload.kind]
    if workload.family == "recurring" and not workload.runs:
        return []
    for role in framework.roles:
        for index in range(workload.replicas(role.name)):
            words = words_of(workload, role.name, index)
            owner = role.owner.format(**words)
            whole = owner if owner.startswith("run-") else "main"
            name = role.pod.format(**words)
            found.append(
                Slot(
                    role.name,
                    index,
                    owner,
                    whole if role.is_gang else f"pod-{role.name}-{index}",
                    name,
                    is_name_whole=not name.endswith("-"),
                )
            )
    return found

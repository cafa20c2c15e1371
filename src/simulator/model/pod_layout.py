"""Which pods a workload consists of, who owns them, and which of them are placed together.

Only structure: names, owners, gangs. What the objects look like is for `manifests`.
"""

from collections.abc import Mapping

from simulator.model.framework import FRAMEWORKS, FrameworkRole
from simulator.model.model import SimulatedPod, SimulatedWorkload
from simulator.model.scheduler import DEFAULT
from simulator.model.slot import Slot, template_hash

Words = Mapping[str, str | int]
"""What stands in a framework's file for the braces in names and labels."""


def slots(workload: SimulatedWorkload) -> list[Slot]:
    """The pods that should exist now. The standard scheduler places each by itself."""
    if workload.family == "recurring" and not workload.runs:
        return []
    return [
        _slot(workload, role, group, index)
        for role in FRAMEWORKS[workload.kind].roles
        for group in range(workload.replicas(role.groups) if role.groups else 1)
        for index in range(role.group_size or workload.replicas(role.name))
    ]


def is_kept(pod: SimulatedPod, workload: SimulatedWorkload) -> bool:
    """Whether the pod stays when the work has ended."""
    keeps = FRAMEWORKS[workload.kind].keeps
    return keeps is None or pod.role in keeps


def words_of(workload: SimulatedWorkload) -> Words:
    """Those that are the same for all pods."""
    return {
        "name": workload.name,
        "uid": workload.uid,
        "hash": template_hash(workload, workload.revision),
        "revision": workload.revision,
        "run": workload.runs,
        "minute": run_minute(workload, workload.runs),
        "restarts": workload.restarts,
    }


def run_minute(workload: SimulatedWorkload, run: int) -> int:
    """When a scheduled run was due, in minutes: the number in the name of its job."""
    return 29_000_000 + int(workload.created_at) // 60 % 900_000 + run


def _slot(workload: SimulatedWorkload, role: FrameworkRole, group: int, index: int) -> Slot:
    words = {
        **words_of(workload),
        "role": role.name,
        "group": group,
        "index": index + role.first_index,
    }
    owner = role.owner.format(**words)
    name = role.pod.format(**words)
    gang = role.gang.format(**words)
    if workload.scheduler == DEFAULT:
        gang = f"{role.name}-{words['index']}-{owner}"
    return Slot(
        role.name,
        index + role.first_index,
        owner,
        gang,
        name,
        is_name_whole=not name.endswith("-"),
    )

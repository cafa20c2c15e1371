"""Which pods a workload consists of, who owns them, which are placed together, and what controllers name
them.

Only structure: names, ids, owners, gangs. What the objects look like is for `manifests`.
"""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from simulator.model.framework import FRAMEWORKS, FrameworkRole
from simulator.model.model import SimulatedPod, SimulatedWorkload
from simulator.model.scheduler import DEFAULT

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names: no vowels, no look-alikes."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one pod. `owner` is the key of the owning child, empty = the root."""

    role: str
    index: int
    owner: str
    gang: str
    prefix: str
    is_name_whole: bool = False
    """The prefix is the name; otherwise a random ending is added."""

    @property
    def key(self) -> tuple[str, int, str]:
        return _key(self.role, self.index, self.owner)


def slot_of(pod: SimulatedPod) -> tuple[str, int, str]:
    return _key(pod.role, pod.index, pod.owner)


def _key(role: str, index: int, owner: str) -> tuple[str, int, str]:
    """A replica keeps its place while it waits to be replaced by a later revision's."""
    return (role, index, "" if owner.startswith("rs-") else owner)


def child_uid(workload: SimulatedWorkload, key: str) -> str:
    return str(uuid.uuid5(uuid.UUID(workload.uid), key))


def template_hash(workload: SimulatedWorkload, revision: int) -> str:
    """As controllers hash a pod template: ten letters of their alphabet."""
    digest = hashlib.sha256(f"{workload.uid}/{revision}".encode()).digest()
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:10])


def random_ending(number: int) -> str:
    """Five letters from a random number."""
    letters = []
    for _ in range(5):
        number, rest = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[rest])
    return "".join(letters)


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

"""A place for a pod, and the names and ids that controllers make up. What knows of kinds is in `pod_layout`."""

import hashlib
import uuid
from dataclasses import dataclass

from simulator.model.model import SimulatedPod, SimulatedWorkload

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

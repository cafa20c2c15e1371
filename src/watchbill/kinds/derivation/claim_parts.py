"""Which pods use which ResourceClaims, and how much of each falls to one: its devices exist once.

`status.reservedFor` names the pods that may use a claim, of whatever workloads. Those of them that live have
equal parts; of a claim that is reserved for nobody yet, or for whole pod groups, those that name it. Who joins
later asks for nothing more, so a claim that is reserved for others alone adds nothing.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import msgspec

from watchbill.kinds.definition.facts import RoleFacts
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.claims import (
    UNKNOWN_DEVICES,
    Devices,
    allocated_devices,
    claim_key,
    device_classes,
    multiplied,
    requested_devices,
    requested_of,
    together,
    unseen_claims,
    users_of_claims,
)
from watchbill.kinds.objects.gpu_units import accelerator_type, unit_of
from watchbill.kinds.objects.json_access import at, objects, text
from watchbill.kinds.objects.objects import ClusterObjects, Object
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.settings import DeriveSettings

MAX_USERS = 256
"""Kubernetes reserves a claim for no more."""
_MAX_NAMED = 128
"""Of claims that a workload's templates name; what more of them are is not looked at, so it is not known."""


class ClaimUse(NamedTuple):
    """A claim and the live pods of this workload that name it; `part` of it falls to each of the `users`.

    None = not known, since too many pods name it to follow them.
    """

    claim: Object
    pods: Sequence[Pod]
    users: Collection[str]
    part: Fraction | None

    def parts_of(self, pods: Collection[str]) -> Fraction | None:
        """How much of it falls to those of these pods that use it; they are UIDs."""
        sharing = sum(1 for pod in self.pods if pod.uid in pods and pod.uid in self.users)
        if not sharing:
            return Fraction(0)
        return None if self.part is None else self.part * sharing


def reserved_pods(claim: Object) -> frozenset[str]:
    """UIDs of the pods that the claim is reserved for; none where it is for nobody, or for others than pods."""
    users = list(islice(objects(at(claim, "status", "reservedFor")), MAX_USERS))
    if any(text(user.get("resource")) not in ("pods", "") for user in users):
        return frozenset()
    return frozenset(text(user.get("uid")) for user in users) - {""}


def is_allocated(claim: Object) -> bool:
    return bool(at(claim, "status", "allocation"))


class ClaimParts:
    """This workload's parts of claims."""

    def __init__(self, view: WorkloadView) -> None:
        self._view = view
        self._ended = {pod.uid for pod in view.pods.all if pod.claims and pod.is_terminal}
        live = [pod for pod in view.pods.live if pod.claims]
        self._uses = [self._use(*each) for each in users_of_claims(view.objects.claims, live)]

    def _use(self, claim: Object, pods: Sequence[Pod]) -> ClaimUse:
        reserved = reserved_pods(claim)
        own = [pod.uid for pod in pods if not reserved or pod.uid in reserved]
        if not reserved and is_allocated(claim):
            own = [pod.uid for pod in pods if pod.node] or own
        number = self._view.objects.claim_lookup.users(claim_key(claim)[0])
        if number is None:
            return ClaimUse(claim, pods, frozenset(own), None)
        # Without anybody who knows of all pods, whoever it is reserved for may live.
        number = number or len(reserved - self._ended)
        return ClaimUse(claim, pods, frozenset(own), Fraction(1, max(number, len(own), 1)))

    def requested(self, pods: Sequence[Pod]) -> Devices:
        """What these pods request through claims; not known where one cannot be seen."""
        asking = {pod.uid for pod in pods if pod.claims}
        unseen = [UNKNOWN_DEVICES] if any(unseen_claims(self._view.objects.claims, pods)) else []
        asked = (
            multiplied(requested_of(use.claim, self._view, use.pods), use.parts_of(asking))
            for use in self._uses
        )
        return together([*unseen, *asked])

    def allocated(self, pods: Sequence[Pod]) -> Iterator[tuple[Pod, Devices]]:
        """What each of these pods holds through claims."""
        holding = {pod.uid for pod in pods if pod.claims}
        for use in self._uses:
            held: dict[str, Devices] = {}
            """By node."""
            for pod in use.pods:
                if pod.uid not in holding or pod.uid not in use.users:
                    continue
                if pod.node not in held:
                    held[pod.node] = self._allocated(use.claim, pod.node)
                yield pod, multiplied(held[pod.node], use.part)

    def _allocated(self, claim: Object, node: str) -> Devices:
        view = self._view
        return allocated_devices(
            claim, view.settings, view.cluster, view.cluster.node_labels.get(node)
        )

    def named_by_templates(self, names: Collection[str], *, are_whole: bool) -> Iterator[Devices]:
        """What falls to this workload of claims that its templates name, whether or not its pods are there.

        `are_whole`: what they are of, whoever shares them.
        """
        if not names:
            return
        if len(names) > _MAX_NAMED:
            yield UNKNOWN_DEVICES
        looked_at = sorted(names)[:_MAX_NAMED]
        claims = {claim_key(claim)[0]: claim for claim in self._view.objects.claims}
        claims = {**self._view.objects.claim_lookup.named(looked_at), **claims}
        uses = {claim_key(use.claim)[0]: use for use in self._uses}
        for name in looked_at:
            claim = claims.get(name)
            if claim is None:
                # One that is not there, or cannot be read, may ask for anything.
                yield UNKNOWN_DEVICES
                continue
            use = uses.get(name)
            asked = requested_of(claim, self._view, use.pods if use is not None else ())
            if are_whole:
                yield asked
            elif use is not None:
                yield multiplied(asked, use.parts_of(use.users))
            elif not self._is_shared(claim):
                yield asked

    def _is_shared(self, claim: Object) -> bool:
        """By pods of others alone."""
        known = self._view.objects.claim_lookup.users(claim_key(claim)[0])
        return known != 0 or bool(reserved_pods(claim) - self._ended)


def requested_by_roles(
    pods: Iterable[tuple[RoleFacts, int]],
    view: WorkloadView,
    parts: ClaimParts,
    *,
    are_whole: bool = False,
) -> Devices:
    """What the templates request: claims made for each pod that is wanted, shared ones once."""
    shared: set[str] = set()
    asked: list[Devices] = []
    by_template: dict[str, Devices] = {}
    for role, wanted in pods:
        if role.template is None or not wanted:
            continue
        shared |= set(role.template.claims)
        for name, times in Counter(role.template.claim_templates).items():
            if name not in by_template:  # pods can name one of a megabyte ten thousand times
                by_template[name] = _by_template(name, view)
            asked.append(multiplied(by_template[name], Fraction(times * wanted)))
    return together([*asked, *parts.named_by_templates(shared, are_whole=are_whole)])


def _by_template(name: str, view: WorkloadView) -> Devices:
    template = view.cluster.claim_templates.get((view.namespace, name))
    if template is None:
        return UNKNOWN_DEVICES
    devices = at(template, "spec", "spec", "devices")
    return requested_devices(devices, view.settings, device_classes(view.cluster))


def with_backing_claims(
    pods: list[Pod], cluster: ClusterObjects, claims: Iterable[Object], settings: DeriveSettings
) -> list[Pod]:
    """Pods use the claims that were made for their extended resources, where these alone tell what it is."""
    if not any(pod.backing.name for pod in pods):
        return pods
    given = {claim_key(claim)[0] for claim in claims if is_allocated(claim)}
    return [_backed(pod, cluster, settings) if pod.backing.name in given else pod for pod in pods]


def _backed(pod: Pod, cluster: ClusterObjects, settings: DeriveSettings) -> Pod:
    if not any(_is_open(name, cluster, settings) for name in pod.backing.resources):
        return pod
    resources = msgspec.structs.replace(
        pod.resources,
        extended=tuple(
            each for each in pod.resources.extended if each[0] not in pod.backing.resources
        ),
    )
    claims = (*pod.claims, pod.backing.name)
    return msgspec.structs.replace(pod, resources=resources, claims=claims)


def _is_open(resource: str, cluster: ClusterObjects, settings: DeriveSettings) -> bool:
    """Whether the name does not tell what the devices are, nor what part of a GPU."""
    unit = unit_of(resource, {}, settings.gpu_resources)
    if unit is not None:
        return unit.gpus is None
    return not cluster.are_device_classes_read and accelerator_type(resource) is None

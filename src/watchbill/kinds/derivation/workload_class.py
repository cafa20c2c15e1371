"""AI work, or anything else that a cluster runs: operators, networking, monitoring, plain services.

A workload is AI work where it asks for an accelerator or holds one, or where it or something that it is made of
is of a kind made for AI. Its definition says so of a kind (`workloadClass`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.claim_parts import ClaimParts, requested_by_roles
from watchbill.kinds.derivation.claims import NO_DEVICES, Devices, claimed_devices
from watchbill.kinds.objects.gpu_units import accelerator_type
from watchbill.kinds.objects.json_access import group_version, text
from watchbill.kinds.objects.objects import GroupKind, Object
from watchbill.kinds.objects.pod import Pod
from watchbill.kinds.objects.resources import NO_GPUS, Resources, requested_gpus
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.workload import WorkloadClass


def workload_class(view: WorkloadView) -> WorkloadClass:
    is_ai = (
        view.definition.workload_class is WorkloadClass.AI
        or any(_is_made_for_ai(part, view) for part in _parts(view))
        or _has_accelerator(view)
    )
    return WorkloadClass.AI if is_ai else WorkloadClass.GENERAL


def _parts(view: WorkloadView) -> Iterator[Object]:
    yield from view.objects.children
    yield from view.facts.embedded


def _is_made_for_ai(part: Object, view: WorkloadView) -> bool:
    key = GroupKind(group_version(part)[0], text(part.get("kind")))
    definition = view.definitions.for_kind(key)
    return definition is not None and definition.workload_class is WorkloadClass.AI


def _has_accelerator(view: WorkloadView) -> bool:
    """Also one that is scaled to zero, and one that has ended."""
    templates = [role.template for role in view.facts.roles if role.template is not None]
    return (
        any(_asks(each.resources, each.annotations, view.settings) for each in templates)
        or any(_asks(pod.resources, pod.annotations, view.settings) for pod in view.pods.all)
        or _by_templates(view) != NO_DEVICES
        or claimed_devices(view, view.pods.all) != NO_DEVICES
    )


def _by_templates(view: WorkloadView) -> Devices:
    roles = [(role, 1) for role in view.facts.roles]
    return requested_by_roles(roles, view, ClaimParts(view), are_whole=True)


def asks_for_gpus(pod: Pod, view: WorkloadView) -> bool:
    """Or for another accelerator; so does every pod that claims something."""
    return bool(pod.claims) or _asks(pod.resources, pod.annotations, view.settings)


def _asks(resources: Resources, annotations: Mapping[str, Any], settings: DeriveSettings) -> bool:
    return requested_gpus(resources, annotations, settings.gpu_resources) != NO_GPUS or any(
        accelerator_type(resource) is not None for resource, _ in resources.extended
    )

"""Objects in, record out: everything that Watchbill reports about one workload. Pure; no clock, no I/O.

Each question is a function of the `WorkloadView` and has its module in `derivation/` or `pending/`.
This one calls them in order; `record` puts the answers together.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from watchbill.errors import Invalid
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.hooks import HOOKS
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.children import (
    with_autoscaler,
    with_children,
    with_inherited_endpoints,
    with_stages,
)
from watchbill.kinds.derivation.done import with_present_pods
from watchbill.kinds.derivation.elements import elements_of
from watchbill.kinds.derivation.organisation import organisation_of
from watchbill.kinds.derivation.phase import observed_phase, phase_of, transitions_of
from watchbill.kinds.derivation.pods import pods_of
from watchbill.kinds.derivation.presentation import (
    presented_reasons,
    presented_scheduling,
    printable,
    sanitized_message,
)
from watchbill.kinds.derivation.queues import scheduler_objects
from watchbill.kinds.derivation.totals import totals_of
from watchbill.kinds.objects.json_access import metadata, text
from watchbill.kinds.objects.objects import PodCounts, WorkloadObjects
from watchbill.kinds.objects.pod import Pod, read_pod
from watchbill.kinds.objects.settings import DeriveSettings, Redaction
from watchbill.kinds.pending.pending import pending_reasons, pending_scheduling_messages
from watchbill.kinds.phase_message import phase_message
from watchbill.kinds.record import DerivedPhase, witness_of, workload_of
from watchbill.protocol import Record
from watchbill.workload import LEAVING_PHASES, Phase, Transition
from watchbill.workload_pod import WorkloadPod, pod_hash, pods_digest

__all__ = ["DeriveSettings", "Derived", "Redaction", "derive"]

_WITHDRAWN = LEAVING_PHASES | {Phase.STOPPING}


@dataclass(frozen=True, slots=True)
class Derived:
    """`transitions`: the phase history as the objects' own times tell it; the last is the present."""

    record: Record
    transitions: tuple[Transition, ...]
    pods: tuple[WorkloadPod, ...] = ()


def derive(objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings) -> Derived:
    """The workload's record. Raises `Invalid`, naming the workload, where its objects are beyond reading."""
    meta = metadata(objects.root)
    if not text(meta.get("uid")):
        raise Invalid(f"{_title(objects)} has no UID")
    try:
        return _derive(_view(objects, definitions, settings))
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise Invalid(f"{_title(objects)} cannot be derived: {error}") from error


def _title(objects: WorkloadObjects) -> str:
    meta = metadata(objects.root)
    kind, namespace, name = (
        text(objects.root.get("kind")),
        text(meta.get("namespace")),
        text(meta.get("name")),
    )
    return f"{kind[:63]} {namespace[:63]}/{name[:253]}"


def _derive(view: WorkloadView) -> Derived:
    present = with_present_pods(view)
    phase = _phase(present)
    organisation = organisation_of(view)
    totals = totals_of(view)
    elements, elements_total = elements_of(view)
    redaction = view.settings.redaction
    is_pending = phase.phase is Phase.PENDING
    pods = pods_of(view)
    record = Record(
        workload=workload_of(view, phase, organisation, totals),
        witness=witness_of(view.objects),
        usage=totals.usage,
        pending_scheduling_messages=presented_scheduling(
            pending_scheduling_messages(view), redaction
        )
        if is_pending
        else (),
        elements=elements,
        elements_total=elements_total,
        project_key=printable(organisation.project_key, 507),
        department_key=printable(organisation.department_key),
        gpu_millionths_by_node_pool=totals.gpu_millionths_by_node_pool,
        pods_digest=pods_digest((pod.id, pod_hash(pod)) for pod in pods),
        gpu_millionths_by_model=totals.gpu_millionths_by_model,
        host_resources=totals.host,
    )
    return Derived(record, transitions_of(present, phase.phase, phase.message), pods)


def _view(
    objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings
) -> WorkloadView:
    definition = definitions.for_object(objects.root)
    pods: list[Pod] = list(objects.pods)
    if not pods and definition.key.kind == "Pod" and not definition.key.group:
        pods = [read_pod(objects.root, extra_annotations=settings.pod_annotations)]
    view = WorkloadView(
        objects=objects,
        definition=definition,
        definitions=definitions,
        facts=definitions.facts(objects.root),
        pods=PodCounts(pods),
        **scheduler_objects(objects)._asdict(),
        settings=settings,
    )
    for complete in _completions(view):
        view = replace(view, facts=complete(view))
    return view


def _completions(view: WorkloadView) -> Iterator[Callable[[WorkloadView], Facts]]:
    """What completes the root's own facts, in this order."""
    if view.definition.prefers_children or not view.facts.roles:
        yield with_children
    yield with_stages
    yield with_autoscaler
    yield with_inherited_endpoints
    if view.definition.hook:
        yield HOOKS[view.definition.hook]


def _phase(view: WorkloadView) -> DerivedPhase:
    observed = observed_phase(view)
    phase = phase_of(view, observed)
    reasons = pending_reasons(view) if phase is Phase.PENDING else ()
    message = phase_message(phase, view, reasons)
    if phase in _WITHDRAWN:
        undeleted = PodCounts(view.pods.all, ignores_deletion=True)
        observed = observed_phase(replace(view, pods=undeleted))
    return DerivedPhase(
        phase=phase,
        k8s_phase=observed,
        message=sanitized_message(message, view.settings.redaction),
        reasons=presented_reasons(reasons, view.settings.redaction),
    )

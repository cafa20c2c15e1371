"""Objects in, record out: all that Watchbill says of one workload. Pure; no clock, no I/O.

Each question has its module: `phase`, `messages`, `pending`, `organisation`, `placement`, `totals`,
`endpoints`, `elements`, `transitions`. This one asks them in order and puts the answers into the record.
"""

from dataclasses import dataclass

from watchbill.errors import Invalid
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.hooks import HOOKS
from watchbill.kinds.derivation.elements import elements_of
from watchbill.kinds.derivation.organisation import organisation_of
from watchbill.kinds.derivation.phase import observed_phase, phase_of, transitions_of
from watchbill.kinds.derivation.presentation import (
    presented_reasons,
    presented_scheduling,
    printable,
    sanitized_message,
)
from watchbill.kinds.derivation.scale import (
    framework_of,
    with_autoscaler,
    with_children,
    with_inherited_endpoints,
)
from watchbill.kinds.derivation.totals import totals_of
from watchbill.kinds.objects.json_access import metadata, text
from watchbill.kinds.objects.objects import PodCounts, WorkloadObjects
from watchbill.kinds.objects.pod import Pod, read_pod
from watchbill.kinds.objects.settings import DeriveSettings, Redaction
from watchbill.kinds.pending.messages import MessageInput, phase_message
from watchbill.kinds.pending.pending import pending_reasons, pending_scheduling_messages
from watchbill.kinds.record import DerivedState, ReadObjects, witness_of, workload_of
from watchbill.protocol import Record
from watchbill.workload import LEAVING_PHASES, PendingReason, Phase, Transition

__all__ = ["DeriveSettings", "Derived", "Redaction", "derive"]

_WITHDRAWN = LEAVING_PHASES | {Phase.STOPPING}


@dataclass(frozen=True, slots=True)
class Derived:
    """`transitions`: the phase history as the objects' own times tell it; the last is the present."""

    record: Record
    transitions: tuple[Transition, ...]


def derive(objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings) -> Derived:
    """The workload's record. Raises `Invalid`, naming the workload, where its objects are beyond reading."""
    meta = metadata(objects.root)
    if not text(meta.get("uid")):
        raise Invalid(f"{_title(objects)} has no UID")
    try:
        return _derive(objects, definitions, settings)
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


def _derive(
    objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings
) -> Derived:
    read = _read(objects, definitions, settings)
    standing = _standing(read)
    facts, census = read.facts, read.census
    organisation = organisation_of(objects, facts, census, settings)
    totals = totals_of(objects, facts, census, settings)
    elements, elements_total = elements_of(
        objects, read.definition, facts, census, settings.cluster_id
    )
    is_pending = standing.phase is Phase.PENDING
    record = Record(
        workload=workload_of(read, standing, organisation, totals),
        witness=witness_of(objects),
        usage=totals.usage,
        pending_scheduling_messages=presented_scheduling(
            pending_scheduling_messages(objects, census, settings), settings.redaction
        )
        if is_pending
        else (),
        elements=elements,
        elements_total=elements_total,
        project_key=printable(organisation.project_key, 507),
        department_key=printable(organisation.department_key),
        gpu_millionths_by_node_pool=totals.gpu_millionths_by_node_pool,
    )
    transitions = transitions_of(objects, facts, census, standing.phase, standing.message)
    return Derived(record, transitions)


def _read(
    objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings
) -> ReadObjects:
    definition = definitions.for_object(objects.root)
    pods: list[Pod] = list(objects.pods)
    if not pods and definition.key.kind == "Pod" and not definition.key.group:
        pods = [read_pod(objects.root, wanted=settings.pod_annotations)]
    census = PodCounts(pods)
    facts = definitions.facts(objects.root)
    if definition.prefers_children or not facts.roles:
        facts = with_children(facts, objects, definitions)
    facts = with_inherited_endpoints(with_autoscaler(facts, objects), objects, definitions)
    if definition.adjust:
        facts = HOOKS[definition.adjust](facts, objects, census, definitions)
    return ReadObjects(
        objects=objects,
        definition=definition,
        facts=facts,
        census=census,
        settings=settings,
        framework=framework_of(definition, facts, objects, definitions),
    )


def _standing(read: ReadObjects) -> DerivedState:
    objects, facts, census, settings = read.objects, read.facts, read.census, read.settings
    observed = observed_phase(objects, read.definition, facts, census)
    phase = phase_of(objects, facts, census, observed)
    reasons: tuple[PendingReason, ...] = ()
    if phase is Phase.PENDING:
        reasons = pending_reasons(objects, facts, census, settings)
    situation = MessageInput(
        objects=objects,
        definition=read.definition,
        facts=facts,
        census=census,
        reasons=reasons,
    )
    if phase in _WITHDRAWN:
        unasked = PodCounts(census.all, ignores_deletion=True)
        observed = observed_phase(objects, read.definition, facts, unasked)
    return DerivedState(
        phase=phase,
        k8s_phase=observed,
        message=sanitized_message(phase_message(phase, situation), settings.redaction),
        reasons=presented_reasons(reasons, settings.redaction),
    )

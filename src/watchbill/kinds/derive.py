"""Objects in, record out: all that Watchbill says of one workload. Pure; no clock, no I/O.

Each question has its module: `phase`, `messages`, `pending`, `organisation`, `placement`, `totals`,
`endpoints`, `elements`, `transitions`. This one asks them in order and puts the answers into the record.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from watchbill.errors import Invalid
from watchbill.kinds.adjust import ADJUSTMENTS
from watchbill.kinds.census import Census
from watchbill.kinds.definition import Definition, Definitions
from watchbill.kinds.elements import element_id, elements_of
from watchbill.kinds.endpoints import endpoints_of
from watchbill.kinds.facts import Facts
from watchbill.kinds.lookup import group_version, metadata, text
from watchbill.kinds.messages import Situation, phase_message
from watchbill.kinds.objects import WorkloadObjects
from watchbill.kinds.organisation import (
    Organisation,
    ai_application,
    guaranteed_until,
    is_kai,
    organisation_of,
    priority_of,
    submitter,
)
from watchbill.kinds.pending import pending_reasons, pending_scheduling_messages
from watchbill.kinds.pending_kai import QUOTA_REASONS
from watchbill.kinds.phase import observed_phase, phase_of
from watchbill.kinds.placement import current_node_pools, requested_node_pools, topology_of
from watchbill.kinds.pod import Pod, read_pod
from watchbill.kinds.scale import with_autoscaler, with_children
from watchbill.kinds.settings import DeriveSettings, Redaction
from watchbill.kinds.shown import (
    printable,
    shown_conditions,
    shown_endpoints,
    shown_images,
    shown_message,
    shown_reasons,
    shown_scheduling,
    shown_template,
)
from watchbill.kinds.totals import Totals, totals_of
from watchbill.kinds.transitions import continue_history, created_at, finished_at, transitions_of
from watchbill.sync import Record, Witness
from watchbill.workload import (
    LEAVING_PHASES,
    TERMINAL_PHASES,
    ActionsSupport,
    PendingReason,
    Phase,
    RequestedPods,
    Topology,
    Transition,
    Workload,
)

__all__ = ["DeriveSettings", "Derived", "Redaction", "continue_history", "derive"]

_WITHDRAWN = LEAVING_PHASES | {Phase.STOPPING}
_NO_ACTIONS = ActionsSupport(delete=False, suspend=False)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What was read of the objects before anything is decided."""

    objects: WorkloadObjects
    definition: Definition
    facts: Facts
    census: Census
    settings: DeriveSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
    """The phase and all that is said about it."""

    phase: Phase
    k8s_phase: Phase
    message: str | None
    reasons: tuple[PendingReason, ...]


def _derive(
    objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings
) -> Derived:
    read = _read(objects, definitions, settings)
    standing = _standing(read)
    facts, census = read.facts, read.census
    organisation = organisation_of(objects, facts, census, settings)
    totals = totals_of(facts, census, objects.cluster, settings)
    elements, elements_total = elements_of(
        objects, read.definition, facts, census, settings.cluster_id
    )
    is_pending = standing.phase is Phase.PENDING
    record = Record(
        workload=_workload(read, standing, organisation, totals),
        witness=_witness(objects),
        usage=totals.usage,
        pending_scheduling_messages=shown_scheduling(
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


def _read(objects: WorkloadObjects, definitions: Definitions, settings: DeriveSettings) -> _Read:
    definition = definitions.for_object(objects.root)
    pods: list[Pod] = list(objects.pods)
    if not pods and definition.key.kind == "Pod" and not definition.key.group:
        pods = [read_pod(objects.root, wanted=settings.pod_annotations)]
    census = Census(pods)
    facts = definitions.facts(objects.root)
    if not facts.roles:
        facts = with_children(facts, objects, definitions)
    facts = with_autoscaler(facts, objects)
    if definition.adjust:
        facts = ADJUSTMENTS[definition.adjust](facts, objects, census, definitions)
    return _Read(
        objects=objects, definition=definition, facts=facts, census=census, settings=settings
    )


def _standing(read: _Read) -> _Standing:
    objects, facts, census, settings = read.objects, read.facts, read.census, read.settings
    observed = observed_phase(objects, read.definition, facts, census)
    phase = phase_of(objects, facts, census, observed)
    reasons: tuple[PendingReason, ...] = ()
    if phase is Phase.PENDING:
        reasons = pending_reasons(objects, facts, census, settings)
    situation = Situation(
        objects=objects,
        definition=read.definition,
        facts=facts,
        census=census,
        reasons=reasons,
    )
    if phase in _WITHDRAWN:
        unasked = Census(census.all, ignores_deletion=True)
        observed = observed_phase(objects, read.definition, facts, unasked)
    return _Standing(
        phase=phase,
        k8s_phase=observed,
        message=shown_message(phase_message(phase, situation), settings.redaction),
        reasons=shown_reasons(reasons, settings.redaction),
    )


def _workload(
    read: _Read, standing: _Standing, organisation: Organisation, totals: Totals
) -> Workload:
    objects, facts, census, settings = read.objects, read.facts, read.census, read.settings
    meta = metadata(objects.root)
    priority = priority_of(objects, facts, census, settings)
    template = next((role.template for role in facts.roles if role.template is not None), None)
    run = shown_template(template, settings.redaction)
    endpoints = shown_endpoints(endpoints_of(objects, facts, census), settings.redaction)
    application_id, application_name = ai_application(objects, settings.cluster_id)
    return Workload(
        id=element_id(text(meta.get("uid")), settings.cluster_id),
        name=printable(text(meta.get("name"))),
        type=printable(text(objects.root.get("kind"))),
        source="Other",
        namespace=printable(text(meta.get("namespace"))),
        project_name=printable(organisation.project_name),
        department_name=printable(organisation.department_name),
        category=_category(read),
        priority=priority.value,
        priority_class_name=printable(priority.class_name),
        created_at=created_at(objects, census),
        phase=standing.phase,
        k8s_phase=standing.k8s_phase.value,
        conditions=shown_conditions(facts.conditions, settings.redaction),
        running_pods=census.running,
        workload_requested_resources=totals.workload,
        pods_requested_resources=totals.pods,
        allocated_resources=totals.allocated,
        idle_allocated_gpus=None if totals.usage.gpu_millionths else 0.0,
        idle_gpus=None if totals.usage.gpu_millionths else 0,
        requested_pods=_requested_pods(facts),
        requested_node_pools=tuple(
            printable(pool)
            for pool in requested_node_pools(
                objects, facts, census, settings, is_kai=is_kai(objects, census, settings)
            )
        ),
        current_node_pools=tuple(
            printable(pool) for pool in current_node_pools(census, objects.cluster, settings)
        ),
        images=shown_images(facts, settings.redaction),
        urls=tuple(dict.fromkeys(endpoint.url for endpoint in endpoints if endpoint.url)),
        datasources=(),
        environments=(),
        external_connections=(),
        endpoints=endpoints,
        environment_variables=run.variables,
        additional_fields=_additional(read, standing, run.truncated),
        actions_support=_NO_ACTIONS,
        phase_message=standing.message,
        phase_reason=QUOTA_REASONS.get(standing.reasons[0].reason) if standing.reasons else None,
        submitted_by=_optional(submitter(objects, census, settings)),
        completed_at=finished_at(facts, census) if standing.phase in TERMINAL_PHASES else None,
        guaranteed_runtime_ends_at=guaranteed_until(objects, priority),
        preemptible=priority.is_preemptible,
        distributed_framework=read.definition.distributed_framework,
        command=run.command,
        arguments=run.arguments,
        ai_application_id=application_id,
        ai_application_name=_optional(application_name),
        topology=_shown_topology(topology_of(objects, census, settings)),
    )


def _optional(value: str | None) -> str | None:
    return printable(value) if value else None


def _category(read: _Read) -> str:
    """A cluster's own word for a kind, else the definition's."""
    group, kind = group_version(read.objects.root)[0], text(read.objects.root.get("kind"))
    overrides = read.settings.categories
    found = overrides.get(f"{kind}.{group}") or overrides.get(kind)
    return found if found is not None else read.definition.category


def _requested_pods(facts: Facts) -> RequestedPods:
    lows = [role.min for role in facts.roles]
    highs = [role.max for role in facts.roles]
    has_bounds = any(bound is not None for bound in (*lows, *highs))
    low, high = facts.min, facts.max
    if has_bounds:
        fixed = [role.replicas for role in facts.roles]
        low = low if low is not None else _bound(lows, fixed)
        high = high if high is not None else _bound(highs, fixed)
    return RequestedPods(
        number=facts.number,
        min=low,
        max=high,
        parallelism=facts.parallelism,
        completions=facts.completions,
    )


def _bound(bounds: list[int | None], fixed: list[int]) -> int | None:
    """The sum of the roles' bounds, where any has one; a role without one counts as it stands."""
    if all(bound is None for bound in bounds):
        return None
    pairs = zip(bounds, fixed, strict=True)
    return min(sum(number if bound is None else bound for bound, number in pairs), 2**31 - 1)


def _additional(read: _Read, standing: _Standing, truncated: tuple[str, ...]) -> dict[str, Any]:
    """What the contract has no member for."""
    fields: dict[str, Any] = {}
    if standing.reasons:
        fields["pendingReasons"] = [msgspec.to_builtins(reason) for reason in standing.reasons]
    if read.objects.is_chain_truncated:
        fields["isOwnerUnreadable"] = True
    if truncated:
        fields["truncated"] = list(truncated)
    return fields


def _witness(objects: WorkloadObjects) -> Witness:
    """Whose listing proves that the workload is gone: its own kind's, else the pods'."""
    namespace = printable(text(metadata(objects.root).get("namespace")))
    if not objects.is_root_listed:
        return Witness(group="", kind="Pod", namespace=namespace)
    group, _ = group_version(objects.root)
    return Witness(
        group=printable(group), kind=printable(text(objects.root.get("kind"))), namespace=namespace
    )


def _shown_topology(found: Topology | None) -> Topology | None:
    if found is None:
        return None
    return msgspec.structs.replace(
        found,
        name=_optional(found.name),
        required_placement=_optional(found.required_placement),
        preferred_placement=_optional(found.preferred_placement),
    )

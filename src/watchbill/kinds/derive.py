"""Objects in, record out: everything that Watchbill reports about one workload. Pure; no clock, no I/O.

Each question is a function of the `WorkloadView` and has its module in `derivation/` or `pending/`.
This one calls them in order and puts the answers together as the contract's Workload.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from watchbill.errors import Invalid
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.definition.hooks import HOOKS
from watchbill.kinds.definition.program import NOTHING_EMBEDDED
from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.children import (
    framework_of,
    with_autoscaler,
    with_children,
    with_ended_parts,
    with_inherited_endpoints,
    with_rollouts,
    with_stages,
)
from watchbill.kinds.derivation.claim_parts import with_backing_claims
from watchbill.kinds.derivation.claims import DeviceClasses, device_classes, extended_gpus
from watchbill.kinds.derivation.done import with_present_pods
from watchbill.kinds.derivation.elements import element_id, elements_of
from watchbill.kinds.derivation.endpoints import endpoints_of
from watchbill.kinds.derivation.organisation import (
    OrganisationNames,
    ai_application,
    organisation_of,
    workload_owner,
)
from watchbill.kinds.derivation.phase import (
    created_at,
    finished_at,
    observed_phase,
    phase_of,
    transitions_of,
)
from watchbill.kinds.derivation.placement import (
    current_node_pools,
    requested_node_pools,
    topology_of,
)
from watchbill.kinds.derivation.pods import pods_of
from watchbill.kinds.derivation.presentation import (
    name_fields,
    presented_conditions,
    presented_endpoints,
    presented_images,
    presented_reasons,
    presented_scheduling,
    presented_template,
    printable,
    sanitized_message,
)
from watchbill.kinds.derivation.priority import guaranteed_until, priority_of
from watchbill.kinds.derivation.queues import is_kai, scheduler_objects
from watchbill.kinds.derivation.totals import (
    ResourceTotals,
    idle_fields,
    idle_millionths,
    totals_of,
)
from watchbill.kinds.derivation.workload_class import workload_class
from watchbill.kinds.objects.json_access import INT32_MAX, group_version, metadata, text
from watchbill.kinds.objects.objects import PodCounts, WorkloadObjects
from watchbill.kinds.objects.pod import Pod, read_pod
from watchbill.kinds.objects.settings import DeriveSettings, Redaction
from watchbill.kinds.objects.template import Template
from watchbill.kinds.pending.kai import QUOTA_REASONS
from watchbill.kinds.pending.pending import pending_reasons, pending_scheduling_messages
from watchbill.kinds.phase_message import phase_message
from watchbill.protocol import Record, Witness
from watchbill.workload import (
    GPU_MILLIONTHS,
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
from watchbill.workload_pod import WorkloadPod, pod_hash, pods_digest

_NO_ACTIONS = ActionsSupport(delete=False, suspend=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedPhase:
    """The phase and what explains it. `k8s_phase`: without deletion and suspension."""

    phase: Phase
    k8s_phase: Phase
    message: str | None
    reasons: tuple[PendingReason, ...]


def workload_of(
    view: WorkloadView,
    derived: DerivedPhase,
    organisation: OrganisationNames,
    totals: ResourceTotals,
) -> Workload:
    objects, facts, settings = view.objects, view.facts, view.settings
    meta = metadata(objects.root)
    priority = priority_of(view)
    run = presented_template(_main_template(facts), settings.redaction)
    submitted = workload_owner(view)
    endpoints = presented_endpoints(endpoints_of(view), settings.redaction)
    application_id, application_name = ai_application(objects, settings.cluster_id)
    idle = idle_millionths(objects.idle, allocated=totals.usage.gpu_millionths)
    return Workload(
        id=element_id(text(meta.get("uid")), settings.cluster_id),
        name=printable(text(meta.get("name"))),
        type=printable(text(objects.root.get("kind"))),
        source="Other",
        namespace=printable(text(meta.get("namespace"))),
        project_name=printable(organisation.project_name),
        department_name=printable(organisation.department_name),
        category=_category(view),
        priority=priority.value,
        priority_class_name=printable(priority.class_name),
        created_at=created_at(view),
        phase=derived.phase,
        k8s_phase=derived.k8s_phase.value,
        conditions=presented_conditions(facts.conditions, settings.redaction),
        running_pods=view.pods.running,
        workload_requested_resources=totals.workload,
        pods_requested_resources=totals.pods,
        allocated_resources=totals.allocated,
        idle_allocated_gpus=None if idle is None else idle / GPU_MILLIONTHS,
        idle_gpus=None if idle is None else idle // GPU_MILLIONTHS,
        requested_pods=_requested_pods(facts),
        requested_node_pools=tuple(
            printable(pool) for pool in requested_node_pools(view, is_kai=is_kai(view))
        ),
        current_node_pools=tuple(printable(pool) for pool in current_node_pools(view)),
        images=presented_images(facts, view.pods.all, settings.redaction),
        urls=tuple(dict.fromkeys(endpoint.url for endpoint in endpoints if endpoint.url)),
        datasources=(),
        environments=(),
        external_connections=(),
        endpoints=endpoints,
        environment_variables=run.variables,
        additional_fields=_additional(view, derived, totals.raised_by_pods)
        | name_fields(view, run.truncated)
        | {"submittedBySource": submitted.source, "workloadClass": workload_class(view).value}
        | idle_fields(objects.idle, idle),
        actions_support=_NO_ACTIONS,
        phase_message=derived.message,
        phase_reason=QUOTA_REASONS.get(derived.reasons[0].reason) if derived.reasons else None,
        submitted_by=_optional(submitted.name),
        completed_at=finished_at(view) if derived.phase in TERMINAL_PHASES else None,
        guaranteed_runtime_ends_at=guaranteed_until(view, priority),
        preemptible=priority.is_preemptible,
        distributed_framework=framework_of(view),
        command=run.command,
        arguments=run.arguments,
        ai_application_id=application_id,
        ai_application_name=_optional(application_name),
        topology=_presented_topology(topology_of(view)),
    )


_SIDE_ROLES = re.compile("initializer|explainer|submitter|evaluator|^ps$", re.IGNORECASE)


def _main_template(facts: Facts) -> Template | None:
    """That of the first role that runs now and does the work itself; else of the first."""
    written = [role for role in facts.roles if role.template is not None]
    main = [role for role in written if not (role.is_optional or _SIDE_ROLES.search(role.name))]
    running = [role for role in main if role.replicas]
    return next((role.template for role in (*running, *main, *written)), None)


def _optional(value: str | None) -> str | None:
    return printable(value) if value else None


def _category(view: WorkloadView) -> str:
    """The settings' category for the kind, else the definition's."""
    group, kind = group_version(view.root)[0], text(view.root.get("kind"))
    overrides = view.settings.categories
    override = overrides.get(f"{kind}.{group}") or overrides.get(kind)
    return override if override is not None else view.definition.category


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
    total = sum(number if bound is None else bound for bound, number in pairs)
    return total if total < INT32_MAX else None


def _additional(
    view: WorkloadView,
    derived: DerivedPhase,
    raised_by_pods: tuple[str, ...],
) -> dict[str, Any]:
    """What the contract has no member for."""
    fields: dict[str, Any] = {}
    if derived.reasons:
        fields["pendingReasons"] = [msgspec.to_builtins(reason) for reason in derived.reasons]
    if view.objects.is_chain_truncated:
        fields["isOwnerUnreadable"] = True
    if raised_by_pods:
        fields["requestedBeyondTemplates"] = list(raised_by_pods)
    return fields


def witness_of(objects: WorkloadObjects) -> Witness:
    """Whose listing proves that the workload is gone: its own kind's, else the pods'."""
    namespace = printable(text(metadata(objects.root).get("namespace")))
    if not objects.is_root_listed:
        return Witness(group="", kind="Pod", namespace=namespace)
    group, _ = group_version(objects.root)
    return Witness(
        group=printable(group), kind=printable(text(objects.root.get("kind"))), namespace=namespace
    )


def _presented_topology(topology: Topology | None) -> Topology | None:
    if topology is None:
        return None
    return msgspec.structs.replace(
        topology,
        name=_optional(topology.name),
        required_placement=_optional(topology.required_placement),
        preferred_placement=_optional(topology.preferred_placement),
    )


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
    settings = _with_classes(settings, device_classes(objects.cluster))
    pods = with_backing_claims(pods, objects.cluster, objects.claims, settings)
    own = definitions.facts(objects.root)
    view = WorkloadView(
        objects=objects,
        definition=definition,
        definitions=definitions,
        own=own,
        facts=own,
        pods=PodCounts(pods),
        **scheduler_objects(objects)._asdict(),
        settings=settings,
    )
    for complete in _completions(view):
        facts = complete(view)
        if facts is not view.facts:
            view = msgspec.structs.replace(view, facts=facts)
    return view


def _with_classes(settings: DeriveSettings, classes: DeviceClasses) -> DeriveSettings:
    """The settings, with the resources by which device classes are asked for among those of GPUs."""
    resources = extended_gpus(classes, settings) if classes.by_name else settings.gpu_resources
    if resources == settings.gpu_resources:
        return settings
    return replace(settings, gpu_resources=resources)


def _completions(view: WorkloadView) -> Iterator[Callable[[WorkloadView], Facts]]:
    """What completes the root's own facts, in this order."""
    if view.definition.prefers_children or not view.facts.roles:
        yield with_children
    if view.definition.program(group_version(view.root)[1]).source.embeds != NOTHING_EMBEDDED:
        yield with_ended_parts
    yield with_stages
    yield with_autoscaler
    yield with_inherited_endpoints
    yield with_rollouts
    if view.definition.hook:
        yield HOOKS[view.definition.hook]


def _phase(view: WorkloadView) -> DerivedPhase:
    observed = observed_phase(view)
    phase = phase_of(view, observed)
    reasons = pending_reasons(view) if phase is Phase.PENDING else ()
    message = phase_message(phase, view, reasons)
    if phase in _WITHDRAWN:
        undeleted = PodCounts(view.pods.all, ignores_deletion=True)
        observed = observed_phase(msgspec.structs.replace(view, pods=undeleted))
    return DerivedPhase(
        phase=phase,
        k8s_phase=observed,
        message=sanitized_message(message, view.settings.redaction),
        reasons=presented_reasons(reasons, view.settings.redaction),
    )

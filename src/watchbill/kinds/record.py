"""The contract's Workload, put together from what the other modules found."""

from dataclasses import dataclass
from typing import Any

import msgspec

from watchbill.kinds.definition.definition import Definition
from watchbill.kinds.definition.facts import Facts
from watchbill.kinds.derivation.elements import element_id
from watchbill.kinds.derivation.endpoints import endpoints_of
from watchbill.kinds.derivation.organisation import (
    OrganisationNames,
    ai_application,
    is_kai,
    submitter,
)
from watchbill.kinds.derivation.phase import created_at, finished_at
from watchbill.kinds.derivation.placement import (
    current_node_pools,
    requested_node_pools,
    topology_of,
)
from watchbill.kinds.derivation.presentation import (
    presented_conditions,
    presented_endpoints,
    presented_images,
    presented_template,
    printable,
)
from watchbill.kinds.derivation.priority import guaranteed_until, priority_of
from watchbill.kinds.derivation.totals import ResourceTotals, idle_fields, idle_millionths
from watchbill.kinds.objects.json_access import INT32_MAX, group_version, metadata, text
from watchbill.kinds.objects.objects import PodCounts, WorkloadObjects
from watchbill.kinds.objects.settings import DeriveSettings
from watchbill.kinds.pending.kai import QUOTA_REASONS
from watchbill.protocol import Witness
from watchbill.workload import (
    GPU_MILLIONTHS,
    TERMINAL_PHASES,
    ActionsSupport,
    PendingReason,
    Phase,
    RequestedPods,
    Topology,
    Workload,
)

_NO_ACTIONS = ActionsSupport(delete=False, suspend=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadObjects:
    """What was read of the objects before anything is decided."""

    objects: WorkloadObjects
    definition: Definition
    facts: Facts
    census: PodCounts
    settings: DeriveSettings
    framework: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedState:
    """The phase and all that is said about it."""

    phase: Phase
    k8s_phase: Phase
    message: str | None
    reasons: tuple[PendingReason, ...]


def workload_of(
    read: ReadObjects,
    standing: DerivedState,
    organisation: OrganisationNames,
    totals: ResourceTotals,
) -> Workload:
    objects, facts, census, settings = read.objects, read.facts, read.census, read.settings
    meta = metadata(objects.root)
    priority = priority_of(objects, facts, census, settings)
    template = next((role.template for role in facts.roles if role.template is not None), None)
    run = presented_template(template, settings.redaction)
    endpoints = presented_endpoints(endpoints_of(objects, facts, census), settings.redaction)
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
        category=_category(read),
        priority=priority.value,
        priority_class_name=printable(priority.class_name),
        created_at=created_at(objects, census),
        phase=standing.phase,
        k8s_phase=standing.k8s_phase.value,
        conditions=presented_conditions(facts.conditions, settings.redaction),
        running_pods=census.running,
        workload_requested_resources=totals.workload,
        pods_requested_resources=totals.pods,
        allocated_resources=totals.allocated,
        idle_allocated_gpus=None if idle is None else idle / GPU_MILLIONTHS,
        idle_gpus=None if idle is None else idle // GPU_MILLIONTHS,
        requested_pods=_requested_pods(facts),
        requested_node_pools=tuple(
            printable(pool)
            for pool in requested_node_pools(
                objects, facts, census, settings, is_kai=is_kai(objects, facts, census, settings)
            )
        ),
        current_node_pools=tuple(
            printable(pool) for pool in current_node_pools(census, objects.cluster, settings)
        ),
        images=presented_images(facts, census.all, settings.redaction),
        urls=tuple(dict.fromkeys(endpoint.url for endpoint in endpoints if endpoint.url)),
        datasources=(),
        environments=(),
        external_connections=(),
        endpoints=endpoints,
        environment_variables=run.variables,
        additional_fields=_additional(read, standing, run.truncated)
        | idle_fields(objects.idle, idle),
        actions_support=_NO_ACTIONS,
        phase_message=standing.message,
        phase_reason=QUOTA_REASONS.get(standing.reasons[0].reason) if standing.reasons else None,
        submitted_by=_optional(submitter(objects, census, settings)),
        completed_at=finished_at(facts, census) if standing.phase in TERMINAL_PHASES else None,
        guaranteed_runtime_ends_at=guaranteed_until(objects, priority, settings),
        preemptible=priority.is_preemptible,
        distributed_framework=read.framework,
        command=run.command,
        arguments=run.arguments,
        ai_application_id=application_id,
        ai_application_name=_optional(application_name),
        topology=_shown_topology(topology_of(objects, facts, census, settings)),
    )


def _optional(value: str | None) -> str | None:
    return printable(value) if value else None


def _category(read: ReadObjects) -> str:
    """A cluster's own word for a kind, else the definition's."""
    group, kind = group_version(read.objects.root)[0], text(read.objects.root.get("kind"))
    overrides = read.settings.categories
    found = overrides.get(f"{kind}.{group}") or overrides.get(kind)
    return found if found is not None else read.definition.category


def _requested_pods(facts: Facts) -> RequestedPods:
    counted = [role for role in facts.roles if not role.is_optional]
    lows = [role.min for role in counted]
    highs = [role.max for role in counted]
    has_bounds = any(bound is not None for bound in (*lows, *highs))
    low, high = facts.min, facts.max
    if has_bounds:
        fixed = [role.replicas for role in counted]
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
    read: ReadObjects, standing: DerivedState, truncated: tuple[str, ...]
) -> dict[str, Any]:
    """What the contract has no member for."""
    fields: dict[str, Any] = {}
    if standing.reasons:
        fields["pendingReasons"] = [msgspec.to_builtins(reason) for reason in standing.reasons]
    if read.objects.is_chain_truncated:
        fields["isOwnerUnreadable"] = True
    if truncated:
        fields["truncated"] = list(truncated)
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


def _shown_topology(found: Topology | None) -> Topology | None:
    if found is None:
        return None
    return msgspec.structs.replace(
        found,
        name=_optional(found.name),
        required_placement=_optional(found.required_placement),
        preferred_placement=_optional(found.preferred_placement),
    )

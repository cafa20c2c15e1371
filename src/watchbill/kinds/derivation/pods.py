"""A workload's pods as they are reported: where they run, what they hold, how their containers fare."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import islice

import msgspec
from msgspec.structs import replace

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.elements import element_id
from watchbill.kinds.derivation.phase import created_at
from watchbill.kinds.derivation.placement import pod_node_pool
from watchbill.kinds.derivation.presentation import (
    presented_image,
    presented_word,
    printable,
    sanitized_message,
)
from watchbill.kinds.derivation.totals import PodResources
from watchbill.kinds.objects.containers import Container
from watchbill.kinds.objects.pod import ContainerProblem, Pod
from watchbill.kinds.objects.settings import Redaction
from watchbill.workload_pod import (
    MAX_PODS,
    AffinityRequirement,
    AffinityTerm,
    NodeAffinity,
    NodeSelector,
    PodContainer,
    PreferredTerms,
    Toleration,
    WorkloadPod,
)

MAX_PODS_BYTES = 3 * 1024 * 1024
"""Of all pods of a workload, as they travel."""
_POD_BYTES, _CONTAINER_BYTES = 700, 300


def pods_of(view: WorkloadView) -> tuple[WorkloadPod, ...]:
    """The workload's pods, oldest first; of too many those that have not ended, then the newest."""
    pods = view.pods.all
    if len(pods) > MAX_PODS:
        ended = [pod for pod in pods if pod.is_terminal]
        others = [pod for pod in pods if not pod.is_terminal][-MAX_PODS:]
        kept = {pod.uid for pod in others}
        kept |= {pod.uid for pod in islice(reversed(ended), MAX_PODS - len(others))}
        pods = [pod for pod in pods if pod.uid in kept]
    resources = PodResources(view)
    return tuple(_fitting(_pod(pod, view, resources) for pod in pods))


def _fitting(pods: Iterable[WorkloadPod]) -> Iterator[WorkloadPod]:
    """As many as fit into one item of a batch; only hostile pods are that large."""
    left = MAX_PODS_BYTES
    for pod in pods:
        left -= _POD_BYTES + 4 * len(pod.message or "") + 200 * len(pod.tolerations)
        left -= _affinity_bytes(pod.node_affinity) if pod.node_affinity is not None else 0
        left -= sum(_CONTAINER_BYTES + 4 * len(each.image) for each in pod.containers)
        if left < 0:
            return
        yield pod


@lru_cache(maxsize=4096)
def _affinity_bytes(affinity: NodeAffinity) -> int:
    return len(msgspec.json.encode(affinity))


@lru_cache(maxsize=4096)
def _presented(affinity: NodeAffinity) -> NodeAffinity:
    """With texts as they are stored."""
    required, preferred = affinity.required, affinity.preferred
    return NodeAffinity(
        required=None
        if required is None
        else NodeSelector(node_selector_terms=tuple(map(_term, required.node_selector_terms))),
        preferred=None
        if preferred is None
        else PreferredTerms(
            node_selector_terms=tuple(
                replace(each, preference=_term(each.preference))
                for each in preferred.node_selector_terms
            )
        ),
    )


def _term(term: AffinityTerm) -> AffinityTerm:
    return AffinityTerm(
        match_expressions=tuple(map(_expression, term.match_expressions)),
        match_fields=tuple(map(_expression, term.match_fields)),
    )


def _expression(expression: AffinityRequirement) -> AffinityRequirement:
    return replace(
        expression,
        key=printable(expression.key),
        values=tuple(map(printable, expression.values)),
    )


def _pod(pod: Pod, view: WorkloadView, resources: PodResources) -> WorkloadPod:
    settings = view.settings
    reason, message = _explanation(pod)
    return WorkloadPod(
        id=element_id(pod.uid, settings.cluster_id),
        name=printable(pod.name),
        namespace=printable(pod.namespace),
        priority_class_name=printable(pod.priority_class_name),
        created_at=pod.created_at or created_at(view),
        k8s_phase=printable(pod.phase),
        k8s_phase_updated_at=_phase_entered_at(pod),
        containers=tuple(_container(each, settings.redaction) for each in pod.containers),
        restarts=min(pod.restarts, 2**31 - 1),
        is_ready=pod.is_ready,
        node_name=printable(pod.node) if pod.node else None,
        current_node_pool=printable(pod_node_pool(pod.node, view.cluster, settings))
        if pod.node
        else None,
        requested_node_pools=tuple(_requested_pools(pod, settings.node_pool_label)),
        completed_at=pod.finished_at,
        requested_resources=resources.requested(pod),
        allocated_resources=resources.allocated(pod),
        tolerations=_presented_tolerations(pod.tolerations),
        ip=_optional(pod.ip),
        node_affinity=None if pod.node_affinity is None else _presented(pod.node_affinity),
        is_terminating=pod.is_terminating,
        reason=presented_word(reason, settings.redaction) if reason else None,
        message=sanitized_message(message, settings.redaction),
    )


def _container(container: Container, mode: Redaction) -> PodContainer:
    last = container.last
    return PodContainer(
        name=printable(container.name),
        image=presented_image(container.image, mode),
        started_at=container.started_at,
        is_init=container.is_init,
        state=container.state,
        reason=_reason(container.reason, mode),
        exit_code=container.exit_code,
        finished_at=container.finished_at,
        restarts=min(container.restarts, 2**31 - 1),
        last_reason=_reason(last.reason, mode) if last is not None else None,
        last_exit_code=last.exit_code if last is not None else None,
        last_finished_at=last.at if last is not None else None,
    )


@lru_cache(maxsize=4096)
def _presented_tolerations(tolerations: tuple[Toleration, ...]) -> tuple[Toleration, ...]:
    return tuple(map(_toleration, tolerations))


def _toleration(toleration: Toleration) -> Toleration:
    return Toleration(
        key=_optional(toleration.key or ""),
        operator=_optional(toleration.operator or ""),
        value=_optional(toleration.value or ""),
        effect=_optional(toleration.effect or ""),
        toleration_seconds=toleration.toleration_seconds,
    )


def _optional(text: str) -> str | None:
    return printable(text) if text else None


def _reason(reason: str, mode: Redaction) -> str | None:
    return presented_word(reason, mode) if reason else None


def _requested_pools(pod: Pod, key: str) -> Iterator[str]:
    pools = {pod.labels.get(key, ""), dict(pod.node_selector).get(key, "")}
    yield from (printable(pool) for pool in sorted(pools - {""}))


def _phase_entered_at(pod: Pod) -> datetime | None:
    """As far as the pod's own times tell: of one that restarted, when the kubelet took it on."""
    if pod.is_terminal:
        return pod.finished_at
    if pod.phase != "Running":
        return pod.created_at
    starts = [each.started_at for each in pod.containers if each.started_at and not each.is_init]
    return pod.started_at if pod.restarts or not starts else min(starts)


def _explanation(pod: Pod) -> tuple[str, str]:
    """Why it failed, is not ready or leaves; two empty texts where nothing is wrong."""
    problem = pod.problem
    if pod.phase == "Failed" and pod.reason:
        return pod.reason, pod.message
    if problem is not None and not pod.is_ready and pod.phase != "Succeeded":
        return problem.reason, _problem_text(problem)
    if not pod.node and pod.scheduled is not None and pod.scheduled.status == "False":
        return pod.scheduled.reason, pod.scheduled.message
    if pod.is_terminating and pod.disruption is not None and pod.disruption.status == "True":
        return pod.disruption.reason, pod.disruption.message
    if pod.phase == "Failed":
        return "Failed", pod.message
    return pod.reason, pod.message


def _problem_text(problem: ContainerProblem) -> str:
    code = "" if problem.exit_code is None else f" (exit code {problem.exit_code})"
    why = f" after {problem.last_reason}" if problem.last_reason not in ("", "Error") else ""
    text = f"Container {problem.container}: {problem.reason}{why}{code}"
    return f"{text}: {problem.message}" if problem.message else f"{text}."

"""The containers of a pod, the taints that it tolerates and the nodes that its affinity asks for: as its spec
states and its status reports them.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, get_args

import msgspec

from watchbill.kinds.objects.json_access import at, instant, mapping, objects, text, whole
from watchbill.workload_pod import (
    MAX_AFFINITY_VALUES,
    MAX_CONTAINERS,
    MAX_EXPRESSIONS,
    MAX_TERMS,
    MAX_TOLERATIONS,
    AffinityRequirement,
    AffinityTerm,
    ContainerState,
    NodeAffinity,
    NodeSelector,
    PreferredTerm,
    PreferredTerms,
    SelectorOperator,
    Toleration,
)

_OPERATORS: tuple[SelectorOperator, ...] = get_args(SelectorOperator)
_TEXT_LENGTH = 1024
CONTAINER_STATES: tuple[ContainerState, ...] = get_args(ContainerState)


class LastExit(msgspec.Struct, frozen=True, gc=False):
    """How a container that was started again had ended."""

    container: str
    reason: str
    exit_code: int | None
    at: datetime | None


class Container(msgspec.Struct, frozen=True, gc=False):
    """One container and how it fares. `state` None = not reported yet; `last`: how it ended before."""

    name: str
    image: str
    is_init: bool
    state: ContainerState | None = None
    reason: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    restarts: int = 0
    last: LastExit | None = None


def read_containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[Container, ...]:
    """Those that the pod states, with what the kubelet reports of each, in their order: of more than
    `MAX_CONTAINERS` those that failed rather than others."""
    reported = {
        (is_init, text(entry.get("name"))): entry
        for is_init, member in ((True, "initContainerStatuses"), (False, "containerStatuses"))
        for entry in objects(status.get(member))
    }
    stated = [
        (is_init, entry)
        for is_init, member in ((True, "initContainers"), (False, "containers"))
        for entry in objects(spec.get(member))
    ]
    reports = [reported.get((is_init, text(entry.get("name"))), {}) for is_init, entry in stated]
    places: Sequence[int] = range(len(stated))
    if len(stated) > MAX_CONTAINERS:
        ranked = sorted(places, key=lambda place: not _has_failed(reports[place]))
        places = sorted(ranked[:MAX_CONTAINERS])
    return tuple(
        _container(stated[place][1], reports[place], is_init=stated[place][0]) for place in places
    )


def _has_failed(reported: Mapping[str, Any]) -> bool:
    """Once, or for good."""
    ends = (at(reported, member, "terminated", "exitCode") for member in ("state", "lastState"))
    return bool(whole(reported.get("restartCount"))) or any(map(whole, ends))


def _container(
    stated: Mapping[str, Any], reported: Mapping[str, Any], *, is_init: bool
) -> Container:
    name, image = short(stated.get("name")), bounded(stated.get("image"))
    states = mapping(reported.get("state"))
    state = next((key for key in CONTAINER_STATES if isinstance(states.get(key), Mapping)), None)
    current = mapping(states.get(state)) if state is not None else {}
    ended = at(reported, "lastState", "terminated")
    return Container(
        name,
        image,
        is_init,
        state=state,
        reason=short(current.get("reason")),
        exit_code=whole(current.get("exitCode")),
        started_at=instant(current.get("startedAt")),
        finished_at=instant(current.get("finishedAt")),
        restarts=max(0, whole(reported.get("restartCount")) or 0),
        last=LastExit(
            container=name,
            reason=short(ended.get("reason")),
            exit_code=whole(ended.get("exitCode")),
            at=instant(ended.get("finishedAt")),
        )
        if isinstance(ended, Mapping)
        else None,
    )


def _read_tolerations(spec: Mapping[str, Any]) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(
            key=short(entry.get("key")) or None,
            operator=short(entry.get("operator")) or None,
            value=short(entry.get("value")) or None,
            effect=short(entry.get("effect")) or None,
            toleration_seconds=whole(entry.get("tolerationSeconds")),
        )
        for entry in islice(objects(spec.get("tolerations")), MAX_TOLERATIONS)
    )


def read_tolerations(spec: Mapping[str, Any]) -> tuple[Toleration, ...]:
    """Equal ones of many pods share one object."""
    return _shared_tolerations(_read_tolerations(spec))


@lru_cache(maxsize=4096)
def _shared_tolerations(tolerations: tuple[Toleration, ...]) -> tuple[Toleration, ...]:
    return tolerations


def short(value: Any) -> str:
    """A short text, cut and interned."""
    return sys.intern(value[:253]) if isinstance(value, str) and value else ""


def bounded(value: Any) -> str:
    return sys.intern(value[:_TEXT_LENGTH]) if isinstance(value, str) and value else ""


def read_node_affinity(spec: Mapping[str, Any]) -> NodeAffinity | None:
    """None where the pod states none. Equal ones of many pods share one object."""
    stated = mapping(at(spec, "affinity", "nodeAffinity"))
    if not stated:
        return None
    required = tuple(
        _term(entry)
        for entry in islice(
            objects(
                at(stated, "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
            ),
            MAX_TERMS,
        )
    )
    preferred = tuple(
        PreferredTerm(
            weight=min(100, max(0, whole(entry.get("weight")) or 0)),
            preference=_term(mapping(entry.get("preference"))),
        )
        for entry in islice(
            objects(stated.get("preferredDuringSchedulingIgnoredDuringExecution")), MAX_TERMS
        )
    )
    if not required and not preferred:
        return None
    return _shared(
        NodeAffinity(
            required=NodeSelector(node_selector_terms=required) if required else None,
            preferred=PreferredTerms(node_selector_terms=preferred) if preferred else None,
        )
    )


def _term(stated: Mapping[str, Any]) -> AffinityTerm:
    return AffinityTerm(
        match_expressions=_expressions(stated.get("matchExpressions")),
        match_fields=_expressions(stated.get("matchFields")),
    )


def _expressions(stated: Any) -> tuple[AffinityRequirement, ...]:
    return tuple(
        AffinityRequirement(
            key=short(entry.get("key")),
            operator=entry["operator"],
            values=tuple(map(short, islice(_texts(entry.get("values")), MAX_AFFINITY_VALUES))),
        )
        for entry in islice(objects(stated), MAX_EXPRESSIONS)
        if entry.get("operator") in _OPERATORS
    )


def _texts(values: Any) -> list[str]:
    return [each for each in values if isinstance(each, str)] if isinstance(values, list) else []


@lru_cache(maxsize=4096)
def _shared(affinity: NodeAffinity) -> NodeAffinity:
    return affinity

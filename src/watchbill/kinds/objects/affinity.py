"""Which nodes a pod may or should run on, as its spec's node affinity states it."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, get_args

from watchbill.kinds.objects.containers import short
from watchbill.kinds.objects.json_access import at, mapping, objects, whole
from watchbill.workload_pod import (
    MAX_AFFINITY_VALUES,
    MAX_EXPRESSIONS,
    MAX_TERMS,
    AffinityRequirement,
    AffinityTerm,
    NodeAffinity,
    NodeSelector,
    PreferredTerm,
    PreferredTerms,
    SelectorOperator,
)

_OPERATORS: tuple[SelectorOperator, ...] = get_args(SelectorOperator)


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

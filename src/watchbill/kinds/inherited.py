"""What a workload has from the objects that it is made of: where they answer, and their framework."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from watchbill.kinds.facts import Facts
from watchbill.kinds.lookup import group_version
from watchbill.kinds.objects import WorkloadObjects

if TYPE_CHECKING:
    from watchbill.kinds.definition import Definition, Definitions


def with_inherited_endpoints(
    facts: Facts, objects: WorkloadObjects, definitions: "Definitions"
) -> Facts:
    """The root with what its children's kinds say of where they answer."""
    found = [
        endpoint
        for child in objects.children
        if definitions.for_object(child).program(group_version(child)[1]).source.endpoints
        for endpoint in definitions.facts(child).endpoints
    ]
    if not found:
        return facts
    return msgspec.structs.replace(facts, endpoints=(*facts.endpoints, *found))


def framework_of(
    definition: "Definition", facts: Facts, objects: WorkloadObjects, definitions: "Definitions"
) -> str | None:
    """The kind's own; else that of what it holds or is made of, where these agree."""
    if definition.distributed_framework:
        return definition.distributed_framework
    parts: Iterator[Mapping[str, Any]] = iter((*facts.embedded, *objects.children))
    found = {definitions.for_object(part).distributed_framework for part in parts} - {None}
    return found.pop() if len(found) == 1 else None

"""What a workload has from the objects that it is made of: where they answer, and their framework."""

from typing import TYPE_CHECKING

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
    """The kind's own, or what it says of itself; else that of what it is made of, where these agree."""
    own = definition.distributed_framework or facts.framework
    if own:
        return own
    found = {
        definitions.for_object(part).distributed_framework or definitions.facts(part).framework
        for part in objects.children
    } | {definitions.for_object(part).distributed_framework or "" for part in facts.embedded}
    found.discard("")
    return found.pop() if len(found) == 1 else None

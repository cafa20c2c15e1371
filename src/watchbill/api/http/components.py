"""OpenAPI components from structs: the bodies of our own requests and answers, and what agents send and get.

Knows msgspec's JSON Schema and OpenAPI 3.0, no path and no operation.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from watchbill import protocol, requests
from watchbill.responses import access, events, fleet, nodes, organisation, usage, workloads
from watchbill.responses.contract import WorkloadResponse
from watchbill.responses.workloads import IdleWorkload

Document = dict[str, Any]

ROOTS: tuple[type[msgspec.Struct], ...] = (
    *requests.ROOTS,
    *workloads.ROOTS,
    *events.ROOTS,
    *fleet.ROOTS,
    *nodes.ROOTS,
    *organisation.ROOTS,
    *usage.ROOTS,
    *access.ROOTS,
)
"""The structs of our own requests and answers; what they consist of follows from them."""
AGENT_PREFIX = "Agent"
"""Before the names of what agents send and get, which has a Workload of its own."""
AGENT_OBJECTS = ("Record", "WorkloadPod", "WorkloadEvent", "Scrape")
"""What the document does not take apart: agents of the same version send it, and nobody else."""


def struct_components(contract: Document) -> Document:
    """The schemas of our own requests and answers, made from their structs, in the words of OpenAPI 3.0.

    What the contract has a schema for under the same name is left to the contract.
    """
    _, components = msgspec.json.schema_components(
        ROOTS, ref_template="#/components/schemas/{name}"
    )
    components["IdleWorkload"] = _beyond_workload(components["IdleWorkload"], IdleWorkload)
    wanted = _reachable(components, [root.__name__ for root in ROOTS])
    wanted -= contract["components"]["schemas"].keys()
    own = {name: _openapi(schema) for name, schema in components.items() if name in wanted}
    return own | _agent_components()


def _agent_components() -> Document:
    _, components = msgspec.json.schema_components(
        protocol.ROOTS, ref_template=f"#/components/schemas/{AGENT_PREFIX}{{name}}"
    )
    for name in AGENT_OBJECTS:
        components[name] = {
            "type": "object",
            "description": f"{components[name]['description']} docs/sync.md describes the exchange.",
        }
    schemas = {f"{AGENT_PREFIX}{name}": schema for name, schema in components.items()}
    wanted = _reachable(schemas, [f"{AGENT_PREFIX}{root.__name__}" for root in protocol.ROOTS])
    return {name: _openapi(schema) for name, schema in schemas.items() if name in wanted}


def _reachable(schemas: Document, names: Iterable[str]) -> set[str]:
    """The names and all that their schemas refer to, except what stands elsewhere."""
    reached: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in schemas and name not in reached:
            reached.add(name)
            pending += re.findall(r"#/components/schemas/(\w+)", str(schemas[name]))
    return reached


def _beyond_workload(schema: Document, kind: type[WorkloadResponse]) -> Document:
    """The contract's Workload and the members that a struct adds to it."""
    base = {field.encode_name for field in msgspec.structs.fields(WorkloadResponse)}
    own = {
        "type": "object",
        "required": [name for name in schema["required"] if name not in base],
        "properties": {
            field.encode_name: schema["properties"][field.encode_name]
            for field in msgspec.structs.fields(kind)
            if field.encode_name not in base
        },
    }
    reference = {"$ref": "#/components/schemas/Workload"}
    return {"description": schema["description"], "allOf": [reference, own]}


def _openapi(schema: Document) -> Document:
    """JSON Schema as msgspec writes it, as OpenAPI 3.0 has it: `nullable` for null, and only where a member
    is always there; one that may be absent is never null. Titles and defaults tell nothing."""
    converted = _plain(schema)
    if "anyOf" in converted:
        converted = _alternatives(converted)
    if "properties" in converted:
        required = converted.pop("required") or ()
        converted["properties"] = {
            name: _member(member, is_required=name in required)
            for name, member in converted["properties"].items()
        }
        converted |= {"required": required} if required else {}
    if "prefixItems" in converted:  # which OpenAPI 3.0 does not have
        converted["maxItems"] = len(converted.pop("prefixItems"))
        converted["items"] = {}
    for name in ("items", "additionalProperties"):
        if isinstance(converted.get(name), dict):
            converted[name] = _openapi(converted[name])
    if "allOf" in converted:
        converted["allOf"] = [_openapi(part) for part in converted["allOf"]]
    if "$ref" in converted and len(converted) > 1:
        converted["allOf"] = [{"$ref": converted.pop("$ref")}]
    return converted


def _plain(schema: Document) -> Document:
    converted = {name: value for name, value in schema.items() if name not in ("title", "default")}
    if "description" in converted:
        converted["description"] = inspect.cleandoc(converted["description"])
    if "enum" in converted:
        converted["type"] = "boolean" if converted["enum"] == [True] else "string"
    if "pattern" in converted:
        # The end of the text: Python's `$` would let a line feed pass, and ECMAScript has no \Z.
        converted["pattern"] = re.sub(r"\\Z$", "$", converted["pattern"])
    return converted


def _alternatives(schema: Document) -> Document:
    """A member has one type, perhaps or null; or it is one of several structs, told apart by their tag."""
    alternatives = schema.pop("anyOf")
    kinds = [kind for kind in alternatives if kind != {"type": "null"}]
    if len(kinds) == len(alternatives):
        assert "discriminator" in schema, "structs without a tag cannot be told apart"
        return schema | {"oneOf": kinds}
    assert len(kinds) == 1, "a member has one type, or null"
    return _openapi(kinds[0]) | schema | {"nullable": True}


def _member(schema: Document, *, is_required: bool) -> Document:
    converted = _openapi(schema)
    if not is_required:
        converted.pop("nullable", None)
    return converted

"""The contracts and our extensions of them, as one document: routes, parameter rules and statuses come from
it.

Knows OpenAPI, not HTTP: what is served at which path with which parameters is read here and nowhere else. The
schemas of our own bodies, and of what agents send and get, are made from their structs.
"""

import inspect
import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any

import msgspec
import yaml

from watchbill import __version__, protocol, requests
from watchbill.access.roles import Permission
from watchbill.api.http.parameters import Parameter, read_parameter
from watchbill.responses import access, fleet, nodes, organisation, usage, workloads
from watchbill.responses.contract import WorkloadResponse
from watchbill.responses.workloads import IdleWorkload
from watchbill.workload_fields import QUERY_FIELDS, SORT_FIELDS

Document = dict[str, Any]

ROOTS: tuple[type[msgspec.Struct], ...] = (
    *requests.ROOTS,
    *workloads.ROOTS,
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
    """A member has one type, perhaps or null; or it is one of several structs, distinguished by their tag."""
    alternatives = schema.pop("anyOf")
    kinds = [kind for kind in alternatives if kind != {"type": "null"}]
    if len(kinds) == len(alternatives):
        assert "discriminator" in schema, "structs without a tag cannot be distinguished"
        return schema | {"oneOf": kinds}
    assert len(kinds) == 1, "a member has one type, or null"
    return _openapi(kinds[0]) | schema | {"nullable": True}


def _member(schema: Document, *, is_required: bool) -> Document:
    converted = _openapi(schema)
    if not is_required:
        converted.pop("nullable", None)
    return converted


EXTENSIONS = ("extensions.yaml", "access.yaml")
PLATFORM_PERMISSIONS = dict.fromkeys(
    ("get_clusters", "get_cluster_by_uuid"), Permission.CLUSTERS_READ
)
"""Operations of the second contract that take another permission than reading workloads."""

METHODS = ("get", "post", "put", "patch", "delete")

ADDED_STATUSES = {
    "400": "The request cannot be understood; `message` names the parameter or member.",
    "406": "None of the media types that `Accept` asks for is offered.",
    "413": "The body is larger than the published limit, or there is one where none belongs.",
    "414": "The address is longer than 8 KiB.",
    "429": "More requests than the published limit; `Retry-After` says when to go on.",
    "431": "The header fields together are larger than 16 KiB.",
    "500": "An error of ours; `details` carries the request's id.",
    "503": "A part that the answer depends on does not respond.",
}
ADDED_STATUSES_WITH_LOGIN = {
    "401": "No valid credential came with the request.",
    "403": "The caller is known, but may do this nowhere.",
}
ADDED_STATUSES_WITH_NAME = {"404": "What the path names does not exist, or is out of scope."}
ADDED_STATUSES_WITH_BODY = {
    "408": "The body came too slowly.",
    "415": "The body has a media type or an encoding that the operation does not accept.",
}
STRICTER_PARAMETERS: dict[str, Document] = {
    "Offset": {"minimum": 0, "default": 0},
    "TelemetryGroupBy1": {"uniqueItems": True},
}
"""Rules that we hold to beyond the contract's own schemas."""

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class LoginRequirement(StrEnum):
    """Who may call an operation."""

    NONE = "none"
    CALLER = "caller"
    AGENT = "agent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    operation_id: str
    method: str
    path: str
    login: LoginRequirement
    permission: Permission | None
    """What the caller must be allowed to do, beyond being known."""
    takes_session: bool
    """Whether the page's cookie is as good as a token here."""
    parameters: tuple[Parameter, ...]
    offers: tuple[str, ...]
    """Media types that `Accept` chooses between, the preferred one first; empty where it does not."""


def contract_document() -> Document:
    """The contract as it is published. Raises RuntimeError where the installation does not have it."""
    file = files("watchbill.api") / "openapi.json"
    if not file.is_file():
        raise RuntimeError(
            "watchbill/api/openapi.json is missing: the build copies it from contract/openapi.json; "
            "in a checkout, install the project again (pip install -e .)"
        )
    document: Document = msgspec.json.decode(file.read_bytes())
    return document


def platform_document() -> Document:
    """The second contract, of what belongs to workloads: its components that the first has are the same."""
    document: Document = msgspec.json.decode(
        (files("watchbill.api") / "platform.json").read_bytes()
    )
    return document


def extensions_document() -> Document:
    """Every route that is not in the contracts. Raises RuntimeError where two files claim the same."""
    document = _read_yaml(EXTENSIONS[0])
    for name in EXTENSIONS[1:]:
        more = _read_yaml(name)
        document["tags"] += more.get("tags", [])
        document["x-pages"] |= more.get("x-pages", {})
        _add_paths(document["paths"], more["paths"])
        for section, entries in more.get("components", {}).items():
            _add(document["components"].setdefault(section, {}), entries, f"component in {section}")
    return document


def _read_yaml(name: str) -> Document:
    text = (files("watchbill.api") / name).read_text(encoding="utf-8")
    document: Document = yaml.load(text, Loader=_YAML_LOADER)  # noqa: S506
    return document


def merged_document(contract: Document, extensions: Document) -> Document:
    """One document of everything we serve. Raises RuntimeError where the two claim the same thing."""
    merged = deepcopy(contract)
    merged["info"] = deepcopy(extensions["info"]) | {"version": __version__}
    merged["servers"] = [{"url": "/"}]
    merged["security"] = [{"bearerAuth": []}, {"sessionCookie": []}]
    platform = platform_document()
    tags = (*contract["tags"], *platform["tags"], *extensions["tags"])
    merged["tags"] = list({tag["name"]: tag for tag in tags}.values())
    _add_platform(merged, platform)
    _add_paths(merged["paths"], extensions["paths"])
    _add(merged["components"]["schemas"], struct_components(merged), "component in schemas")
    for section, entries in extensions["components"].items():
        _add(merged["components"].setdefault(section, {}), entries, f"component in {section}")
    for name, rules in STRICTER_PARAMETERS.items():
        merged["components"]["parameters"][name]["schema"] |= rules
    _add_fields(merged["components"]["parameters"])
    for path, _, operation in _each(merged):
        _add_statuses(path, operation)
    return merged


def _add_fields(parameters: Document) -> None:
    """The fields beyond the contract's, by which workloads are filtered and sorted too."""
    contract = parameters["WorkloadsSort"]["schema"]["enum"]
    names = [name for name in QUERY_FIELDS if name not in contract]
    items = parameters["WorkloadsFilter"]["schema"]["items"]
    assert items["pattern"].startswith("^("), "a filter begins with one of the fields"
    items["pattern"] = f"^({'|'.join(names)}|" + items["pattern"].removeprefix("^(")
    contract += [name for name in names if name in SORT_FIELDS]


def operations(merged: Document) -> tuple[Operation, ...]:
    """All operations, in the order in which their paths must be matched: fixed before templated."""
    all_operations = [_operation(merged, *entry) for entry in _each(merged)]
    all_operations.sort(
        key=lambda operation: [part.startswith("{") for part in operation.path.split("/")]
    )
    return tuple(all_operations)


def page_routes(extensions: Document) -> dict[str, str]:
    """Paths that serve the web page, and the handler of each: no part of the API."""
    return dict(extensions["x-pages"])


def _operation(merged: Document, path: str, method: str, raw: Document) -> Operation:
    security = raw["security"] if "security" in raw else merged["security"]
    parameters = (resolve(merged, parameter) for parameter in raw.get("parameters", ()))
    return Operation(
        operation_id=raw["operationId"],
        method=method.upper(),
        path=path,
        login=_login(security),
        takes_session=any("sessionCookie" in scheme for scheme in security),
        permission=_permission(raw.get("x-permission", Permission.WORKLOADS_READ)),
        parameters=tuple(
            read_parameter(parameter, resolve(merged, parameter["schema"]))
            for parameter in parameters
        ),
        offers=_offers(raw),
    )


def resolve(document: Document, node: Document) -> Document:
    """Follow `$ref`s, also of array items, so that a rule can be read without the document."""
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    if "items" in node:
        node = node | {"items": resolve(document, node["items"])}
    return node


def _login(security: list[Document]) -> LoginRequirement:
    if not security:
        return LoginRequirement.NONE
    return (
        LoginRequirement.AGENT
        if any("agentCredential" in scheme for scheme in security)
        else LoginRequirement.CALLER
    )


def _permission(word: str) -> Permission | None:
    return None if word == "none" else Permission(word)


def _offers(raw: Document) -> tuple[str, ...]:
    content = raw["responses"].get("200", {}).get("content", {})
    return tuple(content) if "application/json" in content else ()


def _each(document: Document) -> list[tuple[str, str, Document]]:
    return [
        (path, method, item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]


def _add_platform(merged: Document, platform: Document) -> None:
    for section, entries in platform["components"].items():
        merged["components"][section] = deepcopy(entries) | merged["components"][section]
    _add_paths(merged["paths"], platform["paths"])
    for _, _, operation in _each(merged):
        if operation["operationId"] in PLATFORM_PERMISSIONS:
            operation["x-permission"] = PLATFORM_PERMISSIONS[operation["operationId"]].value


def _add_paths(target: Document, entries: Document) -> None:
    """Methods of one path may come from several documents."""
    for path, item in entries.items():
        _add(target.setdefault(path, {}), item, f"path {path}:")


def _add(target: Document, entries: Document, what: str) -> None:
    for name, entry in entries.items():
        if name in target:
            raise RuntimeError(f"the extensions claim the contract's {what} {name}")
        target[name] = deepcopy(entry)


def _add_statuses(path: str, operation: Document) -> None:
    responses = operation["responses"]
    statuses = dict(ADDED_STATUSES)
    if operation.get("security", True):
        statuses |= ADDED_STATUSES_WITH_LOGIN
    if "{" in path:
        statuses |= ADDED_STATUSES_WITH_NAME
    if "requestBody" in operation:
        statuses |= ADDED_STATUSES_WITH_BODY
    for status, description in statuses.items():
        if status not in responses:
            responses[status] = {
                "description": description,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }

"""Discovery documents of a simulated API server, plain and aggregated; custom kinds' definitions; its version.

What a release can do is a `ServerVersion`.
"""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from simulator.resources import ResourceType


def definition_document(resource: ResourceType, revision: int) -> dict[str, Any]:
    names: dict[str, Any] = {
        "plural": resource.plural,
        "singular": resource.kind.lower(),
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
    }
    if resource.short_names:
        names["shortNames"] = list(resource.short_names)
    established = [
        {"type": kind, "status": "True", "reason": reason, "message": message}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    return {
        "metadata": {
            "name": resource.full_name,
            "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{resource.full_name}/{revision}")),
            "creationTimestamp": "2026-01-12T08:00:00Z",
        },
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced" if resource.is_namespaced else "Cluster",
            "versions": [
                {"name": version, "served": True, "storage": version == resource.version}
                for version in resource.versions
            ],
        },
        "status": {"acceptedNames": names, "conditions": established},
    }


@dataclass(frozen=True, slots=True)
class ServerVersion:
    """What a release can do."""

    minor: str
    has_aggregated_discovery: bool = True
    streams_lists: bool = True
    counts_partial: bool = True


V1_36 = ServerVersion("36")
V1_20 = ServerVersion(
    "20", has_aggregated_discovery=False, streams_lists=False, counts_partial=False
)


def version_document(version: ServerVersion) -> dict[str, Any]:
    return {
        "major": "1",
        "minor": version.minor,
        "gitVersion": f"v1.{version.minor}.2",
        "gitCommit": "98b35193b2ac7a23a673325f5e9b830ecd5ba406",
        "gitTreeState": "clean",
        "buildDate": "2026-08-21T11:29:11Z",
        "goVersion": "go1.26.6",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_READ_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_CUSTOM_VERBS = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
_STATUS_VERBS = ["get", "patch", "update"]


def core_versions() -> dict[str, Any]:
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443"}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def group_list(resources: Iterable[ResourceType]) -> dict[str, Any]:
    groups = [_group(name, kinds) for name, kinds in _by_group(resources).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(name: str, resources: Iterable[ResourceType]) -> dict[str, Any] | None:
    kinds = _by_group(resources).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, kinds)} if kinds else None


def resource_list(
    name: str, version: str, resources: Iterable[ResourceType]
) -> dict[str, Any] | None:
    """The kinds of one group and version; None where there are none."""
    kinds = [r for r in resources if r.group == name and version in r.versions]
    if not kinds:
        return None
    entries = [entry for resource in kinds for entry in _entries(resource)]
    group_version = f"{name}/{version}" if name else version
    document: dict[str, Any] = {"kind": "APIResourceList"}
    if name:
        document["apiVersion"] = "v1"
    return document | {"groupVersion": group_version, "resources": entries}


def aggregated(resources: Iterable[ResourceType], *, is_core: bool) -> dict[str, Any]:
    items = [
        _aggregated_group(name, kinds)
        for name, kinds in _by_group(resources).items()
        if is_core == (name == "")
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def etag(body: bytes) -> str:
    return f'"{hashlib.sha512(body).hexdigest().upper()}"'


def encode(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document) + b"\n"


def _by_group(resources: Iterable[ResourceType]) -> dict[str, list[ResourceType]]:
    groups: dict[str, list[ResourceType]] = {}
    for resource in resources:
        groups.setdefault(resource.group, []).append(resource)
    return groups


def _versions(kinds: list[ResourceType]) -> list[str]:
    """Preferred first: the highest stable version, as the API orders them."""
    names = {version for resource in kinds for version in resource.versions}
    return sorted(names, key=lambda name: ("alpha" in name, "beta" in name, name))


def _group(name: str, kinds: list[ResourceType]) -> dict[str, Any]:
    versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in _versions(kinds)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _entries(resource: ResourceType) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.kind.lower(),
        "namespaced": resource.is_namespaced,
        "kind": resource.kind,
        "verbs": _CUSTOM_VERBS if resource.is_custom else _READ_VERBS,
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    status = {
        "name": f"{resource.plural}/status",
        "singularName": "",
        "namespaced": resource.is_namespaced,
        "kind": resource.kind,
        "verbs": _STATUS_VERBS,
    }
    return [entry, status] if resource.has_generation else [entry]


def _aggregated_group(name: str, kinds: list[ResourceType]) -> dict[str, Any]:
    versions = [
        {
            "version": version,
            "resources": [_aggregated(r, version) for r in kinds if version in r.versions],
            "freshness": "Current",
        }
        for version in _versions(kinds)
    ]
    return {"metadata": {"name": name} if name else {}, "versions": versions}


def _aggregated(resource: ResourceType, version: str) -> dict[str, Any]:
    """Built-in kinds leave group and version of their response kind empty, custom ones name them."""
    response_kind = {
        "group": resource.group if resource.is_custom else "",
        "version": version if resource.is_custom else "",
        "kind": resource.kind,
    }
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": response_kind,
        "scope": "Namespaced" if resource.is_namespaced else "Cluster",
        "singularResource": resource.kind.lower(),
        "verbs": _CUSTOM_VERBS if resource.is_custom else _READ_VERBS,
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.has_generation:
        status = {
            "subresource": "status",
            "responseKind": response_kind,
            "verbs": _STATUS_VERBS,
        }
        entry["subresources"] = [status]
    return entry

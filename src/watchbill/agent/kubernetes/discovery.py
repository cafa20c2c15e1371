"""Which kinds an API server serves, and where: aggregated discovery if offered, else group by group.

A group that cannot be discovered now is kept as unknown: unknown is not absent.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from watchbill.agent.kubernetes.client import KubeClient, ServedResource, request_path
from watchbill.agent.kubernetes.errors import ApiFailure, ErrorKind
from watchbill.kinds.objects.objects import GroupKind

_ACCEPT = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,"
    "application/json"
)
_AGGREGATED = "APIGroupDiscoveryList"
_NEEDED_VERBS = frozenset({"list"})
"""Kinds that cannot be watched are polled."""


class _Served(msgspec.Struct, frozen=True, rename="camel"):
    """One resource of a group version, in either form of discovery."""

    name: str = ""
    kind: str = ""
    namespaced: bool = False
    verbs: tuple[str, ...] = ()
    resource: str = ""
    scope: str = ""
    response_kind: dict[str, str] | None = None


class _Version(msgspec.Struct, frozen=True):
    version: str
    resources: tuple[_Served, ...] = ()
    freshness: str = "Current"


class _Group(msgspec.Struct, frozen=True):
    metadata: dict[str, Any] = {}
    versions: tuple[_Version, ...] = ()


class _Aggregated(msgspec.Struct, frozen=True):
    items: tuple[_Group, ...] = ()


class _PlainVersion(msgspec.Struct, frozen=True):
    version: str = ""


class _PlainGroup(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    versions: tuple[_PlainVersion, ...] = ()
    preferred_version: _PlainVersion | None = None


class _Plain(msgspec.Struct, frozen=True):
    versions: tuple[str, ...] = ()
    groups: tuple[_PlainGroup, ...] = ()


class _ResourceList(msgspec.Struct, frozen=True):
    resources: tuple[_Served, ...] = ()


@dataclass(slots=True)
class Discovery:
    """The kinds served now. Versions come in the server's order of preference; the first counts."""

    kubernetes_version: str = ""
    is_aggregated: bool = False
    """Every group was reported, not only those in `requested_groups`."""
    requested_groups: frozenset[str] = frozenset()
    resources: dict[GroupKind, ServedResource] = field(default_factory=dict)
    unknown_groups: set[str] = field(default_factory=set)
    """Groups that exist but could not be discovered."""

    def knows(self, group: str) -> bool:
        """Whether this discovery would have found the group's kinds."""
        return self.is_aggregated or group in self.requested_groups

    def add(self, group: str, version: str, served: Iterable[_Served]) -> None:
        for item in served:
            resource = _resource(group, version, item)
            if resource is not None:
                self.resources.setdefault(GroupKind(group, resource.kind), resource)


def _resource(group: str, version: str, item: _Served) -> ServedResource | None:
    plural = item.resource or item.name
    kind = (item.response_kind or {}).get("kind") or item.kind
    if not plural or not kind or "/" in plural or not _NEEDED_VERBS.issubset(item.verbs):
        return None
    is_namespaced = item.namespaced or item.scope == "Namespaced"
    return ServedResource(group, version, kind, plural, is_namespaced)


async def discover(client: KubeClient, groups: frozenset[str]) -> Discovery:
    """Everything served in `groups` (aggregated responses contain more, all of which is kept).

    Raises ApiFailure where the server as a whole cannot be asked.
    """
    discovery = Discovery(kubernetes_version=await _version(client), requested_groups=groups)
    for root in ("/api", "/apis"):
        body, content_type = await client.get(root, accept=_ACCEPT)
        discovery.is_aggregated = _AGGREGATED in content_type
        if discovery.is_aggregated:
            _read_aggregated(discovery, body)
        else:
            await _discover_groups(discovery, client, _plain(body), groups)
    return discovery


async def _version(client: KubeClient) -> str:
    body, _ = await client.get("/version")
    return str(_decode(body, dict[str, Any]).get("gitVersion", ""))


def _read_aggregated(discovery: Discovery, body: bytes) -> None:
    for group in _decode(body, _Aggregated).items:
        name = str(group.metadata.get("name", ""))
        for version in group.versions:
            if version.freshness != "Current":
                discovery.unknown_groups.add(name)
            discovery.add(name, version.version, version.resources)


def _plain(body: bytes) -> list[tuple[str, list[str]]]:
    """Groups with their versions, the preferred one first."""
    plain = _decode(body, _Plain)
    groups = [("", list(plain.versions))] if plain.versions else []
    for group in plain.groups:
        names = [version.version for version in group.versions]
        preferred = group.preferred_version.version if group.preferred_version else ""
        names.sort(key=lambda name: name != preferred)
        groups.append((group.name, names))
    return groups


async def _discover_groups(
    discovery: Discovery,
    client: KubeClient,
    served: list[tuple[str, list[str]]],
    groups: frozenset[str],
) -> None:
    for name, versions in served:
        if name not in groups:
            continue
        for version in versions:
            await _discover_version(discovery, client, name, version)


async def _discover_version(
    discovery: Discovery, client: KubeClient, group: str, version: str
) -> None:
    segments = ("apis", group, version) if group else ("api", version)
    try:
        body, _ = await client.get(request_path(*segments))
    except ApiFailure as failure:
        if failure.kind in (ErrorKind.UNREACHABLE, ErrorKind.UNAUTHENTICATED):
            raise
        discovery.unknown_groups.add(group)
        return
    discovery.add(group, version, _decode(body, _ResourceList).resources)


_T = TypeVar("_T")


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiFailure(ErrorKind.BUSY, f"discovery cannot be decoded: {error}") from error

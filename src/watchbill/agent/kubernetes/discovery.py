"""Which kinds an API server serves, and where: aggregated discovery if offered, else group by group.

A group that cannot be discovered now is kept as unknown: unknown is not absent.
"""

import asyncio
from collections.abc import Coroutine, Iterable
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
GROUPS_AT_ONCE = 16
GROUP_SECONDS = 30.0
"""For a group's answer as a whole: all others wait for it."""
_NEEDED_VERBS = frozenset({"list"})
"""Kinds that cannot be watched are polled."""
_T = TypeVar("_T")


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
    version, *answers = await _all(
        client.get("/version"), *(client.get(root, accept=_ACCEPT) for root in ("/api", "/apis"))
    )
    discovery = Discovery(kubernetes_version=_version(version[0]), requested_groups=groups)
    served: list[tuple[str, list[str]]] = []
    for body, content_type in answers:
        discovery.is_aggregated = _AGGREGATED in content_type
        if discovery.is_aggregated:
            _read_aggregated(discovery, body)
        else:
            served += _plain(body)
    await _discover_groups(discovery, client, served, groups)
    return discovery


async def _all(*asked: Coroutine[Any, Any, _T]) -> list[_T]:
    """The answers, asked for at once. Raises the first failure."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def _version(body: bytes) -> str:
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
    slots = asyncio.Semaphore(GROUPS_AT_ONCE)
    wanted = [(name, version) for name, names in served if name in groups for version in names]
    answers = await _all(*(_resources(client, slots, *each) for each in wanted))
    for (name, version), resources in zip(wanted, answers, strict=True):
        if resources is None:
            discovery.unknown_groups.add(name)
        else:
            discovery.add(name, version, resources)


async def _resources(
    client: KubeClient, slots: asyncio.Semaphore, group: str, version: str
) -> tuple[_Served, ...] | None:
    """None where they cannot be read now: a group may be served by a server of its own, and whatever that one
    answers says nothing of the others. Raises ApiFailure where the API server's own group fails."""
    segments = ("apis", group, version) if group else ("api", version)
    try:
        async with slots, asyncio.timeout(GROUP_SECONDS):
            body, _ = await client.get(request_path(*segments))
        return _decode(body, _ResourceList).resources
    except TimeoutError as error:
        if not group:
            raise ApiFailure(ErrorKind.UNREACHABLE, "discovery timed out") from error
    except ApiFailure as failure:
        if not group and failure.kind in (ErrorKind.UNREACHABLE, ErrorKind.UNAUTHENTICATED):
            raise
    return None


def _decode(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiFailure(ErrorKind.BUSY, f"discovery cannot be decoded: {error}") from error

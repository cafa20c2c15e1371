"""A Kubernetes API in memory over real HTTP: lists with pages, watches, discovery, and its known misbehaviour.

It holds whatever objects a test or a recorded life puts in, gives out resource versions of its own and can be
told to expire tokens, forget its past, lose an event, cut connections, refuse kinds.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.replay import Script, serving

Json = dict[str, Any]
_CUT = object()


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    is_namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


BUILT_IN = (
    Kind("", "v1", "Pod", "pods"),
    Kind("", "v1", "Service", "services"),
    Kind("", "v1", "Event", "events"),
    Kind("", "v1", "Node", "nodes", False),
    Kind("", "v1", "Namespace", "namespaces", False),
    Kind("apps", "v1", "Deployment", "deployments"),
    Kind("apps", "v1", "ReplicaSet", "replicasets"),
    Kind("apps", "v1", "StatefulSet", "statefulsets"),
    Kind("apps", "v1", "DaemonSet", "daemonsets"),
    Kind("batch", "v1", "Job", "jobs"),
    Kind("batch", "v1", "CronJob", "cronjobs"),
    Kind("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", False),
    Kind("networking.k8s.io", "v1", "Ingress", "ingresses"),
    Kind(
        "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False
    ),
)


@dataclass
class KubeApi:
    """`fault`: asked for every request, may answer in place of the API."""

    kinds: dict[str, Kind] = field(default_factory=dict)
    objects: dict[str, dict[str, Json]] = field(default_factory=lambda: defaultdict(dict))
    log: list[tuple[int, str, str, Json]] = field(default_factory=list)
    revision: int = 100
    forgotten: int = 0
    """Watches from before this revision get the ERROR event of code 410."""
    fault: Callable[[web.Request], web.StreamResponse | None] = lambda _: None
    script: Script | None = None
    chunk_bytes: int | None = None
    watches: int = 0
    _epoch: int = 0
    _end: Any = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for kind in BUILT_IN:
            self.serve(kind)

    @property
    def url(self) -> str:
        assert self.script is not None
        return self.script.url

    def serve(self, kind: Kind) -> None:
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        self.kinds[f"{root}/{kind.plural}"] = kind

    def withdraw(self, plural: str) -> None:
        for path in [path for path, kind in self.kinds.items() if kind.plural == plural]:
            del self.kinds[path]
            self.objects.pop(path, None)

    def path_of(self, obj: Json) -> str:
        for path, kind in self.kinds.items():
            if (kind.api_version, kind.kind) == (obj["apiVersion"], obj["kind"]):
                return path
        raise LookupError(obj["kind"])

    def put(self, obj: Json, *, is_lost: bool = False) -> None:
        """Create or replace; `is_lost`: no watch ever hears of it."""
        path = self.path_of(obj)
        uid = obj["metadata"]["uid"]
        kind = "MODIFIED" if uid in self.objects[path] else "ADDED"
        self._record(path, kind, obj, is_lost=is_lost)
        self.objects[path][uid] = obj

    def delete(self, obj: Json, *, is_lost: bool = False) -> None:
        path = self.path_of(obj)
        self._record(path, "DELETED", obj, is_lost=is_lost)
        self.objects[path].pop(obj["metadata"]["uid"], None)

    def _record(self, path: str, kind: str, obj: Json, *, is_lost: bool) -> None:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        if not is_lost:
            self.log.append((self.revision, path, kind, json.loads(json.dumps(obj))))
            self.wake()

    def forget_past(self) -> None:
        """As after a restart: every watch ends, and none may go on from where it was."""
        self.revision += 1
        self.forgotten = self.revision
        self.end_watches()

    def end_watches(self, *, is_cut: bool = False) -> None:
        self._epoch += 1
        self._end = _CUT if is_cut else None
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        faulty = self.fault(request)
        if faulty is not None:
            return faulty
        path = request.path
        if path == "/version":
            return web.json_response({"gitVersion": "v1.36.2"})
        if path in ("/api", "/apis") or (path.count("/") <= 3 and path not in self.kinds):
            return self._discover(path)
        kind_path, name = self._split(path)
        if kind_path not in self.kinds:
            return web.Response(status=404, text="404 page not found\n")
        if name:
            return self._get(kind_path, name, request)
        if request.query.get("watch"):
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            with suppress(ConnectionError):  # the client may leave at any time
                await self._watch(kind_path, request, response)
            return response
        return self._list(kind_path, request)

    def _split(self, path: str) -> tuple[str, tuple[str, str] | None]:
        """The cluster-wide path of the kind, and namespace and name where one object is meant."""
        parts = path.split("/")
        length = 4 if parts[1] == "api" else 5
        namespace = ""
        if len(parts) > length and parts[length - 1] == "namespaces":
            namespace = parts[length]
            parts = parts[: length - 1] + parts[length + 1 :]
        if len(parts) > length:
            return "/".join(parts[:length]), (namespace, parts[length])
        return "/".join(parts), None

    def _discover(self, path: str) -> web.StreamResponse:
        if path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            groups: dict[str, set[str]] = defaultdict(set)
            for kind in self.kinds.values():
                if kind.group:
                    groups[kind.group].add(kind.version)
            return web.json_response(
                {
                    "kind": "APIGroupList",
                    "groups": [
                        {
                            "name": group,
                            "versions": [{"version": version} for version in sorted(versions)],
                            "preferredVersion": {"version": max(versions)},
                        }
                        for group, versions in groups.items()
                    ],
                }
            )
        found = [kind for at, kind in self.kinds.items() if at.rpartition("/")[0] == path]
        if not found:
            return web.Response(status=404, text="404 page not found\n")
        return web.json_response(
            {
                "kind": "APIResourceList",
                "resources": [
                    {
                        "name": kind.plural,
                        "kind": kind.kind,
                        "namespaced": kind.is_namespaced,
                        "verbs": ["get", "list", "watch"],
                    }
                    for kind in found
                ],
            }
        )

    def _get(self, path: str, name: tuple[str, str], request: web.Request) -> web.StreamResponse:
        for obj in self.objects[path].values():
            meta = obj["metadata"]
            if (meta.get("namespace", ""), meta["name"]) == name:
                return web.json_response(_shown(obj, request))
        return web.json_response({"kind": "Status", "code": 404, "reason": "NotFound"}, status=404)

    def _list(self, path: str, request: web.Request) -> web.StreamResponse:
        token = request.query.get("continue")
        state = json.loads(token) if token else {"revision": self.revision, "after": ""}
        items = sorted(self.objects[path].values(), key=_key)
        items = [item for item in items if _key(item) > state["after"] and _selected(item, request)]
        limit = int(request.query.get("limit", "500"))
        page, rest = items[:limit], items[limit:]
        meta: Json = {"resourceVersion": str(state["revision"])}
        if rest:
            meta["continue"] = json.dumps(state | {"after": _key(page[-1])})
        shown = [_shown(item, request) for item in page]
        for item in shown:
            item.pop("kind", None)
            item.pop("apiVersion", None)
        return web.json_response({"kind": "List", "metadata": meta, "items": shown})

    async def _watch(self, path: str, request: web.Request, response: web.StreamResponse) -> None:
        self.watches += 1
        epoch = self._epoch
        response.enable_chunked_encoding()
        await response.prepare(request)
        seen = int(request.query["resourceVersion"])
        if seen < self.forgotten:
            status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await self._write(response, {"type": "ERROR", "object": status})
            await response.write_eof()
            return
        position = 0
        while epoch == self._epoch and path in self.kinds:
            changed = self._changed
            while position < len(self.log):
                revision, at, kind, obj = self.log[position]
                position += 1
                if at == path and revision > seen and _selected(obj, request):
                    await self._write(response, {"type": kind, "object": _shown(obj, request)})
            await changed.wait()
        if self._end is _CUT and request.transport is not None:
            await response.write(b'{"type":"MODIFIED","object":{"metadata":{"uid":"cut-')
            request.transport.close()
            return
        await response.write_eof()

    async def _write(self, response: web.StreamResponse, event: Json) -> None:
        data = json.dumps(event).encode() + b"\n"
        size = self.chunk_bytes or len(data)
        for start in range(0, len(data), size):
            await response.write(data[start : start + size])


def _key(obj: Json) -> str:
    return (
        f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}/{obj['metadata']['uid']}"
    )


def _selected(obj: Json, request: web.Request) -> bool:
    """Field selectors on an object's own members, as `type=Warning,reason!=BackOff`."""
    for requirement in filter(None, request.query.get("fieldSelector", "").split(",")):
        name, operator, value = requirement.partition("!=" if "!=" in requirement else "=")
        if (obj.get(name, "") == value) is (operator == "!="):
            return False
    return True


def _shown(obj: Json, request: web.Request) -> Json:
    if "PartialObjectMetadata" in request.headers.get("Accept", ""):
        return {
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadata",
            "metadata": obj["metadata"],
        }
    return dict(obj)


@asynccontextmanager
async def kube_api() -> AsyncIterator[KubeApi]:
    """A served API; its watches end with the block."""
    api = KubeApi()
    async with serving(api.answer) as script:
        api.script = script
        try:
            yield api
        finally:
            api.end_watches()

"""The agent's own metrics for a Prometheus: who holds which pods and devices, as of the last round.

With these beside the exporters' own series, a store keeps the history of workloads that are gone. Labels are
named so that no scrape configuration renames them.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from watchbill.agent.cache.cache import Cache
from watchbill.agent.metrics.scrape import Scraper
from watchbill.errors import Unavailable
from watchbill.kinds.objects.resources import allocated_gpus, requested_gpus
from watchbill.workload import GPU_MILLIONTHS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Line = tuple[Mapping[str, str], float]


class Exporter:
    """Answers GET /metrics on a port of its own, where one is wanted."""

    def __init__(self, scraper: Scraper, cache: Cache, gpu_resources: tuple[str, ...]) -> None:
        self._scraper = scraper
        self._cache = cache
        self._gpu_resources = gpu_resources

    @asynccontextmanager
    async def listening(self, host: str, port: int | None) -> AsyncIterator[None]:
        """Raises Unavailable where the port cannot be had."""
        if port is None:
            yield
            return
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise Unavailable(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        body = b"".join(self._text())
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    def _text(self) -> Iterator[bytes]:
        yield from _family(
            "watchbill_workload_pod_info",
            "Pods that have a node, and whose they are.",
            self._pods(),
        )
        yield from _family(
            "watchbill_pod_gpu_allocated", "GPUs that a pod holds.", self._allocated()
        )
        yield from _family(
            "watchbill_workload_gpu_share",
            "Part of a device that a workload holds, in GPUs; shared = others hold parts too.",
            self._shares(),
        )
        yield from _family(
            "watchbill_workload_idle_gpus",
            "GPUs that a workload holds and that stand idle; absent where no exporter measures them.",
            self._idle(),
        )

    def _pods(self) -> Iterator[Line]:
        for (namespace, name), (root, pod) in self._scraper.snapshot.pods.items():
            labels = {"workload_id": root, "pod_namespace": namespace, "pod_name": name}
            yield labels | {"pod_uid": pod.uid, "pod_node": pod.node}, 1.0

    def _allocated(self) -> Iterator[Line]:
        nodes = self._cache.cluster.node_labels
        for (namespace, name), (root, pod) in self._scraper.snapshot.pods.items():
            asked = requested_gpus(pod.resources, pod.annotations, self._gpu_resources)
            held = allocated_gpus(asked, pod.annotations, nodes.get(pod.node, {}))
            if held:
                labels = {"workload_id": root, "pod_namespace": namespace, "pod_name": name}
                yield labels | {"pod_uid": pod.uid}, float(held)

    def _shares(self) -> Iterator[Line]:
        for root, parts in self._scraper.snapshot.held.items():
            shares: dict[tuple[str, str], float] = {}
            for part in parts:
                shares[part.device.key] = shares.get(part.device.key, 0.0) + part.share
            is_shared = "false" if all(part.is_alone for part in parts) else "true"
            for (uuid, instance), share in shares.items():
                labels = {"workload_id": root, "UUID": uuid, "GPU_I_ID": instance}
                yield labels | {"shared": is_shared}, share

    def _idle(self) -> Iterator[Line]:
        families = self._cache.owner_tree.groups
        for root, idle in self._scraper.idle.by_workload.items():
            family = families.get(root)
            if family is not None and idle.millionths is not None:
                entry = family.root
                labels = {"workload_id": root, "workload": entry.name}
                labels |= {"workload_namespace": entry.namespace, "workload_kind": entry.key.kind}
                yield labels, idle.millionths / GPU_MILLIONTHS


def _family(name: str, meaning: str, lines: Iterable[Line]) -> Iterator[bytes]:
    yield f"# HELP {name} {meaning}\n# TYPE {name} gauge\n".encode()
    for labels, value in lines:
        written = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items() if text)
        yield f"{name}{{{written}}} {value:.9g}\n".encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""A simulated cluster over real HTTP for tests, and shapes of JSON to compare answers by."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from watchbill.demo.protocol import SimulatedCluster
from watchbill.demo.releases import V1_36, ServerVersion
from watchbill.demo.resources import PODS

PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class Caller:
    """Speaks to one cluster as its agent, unless told otherwise."""

    def __init__(self, cluster: SimulatedCluster, session: aiohttp.ClientSession) -> None:
        self.cluster = cluster
        self.session = session

    async def get(self, path: str, *, token: str | None = "", **headers: str) -> Answer:
        """`token` empty = the agent's, None = none."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            sent["Authorization"] = f"Bearer {token or self.cluster.token}"
        async with self.session.get(self.cluster.url + path, headers=sent) as response:
            return Answer(response.status, dict(response.headers), await response.read())


@asynccontextmanager
async def calling(
    *, seed: int | None = None, version: ServerVersion = V1_36, pods: int = 0
) -> AsyncIterator[Caller]:
    cluster = SimulatedCluster(seed=seed, version=version)
    await cluster.start()
    for number in range(pods):
        put_pod(cluster, f"p{number:03d}", namespace=f"ns{number % 3}")
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            yield Caller(cluster, session)
    finally:
        await cluster.stop()


def put_pod(
    cluster: SimulatedCluster,
    name: str,
    *,
    namespace: str = "ns0",
    phase: str = "Running",
    **labels: str,
) -> None:
    cluster.store.put(
        PODS,
        {
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": f"uid-{namespace}-{name}",
                "labels": {"app": "web"} | labels,
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "main", "image": "web:1"}]},
            "status": {"phase": phase},
        },
    )

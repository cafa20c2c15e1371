"""What kubectl reads out of the API server, beside what Watchbill answers of the same objects."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from simulator.apiserver.protocol import SimulatedCluster
from simulator.apiserver.tls import CertificateAuthority
from simulator.resources import EVENTS, NAMESPACES, NODES, PODS
from tests.conftest import Engine, fresh_database, require, running_server
from tests.fixtures.measured import GPU, pod, uid
from watchbill.agent.run import run_agent
from watchbill.client import Client
from watchbill.responses.contract import PodResponse
from watchbill.responses.nodes import NodeResponse
from watchbill.settings.agent import AgentSettings

STAMP = "2026-11-20T08:00:00Z"
RECENTLY = f"{datetime.now(UTC) - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
CRASHED = {
    "phase": "Running",
    "podIP": "10.0.0.7",
    "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": STAMP}],
    "containerStatuses": [
        {
            "name": "main",
            "image": "registry.example.com/train:1",
            "imageID": "",
            "ready": False,
            "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "lastState": {
                "terminated": {
                    "exitCode": 137,
                    "reason": "OOMKilled",
                    "startedAt": STAMP,
                    "finishedAt": STAMP,
                }
            },
        }
    ],
}
TOLERATIONS = [
    {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 300},
]
CONDITIONS = [
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
    ("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."),
]


def objects() -> list[tuple[Any, dict[str, Any]]]:
    """A node that is not Ready, a pod that crashes there and one that waits."""
    crashing, waiting = pod(1, "crashing", limits={GPU: "2"}), pod(2, "waiting", node="")
    crashing["status"] |= CRASHED
    crashing["spec"]["tolerations"] = TOLERATIONS
    waiting["status"] = {"phase": "Pending"}
    del waiting["spec"]["nodeName"]
    node = {
        "metadata": {"name": "n1", "uid": uid(50), "creationTimestamp": STAMP},
        "spec": {
            "unschedulable": True,
            "taints": [{"key": "dedicated", "value": "research", "effect": "NoSchedule"}],
        },
        "status": {
            "capacity": {"cpu": "96", "memory": "1Ti", GPU: "8"},
            "allocatable": {"cpu": "95", "memory": "1000Gi", GPU: "8"},
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": STAMP,
                    "lastTransitionTime": STAMP,
                }
                for kind, status, reason, message in CONDITIONS
            ],
        },
    }
    team = {"metadata": {"name": "team", "uid": "ns-team"}}
    return [(NAMESPACES, team), (NODES, node), (PODS, crashing), (PODS, waiting)]


EVENTS_OF_PODS = (
    (1, "crashing", "BackOff", "Back-off restarting failed container", 7),
    (2, "waiting", "FailedScheduling", "0/1 nodes are available", 3),
)


def event(number: int, name: str, reason: str, message: str, count: int) -> tuple[Any, Any]:
    return EVENTS, {
        "metadata": {"name": f"{name}.{number}", "namespace": "team", "uid": uid(70 + number)},
        "involvedObject": {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": "team",
            "name": name,
            "uid": uid(number),
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
        "count": count,
        "firstTimestamp": RECENTLY,
        "lastTimestamp": RECENTLY,
        "source": {"component": "kubelet"},
    }


@dataclass
class Both:
    """The API server as kubectl sees it, and the server that an agent answered of it."""

    simulated: SimulatedCluster
    kubeconfig: Path
    client: Client
    home: Path

    async def kubectl(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(
                require("kubectl"),
                f"--kubeconfig={self.kubeconfig}",
                "--namespace=team",
                *arguments,
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.home), "TZ": "UTC"},
        )
        out, error = await asyncio.wait_for(process.communicate(), 120)
        assert process.returncode == 0, error.decode()
        return out.decode()

    async def describe(self, *arguments: str) -> dict[str, list[str]]:
        """What `kubectl describe` says after each name, in the order of its lines."""
        described: dict[str, list[str]] = {}
        for line in (await self.kubectl("describe", *arguments)).splitlines():
            if named := re.match(r"\s*([A-Z][\w -]*):\s*(.*)$", line):
                described.setdefault(named[1], []).append(named[2].strip())
        return described

    async def columns(self, kind: str, *paths: str) -> list[list[str]]:
        names = ",".join(f"{number}:{path}" for number, path in enumerate(paths))
        listed = await self.kubectl("get", kind, "-o", f"custom-columns={names}", "--no-headers")
        return [re.split(r"\s{2,}", line.strip()) for line in listed.splitlines()]


@pytest_asyncio.fixture(scope="module")
async def both(
    embedded_engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Both]:
    require("kubectl")
    folder = tmp_path_factory.mktemp("kubectl")
    simulated = SimulatedCluster(
        authority=CertificateAuthority()
    )  # kubectl sends no token in the open
    for resource, document in objects():
        simulated.store.put(resource, document)
    await simulated.start()
    kubeconfig = simulated.kubeconfig(folder / "kubeconfig")
    stop = asyncio.Event()
    async with (
        running_server(await fresh_database(embedded_engine)) as server,
        Client(server.url, server.client_id, server.client_secret) as client,
    ):
        made = await client.cluster_create("east")
        settings = AgentSettings(
            server_url=server.url,
            credential=made.credential,
            kubeconfig=kubeconfig,
            debounce_seconds=0.05,
        )
        agent = asyncio.create_task(run_agent(settings, stop=stop))
        try:
            yield Both(simulated, kubeconfig, client, folder)
        finally:
            stop.set()
            await asyncio.wait_for(agent, 120)
    await simulated.stop()


async def pods(both: Both) -> dict[str, PodResponse]:
    """Once they and their events are answered."""
    async with asyncio.timeout(120):
        while True:
            listed = {each.name: each for each in (await both.client.pods()).pods}
            if len(listed) == 2:
                return listed
            await asyncio.sleep(0.1)


async def node(both: Both) -> NodeResponse:
    async with asyncio.timeout(120):
        while True:
            listed = (await both.client.nodes()).nodes
            if listed and listed[0].workloads:
                return listed[0]
            await asyncio.sleep(0.1)


async def test_pods_are_as_kubectl_lists_them(both: Both) -> None:
    """The columns of `get pods -o wide`, which it asks real servers to print."""
    paths = ("metadata.name", "status.phase", "spec.nodeName", "status.podIP")
    listed = await both.columns("pods", *(f".{path}" for path in paths))
    answered = await pods(both)
    assert sorted(listed) == sorted(
        [each.name, each.k8s_phase, each.node_name or "<none>", each.ip or "<none>"]
        for each in answered.values()
    )


async def test_a_pod_is_as_kubectl_describes_it(both: Both) -> None:
    described = await both.describe("pod", "crashing")
    answered = (await pods(both))["crashing"]
    (main,) = answered.containers
    assert described["Node"] == [f"{answered.node_name}/"]
    assert (described["Status"], described["IP"][0]) == ([answered.k8s_phase], answered.ip)
    assert (described["Image"], described["Restart Count"]) == ([main.image], [str(main.restarts)])
    assert (described["State"], described["Last State"]) == (["Waiting"], ["Terminated"])
    assert main.state == "waiting"
    assert described["Reason"] == [main.reason, main.last_reason]
    assert described["Exit Code"] == [str(main.last_exit_code)]
    assert described["Ready"][0] == str(answered.is_ready) == "False"
    assert described["Finished"] == ["Fri, 20 Nov 2026 08:00:00 +0000"]
    assert main.last_finished_at == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert described["Tolerations"] == [
        f"{answered.tolerations[0].key}:{answered.tolerations[0].effect} op=Exists"
    ]
    assert [each.toleration_seconds for each in answered.tolerations] == [None, 300]


async def test_pods_that_come_and_go_are_as_kubectl_lists_them(both: Both) -> None:
    """Some are made, run, crash, end, are marked for deletion and go, while the agent watches."""
    await pods(both)
    for step in range(4):
        for number in range(100, 108):
            if step == 3 and number % 4 == 0:
                both.simulated.store.delete(PODS, "team", f"come-{number}")
            else:
                both.simulated.store.put(PODS, life(number, step))
    columns = (
        *(".metadata.name", ".metadata.creationTimestamp", ".metadata.deletionTimestamp"),
        *(".status.phase", ".spec.nodeName", ".status.podIP"),
        *(f".status.containerStatuses[0].{name}" for name in ("ready", "restartCount")),
        ".status.containerStatuses[0].state.waiting.reason",
    )
    listed = sorted(await both.columns("pods", *columns))
    assert len(listed) == 2 + 6
    async with asyncio.timeout(120):
        while sorted(map(kubectl_row, (await both.client.pods()).pods)) != listed:
            await asyncio.sleep(0.1)
    for number in range(100, 108):
        both.simulated.store.delete(PODS, "team", f"come-{number}")
    await pods(both)
    gone = {each.name for each in (await both.client.pods(is_deleted=True)).pods}
    assert gone >= {row[0] for row in listed} - {"crashing", "waiting"}


def life(number: int, step: int) -> dict[str, Any]:
    """Pending, running, then by its number: it goes on, crashes or waits for its end."""
    made = pod(number, f"come-{number}")
    status = made["status"]["containerStatuses"][0] | {"image": "x", "imageID": ""}
    made["status"]["containerStatuses"] = [status | {"restartCount": step}]
    if step == 0:
        del made["spec"]["nodeName"]
        made["status"] = {"phase": "Pending"}
    elif step > 1 and number % 4 == 1:
        made["status"] |= CRASHED
    elif step > 1 and number % 4 == 2:
        made["metadata"] |= {"deletionTimestamp": STAMP, "deletionGracePeriodSeconds": 30}
    return made


def kubectl_row(each: PodResponse) -> list[str]:
    """In kubectl's words; a pod without statuses of containers has none of theirs."""
    container = each.containers[0]
    has_status = container.state is not None
    cells = (
        *(each.name, f"{each.created_at:%Y-%m-%dT%H:%M:%SZ}"),
        STAMP if each.is_terminating else None,
        *(each.k8s_phase, each.node_name, each.ip),
        str(each.is_ready).lower() if has_status else None,
        str(container.restarts or 0) if has_status else None,
        container.reason if container.state == "waiting" else None,
    )
    return [cell or "<none>" for cell in cells]


async def test_events_are_as_kubectl_lists_them(both: Both) -> None:
    answered = await pods(both)
    for each in EVENTS_OF_PODS:
        both.simulated.store.put(*event(*each))
    paths = (".involvedObject.name", ".type", ".reason", ".count", ".message")
    listed = await both.columns("events", *paths)
    async with asyncio.timeout(120):
        while True:
            events = [
                event
                for each in answered.values()
                for event in (await both.client.events(each.workload_id)).events
            ]
            if len(events) == len(listed):
                break
            await asyncio.sleep(0.1)
    assert sorted(listed) == sorted(
        [each.involved_object.name, each.type, each.reason, str(each.count), each.message]
        for each in events
    )


async def test_a_node_is_as_kubectl_describes_it(both: Both) -> None:
    text = await both.kubectl("describe", "node", "n1")
    described = await both.describe("node", "n1")
    answered = await node(both)
    (taint,) = answered.taints
    assert described["Taints"] == [f"{taint.key}={taint.value}:{taint.effect}"]
    assert described["Unschedulable"] == [str(answered.is_cordoned).lower()]
    assert (answered.status, answered.workloads[0].name) == ("Unknown", "crashing")
    for each in answered.conditions:
        line = rf"^ +{each.type} +{each.status} .* {each.reason} +{re.escape(each.message or '')}$"
        assert re.search(line, text, re.MULTILINE), each.type
    assert len(answered.conditions) == len(CONDITIONS)
    assert answered.capacity.gpus == float(amount_of(text, "Capacity", GPU))
    assert answered.capacity.cpu_cores == float(amount_of(text, "Capacity", "cpu"))
    assert answered.allocatable.cpu_cores == float(amount_of(text, "Allocatable", "cpu"))
    held = re.search(rf"^ +{GPU} +(\d+)", text.partition("Allocated resources:")[2], re.MULTILINE)
    assert held is not None
    assert answered.allocated.gpus == float(held[1]) == 2


def amount_of(text: str, section: str, resource: str) -> str:
    part = text.partition(f"\n{section}:\n")[2]
    amount = re.search(rf"^ +{resource}: +(\S+)$", part, re.MULTILINE)
    assert amount is not None
    return amount[1]

"""A small cluster with exporters whose every figure is chosen, so that what is true is known beforehand."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from watchbill.demo.protocol import SimulatedCluster
from watchbill.demo.resources import NAMESPACES, NODES, PODS

MIB = 1024 * 1024
GPU = "nvidia.com/gpu"
MIG = "nvidia.com/mig-3g.40gb"
Labels = dict[str, str]


def device(number: int) -> str:
    return f"GPU-00000000-0000-4000-8000-{number:012d}"


def uid(number: int) -> str:
    return str(UUID(int=number))


def pod(
    number: int,
    name: str,
    *,
    node: str = "n1",
    namespace: str = "team",
    limits: Labels | None = None,
    annotations: Labels | None = None,
    labels: Labels | None = None,
    image: str = "train:1",
    port: int | None = None,
    phase: str = "Running",
) -> dict[str, Any]:
    """A pod that is a workload by itself."""
    container: dict[str, Any] = {
        "name": "main",
        "image": f"registry.example.com/{image}",
        "resources": {"requests": {"cpu": "1"} | (limits or {}), "limits": limits or {}},
    }
    if port:
        container["ports"] = [{"name": "http", "containerPort": port}]
    stamp = "2026-11-20T08:00:00Z"
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid(number),
            "creationTimestamp": stamp,
            "labels": labels or {},
            "annotations": annotations or {},
        },
        "spec": {"nodeName": node, "containers": [container]},
        "status": {
            "phase": phase,
            "podIP": "127.0.0.1",
            "startTime": stamp,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": stamp}
                for kind in ("PodScheduled", "Ready")
            ],
            "containerStatuses": [
                {"name": "main", "ready": True, "state": {"running": {"startedAt": stamp}}}
            ],
        },
    }


def objects() -> Iterable[tuple[Any, dict[str, Any]]]:
    """Two machines: one with whole and shared GPUs, one cut into MIG instances."""
    for name in ("team", "gpu-operator", "kai-resource-reservation"):
        yield NAMESPACES, {"metadata": {"name": name, "uid": f"ns-{name}"}}
    for name in ("n1", "n2"):
        labels = {"nvidia.com/gpu.memory": "81920"}
        yield NODES, {"metadata": {"name": name, "uid": f"node-{name}", "labels": labels}}
        exporter = pod(
            90 + int(name[1]),
            f"dcgm-{name}",
            node=name,
            namespace="gpu-operator",
            labels={"app": "nvidia-dcgm-exporter"},
            port=9400,
        )
        yield PODS, exporter
    yield PODS, pod(1, "two-gpus", limits={GPU: "2"})
    half = {"gpu-fraction": "0.5"}
    quarter = {"gpu-fraction": "0.25"}
    yield PODS, pod(2, "half", annotations=half, labels={"runai-gpu-group": "g1"})
    yield PODS, pod(3, "quarter", annotations=quarter, labels={"runai-gpu-group/g1": "g1"})
    yield (
        PODS,
        pod(
            80,
            "reservation",
            namespace="kai-resource-reservation",
            limits={GPU: "1"},
            labels={"runai-gpu-group": "g1"},
            # As where CDI is in use.
            annotations={
                "run.ai/reserve_for_gpu_index": f"k8s.device-plugin.nvidia.com/gpu={device(3)}"
            },
        ),
    )
    yield PODS, pod(4, "idle", limits={GPU: "1"})
    yield PODS, pod(5, "slices", node="n2", limits={MIG: "2"})
    yield PODS, pod(6, "idle-slice", node="n2", limits={MIG: "1"})
    yield PODS, pod(7, "nim", image="nim/llm:1.8", port=8000)
    # The one whose containers nobody knows anything of, still named beside the living one.
    yield PODS, pod(8, "ghost", limits={GPU: "1"}, phase="Failed")


@dataclass
class Exporters:
    """Pages by how they are reached through proxies; `clock` moves the counters."""

    began: float = field(default_factory=time.time)
    silent: set[str] = field(default_factory=set)
    utilization: dict[int, float] = field(
        default_factory=lambda: {1: 80.0, 2: 120.0, 3: 30.0, 4: 0.0}
    )
    cores: dict[str, float] = field(
        default_factory=lambda: {"two-gpus": 1.5, "half": 0.25, "idle": 0.0}
    )

    def node_page(self, name: str, path: str) -> bytes | None:
        if path != "metrics/resource" or name in self.silent:
            return None
        return _page(self.kubelet()) if name == "n1" else b"# nothing\n"

    def pod_page(self, namespace: str, name: str, port: int, path: str) -> bytes | None:
        if name in self.silent:
            return None
        pages = {
            ("dcgm-n1", 9400, "metrics"): self.dcgm,
            ("dcgm-n2", 9400, "metrics"): self.mig,
            ("nim", 8000, "v1/metrics"): self.nim,
        }
        page = pages.get((name, port, path))
        return _page(page()) if page else None

    def kubelet(self) -> Iterable[str]:
        seconds = time.time() - self.began
        for name, cores in self.cores.items():
            labels = f'container="main",namespace="team",pod="{name}"'
            yield f"container_cpu_usage_seconds_total{{{labels}}} {1000 + cores * seconds:.6f}"
            whole = f'container="",namespace="team",pod="{name}"'
            yield f"container_cpu_usage_seconds_total{{{whole}}} {9000 + cores * seconds:.6f}"
            yield f"container_memory_working_set_bytes{{{labels}}} {512 * MIB}"

    def dcgm(self) -> Iterable[str]:
        holders = {1: "two-gpus", 2: "two-gpus", 3: "reservation", 4: "idle"}
        for number, name in holders.items():
            namespace = "kai-resource-reservation" if number == 3 else "team"
            labels = (
                f'gpu="{number - 1}",UUID="{device(number)}",Hostname="n1",container="main",'
                f'namespace="{namespace}",pod="{name}"'
            )
            yield f"DCGM_FI_DEV_GPU_UTIL{{{labels}}} {self.utilization[number]}"
            yield f"DCGM_FI_DEV_FB_USED{{{labels}}} {1000 * number}"
            yield f"DCGM_FI_PROF_NVLINK_TX_BYTES{{{labels}}} {1e9 * number}"
            yield f"DCGM_FI_PROF_NVLINK_RX_BYTES{{{labels}}} {5e8 * number}"
        # The same device once more, lower and in a dead pod's name; and one that DCGM knows nothing of.
        ghost = labels.replace('pod="idle"', 'pod="ghost"')
        yield f"DCGM_FI_DEV_GPU_UTIL{{{ghost}}} 0"
        unknown = labels.replace(device(4), device(9)).replace('pod="idle"', 'pod=""')
        yield f"DCGM_FI_DEV_GPU_UTIL{{{unknown}}} 9223372036854775794"

    def mig(self) -> Iterable[str]:
        for instance, name, active in (
            (1, "slices", 0.5),
            (2, "slices", 0.25),
            (5, "idle-slice", 0),
        ):
            labels = (
                f'gpu="0",UUID="{device(5)}",Hostname="n2",GPU_I_PROFILE="3g.40gb",'
                f'GPU_I_ID="{instance}",exported_namespace="team",exported_pod="{name}",'
                'namespace="gpu-operator",pod="dcgm-n2"'
            )
            yield f"DCGM_FI_PROF_GR_ENGINE_ACTIVE{{{labels}}} {active}"
            yield f"DCGM_FI_DEV_FB_USED{{{labels}}} {100 * instance}"

    def nim(self) -> Iterable[str]:
        count = int(10 * (time.time() - self.began))
        labels = 'model_name="llm"'
        yield f"num_requests_running{{{labels}}} 7"
        yield f"num_requests_waiting{{{labels}}} 3"
        yield f"num_request_max{{{labels}}} 64"
        yield f"gpu_cache_usage_perc{{{labels}}} 0.375"
        yield f"request_success_total{{{labels}}} 4000"
        yield f"request_failure_total{{{labels}}} 25"
        for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds"):
            for bound, share in (("0.5", 0.5), ("1.0", 0.75), ("+Inf", 1.0)):
                yield f'{name}_bucket{{{labels},le="{bound}"}} {int(count * share)}'


def _page(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def cluster(exporters: Exporters) -> SimulatedCluster:
    """Serves the objects and, behind its proxies, the pages; still to be started."""
    made = SimulatedCluster(exporters=exporters)
    for resource, document in objects():
        made.store.put(resource, document)
    return made

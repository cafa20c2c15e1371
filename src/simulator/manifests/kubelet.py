"""The status that scheduler and kubelet give a pod, rendered from the scenario's state."""

import hashlib
from typing import Any

from simulator.manifests.objects import Document, image, resources, stamp
from simulator.model.hardware import Node
from simulator.model.model import Refusal, SimulatedPod, SimulatedWorkload

_READY_STAGES = ("running",)
_EXIT_CODES = {"OOMKilled": 137, "Error": 1, "Completed": 0, "Evicted": 143}


def pod_status(workload: SimulatedWorkload, pod: SimulatedPod, node: Node | None) -> Document:
    """Unplaced pods have little to say; placed ones carry conditions and container states."""
    if node is None:
        return _unplaced(workload.refusals.get(pod.gang), pod)
    status: Document = {
        "observedGeneration": 0,
        "phase": _phase(pod),
        "conditions": _conditions(workload, pod),
    }
    if pod.reason == "Evicted":
        status |= {
            "reason": "Evicted",
            "message": "The node was low on resource: ephemeral-storage.",
        }
    status |= {"hostIP": node.address, "hostIPs": [{"ip": node.address}]}
    if pod.started_at:
        status |= {"podIP": _address(pod), "podIPs": [{"ip": _address(pod)}]}
    status["startTime"] = stamp(pod.scheduled_at)
    status["containerStatuses"] = [_container_status(workload, pod)]
    status["qosClass"] = "Burstable"
    return status


def _unplaced(refusal: Refusal | None, pod: SimulatedPod) -> Document:
    status: Document = {"phase": "Pending", "qosClass": "Burstable"}
    if refusal is not None:
        since = pod.refused_at or pod.created_at
        status["conditions"] = [
            _condition("PodScheduled", False, since, "Unschedulable", refusal.message)
        ]
    return status


def _phase(pod: SimulatedPod) -> str:
    if pod.is_over:
        return pod.stage.capitalize()
    return "Running" if pod.started_at else "Pending"


def _conditions(workload: SimulatedWorkload, pod: SimulatedPod) -> list[Document]:
    started_at = pod.started_at or pod.scheduled_at
    over_reason = "PodCompleted" if pod.stage == "succeeded" else ""
    is_ready = pod.stage in _READY_STAGES
    changed_at = pod.finished_at or (pod.ready_at if is_ready else pod.since) or started_at
    reason, message = over_reason, ""
    if not is_ready and not pod.is_over:
        reason = "ContainersNotReady"
        message = f"containers with unready status: [{workload.shape(pod.role).container}]"
    if pod.stage == "failed":
        reason = "PodFailed"
    has_sandbox = bool(pod.started_at) and not pod.is_over
    return [
        _condition("PodReadyToStartContainers", has_sandbox, pod.finished_at or started_at),
        _condition("Initialized", True, pod.scheduled_at, over_reason),
        _condition("Ready", is_ready, changed_at, reason, message),
        _condition("ContainersReady", is_ready, changed_at, reason, message),
        _condition("PodScheduled", True, pod.scheduled_at),
    ]


def _condition(
    kind: str, is_true: bool, since: float, reason: str = "", message: str = ""
) -> Document:
    document: Document = {
        "type": kind,
        "observedGeneration": 0,
        "status": str(is_true),
        "lastProbeTime": None,
        "lastTransitionTime": stamp(since),
    }
    if reason:
        document["reason"] = reason
    if message:
        document["message"] = message
    return document


def _container_status(workload: SimulatedWorkload, pod: SimulatedPod) -> Document:
    shape = workload.shape(pod.role)
    name = image(workload, shape, pod.revision)
    requested = resources(shape)
    status: Document = {
        "name": shape.container,
        "state": _state(workload, pod),
        "lastState": _last_state(pod),
        "ready": pod.stage in _READY_STAGES,
        "restartCount": pod.restarts,
        "image": name,
        "imageID": f"{name.rpartition(':')[0]}@sha256:{_digest(name)}" if pod.started_at else "",
        "started": bool(pod.started_at) and pod.stage in _READY_STAGES,
        "allocatedResources": requested["requests"],
        "resources": requested,
    }
    if pod.started_at:
        status["containerID"] = _container_id(pod)
    return status


def _state(workload: SimulatedWorkload, pod: SimulatedPod) -> Document:
    if pod.is_over:
        return _terminated(pod, pod.finished_at, pod.restarts)
    if pod.stage == "stuck":
        name = image(workload, workload.shape(pod.role), pod.revision)
        message = f'Back-off pulling image "{name}"'
        return {"waiting": {"reason": "ImagePullBackOff", "message": message}}
    if pod.stage == "crashing":
        message = f"back-off 40s restarting failed container={workload.shape(pod.role).container}"
        return {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
    if not pod.started_at:
        return {"waiting": {"reason": "ContainerCreating"}}
    return {"running": {"startedAt": stamp(pod.ready_at or pod.started_at)}}


def _last_state(pod: SimulatedPod) -> Document:
    if not pod.restarts or pod.is_over:
        return {}
    ended_at = pod.since if pod.stage == "crashing" else pod.ready_at
    return _terminated(pod, ended_at, pod.restarts - 1)


def _terminated(pod: SimulatedPod, ended_at: float, run: int) -> Document:
    reason = pod.reason or ("Completed" if pod.stage == "succeeded" else "Error")
    state: dict[str, Any] = {
        "exitCode": _EXIT_CODES.get(reason, 1),
        "reason": "Error" if reason == "Evicted" else reason,
        "startedAt": stamp(min(pod.started_at, ended_at)),
        "finishedAt": stamp(ended_at),
        "containerID": f"containerd://{_digest(f'{pod.uid}/{run}')}",
    }
    return {"terminated": state}


def _container_id(pod: SimulatedPod) -> str:
    return f"containerd://{_digest(f'{pod.uid}/{pod.restarts}')}"


def _address(pod: SimulatedPod) -> str:
    octets = hashlib.sha256(pod.uid.encode()).digest()
    return f"10.244.{octets[0]}.{octets[1] % 250 + 1}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

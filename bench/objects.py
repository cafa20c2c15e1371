"""Objects of a cluster as benches list them: recorded pods under PyTorchJobs."""

import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

RECORDED = Path("tests/fixtures/recordings/1.36/life/deployment.jsonl.gz")
PODS_EACH = 5

Object = dict[str, Any]


def recorded_pod() -> Object:
    """A pod as an API server sends it, managed fields and all, with an environment as training jobs have."""
    with gzip.open(RECORDED, "rt") as file:
        moments = (line for line in map(json.loads, file) if line.get("moment") == "running")
        lists = next(moments)["lists"]
    items = next(body for path, body in lists.items() if path.endswith("/pods"))["items"]
    pod: Object = {"apiVersion": "v1", "kind": "Pod"} | items[0]
    variables = [{"name": f"SETTING_{number}", "value": "x" * 40} for number in range(30)]
    pod["spec"]["containers"][0]["env"] = variables
    return pod


def workload(
    template: Object, number: int, *, pods_each: int = PODS_EACH, namespaces: int = 40
) -> Iterator[Object]:
    """A PyTorchJob of one master and its workers, and its pods."""
    uid, name = str(UUID(int=10**9 + number)), f"train-{number}"
    pod_template = {"spec": copy.deepcopy(template["spec"])}
    pod_template["spec"].pop("nodeName", None)
    replicas = {"Master": 1, "Worker": pods_each - 1}
    yield {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {
            "name": name,
            "namespace": f"project-{number % namespaces}",
            "uid": uid,
            "resourceVersion": str(number),
            "creationTimestamp": "2026-11-27T08:00:00Z",
        },
        "spec": {
            "pytorchReplicaSpecs": {
                role: {"replicas": count, "template": pod_template}
                for role, count in replicas.items()
            }
        },
        "status": {
            "conditions": [
                {
                    "type": "Running",
                    "status": "True",
                    "lastTransitionTime": "2026-11-27T08:05:00Z",
                }
            ]
        },
    }
    for index in range(pods_each):
        pod = copy.deepcopy(template)
        pod["metadata"] |= {
            "uid": str(UUID(int=number * pods_each + index)),
            "name": f"{name}-{index}",
            "namespace": f"project-{number % namespaces}",
            "labels": {
                "training.kubeflow.org/job-name": name,
                "training.kubeflow.org/replica-type": "worker" if index else "master",
            },
            "ownerReferences": [
                {
                    "apiVersion": "kubeflow.org/v1",
                    "kind": "PyTorchJob",
                    "name": name,
                    "uid": uid,
                    "controller": True,
                }
            ],
        }
        yield pod

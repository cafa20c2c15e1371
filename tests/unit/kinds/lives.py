"""Recorded lives, moment by moment: the objects that an API server held, grouped by their top owner."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from watchbill.kinds.definition import Definitions, load_definitions
from watchbill.kinds.derive import Derived, DeriveSettings, derive
from watchbill.kinds.objects import ClusterObjects, WorkloadObjects
from watchbill.kinds.pod import owners, read_pod

RECORDINGS = Path(__file__).parents[2] / "recordings"
CLUSTER_ID = UUID("6f0a7c1e-3c1b-4b7e-9a55-0d6c2f1a9b10")
SETTINGS = DeriveSettings(cluster_id=CLUSTER_ID)
SERVICES = frozenset({"Service", "Ingress", "HTTPRoute"})
APART = SERVICES | {
    "Pod",
    "Event",
    "Node",
    "Namespace",
    "PodGroup",
    "Queue",
    "Topology",
    "LocalQueue",
    "Workload",
    "PriorityClass",
    "ResourceQuota",
    "EndpointSlice",
    "Endpoints",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "ControllerRevision",
}


@dataclass(frozen=True)
class Moment:
    name: str
    objects: list[dict[str, Any]]

    def of_kind(self, *kinds: str) -> list[dict[str, Any]]:
        return [found for found in self.objects if found["kind"] in kinds]


@cache
def definitions() -> Definitions:
    return load_definitions()


@cache
def moments(version: str, life: str) -> dict[str, Moment]:
    path = RECORDINGS / version / "life" / f"{life}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    kinds = {
        line["watch"]: (line["event"]["object"]["apiVersion"], line["event"]["object"]["kind"])
        for line in lines
        if "watch" in line and line["event"]["type"] != "BOOKMARK"
    }
    found = {}
    for line in lines:
        if "moment" in line:
            objects = [
                {"apiVersion": kinds[path][0], "kind": kinds[path][1]} | item
                for path, body in line["lists"].items()
                for item in body["items"]
            ]
            for item in objects:
                item["metadata"].pop("managedFields", None)
            found[line["moment"]] = Moment(line["moment"], objects)
    return found


def all_lives() -> list[tuple[str, str]]:
    return sorted(
        (path.parents[1].name, path.name.removesuffix(".jsonl.gz"))
        for path in RECORDINGS.glob("*/life/*.jsonl.gz")
    )


def top_owner(found: dict[str, Any], by_uid: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The last owner that exists, walked by UID, the controller first."""
    while True:
        references = sorted(owners(found), key=lambda owner: not owner.is_controller)
        above = next((by_uid[owner.uid] for owner in references if owner.uid in by_uid), None)
        if above is None:
            return found
        found = above


def workloads(moment: Moment) -> Iterator[WorkloadObjects]:
    """Every workload of the moment, its objects gathered as an agent would."""
    by_uid = {found["metadata"]["uid"]: found for found in moment.objects}
    members: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for found in moment.objects:
        if found["kind"] == "Pod" or not _is_apart(found):
            members[top_owner(found, by_uid)["metadata"]["uid"]].append(found)
    cluster = cluster_of(moment)
    for uid, found in sorted(members.items()):
        root = by_uid[uid]
        chain = {uid} | {member["metadata"]["uid"] for member in found}
        yield WorkloadObjects(
            root=root,
            is_chain_truncated=False,
            is_root_listed=True,
            pods=[read_pod(member) for member in found if member["kind"] == "Pod"],
            children=[member for member in found if member["kind"] != "Pod" and member is not root],
            services=moment.of_kind(*SERVICES),
            pod_groups=[
                group
                for group in moment.of_kind("PodGroup")
                if any(owner.uid in chain for owner in owners(group))
            ],
            queue_workloads=[
                workload
                for workload in moment.of_kind("Workload")
                if any(owner.uid in chain for owner in owners(workload))
            ],
            scheduling_events=[
                event
                for event in moment.of_kind("Event")
                if event["involvedObject"].get("uid") in chain
            ],
            autoscalers=moment.of_kind("HorizontalPodAutoscaler"),
            cluster=cluster,
        )


def _is_apart(found: dict[str, Any]) -> bool:
    is_knative = found["apiVersion"].startswith("serving.knative.dev/")
    return found["kind"] in APART and not is_knative


def cluster_of(moment: Moment) -> ClusterObjects:
    def by_name(kind: str) -> dict[str, dict[str, Any]]:
        return {found["metadata"]["name"]: found for found in moment.of_kind(kind)}

    return ClusterObjects(
        queues=by_name("Queue"),
        local_queues={
            (found["metadata"]["namespace"], found["metadata"]["name"]): found
            for found in moment.of_kind("LocalQueue")
        },
        priority_classes=by_name("PriorityClass"),
        topologies=by_name("Topology"),
        node_labels={
            name: found["metadata"].get("labels", {}) for name, found in by_name("Node").items()
        },
        namespaces=by_name("Namespace"),
    )


def derived(version: str, life: str, moment: str) -> dict[str, Derived]:
    """The records of a moment by workload name."""
    found = [
        derive(objects, definitions(), SETTINGS)
        for objects in workloads(moments(version, life)[moment])
    ]
    return {item.record.workload.name: item for item in found}

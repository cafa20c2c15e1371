"""What `kinds try` takes from standard input: manifests as people write them, and only what belongs."""

import pytest

from tests.fixtures.lives import definitions
from watchbill.cli.commands.kinds import collect_objects, read_documents
from watchbill.errors import Invalid
from watchbill.kinds.objects.objects import GroupKind

STREAM = """
apiVersion: v1
kind: List
items:
- {apiVersion: jobset.x-k8s.io/v1alpha2, kind: JobSet, metadata: {name: tune}}
- apiVersion: batch/v1
  kind: Job
  metadata:
    {name: tune-a-0, ownerReferences: [{apiVersion: jobset.x-k8s.io/v1alpha2, kind: JobSet, name: tune}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: mine, ownerReferences: [{apiVersion: batch/v1, kind: Job, name: tune-a-0}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: orphan, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-6f9c}]}
- {apiVersion: v1, kind: Pod, metadata: {name: lone}}
- {apiVersion: apps/v1, kind: StatefulSet, metadata: {name: store}}
- apiVersion: v1
  kind: Pod
  metadata: {name: store-0, ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: store}]}
---
{apiVersion: v1, kind: Service, metadata: {name: web}}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: high}, value: 100}
---
{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: one-gpu}, spec: {}}
---
{apiVersion: v1, kind: Node, metadata: {name: gpu-1, labels: {zone: a}}}
"""


def test_only_what_belongs_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    definition = definitions().for_kind(GroupKind("jobset.x-k8s.io", "JobSet"))
    assert definition is not None
    found = collect_objects(list(read_documents(STREAM)), definition)
    assert found.root["metadata"]["namespace"] == "default"
    assert [pod.name for pod in found.pods] == ["mine"]
    assert [child["metadata"]["name"] for child in found.children] == ["tune-a-0"]
    assert len(found.services) == 1
    assert found.cluster.priority_classes["high"]["value"] == 100
    assert ("default", "one-gpu") in found.cluster.claim_templates
    assert found.cluster.node_labels == {"gpu-1": {"zone": "a"}}
    assert capsys.readouterr().err.splitlines() == [
        "note: Pod/orphan is left out: ReplicaSet/web-6f9c owns it and is not given",
        "note: Pod/lone is left out: nothing owns it",
        "note: StatefulSet/store is left out: nothing owns it",
        "note: Pod/store-0 is left out: it belongs to StatefulSet/store",
    ]


def test_an_object_without_metadata_s_map() -> None:
    definition = definitions().for_kind(GroupKind("batch", "Job"))
    assert definition is not None
    with pytest.raises(Invalid, match="the metadata of a Job is no map"):
        collect_objects([{"apiVersion": "batch/v1", "kind": "Job", "metadata": []}], definition)

"""What `kinds try` takes from standard input: manifests as people write them, and only what belongs."""

import io
import sys
from typing import Any
from unittest import mock

import pytest
import yaml

from tests.fixtures.command_line import watchbill
from tests.fixtures.kubernetes.lives import definitions
from watchbill.cli import kinds_input
from watchbill.cli.kinds_input import collect_objects, collect_topmost, read_documents
from watchbill.errors import Invalid
from watchbill.kinds.objects.objects import GroupKind

JSON = dict[str, Any]
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
    result = collect_objects(list(read_documents(STREAM)), definition)
    assert result.root["metadata"]["namespace"] == "default"
    assert [pod.name for pod in result.pods] == ["mine"]
    assert [child["metadata"]["name"] for child in result.children] == ["tune-a-0"]
    assert len(result.services) == 1
    assert result.cluster.priority_classes["high"]["value"] == 100
    assert ("default", "one-gpu") in result.cluster.claim_templates
    assert result.cluster.node_labels == {"gpu-1": {"zone": "a"}}
    assert capsys.readouterr().err.splitlines() == [
        "note: Pod/orphan is left out: ReplicaSet/web-6f9c owns it and is not given",
        "note: Pod/lone is left out: nothing owns it",
        "note: StatefulSet/store is left out: nothing owns it",
        "note: Pod/store-0 is left out: it belongs to StatefulSet/store",
    ]


def test_an_object_without_metadata_s_map() -> None:
    definition = definitions().for_kind(GroupKind("batch", "Job"))
    assert definition is not None
    with pytest.raises(Invalid, match="the metadata of a Job is not a mapping"):
        collect_objects([{"apiVersion": "batch/v1", "kind": "Job", "metadata": []}], definition)


CHAIN = """
- apiVersion: lab.example.com/v1
  kind: Study
  metadata: {name: study}
  spec: {secret: x}
- apiVersion: lab.example.com/v1
  kind: Attempt
  metadata: {name: first, ownerReferences: [{apiVersion: lab.example.com/v1, kind: Study, name: study}]}
- apiVersion: batch/v1
  kind: Job
  metadata: {name: first, ownerReferences: [{apiVersion: lab.example.com/v1, kind: Attempt, name: first}]}
  spec: {template: {spec: {containers: [{name: main, image: registry.example/try:1}]}}}
- apiVersion: v1
  kind: Pod
  metadata: {name: first-x, ownerReferences: [{apiVersion: batch/v1, kind: Job, name: first}]}
"""


def _chain() -> list[JSON]:
    items: list[JSON] = yaml.safe_load(CHAIN)
    return items


def test_an_object_of_an_unknown_kind_is_taken_as_metadata() -> None:
    result = collect_topmost(_chain(), definitions())
    assert (result.root["kind"], result.root.keys()) == (
        "Study",
        {"apiVersion", "kind", "metadata"},
    )
    assert [child["kind"] for child in result.children] == ["Attempt", "Job"]
    assert [pod.name for pod in result.pods] == ["first-x"]


def test_the_topmost_object_is_taken_whatever_comes_first() -> None:
    result = collect_topmost(_chain()[::-1], definitions())
    assert result.root["kind"] == "Study"


def test_a_topmost_object_that_has_a_definition_is_read_by_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chain = _chain()
    chain[0] |= {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "spec": {"a": 1}}
    chain[1]["metadata"]["ownerReferences"][0] |= {"kind": "Experiment"}
    result = collect_topmost(chain, definitions())
    assert (result.root["kind"], result.root["spec"]) == ("Experiment", {"a": 1})
    assert "Experiment has a definition, which is used" in capsys.readouterr().err


def test_pods_alone_are_no_workload_of_an_unknown_kind() -> None:
    with pytest.raises(Invalid, match="no object that may be a workload"):
        collect_topmost([_chain()[-1]], definitions())


async def test_the_command_takes_a_file_or_the_flag() -> None:
    with mock.patch.object(sys, "stdin", io.StringIO(yaml.safe_dump_all(_chain()))):
        tried = await watchbill("kinds", "try", "--unknown")
    assert (tried.code, yaml.safe_load(tried.out)["workload"]["type"]) == (0, "Study")
    neither = await watchbill("kinds", "try")
    assert (neither.code, "either a FILE or --unknown" in neither.err) == (2, True)


async def test_an_unknown_kind_is_answered_with_those_that_show_takes() -> None:
    refused = await watchbill("kinds", "show", "Nope")
    names = refused.err.split("kinds: ")[1].strip().split(", ")
    assert len(names) == len(set(names))
    assert {"Job.batch", "Job.batch.volcano.sh", "JobSet"} <= set(names)
    assert (await watchbill("kinds", "show", "Job.batch")).code == 0


def test_an_owner_counts_in_its_own_namespace_alone() -> None:
    root = {"metadata": {"uid": "r", "namespace": "a"}}
    for namespace, leads in (("a", True), ("b", False)):
        metadata = {"uid": "p", "namespace": namespace, "ownerReferences": [{"uid": "r"}]}
        assert kinds_input._leads_to({"metadata": metadata}, root, {"r": root}) is leads

"""Definitions are found by group and kind, checked at the start, and wrong ones named by line."""

import re
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from tests.fixtures.makers import condition, gather, job, pod, root, template, uid
from watchbill.kinds.definition.definition import Watched
from watchbill.kinds.definition.loader import BUILT_IN, load_definition, load_definitions
from watchbill.kinds.definition.program import Program, ProgramSource, RoleSource
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.objects import GroupKind
from watchbill.kinds.objects.pod import read_pod

MINIMAL = """
group: x.example
kind: Thing
category: Train
roles:
  - name: worker
    template: .spec.template
    replicas: .spec.count // 1
"""


def written(folder: Path, text: str, name: str = "thing.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_kinds_that_come_with_it() -> None:
    definitions = load_definitions()
    kinds = {(watched.group, watched.kind) for watched in definitions.watched() if watched.is_whole}
    assert kinds == {
        ("", "Pod"),
        ("agents.x-k8s.io", "Sandbox"),
        ("extensions.agents.x-k8s.io", "SandboxClaim"),
        ("extensions.agents.x-k8s.io", "SandboxWarmPool"),
        ("amlarc.azureml.com", "AmlJob"),
        ("apps", "DaemonSet"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("apps.nvidia.com", "NIMCache"),
        ("apps.nvidia.com", "NIMPipeline"),
        ("apps.nvidia.com", "NIMService"),
        ("argoproj.io", "CronWorkflow"),
        ("argoproj.io", "Workflow"),
        ("batch", "CronJob"),
        ("batch", "Job"),
        ("batch.volcano.sh", "Job"),
        ("egx.nvidia.io", "SPOTRequest"),
        ("grove.io", "PodCliqueSet"),
        ("jobset.x-k8s.io", "JobSet"),
        ("kubeflow.org", "JAXJob"),
        ("kubeflow.org", "MPIJob"),
        ("kubeflow.org", "Notebook"),
        ("kubeflow.org", "PaddleJob"),
        ("kubeflow.org", "PyTorchJob"),
        ("kubeflow.org", "ScheduledWorkflow"),
        ("kubeflow.org", "TFJob"),
        ("kubeflow.org", "XGBoostJob"),
        ("kubevirt.io", "VirtualMachine"),
        ("kubevirt.io", "VirtualMachineInstance"),
        ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"),
        ("machinelearning.seldon.io", "SeldonDeployment"),
        ("milvus.io", "Milvus"),
        ("nvidia.com", "DynamoGraphDeployment"),
        ("ray.io", "RayCluster"),
        ("ray.io", "RayCronJob"),
        ("ray.io", "RayJob"),
        ("ray.io", "RayService"),
        ("run.ai", "DistributedInferenceWorkload"),
        ("kubeflow.org", "Experiment"),
        ("disaggregatedset.x-k8s.io", "DisaggregatedSet"),
        ("slinky.slurm.net", "NodeSet"),
        ("flow.volcano.sh", "JobFlow"),
        ("run.ai", "DistributedWorkload"),
        ("run.ai", "InferenceWorkload"),
        ("run.ai", "InteractiveWorkload"),
        ("run.ai", "RunaiJob"),
        ("run.ai", "TrainingWorkload"),
        ("serving.knative.dev", "Service"),
        ("serving.kserve.io", "InferenceService"),
        ("serving.kserve.io", "LLMInferenceService"),
        ("sparkoperator.k8s.io", "ScheduledSparkApplication"),
        ("sparkoperator.k8s.io", "SparkApplication"),
        ("tekton.dev", "PipelineRun"),
        ("tekton.dev", "TaskRun"),
        ("trainer.kubeflow.org", "TrainJob"),
        ("workload.codeflare.dev", "AppWrapper"),
        ("workspace.devfile.io", "DevWorkspace"),
    }
    assert Watched("serving.knative.dev", "Revision", is_whole=False) in definitions.watched()


@pytest.mark.parametrize(
    ("group", "kind", "category"),
    [
        ("", "Pod", "Deploy"),
        ("apps", "Deployment", "Deploy"),
        ("apps", "ReplicaSet", "Deploy"),
        ("apps", "StatefulSet", "Deploy"),
        ("batch", "Job", "Build"),
        ("batch", "CronJob", "Deploy"),
        ("kubeflow.org", "PyTorchJob", "Train"),
        ("ray.io", "RayCluster", "Train"),
        ("ray.io", "RayJob", "Train"),
        ("jobset.x-k8s.io", "JobSet", "Train"),
        ("leaderworkerset.x-k8s.io", "LeaderWorkerSet", "Deploy"),
        ("serving.knative.dev", "Service", "Deploy"),
        ("apps.nvidia.com", "NIMService", "Deploy"),
        ("kubeflow.org", "TFJob", "Train"),
        ("kubeflow.org", "XGBoostJob", "Train"),
        ("kubeflow.org", "JAXJob", "Train"),
        ("kubeflow.org", "MPIJob", "Train"),
        ("kubeflow.org", "Notebook", "Build"),
        ("kubeflow.org", "ScheduledWorkflow", "Deploy"),
        ("ray.io", "RayService", "Deploy"),
        ("serving.kserve.io", "InferenceService", "Deploy"),
        ("nvidia.com", "DynamoGraphDeployment", "Deploy"),
        ("argoproj.io", "Workflow", "Deploy"),
        ("tekton.dev", "PipelineRun", "Deploy"),
        ("tekton.dev", "TaskRun", "Build"),
        ("apps.nvidia.com", "NIMCache", "Deploy"),
        ("machinelearning.seldon.io", "SeldonDeployment", "Deploy"),
        ("amlarc.azureml.com", "AmlJob", "Train"),
        ("workspace.devfile.io", "DevWorkspace", "Build"),
        ("kubevirt.io", "VirtualMachineInstance", "Train"),
        ("egx.nvidia.io", "SPOTRequest", ""),
        ("run.ai", "InteractiveWorkload", "Build"),
        ("run.ai", "InferenceWorkload", "Deploy"),
    ],
)
def test_categories(group: str, kind: str, category: str) -> None:
    result = definitions().for_kind(GroupKind(group, kind))
    assert result is not None
    assert result.category == category


def test_a_core_service_is_no_knative_service() -> None:
    assert load_definitions().for_kind(GroupKind("", "Service")) is None


def test_every_built_in_file_compiles() -> None:
    """At a start nobody waits for it."""
    for path in BUILT_IN.rglob("*.yaml"):
        load_definition(path)


def test_a_folder_of_one_s_own_adds_and_wins(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL)
    written(tmp_path, "group: batch\nkind: Job\ncategory: Train\n", "job.yml")
    definitions = load_definitions(tmp_path)
    thing = definitions.for_kind(GroupKind("x.example", "Thing"))
    own = definitions.for_kind(GroupKind("batch", "Job"))
    assert thing is not None
    assert own is not None
    assert (thing.category, own.category) == ("Train", "Train")
    obj = root("x.example/v1", "Thing", spec={"count": 3, "template": template()})
    facts = definitions.facts(obj)
    assert facts.number == 3
    assert facts.roles[0].name == "worker"


def test_a_version_replaces_whole_sections(tmp_path: Path) -> None:
    written(
        tmp_path,
        MINIMAL
        + """
versions:
  v1alpha1:
    roles:
      - name: old
        template: .spec.pod
        replicas: 7
""",
    )
    definitions = load_definitions(tmp_path)
    assert definitions.facts(root("x.example/v1", "Thing", spec={"count": 2})).number == 2
    assert definitions.facts(root("x.example/v1alpha1", "Thing", spec={"count": 2})).number == 7


def test_facts_are_read_once_for_each_version_of_an_object() -> None:
    definitions = load_definitions()
    result = job({"conditions": [condition("Complete")]})
    result["metadata"]["resourceVersion"] = "7"
    first = definitions.facts(result)
    assert definitions.facts(result) is first
    changed = result | {"metadata": result["metadata"] | {"resourceVersion": "8"}, "status": {}}
    assert definitions.facts(changed) is not first
    assert not definitions.facts(changed).holds("completed")


def test_metadata_alone_says_nothing() -> None:
    result = job()
    del result["spec"]
    assert load_definitions().facts(result).roles == ()


def test_a_pod_that_is_a_root_is_its_own_template() -> None:
    facts = load_definitions().facts(pod(1))
    [role] = facts.roles
    assert role.template is not None
    assert role.template.images == ("registry.example/train:1",)


def test_the_example_in_the_documentation_works(tmp_path: Path) -> None:
    page = (Path(__file__).parents[4] / "docs" / "adding-a-kind.md").read_text(encoding="utf-8")
    written(tmp_path, page.split("```yaml")[1].split("```")[0])
    facts = load_definitions(tmp_path).facts(
        root(
            "jobs.example.com/v1",
            "Experiment",
            spec={
                "coach": {"template": template()},
                "teams": [{"name": "red", "size": 3, "template": template()}],
            },
            status={"conditions": [condition("Warm")], "dashboard": "https://x.example"},
        )
    )
    assert [(role.name, role.replicas) for role in facts.roles] == [("coach", 1), ("red", 3)]
    assert facts.roles[1].pods == (("example.com/team", "red"),)
    assert facts.holds("ran")
    assert facts.endpoints[0].url == "https://x.example"


def test_nothing_is_evaluated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Facts are read once for each version of an object, and nothing is read for each pod."""
    definitions = load_definitions()
    roots = [
        root(
            "apps/v1", "Deployment", spec={"replicas": 5, "template": template()}, name=f"w{index}"
        )
        for index in range(200)
    ]
    for index, result in enumerate(roots):
        result["metadata"] |= {"uid": f"uid-{index}", "resourceVersion": "1"}
    raw = [pod(index) for index in range(5)]
    read = [[read_pod(item) for item in raw] for _ in roots]
    evaluated: list[str] = []
    evaluate = Program.facts
    monkeypatch.setattr(
        Program,
        "facts",
        lambda program, obj: evaluated.append(obj["metadata"]["uid"]) or evaluate(program, obj),
    )
    gathered = [
        msgspec.structs.replace(gather(result), pods=pods)
        for result, pods in zip(roots, read, strict=True)
    ]
    for objects in gathered * 2:
        derive(objects, definitions, SETTINGS)
    assert evaluated == [f"uid-{index}" for index in range(200)]


def test_embedded_objects_tell_their_pods_in_any_version(tmp_path: Path) -> None:
    written(
        tmp_path,
        MINIMAL
        + """
embeds: .spec.parts[]
versions:
  v2:
    embeds: .spec.pieces[]
""",
    )
    definitions = load_definitions(tmp_path)
    inner = job(parallelism=3, completions=3) | {"metadata": {"name": "inner"}}
    outer = {"count": 1, "template": template(), "parts": [inner, "no object", {"kind": "Strange"}]}
    facts = definitions.facts(root("x.example/v1", "Thing", spec=outer))
    assert [role.name for role in facts.roles] == ["worker", "worker"]
    assert facts.number == 4
    newer = {"count": 1, "template": template(), "pieces": [inner], "parts": [inner, inner]}
    assert definitions.facts(root("x.example/v2", "Thing", spec=newer)).number == 4


def test_what_is_embedded_speaks_for_nobody_else(tmp_path: Path) -> None:
    """Whoever writes an embedded object may give it any uid, also that of a real one."""
    written(tmp_path, "group: x.example\nkind: Thing\nembeds: .spec.part\n")
    definitions = load_definitions(tmp_path)
    real = job(parallelism=1)
    real["metadata"] |= {"uid": "the-same", "resourceVersion": "7"}
    false = job(parallelism=9, completions=9)
    false["metadata"] |= {"uid": "the-same", "resourceVersion": "7"}
    thing = root("x.example/v1", "Thing", spec={"part": false})
    thing["metadata"] |= {"uid": "another", "resourceVersion": "7"}
    assert definitions.facts(thing).number == 9
    assert definitions.facts(real).number == 1


CHILDREN = """
group: x.example
kind: Thing
rolesFrom: children
roles:
  - name: front
    min: 2
    max: 8
    pods: {part: front}
  - name: back
    pods: {part: back}
  - name: guess
    replicas: 5
"""


def deployment_of(part: str, replicas: int) -> dict[str, object]:
    labelled = template() | {"metadata": {"labels": {"part": part}}}
    spec = {"replicas": replicas, "template": labelled}
    return root("apps/v1", "Deployment", spec=spec, name=part) | {
        "metadata": {
            "name": part,
            "uid": part,
            "ownerReferences": [{"uid": uid(1), "kind": "Thing"}],
        }
    }


def test_children_say_more_than_the_object(tmp_path: Path) -> None:
    written(tmp_path, CHILDREN)
    definitions = load_definitions(tmp_path)
    thing = root("x.example/v1", "Thing")

    def asked(*children: dict[str, object]) -> tuple[int | None, int | None, int | None]:
        pods = derive(
            gather(thing, children=children), definitions, SETTINGS
        ).record.workload.requested_pods
        return pods.number, pods.min, pods.max

    assert asked() == (7, 8, 14)
    # back is still to come; the guess is not needed any more
    assert asked(deployment_of("front", 3)) == (4, 3, 9)
    assert asked(deployment_of("front", 3), deployment_of("other", 2)) == (6, 5, 11)


def test_elements_without_a_label(tmp_path: Path) -> None:
    written(
        tmp_path,
        """
group: x.example
kind: Thing
elements:
  - label: part
    without: group
  - objects: Job.batch
    without: group
""",
    )
    owner = [{"uid": uid(1), "kind": "X", "name": "w", "controller": True}]
    pods = [
        pod(1, meta_labels={"part": "a"}),
        pod(2, meta_labels={"part": "b", "group": "g"}),
    ]
    jobs = [
        {"apiVersion": "batch/v1", "kind": "Job"}
        | {"metadata": {"name": name, "uid": name, "labels": labels, "ownerReferences": owner}}
        for name, labels in (("c", {}), ("d", {"group": "g"}))
    ]
    thing = root("x.example/v1", "Thing")
    definitions = derive(gather(thing, pods, children=jobs), load_definitions(tmp_path), SETTINGS)
    assert [element.name for element in definitions.record.elements] == ["a", "c"]


def test_no_expression_looks_one_list_through_for_each_entry_of_another() -> None:
    """A PodCliqueSet of 1,000 cliques in as many groups, 120 KB, held an agent up for 17 seconds, an Argo
    workflow of 300 templates with as many running nodes for two."""
    looks = re.compile(
        r"\b(?:index|IN|inside|contains)\([^()]*\$"
        r"|\[[^\[\]]*(?:\$\w+|(?<=\[))(?:\.\w+)+\[\]\??\s*\|\s*select\([^)]*\$"
    )
    folder = resources.files("watchbill.kinds") / "definitions"
    texts = {path.name: path.read_text() for path in folder.iterdir() if path.suffix == ".yaml"}
    assert len(texts) > 50
    assert {
        name: quadratic[0] for name, text in texts.items() if (quadratic := looks.search(text))
    } == {}


def test_what_jq_takes_the_square_of_a_texts_length_for_sees_its_beginning_alone() -> None:
    """`scan` would take hours for a megabyte, `ascii_downcase` seconds."""
    role = RoleSource(each=".spec | to_entries[]", name_from=".key | ascii_downcase")
    source = ProgramSource(
        roles=(role,),
        queue='.path | [scan("[^.]+")] | length | tostring',
        framework='.path | gsub("a"; "b") | ascii_upcase',
    )
    program = Program(source)
    facts = program.facts({"spec": {"A" * 1_000_000: {}}, "path": "a." * 500_000})
    assert facts.roles[0].name == "a" * 1_000
    assert (facts.queue, facts.framework) == ("500", "B." * 500)

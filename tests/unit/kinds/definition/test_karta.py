"""Kartas and resource interfaces as definitions: what is taken over, what differs, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.kubernetes.lives import SETTINGS
from tests.fixtures.makers import JSON, condition, gather, gpus, meta, pod, template
from watchbill.cli.commands.kinds import import_definition
from watchbill.errors import Invalid
from watchbill.kinds.definition.definition import Definitions
from watchbill.kinds.definition.karta import import_karta
from watchbill.kinds.definition.loader import BUILT_IN, load_definition, load_definitions
from watchbill.kinds.derive import derive
from watchbill.kinds.objects.json_access import INT32_MAX
from watchbill.kinds.objects.objects import GroupKind
from watchbill.workload import Workload

ROOT = {"group": "lab.example.com", "version": "v1", "kind": "Experiment"}
POD = {"group": "", "version": "v1", "kind": "Pod"}


def karta(
    *children: JSON,
    status: JSON | None = None,
    kind: str = "Karta",
    extra: JSON | None = None,
    instructions: JSON | None = None,
    **root: Any,
) -> JSON:
    api_version = {
        "Karta": "run.ai/v1alpha1",
        "ResourceInterface": "optimization.nvidia.com/v1alpha1",
    }[kind]
    defined = {
        "conditionsDefinition": {"path": ".status.conditions"},
        "statusMappings": status or {},
    }
    structure = {
        "rootComponent": {"name": "experiment", "kind": ROOT, "statusDefinition": defined} | root,
        "childComponents": list(children),
    } | (extra or {})
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "experiments"},
        "spec": {"structureDefinition": structure} | (instructions or {}),
    }


def component(name: str, spec: JSON, **more: Any) -> JSON:
    return {"name": name, "ownerRef": "experiment", "kind": POD, "specDefinition": spec} | more


COACH = component(
    "coach",
    {"podTemplateSpecPath": ".spec.coach.template"},
    scaleDefinition={"replicasPath": "1"},
    podSelector={
        "componentTypeSelector": {
            "keyPath": '.metadata.labels["lab.example.com/role"]',
            "value": "coach",
        }
    },
)
TEAM = component(
    "team",
    {"podTemplateSpecPath": ".spec.teams[].template"},
    scaleDefinition={
        "replicasPath": ".spec.teams[].size",
        "minReplicasPath": ".spec.teams[].least",
        "maxReplicasPath": ".spec.teams[].most",
    },
    instanceIdPath=".spec.teams[].name",
    podSelector={
        "componentTypeSelector": {"keyPath": ".metadata.labels.team"},
        "componentInstanceSelector": {"idPath": ".metadata.labels.team"},
    },
)
STATUS = {
    "initializing": [{"byConditions": [{"type": "Created", "status": "True"}]}],
    "running": [
        {
            "byConditions": [
                {"type": "Active", "status": "True"},
                {"type": "Finished", "status": "False"},
            ]
        }
    ],
    "completed": [{"byConditions": [{"type": "Finished", "status": "True"}]}],
    "failed": [{"byConditions": [{"type": "Broken", "status": "True", "reason": "Crash"}]}],
}


def loaded(document: JSON, folder: Path) -> Definitions:
    """The imported definition beside that of kinds which nobody defined."""
    path = folder / "karta.yaml"
    path.write_text(yaml.safe_dump(document))
    return Definitions([load_definition(path), load_definition(BUILT_IN / "unknown.yaml")])


def experiment(
    spec: JSON | None = None, *conditions: JSON, status: JSON | None = None, **more: Any
) -> JSON:
    return {
        "apiVersion": "lab.example.com/v1",
        "kind": "Experiment",
        "metadata": meta("w", 1, **more),
        "spec": spec or {},
        "status": {"conditions": list(conditions)} | (status or {}),
    }


def derived(folder: Path, document: JSON, root: JSON, *pods: JSON) -> Workload:
    return derive(gather(root, pods), loaded(document, folder), SETTINGS).record.workload


TEAMS = {
    "coach": {"template": template()},
    "teams": [
        {"name": "a", "size": 2, "least": 1, "most": 4, "template": template(resources=gpus(2))},
        {"name": "b", "size": 3, "most": 2147483647, "template": template(resources=gpus(1))},
    ],
}


@pytest.mark.parametrize("kind", ["Karta", "ResourceInterface"])
def test_both_forms_give_roles(kind: str, tmp_path: Path) -> None:
    document = karta(COACH, TEAM, status=STATUS, kind=kind)
    definitions = loaded(document, tmp_path)
    definition = definitions.for_kind(GroupKind("lab.example.com", "Experiment"))
    assert definition is not None
    assert definition.runs_to_end
    facts = definition.program("v1").facts(experiment(TEAMS))
    assert [(role.name, role.replicas, role.min, role.max) for role in facts.roles] == [
        ("coach", 1, None, None),
        ("a", 2, 1, 4),
        ("b", 3, None, INT32_MAX),
    ]
    assert [role.pods for role in facts.roles] == [
        (("lab.example.com/role", "coach"),),
        (("team", "a"),),
        (("team", "b"),),
    ]
    result = derived(tmp_path, document, experiment(TEAMS))
    assert result.requested_pods.number == 6
    asked = result.workload_requested_resources.gpu
    assert asked is not None
    assert asked.request == 7
    assert any(
        watched.kind == "Experiment" and watched.is_whole for watched in definitions.watched()
    )


def test_a_part_that_the_object_does_not_have_is_no_role(tmp_path: Path) -> None:
    result = derived(tmp_path, karta(COACH, TEAM), experiment({"coach": TEAMS["coach"]}))
    assert result.requested_pods.number == 1


def test_positions_that_do_not_match_are_not_guessed(tmp_path: Path) -> None:
    # jq drops what is absent before `//`, so one number is left for two teams.
    scale = {"replicasPath": ".spec.teams[].size // 7", "maxReplicasPath": ".spec.teams[].most?"}
    spec = {"teams": [{"name": "a", "size": 2, "template": template()}] * 2 + [
        {"name": "c", "template": template()}
    ]}  # fmt: skip
    result = derived(tmp_path, karta(TEAM | {"scaleDefinition": scale}), experiment(spec))
    assert result.requested_pods.number == 3


@pytest.mark.parametrize(
    ("conditions", "pods", "phase"),
    [
        # Karta's own rule would never see it run: Finished is absent until the end.
        ([condition("Created"), condition("Active")], [pod(1)], "Running"),
        ([condition("Created")], [pod(1, "starting")], "Initializing"),
        ([condition("Active"), condition("Finished")], [], "Completed"),
        ([condition("Broken", reason="Crash", message="it broke")], [pod(1, "failed")], "Failed"),
        ([condition("Broken", reason="Other")], [pod(1)], "Running"),
        ([], [], "Creating"),
    ],
)
def test_status(conditions: list[JSON], pods: list[JSON], phase: str, tmp_path: Path) -> None:
    result = derived(tmp_path, karta(COACH, status=STATUS), experiment(TEAMS, *conditions), *pods)
    assert result.phase.value == phase
    if phase == "Failed":
        assert (result.phase_message or "").startswith("it broke")
    if phase in ("Failed", "Completed"):
        assert result.completed_at is not None or phase == "Failed"


def test_a_matcher_of_false_conditions_alone_needs_one_of_them(tmp_path: Path) -> None:
    nothing_goes = [
        {
            "byConditions": [
                {"type": "Available", "status": "False"},
                {"type": "Progressing", "status": "False"},
            ]
        }
    ]
    document = karta(COACH, status={"failed": nothing_goes})
    assert derived(tmp_path, document, experiment(TEAMS)).phase.value == "Creating"
    stated = experiment(TEAMS, condition("Available", "False"))
    assert derived(tmp_path, document, stated).phase.value == "Failed"
    moving = experiment(TEAMS, condition("Available", "False"), condition("Progressing"))
    assert derived(tmp_path, document, moving).phase.value == "Creating"


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ({"state": "Done"}, "Completed"),
        ({"state": "Bad", "tries": 2}, "Creating"),
        ({"state": "Bad", "tries": 3}, "Failed"),
        ({"state": "Up"}, "Running"),
        ({"state": "Paused"}, "Stopped"),
        ({"state": "Else"}, "Creating"),
    ],
)
def test_phases_and_expressions(status: JSON, phase: str, tmp_path: Path) -> None:
    defined = {
        "phaseDefinition": {"path": ".status.state"},
        "statusMappings": {
            "completed": [{"byPhase": "Done"}],
            "running": [{"byPhase": "Up"}],
            "suspended": [{"byPhase": "Paused"}],
            "failed": [
                {
                    "byPhase": "Bad",
                    "byExpression": {"expression": ".status.tries > 2", "expectedResult": "true"},
                }
            ],
        },
    }
    document = karta(COACH, statusDefinition=defined)
    assert derived(tmp_path, document, experiment(TEAMS, status=status)).phase.value == phase


@pytest.mark.parametrize("value", [True, "true"])
def test_what_would_pause_it_says_that_it_is_paused(value: Any, tmp_path: Path) -> None:
    pause = {"suspendActions": [{"path": ".spec.pause", "value": value}], "resumeActions": []}
    document = karta(COACH, suspendDefinition=pause)
    assert derived(tmp_path, document, experiment(TEAMS | {"pause": True})).phase.value == "Stopped"
    assert derived(tmp_path, document, experiment(TEAMS)).phase.value == "Creating"


def test_conditions_elsewhere_and_with_other_members(tmp_path: Path) -> None:
    defined = {
        "conditionsDefinition": {
            "path": ".status.history",
            "typeFieldName": "what",
            "statusFieldName": "holds",
            "messageFieldName": "words",
        },
        "statusMappings": {"failed": [{"byConditions": [{"type": "Broken", "status": "True"}]}]},
    }
    history = [{"what": "Broken", "holds": "True", "words": "said so"}]
    result = derived(
        tmp_path,
        karta(COACH, statusDefinition=defined),
        experiment(TEAMS, status={"history": history}),
    )
    assert (result.phase.value, result.phase_message) == ("Failed", "said so")


def test_pod_specs_in_pieces(tmp_path: Path) -> None:
    apart = component("apart", {"podSpecPath": ".spec.pods", "metadataPath": ".spec.podMetadata"})
    pieces = component(
        "pieces",
        {
            "fragmentedPodSpecDefinition": {
                "labelsPath": ".spec.labels",
                "imagePath": ".spec.image",
                "resourcesPath": ".spec.resources",
                "schedulerNamePath": ".spec.scheduler",
                "nodeAffinityPath": ".spec.affinity.nodeAffinity",
            }
        },
        scaleDefinition={"replicasPath": ".spec.replicas"},
    )
    spec = {
        "pods": {"containers": [{"name": "c", "image": "registry.example/apart:1"}]},
        "podMetadata": {"labels": {"priorityClassName": "train"}},
        "image": "registry.example/pieces:1",
        "resources": gpus(4),
        "labels": {"x": "y"},
        "replicas": "2",
    }
    result = derived(tmp_path, karta(apart, pieces), experiment(spec))
    assert result.images == ("registry.example/apart:1", "registry.example/pieces:1")
    assert result.priority_class_name == "train"
    asked = result.workload_requested_resources.gpu
    assert asked is not None
    assert asked.request == 8


def test_objects_that_repeat_multiply_what_is_below_them(tmp_path: Path) -> None:
    group = {
        "name": "group",
        "ownerRef": "experiment",
        "kind": {"group": "apps", "version": "v1", "kind": "StatefulSet"},
        "scaleDefinition": {"replicasPath": ".spec.groups"},
        "podSelector": {"replicaSelector": {"keyPath": '.metadata.labels["g"] // "0"'}},
    }
    member = component(
        "member",
        {"podTemplateSpecPath": ".spec.template"},
        ownerRef="group",
        scaleDefinition={"replicasPath": ".spec.size"},
    )
    spec = {"groups": 3, "size": 4, "template": template()}
    assert derived(tmp_path, karta(group, member), experiment(spec)).requested_pods.number == 12
    logical = {key: value for key, value in group.items() if key != "kind"}
    result = derived(tmp_path, karta(logical, member), experiment(spec))
    assert result.requested_pods.number == 4
    imported = yaml.safe_load(import_karta(karta(logical, member)).text)
    assert imported["elements"] == [
        {"label": "g", "name": "group {value}", "elements": [{"roles": True}]}
    ]
    imported = yaml.safe_load(import_karta(karta(group, member)).text)
    assert imported["elements"] == [{"objects": "StatefulSet.apps", "elements": [{"roles": True}]}]
    assert imported["through"] == ["StatefulSet.apps"]


def test_kinds_that_own_no_pods_are_never_watched_as_owners() -> None:
    kinds = [
        {"group": "", "kind": "Secret", "version": "v1"},
        {"group": "", "kind": "Service", "version": "v1"},
        {"group": "networking.k8s.io", "kind": "Ingress", "version": "v1"},
        {"group": "apps", "kind": "Deployment", "version": "v1"},
    ]
    imported = import_karta(karta(COACH, extra={"additionalChildKinds": kinds}))
    assert yaml.safe_load(imported.text)["through"] == ["Deployment.apps"]


def test_pods_are_known_by_the_presence_of_a_label(tmp_path: Path) -> None:
    selector = {"componentTypeSelector": {"keyPath": '.metadata.labels["coached"]'}}
    document = karta(COACH | {"podSelector": selector})
    imported = yaml.safe_load(import_karta(document).text)
    assert imported["roles"][0]["pods"] == {"coached": "*"}
    loaded(document, tmp_path)


def test_what_it_covers_and_what_not_is_reported() -> None:
    by_annotation = {"componentTypeSelector": {"keyPath": '.metadata.annotations["role"]'}}
    document = karta(
        COACH | {"podSelector": by_annotation},
        status=STATUS,
        instructions={"optimizationInstructions": {"gangScheduling": {"podGroups": []}}},
    )
    result = import_karta(document)
    assert result.text.startswith("# Imported from Karta experiments (run.ai/v1alpha1).\n")
    assert result.covered == (
        "templates and numbers of pods: coach",
        "status: completed, failed, running, initializing",
        "the inner structure",
    )
    assert any("nothing says suspended" in line for line in result.filled)
    assert len(result.left_out) == 2
    bare = import_karta(karta())
    assert "templates, from those of its children that are known" in bare.filled


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"apiVersion": "v1", "kind": "ConfigMap"}, "neither a Karta nor a ResourceInterface"),
        (
            {"apiVersion": "other.example/v1", "kind": "Karta"},
            "neither a Karta nor a ResourceInterface",
        ),
        ({"apiVersion": "run.ai/v1alpha1", "kind": "Karta"}, "has no kind for its root component"),
        (karta(component("x", {"podTemplateSpecPath": ".spec["})), "as imported.*jq"),
        (karta(component("x", {"podTemplateSpecPath": "env.HOME"})), "`env` is not allowed"),
        (karta(component("x", {"podTemplateSpecPath": "$__prog_args"})), "jq"),
    ],
)
def test_what_cannot_be_imported_is_refused(document: JSON, message: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=f"karta.yaml.*{message}|{message}"):
        loaded(document, tmp_path)


def test_objects_of_any_shape_are_refused_or_read(tmp_path: Path) -> None:
    odd: list[Any] = [None, 1, "x", [], [None], {"a": []}]
    for value in odd:
        for path in ("rootComponent", "childComponents", "additionalChildKinds"):
            document = karta(COACH)
            document["spec"]["structureDefinition"][path] = value
            try:
                loaded(document, tmp_path)
            except Invalid:
                continue
        for member in ("statusDefinition", "scaleDefinition", "podSelector", "instanceIdPath"):
            document = karta(COACH | {member: value}, **{member: value})
            try:
                loaded(document, tmp_path)
            except Invalid:
                continue


def test_a_hostile_karta_cannot_leave_its_expression(tmp_path: Path) -> None:
    spec = {"podTemplateSpecPath": '.spec) | env | ("x"'}
    with pytest.raises(Invalid):
        loaded(karta(component("x", spec)), tmp_path)
    quoted = [{"byConditions": [{"type": 'A") or true or ("', "status": "True"}]}]
    document = karta(COACH, status={"failed": quoted})
    assert derived(tmp_path, document, experiment(TEAMS)).phase.value == "Creating"


def test_a_folder_of_kinds_may_hold_kartas(tmp_path: Path) -> None:
    (tmp_path / "karta.yaml").write_text(yaml.safe_dump(karta(COACH)))
    watched = load_definitions(tmp_path).watched()
    assert any(kind.kind == "Experiment" and kind.is_whole for kind in watched)


def test_the_command_prints_a_definition_that_stands_on_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "karta.yaml"
    path.write_text(yaml.safe_dump(karta(COACH, TEAM, status=STATUS)))
    import_definition(path)
    printed = capsys.readouterr()
    written = tmp_path / "experiment.yaml"
    written.write_text(printed.out)
    facts = load_definition(written).program("v1").facts(experiment(TEAMS))
    assert facts == load_definition(path).program("v1").facts(experiment(TEAMS))
    assert len(facts.roles) == 3
    assert "covered: status: completed, failed, running, initializing" in printed.err
    assert "filled in by the general rules: endpoints" in printed.err
    written.write_text("kind: ConfigMap")
    with pytest.raises(Invalid, match="neither a Karta nor a ResourceInterface"):
        import_definition(written)

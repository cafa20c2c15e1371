"""A cluster's own settings from a file: what may stand there, and how a mistake is reported."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.fixtures.kubernetes.lives import CLUSTER_ID, SETTINGS
from watchbill.errors import Invalid
from watchbill.kinds.definition.settings_file import _LISTS, _MAPS, _TEXTS, read_settings
from watchbill.kinds.objects.settings import DeriveSettings, Redaction

WHOLE = """
queueLabel: runai/queue
nodePoolLabel: runai/node-pool
defaultNodePool: shared
projectLabel: team
gpuResources: [nvidia.com/gpu, amd.com/gpu]
gpuDeviceClasses: [gpu.nvidia.com]
kaiSchedulers: [runai-scheduler]
reservationNamespaces: [reserved]
categories:
  Job.batch: Train
  Deployment: ""
namespaceProjects: {vision: team-a}
admissionUserKey: example.com/created-by
redaction: off
"""


def test_without_a_file_all_is_as_usual() -> None:
    assert read_settings(None, CLUSTER_ID) == SETTINGS


def test_what_a_file_names_counts_and_the_rest_is_as_usual(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(WHOLE)
    assert read_settings(path, CLUSTER_ID) == replace(
        SETTINGS,
        queue_label="runai/queue",
        node_pool_label="runai/node-pool",
        default_node_pool="shared",
        project_label="team",
        gpu_resources=("nvidia.com/gpu", "amd.com/gpu"),
        gpu_device_classes=frozenset({"gpu.nvidia.com"}),
        kai_schedulers=frozenset({"runai-scheduler"}),
        reservation_namespaces=frozenset({"reserved"}),
        categories={"Job.batch": "Train", "Deployment": ""},
        namespace_projects={"vision": "team-a"},
        admission_user_key="example.com/created-by",
        redaction=Redaction.OFF,
    )


def test_every_setting_can_stand_in_the_file() -> None:
    named = {*_TEXTS.values(), *(field for field, _ in _LISTS.values()), "redaction"} | {
        *_MAPS.values()
    }
    assert named | {"cluster_id"} == {field.name for field in fields(DeriveSettings)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("queuelabel: x", ":1: queuelabel: unknown key"),
        (
            "queueLabel: x\nredaction: much",
            ":2: redaction: 'much' must be one of strict, default, off",
        ),
        ("queueLabel: [x]", "queueLabel: must be a single value"),
        ("gpuResources: x", "gpuResources: must be a list of names"),
        ("categories: [x]", "categories: must be a map"),
        ("- x", "a definition must be one mapping"),
        ("queueLabel: {", ":1: "),
    ],
)
def test_a_mistake_is_reported_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"settings\.yaml") as error:
        read_settings(path, CLUSTER_ID)
    assert message in error.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="No such file"):
        read_settings(tmp_path / "none.yaml", CLUSTER_ID)

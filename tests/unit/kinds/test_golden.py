"""Lives of every kind, in the form of the frameworks' own types, come out as they are meant."""

import copy
from typing import Any

import msgspec
import pytest

from tests.fixtures.kubernetes.lives import SETTINGS, definitions
from tests.unit.kinds.golden.reading import Case, agrees, cases, seen
from watchbill.kinds.derive import derive
from watchbill.quantity import format_bytes
from watchbill.workload import Workload


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.id)
def test_record(case: Case) -> None:
    result = seen(case)
    assert agrees(result, case) or result == case.expected


def test_every_kind_has_a_life() -> None:
    reported = {
        (case.objects.root["apiVersion"].rpartition("/")[0], case.expected["type"])
        for case in cases()
    }
    defined = {
        (watching.group, watching.kind) for watching in definitions().watched() if watching.is_whole
    }
    assert reported >= defined


def requested(folder: str) -> Workload:
    case = next(case for case in cases() if case.folder == folder)
    return derive(case.objects, definitions(), SETTINGS).record.workload


def test_spark_counts_memory_in_its_own_units_and_adds_an_overhead() -> None:
    """Driver: 2048 + 2/5 of it; each of three executors: 8192 + 2/5 of it, in MiB and rounded up."""
    result = requested("sparkapplication")
    memory = result.workload_requested_resources.cpu_memory
    assert memory is not None
    assert memory.request == format_bytes((2868 + 3 * 11469) * 1024**2)
    cpu = result.workload_requested_resources.cpu
    assert cpu is not None
    assert cpu.request == 13
    assert result.arguments == "local:///app/etl.py"


@pytest.mark.parametrize(
    ("options", "cores"), [({}, 0.5), ({"resources": {"requests": {"cpu": 2}}}, 2)]
)
def test_ray_s_autoscaler_asks_too(options: dict[str, Any], cores: float) -> None:
    case = next(case for case in cases() if case.folder == "raycluster")
    obj = copy.deepcopy(dict(case.objects.root))
    obj["spec"] |= {"enableInTreeAutoscaling": True, "autoscalerOptions": options}
    derived = derive(
        msgspec.structs.replace(case.objects, root=obj), definitions(), SETTINGS
    ).record.workload
    assert derived.workload_requested_resources.cpu is not None
    assert derived.workload_requested_resources.cpu.request == cores


def test_a_guest_asks_for_what_its_domain_says() -> None:
    asked = requested("virtualmachineinstance").workload_requested_resources
    assert asked.cpu is not None
    assert asked.cpu_memory is not None
    assert (asked.cpu.request, asked.cpu_memory.request) == (8, format_bytes(32 * 1024**3))


def test_pods_tell_where_no_template_does() -> None:
    """A kind that no file describes makes its pods itself."""
    case = next(case for case in cases() if case.id == "unknown-running by its pods")
    derived = derive(case.objects, definitions(), SETTINGS).record.workload
    assert derived.images == ("registry.example/try:1",)
    assert derived.workload_requested_resources == derived.pods_requested_resources


@pytest.mark.parametrize(
    ("folder", "images", "command"),
    [
        ("trainjob", ("registry.example/bert:2",), "torchrun train.py"),
        ("workflow", ("registry.example/fetch:1", "registry.example/train:1"), "fetch"),
        ("taskrun", ("registry.example/git:1", "registry.example/cuda:12"), None),
        ("nimpipeline", ("registry.example/nim/llm:1", "registry.example/nim/embed:1"), None),
        ("nimcache", ("registry.example/nim/llm:1",), None),
        ("milvus", ("registry.example/milvus:2.6",), None),
        ("devworkspace", ("registry.example/tools:1",), None),
        ("dynamographdeployment-v1alpha1", ("registry.example/dynamo:0.7",), None),
        ("appwrapper", ("registry.example/grid:1", "registry.example/base:1"), None),
    ],
)
def test_templates_are_found_wherever_a_kind_has_them(
    folder: str, images: tuple[str, ...], command: str | None
) -> None:
    result = requested(folder)
    assert (result.images, result.command) == (images, command)

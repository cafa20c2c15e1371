"""The one table of fields: what filters, sorts, stores, exports and shows workloads follows from it."""

import json
import re
import runpy
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.fixtures.records import START, record, workload
from watchbill.api.http.contract import (
    contract_document,
    extensions_document,
    merged_document,
)
from watchbill.errors import Invalid
from watchbill.history import start_intervals
from watchbill.query import Predicate, parse_filters
from watchbill.responses.contract import AdditionalFields
from watchbill.store.workloads.row import OrganisationIds, make_row
from watchbill.workload import AllocatedResources, Phase, Transition
from watchbill.workload_fields import (
    EXPORT_COLUMNS,
    QUERY_FIELDS,
    SORT_FIELDS,
    WORKLOAD_FIELDS,
    FieldKind,
    Storage,
    WorkloadField,
)

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = json.loads((ROOT / "contract" / "openapi.json").read_text(encoding="utf-8"))
SAMPLES: dict[FieldKind, str] = {
    FieldKind.TEXT: "x",
    FieldKind.NAMES: "x",
    FieldKind.NUMBER: "1",
    FieldKind.INSTANT: "2026-11-23",
}


def members(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of a schema, those of its parts included."""
    if "$ref" in schema:
        return members(CONTRACT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    result = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        result |= members(part)
    return result


def test_every_field_is_a_member_of_the_contracts_workload() -> None:
    ours = msgspec.structs.fields(AdditionalFields)
    for field in WORKLOAD_FIELDS:
        if field.is_beyond_contract:
            assert field.json_path[1:] in {(member.encode_name,) for member in ours}
            continue
        schema: dict[str, Any] = CONTRACT["components"]["schemas"]["Workload"]
        for name in field.json_path:
            assert name in members(schema), f"{field.name}: the contract has no {name}"
            schema = members(schema)[name]


def test_the_contracts_fields_and_our_own_can_be_sorted_by() -> None:
    contract = CONTRACT["components"]["parameters"]["WorkloadsSort"]["schema"]["enum"]
    own = [name for name, field in QUERY_FIELDS.items() if field.is_beyond_contract] + ["image"]
    assert sorted(QUERY_FIELDS) == sorted(contract + own)
    merged = merged_document(contract_document(), extensions_document())
    parameters = merged["components"]["parameters"]
    assert sorted(parameters["WorkloadsSort"]["schema"]["enum"]) == sorted(SORT_FIELDS)
    assert set(contract) <= set(SORT_FIELDS)
    pattern = re.compile(parameters["WorkloadsFilter"]["schema"]["items"]["pattern"])
    for name in QUERY_FIELDS:
        assert pattern.match(f"{name}==1"), name


@pytest.mark.parametrize("field", QUERY_FIELDS.values(), ids=lambda field: str(field.name))
def test_every_field_can_be_filtered_by(field: WorkloadField) -> None:
    (predicate,) = parse_filters([f"{field.name}=={SAMPLES[field.kind]}"])
    assert predicate.field == field.name


def test_a_label_key_alone_is_any_value_of_it() -> None:
    """`team-lead=x` bears no label `team`: the value begins behind the key."""
    assert parse_filters(["label==team"]) == (Predicate("label", "=^", "team="),)
    assert parse_filters(["label==team=vision"]) == (Predicate("label", "==", "team=vision"),)
    with pytest.raises(Invalid, match="a label is KEY=VALUE"):
        parse_filters(["label!=team"])


def row(**changes: object) -> dict[str, Any]:
    made = workload(1, **changes)
    return make_row(
        record(made),
        record_hash=b"",
        state=start_intervals(Transition(phase=made.phase, at=START)),
        organisation=OrganisationIds(7, 8),
        tenant_id=1,
        cluster_id=made.id,
        k8s_phase_updated_at=START,
        now=START,
    )


@pytest.mark.parametrize("parameter", [r'["name==\ud800"]', "[1]", '["name==a"', "[" * 50_000])
def test_what_is_no_array_of_texts_is_refused(parameter: str) -> None:
    """Half a character, which JSON can write and no database takes, was answered by a 500."""
    with pytest.raises(Invalid, match="JSON array"):
        parse_filters([parameter])


def test_the_row_stores_what_the_record_says() -> None:
    made = row(
        gpus=1.5,
        idle_allocated_gpus=0.5,
        idle_gpus=0,
        phase=Phase.PENDING,
        current_node_pools=("b", "a"),
        department_name="",
        completed_at=START + timedelta(days=1),
        ai_application_id="app",
        additional_fields={"workloadClass": "AI"},
    )
    assert made["workload_class"] == "AI"
    assert {name: made[name] for name in ("allocated_gpu", "idle_allocated_gpu", "idle_gpus")} == {
        "allocated_gpu": 1_500_000,
        "idle_allocated_gpu": 500_000,
        "idle_gpus": 0,
    }
    assert (made["phase"], made["current_node_pools"]) == ("Pending", ["a", "b"])
    assert (made["department_name"], made["submitted_by"]) == (None, "ada@example.com")
    assert made["completed_at"] == START + timedelta(days=1)
    assert made["ai_application_id"] == "app"
    assert (made["project_id"], made["department_id"], made["priority"]) == (7, 8, 50)


def test_labels_are_stored_as_pairs_and_other_names_as_they_are() -> None:
    made = row(
        images=("b:2", "a:1"),
        additional_fields={
            "labels": {"team": "vision", "empty": "", "broken": 7},
            "nodes": ["gpu-2", "gpu-1", None, "gpu-1"],
            "gpuModels": "NVIDIA-H100-80GB-HBM3",
        },
    )
    assert made["labels"] == ["empty=", "team=vision"]
    assert (made["images"], made["nodes"]) == (["a:1", "b:2"], ["gpu-1", "gpu-2"])
    assert made["gpu_models"] is None


def test_what_an_agent_invents_is_no_workload_class() -> None:
    for value in (7, None, ["AI"], {}):
        assert row(additional_fields={"workloadClass": value})["workload_class"] is None


def test_the_row_has_a_column_for_every_field() -> None:
    stored = set(row(allocated_resources=AllocatedResources(gpu=0, extended_resources=())))
    for field in QUERY_FIELDS.values():
        if field.storage is Storage.PHASE_TOTAL:
            assert {f"{field.column}_ms", f"{field.column}_since"} <= stored
        else:
            assert field.column in stored


def test_words_of_the_command_line_name_one_field_each() -> None:
    aliases = [alias for field in WORKLOAD_FIELDS for alias in field.aliases]
    assert len(aliases) == len(set(aliases))
    assert not set(aliases) & {name.lower() for name in QUERY_FIELDS}


def test_exported_columns_have_their_order_and_names() -> None:
    assert list(EXPORT_COLUMNS)[:5] == ["id", "name", "type", "category", "phase"]
    assert EXPORT_COLUMNS["allocatedGpus"] == ("allocatedResources", "gpu")


def test_the_pages_list_is_made_from_the_table(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "ui" / "generate_fields.py"))
    script["main"](tmp_path / "fields.json")
    rows = json.loads((tmp_path / "fields.json").read_text(encoding="utf-8"))
    assert [tuple(row.values()) for row in rows] == [
        (field.name, field.label, field.kind.value, field.is_sortable)
        for field in QUERY_FIELDS.values()
    ]

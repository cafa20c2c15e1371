"""Parameters: the contract's own rules, and what is answered to everything else."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watchbill.api.http.contract import (
    contract_document,
    extensions_document,
    merged_document,
    operations,
)
from watchbill.api.http.parameters import decode_pairs, parse_path, parse_query
from watchbill.errors import Invalid, NotFound

OPERATIONS = {
    operation.operation_id: operation
    for operation in operations(merged_document(contract_document(), extensions_document()))
}
METRICS = "metricType=POD_COUNT&start=2026-11-20T00:00:00Z&end=2026-11-21T00:00:00Z"


def parse(operation: str, query: str | bytes) -> dict[str, Any]:
    raw = query if isinstance(query, bytes) else query.encode()
    return parse_query(OPERATIONS[operation].parameters, raw)


UNDERSTOOD = [
    ("get_workloads", "", "limit", 50),
    ("get_workloads", "", "offset", 0),
    ("get_workloads", "", "sortOrder", "asc"),
    ("get_workloads", "", "sortBy", None),
    ("get_workloads", "", "deleted", None),
    ("get_workloads", "", "filterBy", ()),
    ("get_workloads", "limit=1", "limit", 1),
    ("get_workloads", "limit=500", "limit", 500),
    ("get_workloads", "offset=2147483647", "offset", 2**31 - 1),
    ("get_workloads", "deleted=true", "deleted", True),
    ("get_workloads", "deleted=false", "deleted", False),
    ("get_workloads", "unknown=1&unknown=2&limit=7", "limit", 7),
    ("get_workloads", "search=", "search", None),
    ("get_workloads", "search=a+b%2Bc%2520", "search", "a b+c%20"),
    ("get_workloads", "search=%C3%9C", "search", "Ü"),
    ("get_workloads", "search=%00", "search", "\0"),
    ("get_workloads", "search=a=b", "search", "a=b"),
    ("get_workloads", "filterBy=", "filterBy", ()),
    ("get_workloads", "filterBy&", "filterBy", ()),
    ("get_workloads", "filterBy=name==a,b&filterBy=phase==Running", "filterBy", 2),
    ("get_workloads", "filterBy%5B%5D=name==a", "filterBy", ()),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&groupBy=", "groupBy", ()),
    (
        "get_workloads_telemetry",
        "telemetryType=WORKLOADS_COUNT&groupBy=Type,Phase",
        "groupBy",
        ("Type", "Phase"),
    ),
    (
        "get_workloads_telemetry",
        "telemetryType=WORKLOADS_COUNT&groupBy=Type&groupBy=Phase",
        "groupBy",
        ("Type", "Phase"),
    ),
    (
        "get_workloads_telemetry",
        "telemetryType=WORKLOADS_COUNT&filterByPhases=Running%2CPending",
        "filterByPhases",
        ("Running", "Pending"),
    ),
    (
        "get_workloads_telemetry",
        "telemetryType=WORKLOADS_COUNT&clusterId=71F69D83-BA66-4822-ADF5-55CE55EFD210",
        "clusterId",
        UUID("71f69d83-ba66-4822-adf5-55ce55efd210"),
    ),
    ("get_workload_metrics", METRICS, "numberOfSamples", 20),
    ("get_workload_metrics", METRICS + "&numberOfSamples=0", "numberOfSamples", 0),
    ("get_workload_metrics", METRICS, "start", datetime(2026, 11, 20, tzinfo=UTC)),
    (
        "get_workload_metrics",
        METRICS.replace("00:00:00Z&end", "02:00:00+02:00&end"),
        "start",
        datetime(2026, 11, 20, tzinfo=UTC),
    ),
    ("export_workloads", "", "format", "csv"),
]


@pytest.mark.parametrize(("operation", "query", "name", "expected"), UNDERSTOOD)
def test_understood(operation: str, query: str, name: str, expected: Any) -> None:
    value = parse(operation, query)[name]
    assert (len(value) if isinstance(expected, int) and isinstance(value, tuple) else value) == (
        expected
    )


REFUSED = [
    ("get_workloads", "limit=0", "limit"),
    ("get_workloads", "limit=501", "limit"),
    ("get_workloads", "limit=-1", "limit"),
    ("get_workloads", "limit=1e3", "limit"),
    ("get_workloads", "limit=1.0", "limit"),
    ("get_workloads", "limit=%205", "limit"),
    ("get_workloads", "limit=+5", "limit"),
    ("get_workloads", "limit=%EF%BC%91", "limit"),
    ("get_workloads", "limit=", "limit"),
    ("get_workloads", "limit=0x10", "limit"),
    ("get_workloads", "limit=1_0", "limit"),
    ("get_workloads", "limit=" + "9" * 5000, "limit"),
    ("get_workloads", "offset=-1", "offset"),
    ("get_workloads", "offset=2147483648", "offset"),
    ("get_workloads", "offset=99999999999999999999999", "offset"),
    ("get_workloads", "limit=1&limit=1", "limit"),
    ("get_workloads", "search=a&search=", "search"),
    ("get_workloads", "deleted=TRUE", "deleted"),
    ("get_workloads", "deleted=True", "deleted"),
    ("get_workloads", "deleted=1", "deleted"),
    ("get_workloads", "deleted=yes", "deleted"),
    ("get_workloads", "deleted=", "deleted"),
    ("get_workloads", "sortBy=id", "sortBy"),
    ("get_workloads", "sortBy=Name", "sortBy"),
    ("get_workloads", "sortBy=", "sortBy"),
    ("get_workloads", "sortBy=name%27--", "sortBy"),
    ("get_workloads", "sortBy=name,type", "sortBy"),
    ("get_workloads", "sortOrder=ASC", "sortOrder"),
    ("get_workloads", "search=%ff", "UTF-8"),
    ("get_workloads", "search=%ED%A0%80", "UTF-8"),
    ("get_workloads", "unknown=%C3", "UTF-8"),
    ("get_workloads", "search=%zz", "%"),
    ("get_workloads", "search=50%", "%"),
    ("get_workloads", "%2=1", "%"),
    ("get_workloads_telemetry", "", "telemetryType"),
    ("get_workloads_telemetry", "telemetryType=", "telemetryType"),
    ("get_workloads_telemetry", "telemetryType=workloads_count", "telemetryType"),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&groupBy=Type,Type", "groupBy"),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&groupBy=Type&groupBy=Type", "groupBy"),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&groupBy=Type,Phase,Category", "groupBy"),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&groupBy=Type,", "groupBy"),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&groupBy=type", "groupBy"),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&clusterId=1", "clusterId"),
    ("get_workloads_telemetry", "telemetryType=WORKLOADS_COUNT&filterByPhases=running", "filterByPhases"),
    ("get_workload_metrics", "", "metricType"),
    ("get_workload_metrics", "metricType=POD_COUNT&start=2026-11-20T00:00:00Z", "end"),
    ("get_workload_metrics", METRICS + "&numberOfSamples=1001", "numberOfSamples"),
    ("get_workload_metrics", METRICS + "&numberOfSamples=-1", "numberOfSamples"),
    ("get_workload_metrics", METRICS + "&metricType=" + ",".join(["CPU_USAGE_CORES"] * 10), "metricType"),
    ("get_workload_metrics", METRICS.replace("POD_COUNT", "pods"), "metricType"),
    ("get_workload_metrics", METRICS.replace("2026-11-20", "2026-02-30"), "start"),
    ("get_workload_metrics", METRICS.replace("2026-11-20T00", "2026-11-20T24"), "start"),
    ("get_workload_metrics", METRICS.replace("2026-11-20T00:00:00Z", "yesterday"), "start"),
    ("export_workloads", "format=xlsx", "format"),
    ("get_workload_facets", "fields=name", "fields"),
]  # fmt: skip


@pytest.mark.parametrize(("operation", "query", "named"), REFUSED)
def test_refused_by_name(operation: str, query: str, named: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(operation, query)
    assert named in refused.value.message
    assert len(refused.value.message) < 200


def test_raw_bytes_that_are_no_utf8_are_refused() -> None:
    with pytest.raises(Invalid, match="UTF-8"):
        parse("get_workloads", b"search=\xff")


@pytest.mark.parametrize(
    "segment",
    ["1", "", "not-a-uuid", "{71f69d83-ba66-4822-adf5-55ce55efd210}", "71f69d83ba664822adf555ce55efd210"],
)  # fmt: skip
def test_a_malformed_id_names_nothing(segment: str) -> None:
    with pytest.raises(NotFound):
        parse_path(OPERATIONS["get_workload"].parameters, {"workloadId": segment})


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_values_or_invalid(query: bytes) -> None:
    try:
        pairs = decode_pairs(query)
    except Invalid:
        return
    assert all(isinstance(value, str) for values in pairs.values() for value in values)


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [parameter.name for parameter in OPERATIONS["get_workloads"].parameters]
            ),
            st.sampled_from(["", "true", "-1", "name", "desc", "9" * 30, "%00", "%", "name==a"]),
        ),
        max_size=5,
    )
)
def test_any_mixture_is_values_or_invalid(pairs: list[tuple[str, str]]) -> None:
    try:
        values = parse("get_workloads", "&".join(f"{name}={value}" for name, value in pairs))
    except Invalid:
        return
    assert 1 <= values["limit"] <= 500
    assert 0 <= values["offset"] < 2**31

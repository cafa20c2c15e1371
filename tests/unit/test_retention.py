"""The file of retention by tenant: what it may hold, and what is said of anything else."""

from pathlib import Path

import pytest

from watchbill.errors import Invalid
from watchbill.settings.retention import RetentionDays, read_retention

DEFAULT = RetentionDays(deleted=90, metrics=7, audit=365, usage=400)


def test_a_tenant_that_is_named_keeps_what_it_names_and_the_rest_as_all_do(tmp_path: Path) -> None:
    file = tmp_path / "retention.yaml"
    file.write_text("tenants: {research: {deletedDays: 30, metricsDays: 30}}", encoding="utf-8")
    retention = read_retention(file, DEFAULT)
    assert retention.of("research") == RetentionDays(deleted=30, metrics=30, audit=365, usage=400)
    assert retention.of("default") == DEFAULT
    assert retention.longest_metrics_days == 30
    assert read_retention(None, DEFAULT).of("research") == DEFAULT


@pytest.mark.parametrize(
    "text",
    [
        "tenants: {research: {deletedDays: 0}}",
        "tenants: {research: {days: 3}}",
        "tenants: [research]",
        "research: {deletedDays: 3}",
        "tenants: {",
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "retention.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(Invalid, match=r"retention\.yaml") as raised:
        read_retention(file, DEFAULT)
    assert "deletedDays" in (raised.value.details or "")

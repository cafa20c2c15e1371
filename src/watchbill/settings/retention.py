"""How long history is kept: days for all tenants from the settings, and a file that changes them for some."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from watchbill.errors import Invalid
from watchbill.files import read_text
from watchbill.settings.variables import Days


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionDays:
    """Of deleted workloads, of samples, of the audit log and of usage by day."""

    deleted: int
    metrics: int
    audit: int
    usage: int


class _TenantDays(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    deleted_days: Days | None = None
    metrics_days: Days | None = None
    audit_days: Days | None = None
    usage_days: Days | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tenants: Mapping[str, _TenantDays] = {}


@dataclass(frozen=True, slots=True)
class Retention:
    default: RetentionDays
    tenants: Mapping[str, RetentionDays]
    """By name, where they differ."""

    def of(self, tenant: str) -> RetentionDays:
        return self.tenants.get(tenant, self.default)

    @property
    def longest_metrics_days(self) -> int:
        return max(days.metrics for days in (self.default, *self.tenants.values()))


def read_retention(path: Path | None, default: RetentionDays) -> Retention:
    """`path` None = the same for all tenants. Raises Invalid, naming what is wrong."""
    if path is None:
        return Retention(default, {})
    try:
        file = msgspec.convert(yaml.safe_load(read_text(path)) or {}, _File)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise Invalid(
            f"The retention in {path} is invalid.",
            details=f"{error}\nWrite tenants, by name, each with deletedDays, metricsDays, auditDays or "
            "usageDays.",
        ) from error
    return Retention(
        default, {name: replace(default, **_named(days)) for name, days in file.tenants.items()}
    )


def _named(days: _TenantDays) -> dict[str, Any]:
    return {
        name.removesuffix("_days"): value
        for name, value in msgspec.structs.asdict(days).items()
        if value is not None
    }

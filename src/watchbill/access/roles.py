"""What each role allows: permissions as one table, named after the roles that people know from Run:ai.

A permission is `resource:action`. Roles beyond these come from the configuration, never from a request.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from watchbill.errors import Invalid


class Permission(StrEnum):
    WORKLOADS_READ = "workloads:read"
    CLUSTERS_READ = "clusters:read"
    CLUSTERS_WRITE = "clusters:write"
    ACCESS_READ = "access:read"
    ACCESS_WRITE = "access:write"
    AUDIT_READ = "audit:read"
    SERVER_READ = "server:read"


SCOPED = frozenset({Permission.WORKLOADS_READ, Permission.CLUSTERS_READ})
"""These are worth something in any scope; every other one only in that of a whole tenant."""

_READ = frozenset({Permission.WORKLOADS_READ, Permission.CLUSTERS_READ})
_WORKLOADS = frozenset({Permission.WORKLOADS_READ})
_ALL = frozenset(Permission)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRole:
    name: str
    """As rules name it."""
    title: str
    permissions: frozenset[Permission]
    description: str


PREDEFINED: tuple[AccessRole, ...] = tuple(
    AccessRole(name=name, title=title, permissions=permissions, description=description)
    for name, title, permissions, description in (
        ("administrator", "System administrator", _ALL, "Everything in the tenant."),
        (
            "department-administrator",
            "Department administrator",
            _WORKLOADS,
            "Workloads of the department; not the clusters beneath.",
        ),
        (
            "department-administrator-legacy",
            "Department administrator (legacy)",
            _READ,
            "Workloads of the department, and the clusters that hold them.",
        ),
        ("department-viewer", "Department viewer", _READ, "Reads the department's workloads."),
        ("editor", "Editor", _READ, "Reads workloads and clusters in the scope."),
        ("viewer", "Viewer", _READ, "Reads workloads and clusters in the scope."),
        ("research-manager", "Research manager", _READ, "Reads the scope's workloads."),
        ("l1-researcher", "L1 researcher", _READ, "Reads the scope's workloads."),
        ("l2-researcher", "L2 researcher", _READ, "Reads the scope's workloads."),
        ("ml-engineer", "ML engineer", _READ, "Reads the scope's workloads."),
        *(
            (f"{asset.lower().replace(' ', '-')}-administrator", f"{asset} administrator", _WORKLOADS,
             f"Looks after {what}; sees the workloads that use them.")
            for asset, what in (
                ("Environment", "environments"),
                ("Data source", "data sources"),
                ("Compute resource", "compute resources"),
                ("Template", "templates"),
                ("Credentials", "credentials"),
                ("Data volume", "data volumes"),
            )
        ),
        (
            "cluster-registrar",
            "Cluster registrar",
            frozenset({Permission.CLUSTERS_READ, Permission.CLUSTERS_WRITE}),
            "Registers and removes clusters; reads no workload.",
        ),
        (
            "auditor",
            "Auditor",
            frozenset({Permission.AUDIT_READ, Permission.ACCESS_READ}),
            "Reads the audit log and who may do what; no workload.",
        ),
        (
            "metrics-reader",
            "Metrics reader",
            frozenset({Permission.SERVER_READ}),
            "Scrapes the server's own metrics; for the first tenant only.",
        ),
    )
)  # fmt: skip
ALIASES = {"system-administrator": "administrator"}


@dataclass(frozen=True, slots=True)
class Roles:
    """All roles by name. A rule that names none of them grants nothing."""

    by_name: Mapping[str, AccessRole] = field(
        default_factory=lambda: {role.name: role for role in PREDEFINED}
    )

    def named(self, name: str) -> AccessRole | None:
        return self.by_name.get(ALIASES.get(name, name))

    def permissions(self, name: str) -> frozenset[Permission]:
        role = self.named(name)
        return frozenset() if role is None else role.permissions


def with_custom(custom: Mapping[str, Iterable[str]]) -> Roles:
    """The predefined roles and those of the configuration. Raises Invalid for a name that is taken and for
    permissions that do not exist."""
    roles = {role.name: role for role in PREDEFINED}
    for name, listed in custom.items():
        if name in roles or name in ALIASES:
            raise Invalid(f"The role '{name}' is predefined; choose another name.")
        wanted = list(listed)
        unknown = sorted(set(wanted) - set(Permission))
        if unknown:
            raise Invalid(
                f"The role '{name}' lists permissions that do not exist: {', '.join(unknown)}.",
                details=f"Permissions: {', '.join(Permission)}.",
            )
        roles[name] = AccessRole(
            name=name,
            title=name,
            permissions=frozenset(Permission(permission) for permission in wanted),
            description="From the configuration.",
        )
    return Roles(roles)

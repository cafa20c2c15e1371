"""CustomResourceDefinition objects for the custom kinds that a simulated cluster serves."""

import uuid
from typing import Any

from watchbill.demo.resources import Resource


def definition_document(resource: Resource, revision: int) -> dict[str, Any]:
    names: dict[str, Any] = {
        "plural": resource.plural,
        "singular": resource.kind.lower(),
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
    }
    if resource.short_names:
        names["shortNames"] = list(resource.short_names)
    established = [
        {"type": kind, "status": "True", "reason": reason, "message": message}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    return {
        "metadata": {
            "name": resource.full_name,
            "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{resource.full_name}/{revision}")),
            "creationTimestamp": "2026-01-12T08:00:00Z",
        },
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced" if resource.is_namespaced else "Cluster",
            "versions": [
                {"name": version, "served": True, "storage": version == resource.version}
                for version in resource.versions
            ],
        },
        "status": {"acceptedNames": names, "conditions": established},
    }

"""A cluster's own labels, categories and degree of redaction, from one YAML file."""

from pathlib import Path
from typing import Any
from uuid import UUID

from watchbill.kinds.definition.yaml_section import Section, read_section
from watchbill.kinds.objects.settings import DeriveSettings, Redaction

_TEXTS = {
    "queueLabel": "queue_label",
    "nodePoolLabel": "node_pool_label",
    "defaultNodePool": "default_node_pool",
    "projectLabel": "project_label",
    "namespaceProjectLabel": "namespace_project_label",
    "priorityLabel": "priority_label",
    "preemptibilityLabel": "preemptibility_label",
    "userKey": "user_key",
    "admissionUserKey": "admission_user_key",
    "topologyAnnotation": "topology_annotation",
    "requiredPlacementAnnotation": "required_placement_annotation",
    "preferredPlacementAnnotation": "preferred_placement_annotation",
}
_LISTS: dict[str, tuple[str, type[frozenset[str]] | type[tuple[str, ...]]]] = {
    "reservationNamespaces": ("reservation_namespaces", frozenset),
    "kaiSchedulers": ("kai_schedulers", frozenset),
    "gpuResources": ("gpu_resources", tuple),
    "gpuDeviceClasses": ("gpu_device_classes", frozenset),
}
_MAPS = {"categories": "categories", "namespaceProjects": "namespace_projects"}
_KEYS = (*_TEXTS, *_LISTS, *_MAPS, "redaction")


def read_settings(path: Path | None, cluster_id: UUID) -> DeriveSettings:
    """The settings that the file names, the usual ones for the rest. Raises Invalid."""
    if path is None:
        return DeriveSettings(cluster_id=cluster_id)
    section = read_section(path)
    section.allow(_KEYS)
    values: dict[str, Any] = {
        field: section.required(key) for key, field in _TEXTS.items() if section.has(key)
    }
    values |= {
        field: kind(section.texts(key)) for key, (field, kind) in _LISTS.items() if section.has(key)
    }
    for key, field in _MAPS.items():
        entries = section.section(key)
        if entries is not None:
            values[field] = {name: entries.text(name) for name in entries.names()}
    if section.has("redaction"):
        values["redaction"] = _redaction(section)
    return DeriveSettings(cluster_id=cluster_id, **values)


def _redaction(section: Section) -> Redaction:
    # YAML takes `off` for a truth value elsewhere; here it is the word that stands there.
    written = section.text("redaction")
    try:
        return Redaction(written)
    except ValueError:
        known = ", ".join(mode.value for mode in Redaction)
        raise section.error("redaction", f"{written!r} must be one of {known}") from None

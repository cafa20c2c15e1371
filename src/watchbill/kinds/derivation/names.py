"""The names by which people find a workload besides its own: its labels, its nodes, the models of its GPUs."""

from collections.abc import Iterable, Iterator
from typing import Any

from watchbill.kinds.definition.view import WorkloadView
from watchbill.kinds.derivation.presentation import MAX_LABELS, presented_labels, printable
from watchbill.kinds.derivation.workload_class import asks_for_gpus
from watchbill.kinds.objects.gpu_units import gpu_model
from watchbill.kinds.objects.json_access import labels, pairs

MAX_NODES = 1_000
MAX_GPU_MODELS = 20


def name_fields(view: WorkloadView, truncated: Iterable[str]) -> dict[str, Any]:
    """Members of `additionalFields`; those without a name are left out. `truncated`: others that are cut."""
    nodes, models = _nodes(view), _gpu_models(view)
    own = pairs(labels(view.root))
    fields = {
        "nodes": nodes[:MAX_NODES],
        "gpuModels": models[:MAX_GPU_MODELS],
        "labels": presented_labels(own, view.settings.redaction),
        "truncated": [
            *truncated,
            *(["nodes"] if len(nodes) > MAX_NODES else []),
            *(["gpuModels"] if len(models) > MAX_GPU_MODELS else []),
            *(["labels"] if len(own) > MAX_LABELS else []),
        ],
    }
    return {name: value for name, value in fields.items() if value}


def _nodes(view: WorkloadView) -> list[str]:
    """Of all its pods, those that have ended too."""
    return sorted({printable(pod.node) for pod in view.pods.all if pod.node})


def _gpu_models(view: WorkloadView) -> list[str]:
    """Of the nodes on which its pods hold or held GPUs; while there are none, those that it asks for."""
    placed = {(id(pod.resources), id(pod.annotations), pod.node): pod for pod in view.pods.all}
    nodes = {pod.node for pod in placed.values() if pod.node and asks_for_gpus(pod, view)}
    models = {gpu_model(view.cluster.node_labels.get(node, {})) for node in nodes} - {""}
    return sorted(map(printable, models or set(_requested_models(view))))


def _requested_models(view: WorkloadView) -> Iterator[str]:
    """Where a selector or a required affinity names what nodes say of their GPUs."""
    templates = [role.template for role in view.facts.roles if role.template is not None]
    wanted = [
        *(entry for each in templates for entry in each.node_selector.items()),
        *(entry for pod in view.pods.all for entry in pod.node_selector),
        *(
            (label, value)
            for each in templates
            for label, values in each.required_node_labels
            for value in values
        ),
    ]
    for label, value in dict.fromkeys(wanted):
        if model := gpu_model({label: value}):
            yield model

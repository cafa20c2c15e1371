"""A pod template, read once: what its pods ask for and what they run."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from watchbill.kinds.objects.json_access import (
    annotations,
    at,
    labels,
    mapping,
    objects,
    pairs,
    text,
    texts,
)
from watchbill.kinds.objects.resources import Resources, pod_resources

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_MAX_VARIABLES = 500
_MAX_IMAGES = 50
_IMAGE_LENGTH = 1_024


class Variable(msgspec.Struct, frozen=True):
    """`is_reference`: `value` names where the kubelet takes it from; the value itself is unknown."""

    name: str
    value: str
    is_reference: bool


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """`command`, `arguments` and `variables` are those of the default container."""

    resources: Resources
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    node_selector: Mapping[str, str]
    required_node_labels: tuple[tuple[str, tuple[str, ...]], ...]
    """`In` terms of the required node affinity: label and the values that will do."""
    claims: tuple[str, ...]
    """Names of ResourceClaims, which all pods share."""
    claim_templates: tuple[str, ...]
    """Names of ResourceClaimTemplates: a claim of its own for each pod."""
    priority_class_name: str
    scheduler_name: str
    images: tuple[str, ...]
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    variables: tuple[Variable, ...]


def read_template(template: Any) -> Template | None:
    """The template (an object with `spec` and perhaps `metadata`), or None where there is none."""
    spec = at(template, "spec")
    if not isinstance(spec, Mapping):
        return None
    main = _default_container(template, spec)
    return Template(
        resources=pod_resources(spec),
        annotations=pairs(annotations(template)),
        labels=pairs(labels(template)),
        node_selector=pairs(spec.get("nodeSelector")),
        required_node_labels=tuple(_affinity_terms(spec)),
        claims=tuple(_claims(spec, "resourceClaimName")),
        claim_templates=tuple(_claims(spec, "resourceClaimTemplateName")),
        priority_class_name=text(spec.get("priorityClassName")),
        scheduler_name=text(spec.get("schedulerName")),
        images=images_of(spec),
        command=texts(main.get("command")),
        arguments=texts(main.get("args")),
        variables=tuple(_variables(main))[:_MAX_VARIABLES],
    )


_PLACEHOLDER = re.compile(r"\{\{|should-be-overridden|\$\([a-z]+\.[\w.\[\]'\"*-]+\)", re.ASCII)
"""Argo's, Kubeflow Pipelines' and Tekton's; `$(NAME)` without a dot is a variable of the container's own."""


def is_placeholder(text: str) -> bool:
    """Whether a template leaves this to whatever makes its pods."""
    return bool(_PLACEHOLDER.search(text))


def images_of(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The images of a pod's containers, each once; of init containers those that last beside the others."""
    lasting = (
        container
        for container in objects(spec.get("initContainers"))
        if container.get("restartPolicy") == "Always"
    )
    return tuple(
        dict.fromkeys(
            image
            for container in (*objects(spec.get("containers")), *lasting)
            if (image := text(container.get("image"))[:_IMAGE_LENGTH])
        )
    )[:_MAX_IMAGES]


def _claims(spec: Mapping[str, Any], member: str) -> Iterator[str]:
    for entry in objects(spec.get("resourceClaims")):
        name = text(entry.get(member))
        if name:
            yield name


def _default_container(template: Any, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    name = annotations(template).get(DEFAULT_CONTAINER)
    containers = list(objects(spec.get("containers")))
    for container in containers:
        if name is not None and container.get("name") == name:
            return container
    return containers[0] if containers else {}


def _variables(container: Mapping[str, Any]) -> Iterator[Variable]:
    for variable in objects(container.get("env")):
        name = text(variable.get("name"))
        if not name:
            continue
        source = variable.get("valueFrom")
        if isinstance(source, Mapping):
            yield Variable(name, _reference(source), is_reference=True)
        else:
            yield Variable(name, text(variable.get("value")), is_reference=False)


def _reference(source: Mapping[str, Any]) -> str:
    """Where a value comes from, written as `secretKeyRef(name/key)`."""
    for kind, reference in source.items():
        reference = mapping(reference)
        path = [
            text(reference.get(part))
            for part in ("name", "key", "containerName", "resource", "fieldPath")
            if text(reference.get(part))
        ]
        return f"{kind}({'/'.join(path)})"
    return "valueFrom"


def _affinity_terms(spec: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    required = at(
        spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"
    )
    for term in objects(at(required, "nodeSelectorTerms")):
        for expression in objects(term.get("matchExpressions")):
            if expression.get("operator") == "In":
                yield text(expression.get("key")), texts(expression.get("values"))

"""The kubectl commands that lead on from a workload: its object, its events, the log of a pod of it."""

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from watchbill.cli.output.columns import ColumnView
from watchbill.cli.output.terminal import safe

if TYPE_CHECKING:
    from watchbill.responses.contract import PodResponse, WorkloadResponse
    from watchbill.workload import Element, KubernetesRef


def kubectl_lines(
    workload: "WorkloadResponse", elements: "Sequence[Element]", view: ColumnView
) -> Iterator[str]:
    """A blank line, a heading and commands; nothing where the workload is gone or no object of it is known."""
    refs = [element.kubernetes_ref for element in elements if element.kubernetes_ref is not None]
    if workload.deleted_at is not None or not refs:
        return
    namespace = f"-n {_quoted(workload.namespace)}" if workload.namespace else ""
    yield ""
    yield f"Next, with kubectl on cluster {safe(view.cluster_name(workload.cluster_id))}:"
    pod = next((ref for ref in refs if ref.gvk.kind == "Pod"), None)
    for words in _commands(refs[0], pod):
        yield f"  kubectl {words} {namespace}".rstrip()


def _commands(first: "KubernetesRef", pod: "KubernetesRef | None") -> Iterator[str]:
    gvk, named = first.gvk, pod or first
    resource = (
        ".".join((gvk.kind.lower(), gvk.version, gvk.group)) if gvk.group else gvk.kind.lower()
    )
    yield f"describe {_quoted(resource)} {_quoted(first.name)}"
    yield f"events --for {_quoted(f'{named.gvk.kind.lower()}/{named.name}')}"
    if pod is not None:
        yield f"logs {_quoted(pod.name)} --all-containers --tail 100"


def log_lines(pods: "Sequence[PodResponse]") -> Iterator[str]:
    """A command for each pod, and one for what a container wrote before it was restarted."""
    for pod in pods:
        command = f"kubectl logs {_quoted(pod.name)} -n {_quoted(pod.namespace)}"
        yield f"{command} --all-containers --tail 100"
        for container in pod.containers:
            if container.restarts:
                yield f"{command} -c {_quoted(container.name)} --previous --tail 100"


def _quoted(text: str) -> str:
    return shlex.quote(safe(text))

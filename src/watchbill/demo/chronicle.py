"""Events (core/v1): what the schedulers say aloud. Old ones go, as they do after an hour in a real cluster."""

import itertools
from collections import deque
from typing import Final

from watchbill.demo.model import Pod, Seconds, Workload
from watchbill.demo.objects import stamp
from watchbill.demo.resources import EVENTS
from watchbill.demo.scheduler import DEFAULT
from watchbill.demo.store import Store

_KEPT: Final = 400
_KINDS: Final = {
    "Scheduled": ("Scheduled", "Normal", "Successfully assigned {namespace}/{pod} to {node}"),
    "Unschedulable": ("Unschedulable", "Warning", "{message}"),
    "Evict": ("Evict", "Normal", "Moved away for a workload that comes first"),
}
_PLAIN_REASONS: Final = {"Unschedulable": "FailedScheduling"}
"""What the standard scheduler calls it."""


class Chronicle:
    """The last few hundred events of one cluster."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._numbers = itertools.count(store.revision)
        shelf = store.shelf(EVENTS.group, EVENTS.plural)
        paths = shelf.objects if shelf is not None else ()
        self._kept = deque(path.partition("/")[::2] for path in paths)

    def tell(
        self, what: str, workload: Workload, pod: Pod, now: Seconds, message: str = ""
    ) -> None:
        reason, kind, text = _KINDS[what]
        if workload.scheduler == DEFAULT:
            reason = _PLAIN_REASONS.get(what, reason)
        number = next(self._numbers)
        name = f"{pod.name}.{number:016x}"
        document = {
            "metadata": {
                "name": name,
                "namespace": workload.namespace,
                "uid": f"{pod.uid[:-12]}{number:012x}",
                "creationTimestamp": stamp(now),
            },
            "involvedObject": {
                "kind": "Pod",
                "namespace": workload.namespace,
                "name": pod.name,
                "uid": pod.uid,
                "apiVersion": "v1",
            },
            "reason": reason,
            "message": text.format(
                namespace=workload.namespace, pod=pod.name, node=pod.node, message=message
            ),
            "source": {"component": workload.scheduler},
            "firstTimestamp": stamp(now),
            "lastTimestamp": stamp(now),
            "count": 1,
            "type": kind,
            "reportingComponent": workload.scheduler,
        }
        self._store.put(EVENTS, document)
        self._kept.append((workload.namespace, name))
        if len(self._kept) > _KEPT:
            self._store.delete(EVENTS, *self._kept.popleft())

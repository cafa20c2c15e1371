"""The PromQL of each metric type, one row of `TYPE_QUERIES` each. Pure.

Which pods and devices a workload has is read from the agent's own series, so a deleted workload is found as it
was. `max by` comes before every sum: two scrapes of one exporter, or two Prometheus replicas, are still one
figure. Whatever is put into a literal stays data.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from watchbill.metric_types import MAX_DEVICES, MetricType

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """`label operator value`, where the value is data and never syntax."""

    label: str
    value: str
    operator: str = "="

    def __str__(self) -> str:
        return f"{self.label}{self.operator}{literal(self.value)}"


def literal(text: str) -> str:
    """A string literal. What cannot stand in one as it is becomes an escape."""
    return f'"{"".join(_escaped(character) for character in text)}"'


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:  # half a character: no text that a store can hold
        return "\ufffd"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def selector(metric: str, matchers: Iterable[Matcher], range_: str = "") -> str:
    """A metric by name and labels; `range_` makes it a range vector."""
    inside = ",".join(map(str, matchers))
    return f"{metric}{{{inside}}}{f'[{range_}]' if range_ else ''}"


_INT32_BLANK = "2147483632"
_FP64_BLANK = "140737488355328"
"""From here on DCGM means "not known"; of all figures only bytes a second may lie between the two."""
PODS = "watchbill_workload_pod_info"
SHARES = "watchbill_workload_gpu_share"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What the labels are called in this store."""

    namespace: str = "namespace"
    pod: str = "pod"
    container: str = "container"
    uuid: str = "UUID"
    instance: str = "GPU_I_ID"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTarget:
    """The workload that a query is about. `extra`: matchers that every selector carries."""

    workload_id: str
    namespace: str
    window: timedelta
    labels: Labels = field(default_factory=Labels)
    extra: tuple[Matcher, ...] = ()
    devices: int = MAX_DEVICES
    """The most devices that are reported one by one."""

    @property
    def range(self) -> str:
        return f"{round(self.window.total_seconds() * 1000)}ms"

    @property
    def device(self) -> str:
        return f"{self.labels.uuid}, {self.labels.instance}"

    @property
    def place(self) -> str:
        return f"{self.labels.namespace}, {self.labels.pod}"

    def of_namespace(self, metric: str, *more: Matcher, range_: str = "") -> str:
        own = Matcher(self.labels.namespace, self.namespace)
        return selector(metric, (*self.extra, own, *more), range_)

    def of_workload(self, metric: str, *more: Matcher, range_: str = "") -> str:
        own = Matcher("workload_id", self.workload_id)
        return selector(metric, (*self.extra, own, *more), range_)

    def everywhere(self, metric: str, *more: Matcher) -> str:
        return selector(metric, (*self.extra, *more))


def _renamed(expression: str, **names: str) -> str:
    """The expression with its labels called as this store calls them."""
    for own, theirs in names.items():
        if own != theirs:
            expression = f'label_replace({expression}, "{theirs}", "$1", "{own}", "(.*)")'
    return expression


def _pods(target: QueryTarget, *, in_window: bool = False) -> str:
    """The workload's pods: those of the instant, or all that the window has seen."""
    vector = target.of_workload(PODS, range_=target.range if in_window else "")
    vector = f"last_over_time({vector})" if in_window else vector
    return _renamed(
        f"max by (pod_namespace, pod_name) ({vector})",
        pod_namespace=target.labels.namespace,
        pod_name=target.labels.pod,
    )


def _shares(target: QueryTarget, *more: Matcher) -> str:
    vector = f"max by (UUID, GPU_I_ID) ({target.of_workload(SHARES, *more)})"
    return _renamed(vector, UUID=target.labels.uuid, GPU_I_ID=target.labels.instance)


_ALONE = Matcher("shared", "false")


def _device(
    target: QueryTarget, metric: str, factor: str = "", more: tuple[Matcher, ...] = ()
) -> str:
    bound = _FP64_BLANK if "NVLINK" in metric else _INT32_BLANK
    figure = f"{target.everywhere(metric, *more)} < {bound}"
    return f"max by ({target.device}) ({factor}({figure}))"


def _with_each(target: QueryTarget, whole: str, each: str, shares: str) -> str:
    """The figure of the workload, and beside it each device's where these are few."""
    few = f"(count({shares}) <= {target.devices}) > 1"
    return f"{whole} or ({each} and on () ({few}))"


def _utilization(target: QueryTarget) -> str:
    shares = _shares(target)
    each = f"({_device_utilization(target)} and on ({target.device}) {shares})"
    return _with_each(target, f"avg({each})", each, shares)


def utilization_by_workload(
    ids: Iterable[str], labels: Labels, extra: tuple[Matcher, ...] = ()
) -> str:
    """The mean utilization of each workload's devices, by `workload_id`. The ids are UUIDs."""
    target = QueryTarget(
        workload_id="", namespace="", window=timedelta(), labels=labels, extra=extra
    )
    own = Matcher("workload_id", "|".join(ids), "=~")
    shares = _renamed(
        f"max by (workload_id, UUID, GPU_I_ID) ({target.everywhere(SHARES, own)})",
        UUID=labels.uuid,
        GPU_I_ID=labels.instance,
    )
    each = _device_utilization(target)
    return f"avg by (workload_id) (0 * {shares} + on ({target.device}) group_left () {each})"


def _device_utilization(target: QueryTarget) -> str:
    whole = Matcher(target.labels.instance, "")
    reported = _device(target, "DCGM_FI_DEV_GPU_UTIL", more=(whole,))
    active = _device(target, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "100 * ")
    return f"clamp_max({reported} or {active}, 100)"


def _gpu_memory(target: QueryTarget) -> str:
    shares = _shares(target, _ALONE)
    used = _device(target, "DCGM_FI_DEV_FB_USED", "1048576 * ")
    each = f"({used} and on ({target.device}) {shares})"
    return _with_each(target, f"sum({each})", each, shares)


def _nvlink(target: QueryTarget) -> str:
    shares = _shares(target, _ALONE)
    sent = _device(target, "DCGM_FI_PROF_NVLINK_TX_BYTES")
    received = _device(target, "DCGM_FI_PROF_NVLINK_RX_BYTES")
    each = f"(({sent} + on ({target.device}) {received}) and on ({target.device}) {shares})"
    return _with_each(target, f"sum({each})", each, shares)


def _container(target: QueryTarget) -> tuple[Matcher, Matcher]:
    return Matcher(target.labels.container, "", "!="), Matcher(target.labels.container, "POD", "!=")


def _cpu(target: QueryTarget) -> str:
    counter = target.of_namespace(
        "container_cpu_usage_seconds_total", *_container(target), range_=target.range
    )
    each = f"max by ({target.place}, {target.labels.container}) (rate({counter}))"
    return f"sum({each} and on ({target.place}) {_pods(target, in_window=True)})"


def _memory(target: QueryTarget) -> str:
    gauge = target.of_namespace("container_memory_working_set_bytes", *_container(target))
    each = f"max by ({target.place}, {target.labels.container}) ({gauge})"
    return f"sum({each} and on ({target.place}) {_pods(target)})"


_SERVER_LABELS = "model_name, model, engine, finished_reason"


def _servers(
    *metrics: tuple[str, tuple[Matcher, ...]], function: str = "sum"
) -> Callable[[QueryTarget], str]:
    """The first of the metrics that the workload's servers tell, over all of them."""

    def query(target: QueryTarget) -> str:
        pods = _pods(target)
        return " or ".join(
            f"{function}(max by ({target.place}, {_SERVER_LABELS}) "
            f"({target.of_namespace(metric, *matchers)}) and on ({target.place}) {pods})"
            for metric, matchers in metrics
        )

    return query


def _histogram(*metrics: str) -> Callable[[QueryTarget], str]:
    def query(target: QueryTarget) -> str:
        pods = _pods(target, in_window=True)
        return " or ".join(
            f"sum by (le) (max by ({target.place}, {_SERVER_LABELS}, le) "
            f"(increase({target.of_namespace(metric, range_=target.range)})) "
            f"and on ({target.place}) {pods})"
            for metric in metrics
        )

    return query


_WELL = Matcher("finished_reason", "stop|length|", "=~")
_ILL = (Matcher("finished_reason", "stop|length", "!~"), Matcher("finished_reason", "", "!="))


@dataclass(frozen=True, slots=True)
class TypeQuery:
    """`metrics`: what has to exist in a store for the answer to mean anything."""

    query: Callable[[QueryTarget], str]
    metrics: Sequence[str]


TYPE_QUERIES: Mapping[str, TypeQuery] = {
    MetricType.GPU_UTILIZATION: TypeQuery(
        _utilization, ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE")
    ),
    MetricType.GPU_MEMORY_USAGE_BYTES: TypeQuery(_gpu_memory, ("DCGM_FI_DEV_FB_USED",)),
    MetricType.NVLINK_BANDWIDTH_TOTAL: TypeQuery(
        _nvlink, ("DCGM_FI_PROF_NVLINK_TX_BYTES", "DCGM_FI_PROF_NVLINK_RX_BYTES")
    ),
    MetricType.CPU_USAGE_CORES: TypeQuery(_cpu, ("container_cpu_usage_seconds_total",)),
    MetricType.CPU_MEMORY_USAGE_BYTES: TypeQuery(_memory, ("container_memory_working_set_bytes",)),
    MetricType.NIM_NUM_REQUESTS_RUNNING: TypeQuery(
        _servers(("num_requests_running", ()), ("vllm:num_requests_running", ())), ()
    ),
    MetricType.NIM_NUM_REQUESTS_WAITING: TypeQuery(
        _servers(("num_requests_waiting", ()), ("vllm:num_requests_waiting", ())), ()
    ),
    MetricType.NIM_NUM_REQUEST_MAX: TypeQuery(_servers(("num_request_max", ())), ()),
    MetricType.NIM_REQUEST_SUCCESS_TOTAL: TypeQuery(
        _servers(("request_success_total", ()), ("vllm:request_success_total", (_WELL,))), ()
    ),
    MetricType.NIM_REQUEST_FAILURE_TOTAL: TypeQuery(
        _servers(("request_failure_total", ()), ("vllm:request_success_total", _ILL)), ()
    ),
    MetricType.NIM_GPU_CACHE_USAGE_PERC: TypeQuery(
        _servers(
            ("gpu_cache_usage_perc", ()),
            ("vllm:kv_cache_usage_perc", ()),
            ("vllm:gpu_cache_usage_perc", ()),
            function="avg",
        ),
        (),
    ),
    MetricType.NIM_TIME_TO_FIRST_TOKEN_SECONDS: TypeQuery(
        _histogram("time_to_first_token_seconds_bucket", "vllm:time_to_first_token_seconds_bucket"),
        (),
    ),
    MetricType.NIM_E2E_REQUEST_LATENCY_SECONDS: TypeQuery(
        _histogram("e2e_request_latency_seconds_bucket", "vllm:e2e_request_latency_seconds_bucket"),
        (),
    ),
}


def existence(question: TypeQuery, extra: tuple[Matcher, ...]) -> str:
    """A query that has a result where the store knows the agent's map and one of the question's metrics."""
    known = f"count({selector(PODS, extra)})"
    if not question.metrics:
        return known
    names = "|".join(question.metrics)
    return f"{known} and count({selector('', (Matcher('__name__', names, '=~'), *extra))})"

"""Traces of requests, queries and agents' messages, where the variables OTEL_* of OpenTelemetry ask for them.

Whoever is traced knows this interface alone; OpenTelemetry is imported by `tracing_of`, when it is asked for.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

from watchbill.errors import Invalid

Attributes = Mapping[str, str | int]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTERS = ("otlp", "console")


class SpanKind(Enum):
    SERVER = "server"
    CLIENT = "client"


class Span:
    """What is measured, while it lasts. This one keeps nothing."""

    def describe(self, name: str, attributes: Attributes, *, is_failed: bool = False) -> None:
        """Name and attributes that are known only at its end."""


class RequestSpan(Span):
    """Of a request that is answered. It begins when it is known whether its caller's trace counts, and tells
    the time at which the request came. This one keeps nothing."""

    def begin(self, *, is_caller_trusted: bool) -> None:
        """Only the first call counts. A trusted caller's trace goes on, and decides about sampling if the
        sampler asks it; to anybody else's there is a link, and the sampler sees a trace of its own."""


class Tracing:
    """Makes spans. This one makes none."""

    is_on = False

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
    ) -> Iterator[Span]:
        """An exception that passes marks it as failed."""
        yield Span()

    @contextmanager
    def request_span(
        self, name: str, attributes: Attributes, headers: Mapping[str, str]
    ) -> Iterator[RequestSpan]:
        """The span of a request to the server. `headers`: those by which callers name their trace, by
        lower-case name. An exception that passes marks it as failed."""
        yield RequestSpan()

    def record_query(self, sql: str, seconds: float, error: BaseException | None) -> None:
        """A query that has just ended, as a part of the span around it. `sql` has no values in it."""

    def headers(self) -> dict[str, str]:
        """What a request carries so that its receiver goes on with the trace."""
        return {}

    def trace_id(self) -> str | None:
        """Of the span around, in hexadecimal; None where there is none."""
        return None

    def close(self) -> None:
        """Sends what was not sent. May take some seconds."""


NO_TRACING = Tracing()


def tracing_of(environ: Mapping[str, str], *, service: str) -> Tracing:
    """As OpenTelemetry's variables say; off unless an endpoint or an exporter is named.

    `service`: the name that OTEL_SERVICE_NAME replaces. Raises Invalid."""
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    is_asked = exporter or any(environ.get(name) for name in _ENDPOINTS)
    if is_disabled or exporter == "none" or not is_asked:
        return NO_TRACING
    exporter = exporter or "otlp"
    if exporter not in EXPORTERS:
        raise Invalid(
            f"OTEL_TRACES_EXPORTER must be one of {', '.join(EXPORTERS)}, none, got '{exporter[:80]}'."
        )
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    if protocol != "http/protobuf":
        raise Invalid(
            f"OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, got '{protocol[:80]}'.",
            details="Collectors receive it on port 4318; gRPC, on 4317, is not supported.",
        )
    try:
        module = importlib.import_module("watchbill.tracing.opentelemetry")
    except ModuleNotFoundError as error:
        raise Invalid(
            "The variables OTEL_* ask for traces, and OpenTelemetry is not installed.",
            details="Install it: pip install 'watchbill[otel]'. Or set OTEL_SDK_DISABLED=true.",
        ) from error
    tracing: Tracing = module.OpenTelemetryTracing(exporter=exporter, service=service)
    return tracing

"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP or printed; the SDK reads most OTEL_* variables."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token

from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from watchbill import __version__
from watchbill.tracing.tracing import Attributes, RequestSpan, Span, SpanKind, Tracing

_KINDS = {SpanKind.SERVER: trace.SpanKind.SERVER, SpanKind.CLIENT: trace.SpanKind.CLIENT}
_EXPORTERS: dict[str, type[SpanExporter]] = {
    "otlp": OTLPSpanExporter,
    "console": ConsoleSpanExporter,
}
_QUERY_CHARACTERS = 2_000


class _Span(Span):
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def describe(self, name: str, attributes: Attributes, *, is_failed: bool = False) -> None:
        self._span.update_name(name)
        self._span.set_attributes(attributes)
        if is_failed:
            self._span.set_status(trace.StatusCode.ERROR)


class _RequestSpan(RequestSpan):
    def __init__(
        self, tracer: trace.Tracer, name: str, attributes: Attributes, caller: Context
    ) -> None:
        self._tracer = tracer
        self._name = name
        self._attributes = attributes
        self._caller = caller
        self._started_at = time.time_ns()
        self._span: trace.Span | None = None
        self._token: Token[Context] | None = None
        if not trace.get_current_span(caller).get_span_context().is_valid:
            self.begin(is_caller_trusted=True)

    def begin(self, *, is_caller_trusted: bool) -> None:
        if self._span is None:
            self._begin(is_caller_trusted=is_caller_trusted)

    def _begin(self, *, is_caller_trusted: bool) -> trace.Span:
        named = trace.get_current_span(self._caller).get_span_context()
        self._span = self._tracer.start_span(
            self._name,
            self._caller if is_caller_trusted else Context(),
            trace.SpanKind.SERVER,
            self._attributes,
            links=() if is_caller_trusted else (trace.Link(named),),
            start_time=self._started_at,
        )
        self._token = attach(trace.set_span_in_context(self._span))
        return self._span

    def describe(self, name: str, attributes: Attributes, *, is_failed: bool = False) -> None:
        _Span(self._span or self._begin(is_caller_trusted=False)).describe(
            name, attributes, is_failed=is_failed
        )

    def end(self, error: BaseException | None) -> None:
        span = self._span or self._begin(is_caller_trusted=False)
        if error is not None:
            _fail(span, error)
        span.end()
        if self._token is not None:
            detach(self._token)


class OpenTelemetryTracing(Tracing):
    is_on = True

    def __init__(self, *, exporter: str, service: str) -> None:
        ours = Resource({SERVICE_NAME: service, SERVICE_VERSION: __version__})
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say replaces ours.
        named = Resource.create().merge(ours).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=named, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_EXPORTERS[exporter]()))
        self._tracer = self._provider.get_tracer("watchbill", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind,
        attributes: Attributes,
    ) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name,
            kind=_KINDS[kind],
            attributes=attributes,
            record_exception=False,  # messages quote values
            set_status_on_exception=False,
        ) as span:
            try:
                yield _Span(span)
            except BaseException as error:
                _fail(span, error)
                raise

    @contextmanager
    def request_span(
        self, name: str, attributes: Attributes, headers: Mapping[str, str]
    ) -> Iterator[RequestSpan]:
        caller = self._propagator.extract(headers, Context())
        span = _RequestSpan(self._tracer, name, attributes, caller)
        try:
            yield span
        except BaseException as error:
            span.end(error)
            raise
        span.end(None)

    def record_query(self, sql: str, seconds: float, error: BaseException | None) -> None:
        if not trace.get_current_span().is_recording():
            return
        ended_at = time.time_ns()
        operation = sql.split(maxsplit=1)[0].rstrip(";").upper()
        span = self._tracer.start_span(
            operation,
            kind=trace.SpanKind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "db.operation.name": operation,
                "db.query.text": sql[:_QUERY_CHARACTERS],
            },
            start_time=ended_at - round(seconds * 1e9),
        )
        if error is not None:
            _fail(span, error)
        span.end(ended_at)

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier

    def trace_id(self) -> str | None:
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def close(self) -> None:
        self._provider.shutdown()


def _fail(span: trace.Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(trace.StatusCode.ERROR)

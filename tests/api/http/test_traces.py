"""Traces, as a collector receives them by OTLP over HTTP."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import Engine, fresh_database
from tests.fixtures.records import upsert, workload
from tests.fixtures.serving import serving
from watchbill.client import AgentClient
from watchbill.errors import Invalid
from watchbill.protocol import PROTOCOL_VERSION, Batch, HelloRequest
from watchbill.tracing.tracing import NO_TRACING, tracing_of

SERVER, CLIENT = 2, 3  # opentelemetry.proto.trace.v1.Span.SpanKind
ERROR = 2


class Collector:
    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        """Each with its service's name."""

    async def export(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for part in message.resource_spans:
            resource = {
                attribute.key: attribute.value.string_value
                for attribute in part.resource.attributes
            }
            for scope in part.scope_spans:
                self.spans += [(resource["service.name"], span) for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    def named(self, name: str) -> list[Any]:
        return [span for _, span in self.spans if span.name == name]


def attributes(span: Any) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, str(attribute.value.WhichOneof("value")))
        for attribute in span.attributes
    }


@asynccontextmanager
async def collecting() -> AsyncIterator[tuple[Collector, str]]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.export)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield collector, f"http://{host}:{port}"
    await runner.cleanup()


async def test_a_batch_is_one_trace_from_the_agent_to_the_queries(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await fresh_database(embedded_engine)
    async with collecting() as (collector, endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        tracing = tracing_of(environ, service="watchbill-server")
        agent_tracing = tracing_of(environ, service="watchbill-agent")
        async with serving(url, tracing=tracing) as served:
            credential = (await served.ask("POST", "/api/v1/clusters", json={"name": "east"})).json[
                "credential"
            ]
            async with AgentClient(served.url, credential, tracing=agent_tracing) as agent:
                hello = await agent.hello(
                    HelloRequest(
                        protocol=PROTOCOL_VERSION,
                        agent_version="1",
                        kubernetes_version="1.35",
                        previous_stream_id="",
                        cluster_uid="u",
                    )
                )
                batch = Batch(
                    stream_id=hello.stream_id,
                    seq=1,
                    items=(upsert(workload(1, name="secret-name")), upsert(workload(2))),
                )
                await agent.batch(batch)
            await served.get("/api/v1/workloads?filterBy=nonsense")
            await served.get("/livez")
        for exporter in (tracing, agent_tracing):
            await asyncio.to_thread(
                exporter.close
            )  # it waits for the collector, which lives in this loop
    (sent,), (answered,) = collector.named("agent batch"), collector.named("POST agent_batch")
    assert attributes(sent) == {"watchbill.items": 2}
    assert (sent.kind, answered.kind) == (CLIENT, SERVER)
    assert answered.parent_span_id == sent.span_id
    assert attributes(answered)["http.response.status_code"] == 200
    queries = [span for _, span in collector.spans if span.parent_span_id == answered.span_id]
    assert {"BEGIN", "COMMIT", "INSERT"} <= {span.name for span in queries}
    assert {span.trace_id for span in (sent, answered, *queries)} == {sent.trace_id}
    for query in queries:
        assert answered.start_time_unix_nano <= query.start_time_unix_nano
        assert query.end_time_unix_nano <= answered.end_time_unix_nano
    assert {service for service, _ in collector.spans} == {"watchbill-server", "watchbill-agent"}
    assert not any("secret-name" in str(span) for _, span in collector.spans)
    (refused,) = collector.named("GET get_workloads")
    assert attributes(refused)["http.response.status_code"] == 400
    assert refused.status.code != ERROR
    assert not collector.named("GET get_livez")


ASKED = {"traceparent": "00-" + "1a" * 16 + "-" + "2b" * 8 + "-01"}
"""That the caller's trace is sampled."""


async def test_only_an_authenticated_callers_trace_goes_on_and_is_sampled(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody who reaches the port could have every request traced, and put spans into others' traces."""
    url = await fresh_database(embedded_engine)
    async with collecting() as (collector, endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        tracing = tracing_of({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, service="watchbill-server")
        async with serving(url, tracing=tracing) as served:
            for path in ("/version", "/api/v1/workloads", "/nothing", "/"):
                await served.ask("GET", path, headers=ASKED, token="made-up")
            await served.ask("GET", "/api/v1/workloads", headers=ASKED)
            await served.ask("GET", "/api/v1/clusters")
        await asyncio.to_thread(tracing.close)
    (only,) = [span for _, span in collector.spans if span.kind == SERVER]
    assert only.name == "GET get_workloads"
    assert (only.trace_id, only.parent_span_id) == (b"\x1a" * 16, b"\x2b" * 8)


async def test_anybody_elses_trace_is_a_link(
    embedded_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await fresh_database(embedded_engine)
    async with collecting() as (collector, endpoint):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        tracing = tracing_of({"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}, service="watchbill-server")
        async with serving(url, tracing=tracing) as served:
            for path in ("/version", "/api/v1/workloads"):
                await served.ask("GET", path, headers=ASKED, token="made-up")
        await asyncio.to_thread(tracing.close)
    spans = [span for _, span in collector.spans if span.kind == SERVER]
    assert len(spans) == 2
    for span in spans:
        assert span.trace_id != b"\x1a" * 16
        assert not span.parent_span_id
        assert [link.trace_id for link in span.links] == [b"\x1a" * 16]


def test_nothing_is_imported_unless_it_is_asked_for() -> None:
    code = (
        "import sys, watchbill.serve, watchbill.agent.run, watchbill.tracing.tracing as t\n"
        "assert t.tracing_of({}, service='x') is t.NO_TRACING\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
        {"OTEL_SERVICE_NAME": "east"},
    ],
)
def test_off(environ: dict[str, str]) -> None:
    assert tracing_of(environ, service="watchbill-server") is NO_TRACING


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ],
)
def test_what_cannot_be_done_is_refused_with_words(environ: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="OTEL_"):
        tracing_of(environ, service="watchbill-server")

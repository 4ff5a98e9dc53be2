"""Traces, received by a real OTLP receiver."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.rpc.tracing import OFF, start_tracing, wanted
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from testing.server_process import ServerProcess
from tests.integration.kserve import calls as kserve
from tests.integration.rpc.calls import Api, Chunk, numbers

from .launch import serve

SECRET = "patient-4711"
OPTIONS = ["--tracing", "otlp", "--kserve", "on"]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Receiver(otlp_grpc.TraceServiceServicer):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.came: queue.Queue[ResourceSpans] = queue.Queue()

    def Export(self, request: otlp.ExportTraceServiceRequest, context: object) -> otlp.ExportTraceServiceResponse:
        for spans in request.resource_spans:
            self.came.put(spans)
        return otlp.ExportTraceServiceResponse()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Sets its address in the environment of servers started later."""
    receiver = Receiver()
    server = grpc.server(ThreadPoolExecutor(1))
    otlp_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield receiver
    server.stop(None).wait()


def text_of(attributes: object) -> dict[str, str]:
    return {each.key: each.value.string_value or str(each.value.int_value) for each in attributes}  # type: ignore[attr-defined]


def test_unary_calls_have_spans(counting_model: Path, receiver: Receiver) -> None:
    with ServerProcess([counting_model], "memory:", OPTIONS) as server, server.channel() as channel:
        stub, api = server.stub(channel), Api(server.stub(channel))
        metadata = (("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "order-17"))
        stub.Open(pb.OpenRequest(session=SECRET, request_id=b"0123456789abcdef"), metadata=metadata)
        at = api.send("unary", Chunk("s", numbers(1))).after
        api.send("stream", Chunk("s", numbers(1), at))
        kserve.Api(channel).infer(kserve.numbers(1), SECRET, kserve.START)
        with pytest.raises(grpc.RpcError, match=SECRET) as refused:
            stub.GetModel(pb.GetModelRequest(model=SECRET))
        server.stop()
    code = refused.value.code().value[0]
    spans: dict[str, Span] = {}
    raw = b""
    while not receiver.came.empty():
        resource = receiver.came.get()
        raw += resource.SerializeToString()
        assert text_of(resource.resource.attributes)["service.name"] == "cellkeeper"
        spans |= {span.name.rpartition("/")[2]: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"Open", "Step", "GetModel", "ModelInfer"}  # not the stream, nor health checks
    opened = spans["Open"]
    assert (opened.trace_id.hex(), opened.parent_span_id.hex()) == (TRACE, PARENT)
    assert opened.kind == Span.SPAN_KIND_SERVER
    assert text_of(opened.attributes) == {
        "rpc.system": "grpc",
        "rpc.service": "cellkeeper.v1.Cellkeeper",
        "rpc.method": "Open",
        "cellkeeper.request_id": "order-17",
        "rpc.grpc.status_code": "0",
    }
    assert text_of(spans["GetModel"].attributes)["rpc.grpc.status_code"] == str(code)
    assert text_of(spans["ModelInfer"].attributes)["rpc.service"] == "inference.GRPCInferenceService"
    assert SECRET.encode() not in raw


def test_the_standard_variables_are_enough(counting_model: Path, receiver: Receiver) -> None:
    with ServerProcess([counting_model], "memory:") as server, server.channel() as channel:
        server.stub(channel).ListModels(pb.ListModelsRequest())
        server.stop()
    assert not receiver.came.empty()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_when_it_is_wanted(variables: dict[str, str], expected: bool) -> None:
    assert wanted(variables) is expected
    assert start_tracing("none", variables, "1") is OFF


def test_without_the_extra(counting_model: Path, tmp_path: Path) -> None:
    """As if it were not installed: the package of that name cannot be imported."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text('raise ImportError("not here")\n')
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ended = serve("--tracing=otlp", counting_model, variables={"PYTHONPATH": path})
    assert ended.line == "tracing: otlp needs OpenTelemetry (not here); pip install 'cellkeeper[otel]'"
    assert "expected auto, otlp or none" in serve("--tracing=yes", counting_model).line

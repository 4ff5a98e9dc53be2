"""A span for each unary call, exported by OTLP, as a child of the span in the caller's metadata. See docs/adr/432."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import grpc

from cellkeeper_service.errors import StartError

from .call_log import request_id_of
from .kserve.descriptor import PATH as KSERVE_PATH
from .kserve.descriptor import SERVICE as KSERVE
from .method import SERVICE, Method

INSTALL = "pip install 'cellkeeper[otel]'"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACED = {
    f"/{path}/{method.name}": (path, method.name)
    for path, service in ((SERVICE.full_name, SERVICE), (KSERVE_PATH, KSERVE))
    for method in service.methods
    if not method.server_streaming
}
"""No streams: a stream lasts as long as its client, so its span would say nothing and arrive when all is over."""

SERVER_FAULTS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""What OpenTelemetry counts as a server's error; other codes are the caller's."""

Call = Callable[[Any], Awaitable[Any]]

log = logging.getLogger(__name__)


class Tracing:
    """Starts a span for each traced call. provider: opentelemetry.sdk.trace.TracerProvider; None: tracing is off.

    Spans contain nothing of a message, of a refusal's text or of a session's id.
    """

    def __init__(self, provider: Any, version: str) -> None:
        self._provider = provider
        self._tracer: Any = None if provider is None else provider.get_tracer("cellkeeper_service", version)

    def traced(self, methods: Mapping[str, Method]) -> Mapping[str, Method]:
        """Returns the methods by their paths, with spans."""
        if self._tracer is None:
            return methods
        return {
            path: replace(method, answer=self._in_span(*TRACED[path], method.answer)) if path in TRACED else method
            for path, method in methods.items()
        }

    def close(self) -> None:
        """Exports what is still buffered, for some seconds at most."""
        if self._provider is not None:
            self._provider.shutdown()

    def _in_span(self, service: str, name: str, call: Call) -> Call:
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind, StatusCode

        async def traced(context: Any) -> Any:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}
            if (request_id := request_id_of(context)) is not None:
                attributes["cellkeeper.request_id"] = request_id
            span = self._tracer.start_span(
                f"{service}/{name}",
                context=propagate.extract(metadata),
                kind=SpanKind.SERVER,
                attributes=attributes,
            )
            code = grpc.StatusCode.OK
            try:
                return await call(context)
            except asyncio.CancelledError:
                code = grpc.StatusCode.CANCELLED
                raise
            except BaseException:
                code = context.code() or grpc.StatusCode.UNKNOWN  # the code with which the call aborted
                raise
            finally:
                span.set_attribute("rpc.grpc.status_code", code.value[0])
                if code in SERVER_FAULTS:
                    span.set_status(StatusCode.ERROR)
                span.end()

        return traced


OFF = Tracing(None, "")


def start_tracing(choice: str, variables: Mapping[str, str], version: str) -> Tracing:
    """Starts tracing. Raises StartError if "otlp" is asked for and not installed.

    choice: the setting `tracing`. variables: the environment; "auto" means "otlp" if OTEL_TRACES_EXPORTER or an
    endpoint says so. The SDK itself reads the endpoint, the sampling and the service's name from OTEL_* variables.
    """
    if choice == "none" or (choice == "auto" and not wanted(variables)):
        return OFF
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        if choice == "auto":  # the variables may be meant for other programs
            log.warning("OTEL_* variables ask for traces, but OpenTelemetry is not installed: %s", INSTALL)
            return OFF
        raise StartError(f"tracing: otlp needs OpenTelemetry ({error}); {INSTALL}") from error
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "cellkeeper"}))
    provider = TracerProvider(resource=resource.merge(Resource({"service.version": version})))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, version)


def wanted(variables: Mapping[str, str]) -> bool:
    """Returns True if the standard variables ask for traces by OTLP."""
    if variables.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").lower()
    return exporter == "otlp" or (not exporter and any(variables.get(name) for name in ENDPOINTS))

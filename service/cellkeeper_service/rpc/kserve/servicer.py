"""The service's RPCs: each reads its request, submits it to the core, and writes the reply."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import grpc
from cellkeeper_proto.kserve import inference_pb2 as pb

from cellkeeper_service.errors import Rejection
from cellkeeper_service.rpc.answering import Answering, Call, Decided, admitted, answering
from cellkeeper_service.rpc.call_context import CallContext
from cellkeeper_service.rpc.catalog import WireLimits
from cellkeeper_service.rpc.grpc_call import GrpcCall
from cellkeeper_service.rpc.method import Method, methods
from cellkeeper_service.rpc.waiting import reply_to

from . import model_info
from .descriptor import PATH, SERVICE
from .infer_stream import InferStream
from .inference import Service, check_model, is_version, read_infer, write_infer
from .parameters import session_asked
from .refusals import in_tritons_words, refuse
from .statistics import Statistics

NOT_SERVED = {
    "RepositoryModelLoad": "models are the folders that the server was started with; SIGHUP reloads them",
    "RepositoryModelUnload": "models are the folders that the server was started with",
    "SystemSharedMemoryStatus": "tensors come in the request",
    "SystemSharedMemoryRegister": "tensors come in the request",
    "SystemSharedMemoryUnregister": "tensors come in the request",
    "CudaSharedMemoryStatus": "tensors come in the request",
    "CudaSharedMemoryRegister": "tensors come in the request",
    "CudaSharedMemoryUnregister": "tensors come in the request",
    "TraceSetting": "OTEL_* variables turn traces on",
    "LogSettings": "see --log-level and --log-format",
}
"""Triton's RPCs that are not served, with the alternative."""


@dataclass(frozen=True, slots=True)
class About:
    """What clients are told about the server. ready: returns why no request should be sent here; empty if it is ready.
    ttl_ms: after which an idle session is deleted; 0: never."""

    version: str
    ttl_ms: int
    ready: Callable[[], Awaitable[str]]


class KServeServicer(Answering):
    def __init__(self, beside: Answering, service: Service, statistics: Statistics, about: About) -> None:
        """beside: a servicer of the same core."""
        super().__init__(*beside.parts)
        self._service = service
        self._statistics = statistics
        self._about = about

    def methods(self, limits: WireLimits) -> dict[str, Method]:
        """Returns the served RPCs, and those that are refused with an explanation, by their paths."""
        refused = {
            f"/{PATH}/{name}": Method(_unimplemented(name, why), bytes, bytes) for name, why in NOT_SERVED.items()
        }
        return {**methods(self, limits, SERVICE, PATH), **refused}

    @answering
    async def ServerLive(self, request: pb.ServerLiveRequest, call: Call) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    @answering
    async def ServerReady(self, request: pb.ServerReadyRequest, call: Call) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=not await self._about.ready())

    @answering
    async def ModelReady(self, request: pb.ModelReadyRequest, call: Call) -> pb.ModelReadyResponse:
        try:
            check_model(request.name, request.version, call.catalog)
        except Rejection:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not await self._about.ready())

    @answering
    async def ServerMetadata(self, request: pb.ServerMetadataRequest, call: Call) -> pb.ServerMetadataResponse:
        return model_info.server_metadata(self._about.version)

    @answering
    async def ModelMetadata(self, request: pb.ModelMetadataRequest, call: Call) -> pb.ModelMetadataResponse:
        spec = check_model(request.name, request.version, call.catalog)
        engine = call.catalog.models[request.name].default.engine.name
        return model_info.model_metadata(request.name, spec, self._service.names[request.name], engine)

    @answering
    async def ModelConfig(self, request: pb.ModelConfigRequest, call: Call) -> pb.ModelConfigResponse:
        name = request.name
        check_model(name, request.version, call.catalog)
        models, names = call.catalog.models[name], self._service.names[name]
        return pb.ModelConfigResponse(config=model_info.model_config(name, models, names, self._about.ttl_ms))

    @answering
    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, call: Call) -> pb.ModelStatisticsResponse:
        if request.name and request.name not in call.catalog.models:
            raise refuse(f"requested model '{request.name}' is not available", "name")
        asked = [request.name] if request.name else list(call.catalog.models)
        if not is_version(request.version):
            raise refuse(f"requested model version is not available for model '{asked[0]}'", "version")
        return pb.ModelStatisticsResponse(model_stats=[self._statistics.of(name) for name in asked])

    @answering
    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, call: Call) -> pb.RepositoryIndexResponse:
        return model_info.repository_index(call.catalog)

    @admitted
    async def ModelInfer(self, request: pb.ModelInferRequest, call: Call) -> pb.ModelInferResponse:
        came, model = time.monotonic(), request.model_name
        try:
            return await self._infer(request, call, came)
        except Rejection:
            self._statistics.failed(model, time.monotonic() - came)
            raise

    def ModelStreamInfer(self, context: CallContext) -> AsyncGenerator[list[pb.ModelStreamInferResponse], None]:
        kind = partial(InferStream, service=self._service, statistics=self._statistics)
        return self.stream("ModelStreamInfer", context, kind)

    async def _infer(self, request: pb.ModelInferRequest, call: Call, came: float) -> pb.ModelInferResponse:
        try:
            asked = read_infer(request, call.catalog, self._service)
        except Rejection as refused:
            reasons = await self.reasons(refused, request.model_name, session_asked(request), call)
            raise (reasons[0] if reasons else refused) from None
        until = asked.until(came, call.deadline)
        reply = await reply_to(self.core, lambda done: asked.step(until, done))
        if isinstance(reply, Rejection):
            raise Decided(in_tritons_words(reply, asked.parameters.sequence, asked.key.model))
        response = write_infer(asked, reply)
        self._statistics.succeeded(asked.key.model, time.monotonic() - came, reply)
        return response


def _unimplemented(name: str, instead: str) -> Callable[[GrpcCall], Awaitable[bytes]]:
    async def refuse(context: GrpcCall) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{name} is not served here: {instead}")

    return refuse

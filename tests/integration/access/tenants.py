"""One request for each RPC of both services, about one session, and its answer as comparable bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import grpc
from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2 as pb
from cellkeeper_service.access.command import new_token, token_line
from cellkeeper_service.domain.position import Position
from cellkeeper_service.rpc.kserve.descriptor import PATH
from cellkeeper_service.rpc.kserve.descriptor import SERVICE as KSERVE
from google.protobuf.message_factory import GetMessageClass

from tests.integration.kserve import calls as kserve
from tests.integration.kserve.calls import request as infer
from tests.integration.rpc.calls import Chunk, frame_message, new_id, numbers, step_message, to_wire

SERVICE = pb.DESCRIPTOR.services_by_name["Cellkeeper"]
METHODS = {method.name: (f"/{SERVICE.full_name}/{method.name}", method) for method in SERVICE.methods}
METHODS |= {method.name: (f"/{PATH}/{method.name}", method) for method in KSERVE.methods}
RPCS = list(METHODS)
MODEL = "count"

State = pb.Tensor(name="h", dtype=pb.FLOAT32, shape=[1, 1], data=bytes(4))


def _steps(session: str, at: Position) -> Chunk:
    return Chunk(session, numbers(1), at)


REQUESTS: dict[str, Callable[[str, Position], Any]] = {
    "Open": lambda session, at: pb.OpenRequest(model=MODEL, session=session, request_id=new_id(), expect=to_wire(at)),
    "OpenMany": lambda session, at: pb.OpenManyRequest(
        model=MODEL, items=[pb.OpenManyRequest.Item(session=session, request_id=new_id(), expect=to_wire(at))]
    ),
    "Step": lambda session, at: step_message(MODEL, _steps(session, at)),
    "StepBatch": lambda session, at: frame_message(MODEL, [_steps(session, at)]),
    "StepStream": lambda session, at: frame_message(MODEL, [_steps(session, at)]),
    "Reset": lambda session, at: pb.ResetRequest(
        model=MODEL, items=[pb.ResetRequest.Item(session=session, generation=at.generation, request_id=new_id())]
    ),
    "SetState": lambda session, at: pb.SetStateRequest(
        model=MODEL,
        items=[pb.SetStateRequest.Item(session=session, generation=at.generation, request_id=new_id(), state=[State])],
    ),
    "CarryOver": lambda session, at: pb.CarryOverRequest(
        model=MODEL,
        items=[
            pb.CarryOverRequest.Item(
                session=session,
                generation=at.generation,
                request_id=new_id(),
                policy=pb.CarryOverRequest.Policy.RESET,
            )
        ],
    ),
    "Fork": lambda session, at: pb.ForkRequest(
        model=MODEL,
        items=[
            pb.ForkRequest.Item(source=session, target=os.urandom(8).hex(), request_id=new_id()),
            pb.ForkRequest.Item(source=session, position=to_wire(at), target=os.urandom(8).hex(), request_id=new_id()),
        ],
    ),
    "Delete": lambda session, at: pb.DeleteRequest(
        model=MODEL, items=[pb.DeleteRequest.Item(session=session, generation=at.generation)]
    ),
    "GetState": lambda session, at: pb.GetStateRequest(model=MODEL, session=session),
    "GetSession": lambda session, at: pb.GetSessionRequest(model=MODEL, session=session),
    "ListSessions": lambda session, at: pb.ListSessionsRequest(model=MODEL, prefix=session),
    "ListModels": lambda session, at: pb.ListModelsRequest(),
    "GetModel": lambda session, at: pb.GetModelRequest(model=MODEL),
    "ModelInfer": lambda session, at: infer(MODEL, kserve.numbers(1), session),
    "ModelStreamInfer": lambda session, at: infer(MODEL, kserve.numbers(1), session),
    "ServerLive": lambda session, at: inference_pb2.ServerLiveRequest(),
    "ServerReady": lambda session, at: inference_pb2.ServerReadyRequest(),
    "ServerMetadata": lambda session, at: inference_pb2.ServerMetadataRequest(),
    "ModelReady": lambda session, at: inference_pb2.ModelReadyRequest(name=MODEL),
    "ModelMetadata": lambda session, at: inference_pb2.ModelMetadataRequest(name=MODEL),
    "ModelConfig": lambda session, at: inference_pb2.ModelConfigRequest(name=MODEL),
    "ModelStatistics": lambda session, at: inference_pb2.ModelStatisticsRequest(name=MODEL),
    "RepositoryIndex": lambda session, at: inference_pb2.RepositoryIndexRequest(),
}
"""By RPC, for a session at a position. A new RPC needs a line here: the tests ask for every one."""


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def entry(tenant: str, rights: str, expires: str = "") -> tuple[str, str]:
    """Returns a new token and its line."""
    token = new_token()
    return token, token_line(token, tenant, rights, expires)


def answer(channel: grpc.Channel, rpc: str, request: Any, metadata: Any = ()) -> tuple[str, bytes]:
    """Returns the status's name, and the bytes that came with it: the reply's, or the status's message and details."""
    path, method = METHODS[rpc]
    serialize, raw = GetMessageClass(method.input_type).SerializeToString, bytes
    try:
        if method.client_streaming:
            replies = channel.stream_stream(path, serialize, raw)(iter([request]), timeout=30, metadata=metadata)
            return "OK", b"".join(replies)
        return "OK", channel.unary_unary(path, serialize, raw)(request, timeout=30, metadata=metadata)
    except grpc.RpcError as failed:
        error: Any = failed
        trailing = dict(error.trailing_metadata() or ())
        details = trailing.get("grpc-status-details-bin", b"")
        return error.code().name, error.details().encode() + b"\0" + details

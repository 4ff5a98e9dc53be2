"""Health and reflection know the service by its public name, which grpcurl and load balancers use."""

from __future__ import annotations

from typing import Any

import pytest
from cellkeeper_proto.kserve import inference_pb2 as pb
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from .calls import START, Api, numbers, read_reply, request

SERVICE = "inference.GRPCInferenceService"
TIMEOUT_S = 30.0


def reflect(count: Api, **asked: str) -> Any:
    stub = reflection_pb2_grpc.ServerReflectionStub(count.channel)
    (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**asked)]), timeout=TIMEOUT_S)
    return answer


@pytest.fixture(scope="module")
def reflected(count: Api) -> DescriptorPool:
    """What a client learns that knows only the server's address."""
    pool = DescriptorPool()
    for file in reflect(count, file_containing_symbol=SERVICE).file_descriptor_response.file_descriptor_proto:
        pool.AddSerializedFile(file)
    return pool


def test_the_service_is_listed_and_healthy(count: Api) -> None:
    listed = {service.name for service in reflect(count, list_services="").list_services_response.service}
    assert {SERVICE, "cellkeeper.v1.Cellkeeper", "grpc.health.v1.Health"} <= listed
    health = health_pb2_grpc.HealthStub(count.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=TIMEOUT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_every_listed_service_is_described(count: Api) -> None:
    for service in reflect(count, list_services="").list_services_response.service:
        files = reflect(count, file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto
        pool = DescriptorPool()
        for file in files:
            pool.AddSerializedFile(file)
        assert pool.FindServiceByName(service.name).methods


def test_a_sequence_is_run_with_reflected_messages_alone(count: Api, reflected: DescriptorPool, sequence: int) -> None:
    method = reflected.FindServiceByName(SERVICE).methods_by_name["ModelInfer"]
    asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    assert method.input_type.full_name == "inference.ModelInferRequest"
    call = count.channel.unary_unary(f"/{SERVICE}/{method.name}", asked.SerializeToString, answered.FromString)
    message = asked.FromString(request("count", numbers(1, 2), sequence, START).SerializeToString())
    assert read_reply(call(message, timeout=TIMEOUT_S)).sums == [1.0, 3.0]


def test_what_is_reflected_is_the_contract(reflected: DescriptorPool) -> None:
    """Compares field by field: a type left under another name would not be found."""
    for name, own in pb.DESCRIPTOR.message_types_by_name.items():
        public = reflected.FindMessageTypeByName(f"inference.{name}")
        assert [(field.number, field.name, field.type) for field in public.fields] == [
            (field.number, field.name, field.type) for field in own.fields
        ]

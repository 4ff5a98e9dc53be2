"""The service's descriptor, under its public names."""

from __future__ import annotations

from collections.abc import Iterable

from cellkeeper_proto.kserve import inference_pb2 as pb
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from cellkeeper_service.rpc.contract import Contract, proto_of

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PACKAGE = "inference"
PATH = f"{PACKAGE}.{SERVICE.name}"
"""The service's name in the public protocol."""


def contract() -> Contract:
    """Returns the service under the names that the public protocol gives to it and to its messages."""
    file = proto_of(pb.DESCRIPTOR)
    own, public = f".{file.package}.", f".{PACKAGE}."
    file.name, file.package = f"{PACKAGE}.proto", PACKAGE
    for message in _messages(file.message_type):
        for field in message.field:
            if field.type_name:  # fields of scalar types have none
                field.type_name = field.type_name.replace(own, public, 1)
    _rename_methods(file, own, public)
    return Contract(PATH, file)


def _messages(messages: Iterable[DescriptorProto]) -> Iterable[DescriptorProto]:
    """Yields the messages and those nested in them."""
    for message in messages:
        yield message
        yield from _messages(message.nested_type)


def _rename_methods(file: FileDescriptorProto, own: str, public: str) -> None:
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(own, public, 1)
            method.output_type = method.output_type.replace(own, public, 1)

"""The service's descriptor, under its public names."""

from __future__ import annotations

from cellkeeper_proto.kserve import inference_pb2 as pb
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from cellkeeper_service.rpc.contract import proto_of

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PACKAGE = "inference"
PATH = f"{PACKAGE}.{SERVICE.name}"
"""The service's name in the public protocol."""


def contract() -> FileDescriptorProto:
    """Returns the file under the names that the public protocol gives to its service and messages."""
    file = proto_of(pb.DESCRIPTOR)
    # only full names of types begin with a dot
    text = text_format.MessageToString(file).replace(f'".{file.package}.', f'".{PACKAGE}.')
    public: FileDescriptorProto = text_format.Parse(text, FileDescriptorProto())
    public.name, public.package = f"{PACKAGE}.proto", PACKAGE
    return public

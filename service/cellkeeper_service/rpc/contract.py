"""The .proto files of the services, as their clients know them, and the descriptors that reflection serves."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool


def proto_of(file: FileDescriptor) -> FileDescriptorProto:
    """Returns a copy that may be changed."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def services_of(files: Iterable[FileDescriptorProto]) -> list[str]:
    """Returns the full names of the services that the files define."""
    return [f"{file.package}.{service.name}" for file in files for service in file.service]


def pool_of(files: Iterable[FileDescriptorProto]) -> DescriptorPool:
    """Returns a separate pool with the files and their imports, which this process resolves.

    In the process's default pool, client code may have registered the same names.
    """
    pool = DescriptorPool()
    added: set[str] = set()
    for file in files:
        _add(file, pool, added)
    return pool


def _add(file: FileDescriptorProto, pool: DescriptorPool, added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for name in file.dependency:
        _add(proto_of(Default().FindFileByName(name)), pool, added)
    pool.AddSerializedFile(file.SerializeToString())

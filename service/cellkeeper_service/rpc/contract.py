"""A service as its clients know it, and the descriptors that reflection serves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool


@dataclass(frozen=True, slots=True)
class Contract:
    """A service. name: its full name. file: the .proto file that defines it; this process resolves its imports."""

    name: str
    file: FileDescriptorProto


def proto_of(file: FileDescriptor) -> FileDescriptorProto:
    """Returns a copy that may be changed."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def pool_of(contracts: Iterable[Contract]) -> DescriptorPool:
    """Returns a separate pool with the contracts' files and their imports.

    In the process's default pool, client code may have registered the same names.
    """
    pool = DescriptorPool()
    added: set[str] = set()
    for contract in contracts:
        _add(contract.file, pool, added)
    return pool


def _add(file: FileDescriptorProto, pool: DescriptorPool, added: set[str]) -> None:
    if file.name in added:
        return
    added.add(file.name)
    for name in file.dependency:
        _add(proto_of(Default().FindFileByName(name)), pool, added)
    pool.AddSerializedFile(file.SerializeToString())

"""A service as its clients know it, and what reflection tells of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool


@dataclass(frozen=True, slots=True)
class Contract:
    """name: the service's full name. file: the .proto file that defines it. The files that it imports are those of this
    process."""

    name: str
    file: FileDescriptorProto


def proto_of(file: FileDescriptor) -> FileDescriptorProto:
    """A copy that may be changed."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def pool_of(contracts: Iterable[Contract]) -> DescriptorPool:
    """The contracts' files and what they import, in a pool of their own: in the process's pool the code of a client may
    have taken a contract's names."""
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

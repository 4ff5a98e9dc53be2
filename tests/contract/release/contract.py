"""Compares the contract of a release with today's: what the release's clients or servers could no longer rely on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cellkeeper_proto.kserve import inference_pb2
from cellkeeper_proto.v1 import cellkeeper_pb2
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2

MODULES = (cellkeeper_pb2, inference_pb2)
IMPORTANT = ("name", "number", "type", "label", "type_name", "proto3_optional")  # of a field
TEXTS = ("message", "numerics", "engine", "device")  # texts for people, or specific to a machine


def today() -> FileDescriptorSet:
    contract = FileDescriptorSet()
    for module in MODULES:
        module.DESCRIPTOR.CopyToProto(contract.file.add())
    return contract


def broken(then: FileDescriptorSet, now: FileDescriptorSet) -> list[str]:
    """Returns what `now` lacks or changes of `then`: files, calls, messages, fields and values."""
    before, after = _facts(then), _facts(now)
    return [
        f"{name}: {fact} became {after.get(name, 'nothing')}"
        for name, fact in before.items()
        if after.get(name) != fact
    ]


def _facts(contract: FileDescriptorSet) -> dict[str, str]:
    return {name: fact for file in contract.file for name, fact in _of_file(file)}


def _of_file(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for service in file.service:
        for method in service.method:
            streams = f"{method.client_streaming} {method.server_streaming}"
            yield f"{file.package}.{service.name}/{method.name}", f"{method.input_type} {method.output_type} {streams}"
    for message in file.message_type:
        yield from _of_message(file.package, message)
    for values in file.enum_type:
        yield from _of_enum(file.package, values)


def _of_message(scope: str, message: DescriptorProto) -> Iterator[tuple[str, str]]:
    name = f"{scope}.{message.name}"
    yield name, "a message"
    for field in message.field:
        yield f"{name} field {field.number}", " ".join(f"{key}={getattr(field, key)}" for key in IMPORTANT)
    for inner in message.nested_type:
        yield from _of_message(name, inner)
    for values in message.enum_type:
        yield from _of_enum(name, values)


def _of_enum(scope: str, values: EnumDescriptorProto) -> Iterator[tuple[str, str]]:
    for value in values.value:
        yield f"{scope}.{values.name} value {value.number}", value.name


class Peer:
    """Reads replies with a release's contract, as a client of that release does."""

    def __init__(self, file: Path) -> None:
        self.contract = FileDescriptorSet.FromString(file.read_bytes())
        pool = DescriptorPool()
        for one in self.contract.file:
            pool.Add(one)
        self._service: Any = pool.FindServiceByName("cellkeeper.v1.Cellkeeper")

    def exchanges(self, wire: str) -> dict[str, list[object]]:
        """Returns requests and replies, by the number and title of each entry of a file like wire.txt.

        They are as a client of the release sees them: without fields that it does not know, and without texts for
        people.
        """
        found = {}
        for entry in wire.split("## ")[1:]:
            title, request, *replies = entry.split("\n")
            _, method, *data = request.split(" ")
            form = self._service.methods_by_name[method]
            asked = self._read(form.input_type, data[0] if data else "")
            found[title] = [asked, *(self._reply(form.output_type, reply) for reply in replies if reply)]
        return found

    def _reply(self, form: Descriptor, line: str) -> object:
        code, data = line.removeprefix("< ").split(" ")[:2]
        if code == "OK":
            return self._read(form, data)
        info = error_details_pb2.ErrorInfo()
        details = status_pb2.Status.FromString(bytes.fromhex(data)).details
        return code, [info.reason for detail in details if detail.Unpack(info)]

    @staticmethod
    def _read(form: Descriptor, data: str) -> object:
        message: Any = message_factory.GetMessageClass(form).FromString(bytes.fromhex(data))
        message.DiscardUnknownFields()
        _without_texts(message)
        return str(message)


def _without_texts(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in TEXTS:
            message.ClearField(field.name)
        elif field.message_type is not None:
            for one in value if field.is_repeated else [value]:
                _without_texts(one)

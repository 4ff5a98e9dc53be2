"""docs/reference/contract.md and kserve.md: every RPC and message, with the comments of the .proto files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc

from .markdown import code, table

PROTO = Path(__file__).parents[1] / "proto"
CONTRACT = "cellkeeper_proto/v1/cellkeeper.proto"
KSERVE = "cellkeeper_proto/kserve/inference.proto"
INTRODUCTION = """# {title}

The gRPC service, from the comments of `proto/{path}`, for clients in other languages.
"""

Place = tuple[int, ...]
"""A path in the file's descriptor, as protobuf's SourceCodeInfo has it."""
Comments = Mapping[Place, str]

_TYPES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}
_MESSAGES, _ENUMS, _SERVICES, _SYNTAX = 4, 5, 6, 12  # numbers of fields of FileDescriptorProto
_FIELDS, _NESTED, _NESTED_ENUMS = 2, 3, 4  # of DescriptorProto


def contract_page() -> str:
    """The page of the service itself as Markdown. Raises RuntimeError where protoc cannot read the file."""
    return _page("The contract", CONTRACT)


def kserve_page() -> str:
    """The page of KServe's and Triton's protocol, likewise."""
    return _page("KServe's protocol", KSERVE)


def _page(title: str, path: str) -> str:
    file = described(path)
    comments = {
        tuple(location.path): f"{_text(location.leading_comments)}\n{_text(location.trailing_comments)}".strip()
        for location in file.source_code_info.location
    }
    head = next(
        "\n\n".join(map(_text, (*location.leading_detached_comments, location.leading_comments))).strip()
        for location in file.source_code_info.location
        if tuple(location.path) == (_SYNTAX,)
    )
    parts = [INTRODUCTION.format(title=title, path=path), head + "\n", *_services(file, comments)]
    for number, message in enumerate(file.message_type):
        parts += _message(message, (_MESSAGES, number), "", comments, file.package)
    for number, enum in enumerate(file.enum_type):
        parts += _enum(enum, (_ENUMS, number), "", comments)
    return "\n".join(parts)


def described(path: str) -> FileDescriptorProto:
    """A .proto file with its comments, as protoc reads it. path: below `proto`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "contract"
        words = [f"-I{PROTO}", f"--descriptor_set_out={out}", "--include_source_info", str(PROTO / path)]
        if protoc.main(["protoc", *words]) != 0:
            raise RuntimeError(f"{path}: protoc cannot read it; its message is above")
        return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def _services(file: FileDescriptorProto, comments: Comments) -> Iterator[str]:
    for number, service in enumerate(file.service):
        yield f"## Service {service.name}\n"
        rows = []
        for place, method in enumerate(service.method):
            streams = ("stream " if method.client_streaming else "", "stream " if method.server_streaming else "")
            rows.append(
                (
                    code(method.name),
                    streams[0] + _linked(method.input_type, file.package),
                    streams[1] + _linked(method.output_type, file.package),
                    comments.get((_SERVICES, number, 2, place), ""),
                )
            )
        yield table(("RPC", "request", "response", "what it does"), rows)


def _message(message: DescriptorProto, place: Place, outer: str, comments: Comments, package: str) -> Iterator[str]:
    name = outer + message.name
    yield from _heading(name, comments.get(place, ""))
    rows = []
    for number, field in enumerate(message.field):
        label = "repeated " if field.label == FieldDescriptorProto.LABEL_REPEATED else ""
        label = "optional " if field.proto3_optional else label
        kind = _linked(field.type_name, package) if field.type_name else code(_TYPES[field.type])
        rows.append((str(field.number), code(field.name), label + kind, comments.get((*place, _FIELDS, number), "")))
    yield table(("number", "field", "type", "meaning"), rows) if rows else "It has no fields.\n"
    for number, nested in enumerate(message.nested_type):
        yield from _message(nested, (*place, _NESTED, number), f"{name}.", comments, package)
    for number, enum in enumerate(message.enum_type):
        yield from _enum(enum, (*place, _NESTED_ENUMS, number), f"{name}.", comments)


def _enum(enum: EnumDescriptorProto, place: Place, outer: str, comments: Comments) -> Iterator[str]:
    yield from _heading(outer + enum.name, comments.get(place, ""))
    rows = [
        (str(value.number), code(value.name), comments.get((*place, 2, number), ""))
        for number, value in enumerate(enum.value)
    ]
    yield table(("number", "value", "meaning"), rows)


def _text(comment: str) -> str:
    return "\n".join(line.strip() for line in comment.splitlines())


def _heading(name: str, comment: str) -> Iterator[str]:
    yield f"## {name}\n"
    if comment:
        yield comment + "\n"


def _linked(type_name: str, package: str) -> str:
    """A link to the section of a message or enum of this file."""
    name = type_name.removeprefix(f".{package}.")
    return f"[{name}](#{name.lower().replace('.', '')})"

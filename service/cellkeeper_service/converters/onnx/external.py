"""Reads weights that an ONNX file keeps in other files (`model.onnx.data`) of its folder, and puts them into the graph.

A bundle has one file for its graph. Every location is checked before anything is read: paths or links that lead out of
the folder are refused, as are ranges that the file does not have, or that differ from the tensor's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from onnx import TensorProto

from cellkeeper_service.engine.onnx_checks import tensors_of_model
from cellkeeper_service.model.bundle import MAX_GRAPH_BYTES
from cellkeeper_service.model.fields import named

from ..refusal import ImportRefused

MAX_BYTES = MAX_GRAPH_BYTES - (1 << 20)  # keeps a graph with its weights below protobuf's limit


_ITEM_BYTES = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.BOOL: 1,
    TensorProto.INT8: 1,
    TensorProto.INT16: 2,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT8: 1,
    TensorProto.UINT16: 2,
    TensorProto.UINT32: 4,
    TensorProto.UINT64: 8,
}


def load_external_data(model: Any, folder: Path | None, place: str) -> bool:
    """Loads the tensors that `model` keeps in other files; returns True if there are any.

    folder: of the .onnx file; None: the model came as bytes. Raises ImportRefused.
    """
    tensors = [t for t in tensors_of_model(model) if t.data_location == TensorProto.EXTERNAL]
    if not tensors:
        return False
    if folder is None:
        raise ImportRefused(place, "keeps weights in other files; pass the path of the .onnx file, not its bytes")
    parts = [_part(tensor, folder, f"{place}: tensor {tensor.name}") for tensor in tensors]
    wanted = sum(part.length for part in parts)
    most = min(MAX_BYTES - model.ByteSize(), sum({part.path: part.file_bytes for part in parts}.values()))
    if wanted > most:  # also detects many tensors that claim the same bytes
        raise ImportRefused(place, f"got tensors of {wanted} bytes in other files, expected at most {most}")
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.raw_data = _read(part)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    return True


@dataclass(frozen=True)
class _Part:
    """The location of a tensor's bytes."""

    path: Path
    offset: int
    length: int
    file_bytes: int
    where: str


def _part(tensor: Any, folder: Path, where: str) -> _Part:
    if tensor.data_type not in _ITEM_BYTES or any(size < 0 for size in tensor.dims):
        raise ImportRefused(
            where,
            f"got dtype {tensor.data_type}, shape {list(tensor.dims)} in another file, expected floats, or integers "
            "of at least 8 bits",
        )
    size = prod(tensor.dims) * _ITEM_BYTES[tensor.data_type]
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", str(size)))
    except ValueError as error:
        raise ImportRefused(where, f"offset or length: {error}, expected whole numbers") from error
    if not isinstance(location, str):  # bytes: not UTF-8
        raise ImportRefused(where, f"got location {location!r}, expected the name of a file beside the .onnx file")
    path, shown = Path(location), named(location)
    if not location or "\\" in location or path.is_absolute() or ".." in path.parts:
        raise ImportRefused(where, f"got location {location!r}, expected the name of a file beside the .onnx file")
    try:
        resolved = (folder / path).resolve(strict=True)
        if not resolved.is_relative_to(folder.resolve(strict=True)):
            raise ImportRefused(
                where, f"location {shown!r} is a link that points outside the folder; put the file itself there"
            )
        if not resolved.is_file():
            raise ImportRefused(where, f"location {shown!r} is not a file; put the file there")
        found = resolved.stat().st_size
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a link to itself; ValueError: a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise ImportRefused(
            where, f"location {shown!r} cannot be read ({reason}); put it beside the .onnx file"
        ) from error
    if length != size or not 0 <= offset <= found - length:
        raise ImportRefused(
            where,
            f"got {length} bytes at {offset} of {shown!r}, which has {found}, expected {size} bytes for shape "
            f"{list(tensor.dims)}; is it the file that was saved with this graph?",
        )
    return _Part(resolved, offset, length, found, where)


def _read(part: _Part) -> bytes:
    try:
        with part.path.open("rb") as file:
            file.seek(part.offset)
            raw = file.read(part.length)
    except OSError as error:
        raise ImportRefused(part.where, f"{part.path.name} cannot be read ({error.strerror})") from error
    if len(raw) != part.length:
        raise ImportRefused(part.where, f"got {len(raw)} bytes of {part.path.name}, expected {part.length}: it changed")
    return raw

"""Reads model files: bytes within limits, and tensors from safetensors, torch and numpy files. Never runs code in them,
nor unpacks more bytes than they declare."""

from __future__ import annotations

import importlib.util
import io
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from cellkeeper_service.model.bundle import FILE_KINDS, MAX_WEIGHTS_BYTES
from cellkeeper_service.model.file_mode import file_mode
from cellkeeper_service.model.json_text import parse_json

from .refusal import QUANTIZED, ImportRefused
from .stack import Array

MAX_JSON_BYTES = 16 << 20
MAX_NPZ_BYTES = 1 << 28  # all arrays together: constants and one session's states
TRITON_SETTINGS = "config.pbtxt"  # lies beside the folders of a model's versions
_SAVE_WEIGHTS = "load it where its class is available, and save model.state_dict(), preferably as safetensors"
_SAVE_AGAIN = (
    "load it with what wrote it, such as torch.load(file, weights_only=True), and save the state_dict again, "
    "preferably as safetensors"
)
BATCH_NORM = (
    "a batch normalization, which layers of weights cannot express; merge it into the layer before it, or pass the "
    "module itself with example=x, an input as its forward takes it, and the forward is traced"
)
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "<u1", "I8": "<i1"}
_OLD_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # how such a file begins: a pickled number
_NESTED = ("state_dict", "model_state_dict", "model")  # keys under which training programs put the weights


def file_of(model: object, expected: str) -> Path:
    """Returns the path that was given as the model. Raises ImportRefused for any other object."""
    if isinstance(model, str | Path):
        return Path(model)
    kind = f"{type(model).__module__}.{type(model).__name__}"
    instead = "save it, and give the file"
    if hasattr(model, "get_config") or kind.startswith(("keras.", "tensorflow.")):  # Keras on torch: also a module
        instead = "save it with model.save('model.keras'), and give the file to import_keras"
    elif kind.startswith(("torch.", "torch_")) or hasattr(model, "named_parameters"):
        instead = "pass a torch module to import_torch"
    elif hasattr(model, "SerializeToString"):
        instead = "pass model.SerializeToString() to import_onnx"
    raise ImportRefused("model", f"got {kind}, expected {expected}; {instead}")


def remedy(path: Path, kind: str, usual: str) -> str:
    """Returns what to do about a file that the import `kind` cannot read: use another import, if its name says so."""
    meant = FILE_KINDS.get(path.suffix.lower(), kind)
    return usual if meant == kind else f"`cellkeeper-server import {meant}`, or import_{meant}, reads such a file"


def read_bytes(path: Path, most: int = MAX_WEIGHTS_BYTES) -> bytes:
    """Returns the file's bytes. Raises ImportRefused if the file is missing, empty or too large."""
    try:
        if (path / "saved_model.pb").is_file():
            raise ImportRefused(
                str(path),
                "a SavedModel of TensorFlow, expected a file; load it with the Keras that wrote it, and save it with "
                "model.save('model.keras') or model.save('model.h5')",
            )
        if (path / TRITON_SETTINGS).is_file():
            raise ImportRefused(
                str(path), "a model of a Triton repository, expected a file; give the one of a version: 1/model.onnx"
            )
        mode = file_mode(path)
        if stat.S_ISDIR(mode):
            raise ImportRefused(str(path), "is a folder, expected a file; give the file in it")
        if not stat.S_ISREG(mode):
            raise ImportRefused(str(path), "no such file")
        size = path.stat().st_size
        if not 0 < size <= most:
            raise ImportRefused(str(path), f"got {size} bytes, expected 1 to {most}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL byte
        raise ImportRefused(str(path), f"cannot be read ({error})") from error


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file. Raises ImportRefused."""
    try:
        return parse_json(read_bytes(path, MAX_JSON_BYTES))
    except ValueError as error:
        raise ImportRefused(str(path), f"not JSON ({error})") from error


def read_arrays(path: Path) -> dict[str, Array]:
    """Returns arrays by name from a safetensors file or a numpy.savez file."""
    data = read_bytes(path)
    return npz_tensors(path, data) if data[:2] == b"PK" else safetensors_tensors(path, data)


def read_state_dict(path: Path) -> dict[str, Array]:
    """Returns tensors by name from a safetensors file, or from a torch.save file (weights only)."""
    data = read_bytes(path)
    if data.startswith(_OLD_TORCH):
        raise ImportRefused(
            str(path),
            "a file of torch.save as PyTorch wrote it before 1.6, expected a zip file; write it again, with any newer "
            f"PyTorch: torch.save(torch.load({path.name!r}, weights_only=True), 'new.pt'). If that refuses a whole "
            "module, load it where its class is available, and save its state_dict()",
        )
    return torch_tensors(path, data) if data[:2] == b"PK" else safetensors_tensors(path, data)


def safetensors_tensors(path: Path, data: bytes) -> dict[str, Array]:
    """Returns tensors by name: floats of any width, bfloat16 as float32, and integers (for a graph's constants)."""
    try:
        found = dict(deserialize(data))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise ImportRefused(
            str(path),
            f"neither a safetensors file ({error}) nor a zip file of torch.save (PyTorch 1.6 or newer); "
            + remedy(path, "torch", _SAVE_AGAIN),
        ) from error
    tensors: dict[str, Array] = {}
    for name, view in found.items():
        dtype, values = view["dtype"], view["data"]
        if dtype == "BF16":
            array = (np.frombuffer(values, "<u2").astype("<u4") << 16).view("<f4")
        elif dtype in _DTYPES:
            array = np.frombuffer(values, _DTYPES[dtype])
        else:
            raise ImportRefused(f"{path}: tensor {name}", f"got dtype {dtype}, expected floats")
        tensors[name] = array.reshape(view["shape"])
    return tensors


def npz_tensors(path: Path, data: bytes) -> dict[str, Array]:
    """Returns numeric arrays by name. Raises ImportRefused."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_NPZ_BYTES:
            raise ImportRefused(str(path), f"got arrays of {size} bytes, expected at most {MAX_NPZ_BYTES}")
        with np.load(io.BytesIO(data), allow_pickle=False, max_header_size=10_000) as arrays:
            tensors = {name: np.asarray(arrays[name]) for name in arrays.files}
    except ImportRefused:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise all kinds of errors for bad bytes
        raise ImportRefused(
            str(path), f"not a file of numpy.savez ({type(error).__name__}: {error}); save it again"
        ) from error
    for name, array in tensors.items():
        if array.dtype.kind not in "fiub":
            raise ImportRefused(f"{path}: {name}", f"got dtype {array.dtype}, expected numbers")
    return tensors


def torch_tensors(path: Path, data: bytes) -> dict[str, Array]:
    """Reads a torch.save zip file with weights_only: its pickle may refer to tensors and containers, but to no code."""
    if importlib.util.find_spec("torch") is None:
        raise ImportRefused(
            str(path), "needs torch, which is not installed; install cellkeeper[torch], or save safetensors"
        )
    import torch

    _check_archive(path, data)
    try:
        value = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's and torch's errors have no common base
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        holds = f"it holds an object of {named.group(1)}" if named else type(error).__name__
        raise ImportRefused(
            str(path),
            f"not only weights ({holds}, a whole module or other code, which is not run); "
            + remedy(path, "torch", _SAVE_WEIGHTS),
        ) from error
    return tensors_of(value, str(path), len(data))


def tensors_of(state_dict: Any, place: str, most_bytes: int = MAX_WEIGHTS_BYTES) -> dict[str, Array]:
    """Returns the tensors of a state_dict, or of a checkpoint that has one under a usual key. Raises ImportRefused."""
    import torch

    checkpoint = state_dict
    for key in _NESTED:
        if isinstance(state_dict, Mapping) and isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
    if state_dict is not checkpoint:
        _refuse_averages(checkpoint, state_dict, place)
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise ImportRefused(
            place, f"holds {type(state_dict).__name__}, expected tensors by name: save model.state_dict()"
        )
    tensors: dict[str, Array] = {}
    for name, value in state_dict.items():
        if isinstance(value, Mapping):
            raise ImportRefused(
                place,
                f"{name}: got {type(value).__name__} in a checkpoint, expected a state_dict alone; if {name} holds the "
                f"weights, pass checkpoint[{name!r}] in a script, or save it alone",
            )
        if type(value).__name__ == "ScriptObject" or "_packed_params" in str(name):
            raise ImportRefused(f"{place}: {name}", QUANTIZED.format("state_dict"))
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ImportRefused(place, f"{name}: got {type(value).__name__}, expected a tensor")
        if name.endswith("num_batches_tracked"):
            raise ImportRefused(f"{place}: tensor {name}", BATCH_NORM)
        if value.layout != torch.strided or not value.is_floating_point():
            raise ImportRefused(
                f"{place}: tensor {name}",
                f"got {value.dtype} {value.layout}, expected dense floats; if it is no weight (a metric, a counter), "
                "pass the state_dict without it",
            )
        if prod(value.shape) * value.element_size() > most_bytes:  # a few bytes can be strided to any size
            raise ImportRefused(f"{place}: tensor {name}", f"got shape {list(value.shape)}, more than the file holds")
        tensors[name] = value.detach().cpu().float().numpy()
    return tensors


def _refuse_averages(checkpoint: Mapping[Any, Any], weights: Mapping[Any, Any], place: str) -> None:
    """Raises ImportRefused if the checkpoint also holds other values of the same weights: which ones are meant?"""
    names = _weight_names(weights)
    found = [(at, held) for at, held in _mappings(checkpoint) if _weight_names(held) == names]
    if all(_is_equal(held, weights) for _, held in found):
        return
    raise ImportRefused(
        place,
        f"holds the same weights with different values (an average besides the last ones?): "
        f"{', '.join(at for at, _ in found)}; pass the right ones in a script, such as checkpoint{found[-1][0]}, or "
        "save them alone",
    )


def _mappings(value: Mapping[Any, Any], at: str = "", depth: int = 3) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yields the mappings within one, and where they are: "['model']". depth: a pickle may hold itself."""
    for key, held in value.items() if depth else ():
        if isinstance(held, Mapping):
            yield f"{at}[{key!r}]", held
            yield from _mappings(held, f"{at}[{key!r}]", depth - 1)


def _weight_names(state_dict: Mapping[Any, Any]) -> set[str]:
    """Returns the names of its tensors, as the module has them that an AveragedModel holds."""
    names = {str(name).removeprefix("module.") for name, value in state_dict.items() if hasattr(value, "shape")}
    return names - {"n_averaged"}


def _is_equal(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    import torch

    return set(one) == set(other) and all(
        one[name] is value or (isinstance(value, torch.Tensor) and torch.equal(one[name], value))
        for name, value in other.items()
    )


def _check_archive(path: Path, data: bytes) -> None:
    """Raises ImportRefused for archives that torch.save does not write.

    torch.save never compresses, so a compressed entry may be a decompression bomb.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise ImportRefused(str(path), f"not a zip file of torch.save ({error}); it may be truncated") from error
    names = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise ImportRefused(
            str(path),
            "a TorchScript archive, which holds code; load it with torch.jit.load, and save its state_dict(), "
            "preferably as safetensors",
        )
    if any(name.endswith(("archive_format", "exported_program.json")) for name in names) and "data.pkl" not in names:
        raise ImportRefused(
            str(path), "a torch.export archive; pass torch.export.load(file) to import_torch, in a script"
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ImportRefused(str(path), "compressed, expected uncompressed, as torch.save writes it")
    if sum(entry.file_size for entry in entries) > len(data):
        raise ImportRefused(str(path), "its parts claim more bytes than the file has")

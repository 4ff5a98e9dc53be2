"""Reads a bundle: config.json and model.safetensors (never pickle), each checked before it is used."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from errno import ELOOP, ENOENT
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from cellkeeper_service.domain.spec import ModelSpec
from cellkeeper_service.errors import StartError

from .config import MAX_RANK, Config, Features, GraphConfig, Tokens
from .feedback import feedback_of
from .fields import named, one_line
from .file_mode import file_mode
from .json_text import parse_json
from .parsing import parse_config
from .tensors import Shapes, all_states, cell_states, input_spec, outputs, tensor_dtypes, tensor_shapes

Array = NDArray[Any]
FileIdentity = tuple[int, int, int, int]  # device, inode, bytes, and nanoseconds of its last change

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
MAX_CONFIG_BYTES = 1 << 20
MAX_GRAPH_BYTES = 1 << 31
MAX_WEIGHTS_BYTES = 1 << 34
MAX_STATE_BYTES = 1 << 26

_STORED = {"float32": "F32", "float64": "F64", "float16": "F16", "int32": "I32", "int64": "I64"}  # in safetensors
FILE_KINDS = {  # which import reads a file of this name
    **dict.fromkeys((".keras", ".h5", ".hdf5"), "keras"),
    **dict.fromkeys((".pt", ".pth", ".bin", ".safetensors"), "torch"),
    ".onnx": "onnx",
}
_IMPORT = "`cellkeeper-server import --help` says how to make one from a model"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A model read from its folder. tensors: by PyTorch's names, float32 (a graph's initial states have the states'
    dtypes). graph: the ONNX model of a GraphConfig, otherwise empty."""

    path: Path
    config: Config
    tensors: dict[str, Array]
    graph: bytes
    spec: ModelSpec

    @property
    def initial_state(self) -> bytes:
        """A new session's state: the raw tensors of spec.states, in order."""
        parts = [
            self.tensors.get(f"initial.{state.name}", np.zeros(state.shape)).astype(state.numpy_dtype).tobytes()
            for state in cell_states(self.config)
        ]
        if len(parts) < len(self.spec.states) and isinstance(self.config.input, Features):
            held = np.full(self.config.input.size, self.config.input.missing.value, "<f4")
            parts.append(held.tobytes())
        return b"".join(parts)


def read_bundle(path: Path) -> Bundle:
    """Reads and checks the bundle in the folder `path`. Raises StartError, whose one line says what to do."""
    path = Path(path)
    _check_folder(path)
    seen: dict[str, FileIdentity] = {}
    text = _read(path, CONFIG_FILE, MAX_CONFIG_BYTES, seen)
    try:
        value = parse_json(text, _distinct)
    except ValueError as error:
        raise StartError(f"{path / CONFIG_FILE}: not JSON ({error}); write the bundle again") from error
    config = parse_config(value, str(path / CONFIG_FILE))
    states = all_states(config)
    state_bytes = sum(state.nbytes for state in states)
    if state_bytes > MAX_STATE_BYTES:
        raise StartError(
            f"{path / CONFIG_FILE}: a session's state of {state_bytes} bytes, expected at most {MAX_STATE_BYTES}"
        )
    graph = _read(path, config.graph, MAX_GRAPH_BYTES, seen) if isinstance(config, GraphConfig) else b""
    weights = _read(path, WEIGHTS_FILE, MAX_WEIGHTS_BYTES, seen)
    _check_unchanged(path, seen)
    tensors = _tensors(path / WEIGHTS_FILE, weights, config)
    vocabulary, given = (config.input.vocabulary if isinstance(config.input, Tokens) else 0), outputs(config)
    spec = ModelSpec(
        name=config.name,
        fingerprint=_fingerprint(text, weights, graph),
        input=input_spec(config),
        vocabulary=vocabulary,
        missing_values=isinstance(config.input, Features) and config.input.missing.policy != "reject",
        outputs=given,
        states=states,
        feedback=feedback_of(config.feedback, vocabulary, given),
        feature_names=config.feature_names,
        cell="" if isinstance(config, GraphConfig) else config.cell,
    )
    return Bundle(path, config, tensors, graph, spec)


def _check_folder(path: Path) -> None:
    """Raises StartError if `path` is not a bundle, and says what to do with what it is instead."""
    try:
        mode = file_mode(path)
        if stat.S_ISDIR(mode):
            found = sorted(item.name for item in path.iterdir())
            if {CONFIG_FILE, WEIGHTS_FILE} & set(found):
                return
            bundles = [name for name in found if name[0] != "." and (path / name / CONFIG_FILE).is_file()]
            inside = f"name a bundle within it, such as {path / named(bundles[0])}" if bundles else _IMPORT
            raise StartError(f"{path}: not a bundle, it has no {CONFIG_FILE}; {inside}")
        is_link = path.is_symlink()
        whole = path.absolute()
    except (OSError, ValueError) as error:  # ValueError: a zero byte
        advice = "let the server read it" if isinstance(error, PermissionError) else _IMPORT
        raise StartError(f"{one_line(str(path))}: cannot be read ({one_line(str(error))}); {advice}") from error
    if stat.S_ISREG(mode):
        kind = FILE_KINDS.get(path.suffix.lower())
        what = f"`cellkeeper-server import {kind} {path} {path.stem}` makes one from it" if kind else _IMPORT
        if path.name in (CONFIG_FILE, WEIGHTS_FILE):
            what = f"give its folder, {path.parent}"
        raise StartError(f"{path}: a file, expected the folder of a bundle; {what}")
    if is_link:
        raise StartError(
            f"{path}: no such folder: a link that points nowhere, or to itself; give the folder of a model bundle"
        )
    looked = "" if path.is_absolute() else f" (looked for {whole})"
    raise StartError(f"{path}: no such folder{looked}; give the folder of a model bundle")


def _read(folder: Path, name: str, most: int, seen: dict[str, FileIdentity]) -> bytes:
    """Reads a file of the bundle, and notes in `seen` which file it was. It may be a link within the folder, as
    Kubernetes mounts a ConfigMap's files."""
    path = folder / name
    try:
        resolved = path.resolve(strict=True)
        if not resolved.is_relative_to(folder.resolve()):
            raise StartError(f"{path}: points outside the bundle; put the file itself there")
        if not resolved.is_file():
            raise StartError(f"{path}: not a file; put the file there")
        with resolved.open("rb") as file:
            seen[name] = identity = _identity(os.fstat(file.fileno()))
            size = identity[2]
            if not 0 < size <= most:
                raise StartError(f"{path}: got {size} bytes, expected 1 to {most}")
            return file.read(size)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) or error.errno == ELOOP:  # RuntimeError until Python 3.13
            raise StartError(f"{path}: a link that points to itself; put the file itself there") from error
        advice = "put the file there" if error.errno == ENOENT else "let the server read it"
        raise StartError(f"{path}: cannot be read ({error.strerror}); {advice}") from error


def _check_unchanged(folder: Path, seen: Mapping[str, FileIdentity]) -> None:
    """Raises StartError if a file that was read is no longer the one of that name, because the files may then belong to
    different versions: someone replaces them, or a link to them."""
    for name, identity in seen.items():
        try:
            same = _identity((folder / name).stat()) == identity
        except OSError:
            same = False
        if not same:
            raise StartError(f"{folder / name}: changed while the bundle was read; try again when it is complete")


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def _tensors(path: Path, weights: bytes, config: Config) -> dict[str, Array]:
    """Returns the tensors, after checking that their names, shapes and dtypes are those of the config."""
    try:
        found = dict(deserialize(weights))  # type: ignore[no-untyped-call]
    except (SafetensorError, ValueError) as error:
        raise StartError(f"{path}: not a safetensors file ({one_line(str(error))}); write the bundle again") from error
    shapes = {name: tuple(view["shape"]) for name, view in found.items()}
    required = _graph_shapes(path, config, shapes) if isinstance(config, GraphConfig) else tensor_shapes(config)
    dtypes = tensor_dtypes(config)
    tensors: dict[str, Array] = {}
    for name, shape in required.items():
        if name not in found:
            raise StartError(f"{path}: tensor {name}: missing, expected shape {list(shape)}")
    for name in sorted(found):
        if name not in required:
            raise StartError(f"{path}: tensor {named(name)}: not part of this model; remove it")
        shape, dtype, wanted = shapes[name], found[name]["dtype"], dtypes.get(name, "float32")
        if shape != required[name]:
            raise StartError(
                f"{path}: tensor {name}: got shape {one_line(str(list(shape)))}, expected {list(required[name])}"
            )
        if dtype != _STORED[wanted]:
            raise StartError(f"{path}: tensor {name}: got dtype {dtype}, expected {_STORED[wanted]}")
        tensors[name] = np.frombuffer(found[name]["data"], np.dtype(wanted).newbyteorder("<")).reshape(shape)
        if not np.isfinite(tensors[name]).all():
            raise StartError(f"{path}: tensor {name}: holds NaN or infinity, expected finite numbers")
    return tensors


def _graph_shapes(path: Path, config: GraphConfig, found: Shapes) -> Shapes:
    """Returns the shapes that a graph's tensors must have. A constant's may be any of up to MAX_RANK axes without a 0;
    initial states, which are optional, have those of the states."""
    shapes: Shapes = {}
    for name in config.constants:
        shape = found.get(f"constant.{name}")
        if shape is None:
            raise StartError(f"{path}: tensor constant.{name}: missing, config.json declares it")
        if prod(shape) == 0 or len(shape) > MAX_RANK:
            raise StartError(
                f"{path}: tensor constant.{name}: got shape {one_line(str(list(shape)))}, expected at most {MAX_RANK} "
                "axes, none of length 0"
            )
        shapes[f"constant.{name}"] = shape
    for state in config.states:
        if f"initial.{state.name}" in found:
            shapes[f"initial.{state.name}"] = state.shape
    return shapes


def _fingerprint(*parts: bytes) -> bytes:
    """Returns the sha256 over each part's length (8 bytes, little-endian) and bytes."""
    digest = sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return value

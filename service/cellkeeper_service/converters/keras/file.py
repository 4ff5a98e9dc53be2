"""Reads Keras' two formats as plain data: a zip file that contains JSON and HDF5, or HDF5 alone. Keras is not needed.

No code of a model is run, nothing is unpacked to disk, and nothing outside the file is read.
"""

from __future__ import annotations

import importlib.util
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from cellkeeper_service.model.bundle import MAX_WEIGHTS_BYTES
from cellkeeper_service.model.json_text import parse_json

from ..files import MAX_JSON_BYTES, read_bytes, remedy
from ..refusal import LONGEST, ImportRefused, refusing
from ..stack import Array
from .topology import KerasLayer

MOST_PACKED = 100  # limit on the ratio of the weights file's size to its compressed size
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_INNER = {"LSTM": "cell", "GRU": "cell", "SimpleRNN": "cell"}
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@dataclass
class KerasFile:
    """A model file. config: as Keras writes it. version: of the Keras that wrote it, such as (3, 15)."""

    path: Path
    config: dict[str, Any]
    version: tuple[int, ...]
    store: Any  # h5py.File
    legacy: bool  # a .h5 file

    def arrays(self, *parts: str) -> dict[str, Array]:
        """Returns one group's float datasets by name; {} if there is no such group."""
        import h5py

        group = self._group(parts)
        names = [] if group is None else [name for name in group if isinstance(group.get(name), h5py.Dataset)]
        found = {name: self.array(*parts, name) for name in names}
        return {name: values for name, values in found.items() if values.dtype.kind == "f"}

    def text(self, key: str, *parts: str) -> str:
        """Returns a group's text attribute; "" if there is none."""
        group = self._group(parts)
        value = "" if group is None else group.attrs.get(key, "")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def weight_names(self, layer: str) -> list[str]:
        """Returns the weights of a layer in a .h5 file, as paths within its group."""
        group = self._group(("model_weights", layer))
        found = [] if group is None else group.attrs.get("weight_names", [])
        return [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found]

    def array(self, *parts: str) -> Array:
        """Returns one dataset. Raises ImportRefused if it is missing, or not entirely in this file."""
        import h5py

        group, name = self._group(parts[:-1]), parts[-1]
        place = f"{self.path}: {'/'.join(parts)}"
        if group is None or name not in group or not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ImportRefused(place, "no such tensor in the file")
        dataset = group[name]
        if not isinstance(dataset, h5py.Dataset):
            raise ImportRefused(place, "not a tensor")
        size = prod(dataset.shape or (0,)) * dataset.dtype.itemsize if dataset.shape is not None else 0
        if dataset.dtype.kind not in "fiu" or size > MAX_WEIGHTS_BYTES:
            raise ImportRefused(place, f"got {dataset.dtype} {list(dataset.shape or ())}, expected numbers")
        # data stored elsewhere, or in fewer bytes than its shape needs, can claim any size
        if dataset.external or dataset.is_virtual or dataset.id.get_storage_size() < size:
            raise ImportRefused(
                place, f"got shape {list(dataset.shape or ())}, more than the file holds; save it again"
            )
        values: Array = np.asarray(dataset[()])
        return values

    def _group(self, parts: tuple[str, ...]) -> Any:
        """Returns a group, following only links that stay in the file."""
        import h5py

        group = self.store
        for part in (piece for word in parts for piece in word.split("/") if piece):
            if part not in group or not isinstance(group.get(part, getlink=True), h5py.HardLink):
                return None
            group = group[part]
            if not isinstance(group, h5py.Group):
                return None
        return group


def read_keras(path: Path) -> KerasFile:
    """Reads a model file. Raises ImportRefused if it is not a Keras model."""
    if importlib.util.find_spec("h5py") is None:
        raise ImportRefused(str(path), "needs h5py, which is not installed; install cellkeeper[keras]")
    data = read_bytes(path)
    if data[:2] == b"PK":
        parts = _unpacked(path, data)
        config = _json(path, parts[CONFIG], CONFIG)
        version = str(_json(path, parts[METADATA], METADATA).get("keras_version", ""))
        return KerasFile(path, config, _version(version), _opened(path, parts[WEIGHTS]), False)
    if data[: len(HDF5_SIGNATURE)] != HDF5_SIGNATURE:
        advice = remedy(path, "keras", "save it with model.save")
        raise ImportRefused(str(path), f"neither a .keras file (zip) nor a .h5 file (HDF5); {advice}")
    file = KerasFile(path, {}, (), _opened(path, data), True)
    text = file.text("model_config")
    if not text or len(text) > MAX_JSON_BYTES:
        raise ImportRefused(str(path), "has no model_config, only weights; save the model itself with model.save")
    file.config = _json(path, text.encode(), "model_config")
    file.version = _version(file.text("keras_version") or file.text("keras_version", "model_weights"))
    return file


def _unpacked(path: Path, data: bytes) -> dict[str, bytes]:
    parts: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                name = entry.filename
                if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name:
                    raise ImportRefused(f"{path}: {name}", "a name that points outside the archive")
                if name not in (CONFIG, METADATA, WEIGHTS):
                    continue
                most = MAX_WEIGHTS_BYTES if name == WEIGHTS else MAX_JSON_BYTES
                if name in parts or entry.file_size > min(most, MOST_PACKED * entry.compress_size + 1024):
                    raise ImportRefused(
                        f"{path}: {name}", f"twice, or unpacks from {entry.compress_size} to {entry.file_size} bytes"
                    )
                with archive.open(entry) as packed:
                    parts[name] = packed.read(entry.file_size + 1)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError, zlib.error) as error:
        raise ImportRefused(str(path), f"not a .keras file ({error}); it may be truncated") from error
    for name in (CONFIG, METADATA, WEIGHTS):
        if name not in parts:
            advice = remedy(path, "keras", "save it with model.save")
            raise ImportRefused(str(path), f"has no {name}, expected a .keras file as model.save writes it; {advice}")
    return parts


def _json(path: Path, data: bytes, name: str) -> dict[str, Any]:
    try:
        value = parse_json(data)
    except ValueError as error:
        raise ImportRefused(f"{path}: {name}", f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ImportRefused(f"{path}: {name}", f"got {type(value).__name__}, expected an object")
    return value


def _opened(path: Path, data: bytes) -> Any:
    import h5py

    with refusing(str(path), "not an HDF5 file", "it may be truncated", LONGEST):
        return h5py.File(io.BytesIO(data), "r")


def _version(text: str) -> tuple[int, ...]:
    numbers = text.replace("-tf", "").split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal())


def layer_weights(file: KerasFile, layer: KerasLayer, names: list[str]) -> dict[str, Array]:
    """Returns a layer's weights. names: in the order of its class. Raises ImportRefused if one is missing."""
    found = _from_h5(file, layer) if file.legacy else _from_keras(file, layer, names)
    for name in names:
        if name not in found:
            raise ImportRefused(layer.place, f"{name}: missing in the file, which has {sorted(found)}")
        if found[name].dtype.kind != "f":
            raise ImportRefused(layer.place, f"{name}: got {found[name].dtype}, expected floats")
    return {name: found[name] for name in names}


def _from_h5(file: KerasFile, layer: KerasLayer) -> dict[str, Array]:
    """Reads weights with names such as "lstm/lstm_cell/kernel:0"."""
    found = {}
    for path in file.weight_names(layer.name):
        if layer.cell and layer.cell not in path.split("/"):
            continue
        name = path.rpartition("/")[2].partition(":")[0]
        if name in found:
            raise ImportRefused(layer.place, f"{name}: twice in the file")
        if name.startswith("lora_"):
            raise ImportRefused(
                layer.place,
                f"{name}: LoRA weights apart from the layer's own; save the model as .keras, which adds them",
            )
        found[name] = file.array("model_weights", layer.name, *path.split("/"))
    return found


def _from_keras(file: KerasFile, layer: KerasLayer, names: list[str]) -> dict[str, Array]:
    """Reads weights that have numbers, in a group named after the class, numbered if there are several of it."""
    group = snake_case(layer.holder or layer.kind) + (f"_{layer.number}" if layer.number else "")
    inner = list(layer.within) or ([_INNER[layer.kind]] if layer.kind in _INNER else [])
    said = file.text("name", "layers", group, "vars")  # not written by Keras before 3.7
    if said and said != layer.name:
        raise ImportRefused(layer.place, f"its weights are those of layer {said} in the file; save the model again")
    arrays = file.arrays("layers", group, *inner, "vars")
    return {name: arrays[str(number)] for number, name in enumerate(names) if str(number) in arrays}


def snake_case(name: str) -> str:
    """Converts a class name to Keras' name of its group: SimpleRNN -> simple_rnn, LSTM -> lstm."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()

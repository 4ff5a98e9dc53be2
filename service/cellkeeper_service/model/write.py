"""Writes a bundle atomically: it appears under its name complete, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from cellkeeper_service.errors import StartError

from .bundle import CONFIG_FILE, WEIGHTS_FILE, Array, Bundle, read_bundle
from .config import Config, GraphConfig, config_json
from .missing import as_numbers
from .parsing import parse_config
from .tensors import tensor_dtypes


def write_bundle(
    folder: Path,
    config: Config | Mapping[str, Any],
    tensors: Mapping[str, Array],
    *,
    graph: bytes = b"",
) -> Bundle:
    """Writes `folder`, which must not exist yet, and reads it back.

    config: parsed, or as in config.json. tensors: by PyTorch's names (tensors.py lists them), of any float dtype; they
    are stored as float32. A graph's initial states must have their states' dtypes if these are not float32. graph: the
    ONNX model of a GraphConfig. Raises StartError for anything that `read_bundle` would refuse, FileExistsError, and
    OSError if it cannot be written; none leaves anything behind.
    """
    parsed = parse_config(config) if isinstance(config, Mapping) else config
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it first or choose another name")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.{token_hex(4)}"
    partial.mkdir()
    try:
        text = json.dumps(config_json(parsed), indent=2)
        (partial / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        dtypes = tensor_dtypes(parsed)
        stored = {name: _stored(name, value, dtypes.get(name)) for name, value in tensors.items()}
        _save(stored, partial / WEIGHTS_FILE)
        if isinstance(parsed, GraphConfig):
            (partial / parsed.graph).write_bytes(graph)
        # safetensors makes it for its owner alone; the umask decides who may read the other files
        (partial / WEIGHTS_FILE).chmod((partial / CONFIG_FILE).stat().st_mode)
        _check(partial, folder)
        for path in (*partial.iterdir(), partial):
            _sync(path)
        partial.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read_bundle(folder)


def _save(tensors: Mapping[str, Array], path: Path) -> None:
    """Writes the tensors to a file. Raises OSError."""
    try:
        save_file(dict(tensors), str(path))
    except SafetensorError as error:  # such as for a full disk, of which only its text tells
        raise OSError(errno.EIO, str(error), str(path)) from error


def _check(partial: Path, folder: Path) -> None:
    """Raises StartError if `partial` cannot be read, with the name that the bundle would have had: `partial` is removed
    before anybody reads the message."""
    try:
        read_bundle(partial)
    except StartError as error:
        raise StartError(str(error).replace(str(partial), str(folder))) from error


def _stored(name: str, value: Array, dtype: str | None) -> Array:
    """Returns the tensor as it is stored. dtype: the one that it must already have; None: floats become float32."""
    array = as_numbers(value)  # a masked element becomes NaN, which is refused when the bundle is read back
    if dtype is not None:
        if array.dtype != np.dtype(dtype):
            raise StartError(f"tensor {name}: got dtype {array.dtype}, expected {dtype}")
        return np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.kind != "f":
        raise StartError(f"tensor {name}: got dtype {array.dtype}, expected floats")
    with np.errstate(over="ignore"):  # a value that becomes infinite is refused when the bundle is read back
        return np.ascontiguousarray(array, dtype="<f4").reshape(array.shape)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

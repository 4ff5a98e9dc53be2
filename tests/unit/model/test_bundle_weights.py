"""Weights that are missing, elsewhere, damaged, or not those of the model."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.bundle import CONFIG_FILE, WEIGHTS_FILE, read_bundle
from cellkeeper_service.model.tensors import tensor_shapes
from safetensors.numpy import load_file, save_file

from testing.bundles import bundle_config, make_bundle

from .graph_config import GRAPH


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(file: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    (folder / file).unlink()
    with pytest.raises(StartError, match=f"{file}: cannot be read"):
        read_bundle(folder)
    with pytest.raises(StartError, match="no such folder"):
        read_bundle(tmp_path / "n")


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_file_elsewhere_is_not_followed(file: str, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m")
    (folder / file).rename(tmp_path / "elsewhere")
    (folder / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=f"{file}: points outside the bundle"):
        read_bundle(folder)


def test_every_damaged_byte_count_of_the_weights_is_refused(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m", hidden_size=2)
    whole = (folder / WEIGHTS_FILE).read_bytes()
    for damaged in (whole[:-1], whole[:7], b"", whole + b"x", b"\xff" * 8 + whole[8:], whole[:8] + b"]" + whole[9:]):
        (folder / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(StartError, match=WEIGHTS_FILE):
            read_bundle(folder)


def test_every_tensor_is_needed_in_its_shape_and_dtype(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "m", num_layers=2, head=(3, 1), initial_state="learned")
    file = folder / WEIGHTS_FILE
    tensors = load_file(file)
    shapes = tensor_shapes(bundle_config(num_layers=2, head=(3, 1), initial_state="learned"))
    assert tensors.keys() == shapes.keys()

    def refusal(**changes: Any) -> str:
        changed = {k.replace("__", "."): v for k, v in changes.items()}
        save_file({k: v for k, v in (tensors | changed).items() if v is not None}, file)
        with pytest.raises(StartError) as caught:
            read_bundle(folder)
        return str(caught.value)

    for name, tensor in tensors.items():
        key = name.replace(".", "__")
        assert f"tensor {name}: missing" in refusal(**{key: None})
        assert f"tensor {name}: got shape" in refusal(**{key: tensor[None]})
        assert f"tensor {name}: got dtype F64" in refusal(**{key: tensor.astype(np.float64)})
        spoilt = tensor.copy()
        spoilt.flat[-1] = np.inf
        assert f"tensor {name}: holds NaN or infinity" in refusal(**{key: spoilt})
    assert "tensor rnn.weight_ih_l0_reverse: not part of this model" in refusal(
        rnn__weight_ih_l0_reverse=tensors["rnn.weight_ih_l0"]
    )


@pytest.mark.parametrize("shape", [[1] * 9, [1] * 70, [0], [2, 0]])
def test_a_constant_of_no_shape_for_a_graph_is_refused(shape: list[int], tmp_path: Path) -> None:
    """NumPy has no arrays of 70 axes."""
    (tmp_path / CONFIG_FILE).write_text(json.dumps(GRAPH | {"constants": ["k"]}))
    (tmp_path / "model.onnx").write_bytes(b"not read yet")
    size = 4 * prod(shape)
    header = json.dumps({"constant.k": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    (tmp_path / WEIGHTS_FILE).write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(
        StartError, match=r"tensor constant\.k: got shape \[.*, expected at most 8 axes, none of length"
    ):
        read_bundle(tmp_path)

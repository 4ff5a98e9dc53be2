"""Files with flipped bytes, missing ends and false contents: read, or refused in one line, and nothing else."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from cellkeeper_service.converters import ImportRefused
from cellkeeper_service.converters.files import read_state_dict
from cellkeeper_service.converters.keras.file import read_keras
from cellkeeper_service.converters.keras.model import stack_of
from cellkeeper_service.converters.lower import lower
from cellkeeper_service.converters.onnx.declare import declare
from cellkeeper_service.converters.onnx.graph import read_graph
from cellkeeper_service.converters.torch.weights import guess_parts, parse_parts, read_parts
from cellkeeper_service.engine.batch_axis.analysis import Independence, independence
from cellkeeper_service.model.config import GraphConfig
from cellkeeper_service.model.parsing import parse_config
from google.protobuf.message import DecodeError
from safetensors.torch import save_file
from torch import nn

from verification.fuzz.bundle_cases import hostile_config, hostile_weights
from verification.fuzz.values import flipped
from verification.parity.onnx_cases import HANDMADE_CONSTANTS, handmade_graph

from .test_keras2 import keras2_file
from .test_unbounded_work import BOUNDED
from .unstreamable_graphs import SERVED

CASES = 150


def judged(read: Callable[[], Any], case: str) -> bool:
    """Returns True if the file was read, False if it was refused."""
    try:
        read()
    except ImportRefused as error:
        text = str(error)
    else:
        return True
    assert len(text) < 1500, case
    assert len(text.splitlines()) == 1, case
    return False


def draws(what: str) -> list[tuple[str, random.Random]]:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)
    return [(f"{seed}/{what}/{number}", random.Random(f"{seed}/{what}/{number}")) for number in range(CASES)]


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(nn.LSTM(3, 4, 2).state_dict(), path)
    whole = path.read_bytes()

    def read() -> None:
        tensors = read_state_dict(path)
        read_parts(guess_parts(list(tensors), "w", tensors), tensors, "w")
        read_parts(parse_parts("gru="), tensors, "w")

    for case, draw in draws("safetensors"):
        path.write_bytes(hostile_weights(draw, whole))
        judged(read, case)


def test_the_config_of_a_keras_file(tmp_path: Path) -> None:
    keras2_file(tmp_path / "old.h5", functional=True)
    with h5py.File(tmp_path / "old.h5") as store:
        config = str(store.attrs["model_config"]).encode()
    shapes = {"gru/cell/vars/0": (3, 12), "gru/cell/vars/1": (4, 12), "gru/cell/vars/2": (12,)}
    shapes |= {"dense/vars/0": (4, 2), "dense/vars/1": (2,)}
    with h5py.File(tmp_path / "w.h5", "w") as store:
        for name, shape in shapes.items():
            store[f"layers/{name}"] = np.ones(shape, np.float32)
    weights = (tmp_path / "w.h5").read_bytes()

    def read() -> None:
        lower(stack_of(read_keras(tmp_path / "m.keras")), "m", "m")

    seen = set()
    for case, draw in draws("keras"):
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("config.json", hostile_config(draw, config))
            archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
            archive.writestr("model.weights.h5", weights)
        seen.add(judged(read, case))
    assert False in seen


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # Keras' own
def test_the_config_of_a_keras_file_with_every_layer(keras: Any, tmp_path: Path) -> None:
    whole_layers().save(tmp_path / "whole.keras")
    with zipfile.ZipFile(tmp_path / "whole.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = parts.pop("config.json")

    def read() -> None:
        lower(stack_of(read_keras(tmp_path / "m.keras")), "m", "m")

    seen = set()
    for case, draw in draws("keras 3"):
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("config.json", hostile_config(draw, config))
            for name, data in parts.items():
                archive.writestr(name, data)
        seen.add(judged(read, case))
    assert seen == {True, False}


def whole_layers() -> Any:
    """Returns a model with branches, stacked cells, a causal convolution, normalizations and activations."""
    from keras import Input, Model
    from keras import layers as L

    x = Input((None, 3))
    a = L.RNN([L.LSTMCell(4), L.GRUCell(4)], return_sequences=True)(x)
    b = L.PReLU(shared_axes=[1])(L.LayerNormalization()(L.Conv1D(4, 3, padding="causal", dilation_rate=2)(x)))
    c = L.Concatenate()([L.Add()([a, b]), L.Multiply()([a, b]), L.ReLU(max_value=6.0)(a)])
    return Model(x, L.Dense(2, activation="gelu")(L.RNN(L.SimpleRNNCell(3))(L.BatchNormalization()(c))))


def test_graphs_that_are_read_for_their_batch_axis() -> None:
    """Whatever they contain, the analysis ends with a verdict."""
    graphs = [*SERVED.values(), *BOUNDED.values()]
    for number, (_, draw) in enumerate(draws("batch_axis")):
        graph = graphs[number % len(graphs)]
        try:
            model = onnx.load_model_from_string(flipped(draw, graph.model))
        except DecodeError:
            continue
        config = parse_config(graph.config(), "m")
        assert isinstance(config, GraphConfig)
        assert isinstance(independence(model, config), Independence)


def test_graphs() -> None:
    whole = handmade_graph()

    def read(data: bytes) -> None:
        graph = read_graph(data, "g")
        options: dict[str, Any] = {"input_name": None, "layout": None, "states": None, "batch_axes": {}}
        declare(graph, "g", outputs=None, constants=HANDMADE_CONSTANTS, **options)

    for case, draw in draws("onnx"):
        data = flipped(draw, whole)
        judged(lambda data=data: read(data), case)  # type: ignore[misc]

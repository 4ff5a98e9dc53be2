"""Small bundles on disk, for every test that needs a model.

make_bundle       random weights for any model shape
counting_bundle   predicts the running sum of the inputs, so that lost, doubled or swapped steps show as plain
                  arithmetic
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellkeeper_service.model.config import Dense, RecurrentConfig
from cellkeeper_service.model.parsing import parse_config
from cellkeeper_service.model.tensors import tensor_shapes
from cellkeeper_service.model.write import write_bundle
from numpy.typing import NDArray

Array = NDArray[Any]


def bundle_config(
    *,
    name: str = "m",
    cell: str = "lstm",
    input_size: int = 3,
    hidden_size: int = 8,
    num_layers: int = 1,
    head: Sequence[int | Dense] = (1,),
    **config_overrides: Any,
) -> RecurrentConfig:
    """Returns the config of a bundle. config_overrides: additional or different keys of config.json.

    Inner layers of the head are tanh, the last is linear; pass a Dense for another activation.
    """
    value: dict[str, Any] = {
        "format": "cellkeeper-bundle/1",
        "name": name,
        "cell": cell,
        "input_size": input_size,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "input": {"kind": "features"},
        "head": [
            {"units": item.units, "activation": item.activation, "bias": item.bias}
            if isinstance(item, Dense)
            else {"units": item, "activation": "tanh" if i + 1 < len(head) else "linear"}
            for i, item in enumerate(head)
        ],
    }
    config = parse_config(value | config_overrides)
    if not isinstance(config, RecurrentConfig):
        raise TypeError("an ONNX graph is written with write_bundle itself")
    return config


def random_tensors(config: RecurrentConfig, seed: int = 0) -> dict[str, Array]:
    """Returns float32 weights, uniform within +-1/sqrt(inputs) as in PyTorch; biases and states within +-0.5."""
    draw = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        reach = 0.5 if len(shape) == 1 or name.startswith("initial") else float(shape[1]) ** -0.5
        tensors[name] = draw.uniform(-reach, reach, shape).astype(np.float32)
    return tensors


def make_bundle(folder: Path, *, seed: int = 0, **config_options: Any) -> Path:
    """Writes a model with random weights to `folder`, which must not exist yet, and returns the folder.

    config_options: as of `bundle_config`; for token ids input={"kind": "tokens", "vocabulary": V, "embedding_size":
    input_size}.
    """
    config = bundle_config(**config_options)
    write_bundle(folder, config, random_tensors(config, seed))
    return folder


def counting_bundle(folder: Path, *, name: str = "count", features: int = 1, **config_overrides: Any) -> Path:
    """Writes a model with h' = relu(h + x) that predicts h': after n steps, the sum of the n inputs, [features].

    Exact while inputs are integers and sums stay below 2 ** 24 and never fall below zero.
    """
    sizes = {"input_size": features, "hidden_size": features}
    config = bundle_config(name=name, cell="rnn_relu", head=(), bias=False, **sizes, **config_overrides)
    identity = np.eye(features, dtype=np.float32)
    write_bundle(folder, config, {"rnn.weight_ih_l0": identity, "rnn.weight_hh_l0": identity})
    return folder


def holding_bundle(folder: Path, name: str) -> Path:
    """Writes a counting bundle of two features, for which NaN is missing and holds the last value."""
    missing = {"kind": "features", "missing": {"policy": "hold", "value": 0.0}}
    return counting_bundle(folder / name, name=name, features=2, input=missing)


def token_bundle(folder: Path, name: str, **config_overrides: Any) -> Path:
    """Writes a bundle that takes token ids below 10."""
    tokens = {"kind": "tokens", "vocabulary": 10, "embedding_size": 4}
    return make_bundle(folder / name, name=name, input_size=4, input=tokens, **config_overrides)


def random_inputs(config: RecurrentConfig, steps: int, sessions: int, seed: int = 0) -> Array:
    """Returns inputs [steps, sessions, features] float32, or token ids [steps, sessions] int32."""
    draw = np.random.default_rng(seed)
    vocabulary = getattr(config.input, "vocabulary", 0)
    if vocabulary:
        return draw.integers(0, vocabulary, (steps, sessions), dtype=np.int32)
    return draw.standard_normal((steps, sessions, config.input_size)).astype(np.float32)

"""The models and engines that the contract is tested with."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellkeeper_service.engine.cuda.device import cuda_devices
from cellkeeper_service.engine.exactness import settle
from cellkeeper_service.engine.load import load_engine
from cellkeeper_service.engine.torch_engine import TorchEngine
from cellkeeper_service.model.bundle import Bundle, read_bundle
from cellkeeper_service.model.config import Dense, Features, RecurrentConfig

from testing.bundles import Array, make_bundle, random_inputs

MAX_BATCH = 48

CASES: dict[str, dict[str, Any]] = {
    "lstm": {"num_layers": 2, "hidden_size": 24},
    "lstm_wide": {"num_layers": 1, "hidden_size": 200, "input_size": 5, "head": (3,)},
    "lstm_no_bias": {"bias": False, "head": [Dense(1, "linear", False)]},
    "lstm_learned": {"num_layers": 2, "initial_state": "learned", "head": (16, 2)},
    "gru": {"cell": "gru", "num_layers": 2, "hidden_size": 24},
    "gru_reset_before": {"cell": "gru", "reset_after": False, "num_layers": 2, "hidden_size": 13},
    "gru_no_bias": {"cell": "gru", "bias": False, "initial_state": "learned"},
    "gru_reset_before_no_bias": {"cell": "gru", "bias": False, "reset_after": False},
    "rnn_tanh": {"cell": "rnn_tanh", "num_layers": 2, "hidden_size": 24},
    "rnn_relu": {"cell": "rnn_relu", "num_layers": 2, "hidden_size": 24, "initial_state": "learned"},
    "rnn_no_bias": {"cell": "rnn_tanh", "bias": False, "hidden_size": 40},
    "tokens": {"input_size": 6, "input": {"kind": "tokens", "vocabulary": 11, "embedding_size": 6}, "head": (11,)},
    "no_head": {"head": (), "output": [{"op": "scale", "value": 3.0}]},
    "no_head_curve": {"head": (), "hidden_size": 5, "output": [{"op": "expm1"}, {"op": "sinh"}]},
    "gru_odd": {"cell": "gru", "hidden_size": 100, "num_layers": 2},
    "gru_odd_reset_before": {"cell": "gru", "hidden_size": 37, "reset_after": False},
    "softplus": {"cell": "rnn_relu", "hidden_size": 40, "head": [Dense(5, "softplus")]},
    "sigmoid": {"cell": "rnn_relu", "hidden_size": 40, "head": [Dense(1, "sigmoid")]},
    "sinh": {"cell": "rnn_relu", "hidden_size": 40, "head": (1,), "output": [{"op": "sinh"}]},
    "activations": {"head": [Dense(7, "relu"), Dense(9, "sigmoid"), Dense(3, "softplus")]},
    "smooth_activations": {"head": [Dense(7, "gelu"), Dense(9, "silu"), Dense(5, "mish"), Dense(3, "gelu_tanh")]},
    "kinked_activations": {
        "head": [Dense(7, "elu"), Dense(9, "selu"), Dense(5, "relu6"), Dense(6, "hard_silu"), Dense(3, "hard_tanh")]
    },
    "other_activations": {"head": [Dense(7, "softsign"), Dense(9, "log_sigmoid"), Dense(3, "hard_sigmoid")]},
    "transforms": {
        "head": (2,),
        "output": [
            {"op": "scale", "value": [2.0, -0.5]},
            {"op": "offset", "value": 0.1},
            {"op": "expm1"},
            {"op": "clip_min", "value": [-0.2, 0.0]},
        ],
    },
    "curves": {"head": (5,), "output": [{"op": "sinh"}, {"op": "exp"}, {"op": "offset", "value": -1.0}]},
    "softmax": {"head": (5,), "output": [{"op": "softmax"}, {"op": "scale", "value": 100.0}]},
    "normalized": {
        "input": {"kind": "features", "normalization": {"offset": [1.0, -2.0, 300.0], "scale": [2.0, 0.1, 50.0]}}
    },
    "hold": {"input": {"kind": "features", "missing": {"policy": "hold", "value": 0.25}}, "num_layers": 2},
    "constant": {"input": {"kind": "features", "missing": {"policy": "constant", "value": -0.75}}, "cell": "gru"},
    "hold_each": {"input": {"kind": "features", "missing": {"policy": "hold", "value": [0.25, -1.5, 3.0]}}},
    "constant_each": {
        "input": {
            "kind": "features",
            "normalization": {"offset": [1.0, -2.0, 300.0], "scale": [2.0, 0.1, 50.0]},
            "missing": {"policy": "constant", "value": [1.0, -2.0, 300.0]},
        }
    },
    "proj": {"proj_size": 5, "hidden_size": 16, "num_layers": 2, "initial_state": "learned"},
}

KINDS = [
    "onnxruntime",
    "torch",
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(cuda_devices() == 0, reason="no CUDA device")]),
]

each_engine = pytest.mark.parametrize("kind", KINDS)
# With distribution by group, one worker runs all tests of a case, since an engine on a GPU takes seconds to load.
each_case = pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.xdist_group(case)) for case in CASES])

_FOLDER = tempfile.TemporaryDirectory(prefix="cellkeeper-test-bundles-")


@cache
def bundle_of(case: str) -> Bundle:
    return read_bundle(make_bundle(Path(_FOLDER.name) / case, name=case, seed=7, **CASES[case]))


@cache
def engine_of(kind: str, case: str) -> Any:
    """Returns a settled engine that a process's tests share; each reserves its own arena. Skips what cannot run."""
    if kind == "onnxruntime" and config_of(case).proj_size:
        return None
    return new_engine(kind, bundle_of(case))


def new_engine(kind: str, bundle: Bundle, max_batch: int = MAX_BATCH) -> Any:
    if kind != "torch":
        return load_engine(bundle, "cuda:0" if kind == "cuda" else "cpu", max_batch)
    engine = TorchEngine(bundle, max_batch)
    settle(engine)
    return engine


def config_of(case: str) -> RecurrentConfig:
    config = bundle_of(case).config
    if not isinstance(config, RecurrentConfig):
        raise TypeError(case)
    return config


def take_engine(kind: str, case: str) -> Any:
    engine = engine_of(kind, case)
    if engine is None:
        pytest.skip("onnxruntime has no projection")
    return engine


def inputs_of(case: str, steps: int, sessions: int, seed: int = 0) -> Array:
    """Returns inputs [steps, sessions, ...] such as the model may get, with missing values if it takes any."""
    config = config_of(case)
    inputs = random_inputs(config, steps, sessions, seed)
    if case in ("normalized", "constant_each"):
        inputs = (inputs * [2.0, 0.1, 50.0] + [1.0, -2.0, 300.0]).astype(np.float32)
    if isinstance(config.input, Features) and config.input.missing.policy != "reject":
        inputs[np.random.default_rng(seed).random(inputs.shape) < 0.3] = np.nan
    return inputs


def start_rows(engine: Any, rows: Array) -> None:
    """Writes the initial state into these rows."""
    engine.write_states(rows, np.tile(np.frombuffer(engine.initial_state, np.uint8), (len(rows), 1)))

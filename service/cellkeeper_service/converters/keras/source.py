"""Runs the model in Keras itself, if it is installed: the reference for the bundle."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellkeeper_service.model.fields import one_line

from ..processing import Float64Source
from ..proof import Source
from ..reference import masks
from ..refusal import ImportRefused, refusing
from ..stack import Array, Stack
from .file import KerasFile
from .masks import ENDED_BY_KERAS_2

BACKEND = "torch"  # with which Keras traces
MADE_AGAIN = (
    "Keras 3, which traces, does not read most files of Keras 2: make the model again with Keras 3, give it the old "
    "one's weights (new.set_weights(old.get_weights()); tf_keras loads old files), save it as .keras, and pass --trace"
)
OLDEST = (3, 9)  # older versions of Keras imported any module that a file named


def keras_source(file: KerasFile, stack: Stack) -> Source:
    """Returns Keras if it can run the file, which must name only Keras' own classes, else the float64 reference."""
    if importlib.util.find_spec("keras") is None:
        return Float64Source(stack, "keras is not installed")
    other = computed_otherwise(file)
    if other:
        return Float64Source(stack, f"keras 3 computes {other} otherwise")
    custom = custom_module(file.config)
    if custom:
        return Float64Source(stack, f"keras is not run on a file that names {custom}")
    try:
        keras = load_keras()
    except Exception as error:  # noqa: BLE001 - a missing or broken backend may raise anything
        backend = os.environ.get("KERAS_BACKEND", "its default")
        return Float64Source(stack, f"keras does not start with the backend {backend}: {one_line(str(error))[:120]}")
    version = tuple(int(part) for part in keras.__version__.split(".")[:2] if part.isdecimal())
    if version < OLDEST:
        return Float64Source(stack, f"keras {keras.__version__} is older than {OLDEST[0]}.{OLDEST[1]}")
    try:
        return KerasSource(keras, file.path, stack)
    except Exception as error:  # noqa: BLE001 - Keras may raise anything; it often cannot read files of Keras 2
        return Float64Source(stack, f"keras {keras.__version__} cannot load the file: {one_line(str(error))[:120]}")


class KerasSource:
    """A proof.Source. The model may return only the last time step."""

    windowed = False  # its layers were read one by one: none treats long sequences differently

    def __init__(self, keras: Any, path: Path, stack: Stack) -> None:
        """Raises whatever Keras raises for a file that it cannot load."""
        self.name = f"keras {keras.__version__} ({keras.backend.backend()})"
        self._keras, self._stack = keras, stack
        model = keras.saving.load_model(path, compile=False)
        self._free = clone(keras, model, stateful=False, batch=None)
        # Keras cannot reset the nested states of stacked cells, and its convolutions keep no state
        whole = any(
            type(getattr(layer, "cell", layer)).__name__ in ("StackedRNNCells", "Conv1D") for layer in model.layers
        )
        self._stateful = None if whole else clone(keras, model, stateful=True)

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self.batch([inputs])[0]

    def batch(self, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
        """Keras runs a sequence step by step in Python, which takes as long for several as for one."""
        return [self._outputs(every, len(sequences[0])) for every in self._call(self._free, np.stack(sequences))]

    def _outputs(self, every: Array, steps: int) -> Mapping[str, Array]:
        """every: [T, units], or [1, units] of a model that returns the last time step."""
        if len(every) == steps:
            return {"prediction": every}
        result = np.full((steps, every.shape[-1]), np.nan)
        result[-1] = every[-1]
        return {"prediction": result}

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        """Runs the model one time step at a time.

        Masked time steps are NaN: what Keras returns for a sequence that begins with one is meaningless. Models with
        stacked cells or convolutions run whole sequences, because Keras does not carry their states between calls.
        """
        if self._stateful is None:
            return self.whole(inputs)
        for layer in self._stateful.layers:
            if hasattr(layer, "reset_state"):
                layer.reset_state()
        rows = []
        for number in range(len(inputs)):
            row = np.asarray(self._call(self._stateful, inputs[None, number : number + 1])[0, -1], np.float64)
            rows.append(np.full_like(row, np.nan) if masks(self._stack, inputs[number]) else row)
        return {"prediction": np.stack(rows)}

    def _call(self, model: Any, inputs: Array) -> Array:
        """Runs [B, T, ...] -> [B, T, units], or [B, 1, units]."""
        what = f"fails on sequences of {inputs.shape[1]} time steps"
        with refusing(self.name, what, "expected a model that takes any length", 200):
            (returned,) = self._keras.tree.flatten(model(arranged(self._keras, model, [inputs]), training=False))
        values: Array = np.asarray(self._keras.ops.convert_to_numpy(returned))
        return values if values.ndim == 3 else values[:, None]


def arranged(keras: Any, model: Any, inputs: Sequence[Any]) -> Any:
    """Returns the inputs, which are in the order of model.inputs, as the model takes them: one by itself, several in a
    list, a dict or whatever it was made with."""
    try:
        return keras.tree.pack_sequence_as(model.input, list(inputs))
    except (AttributeError, ValueError):  # it was not made of inputs
        return inputs[0] if len(inputs) == 1 else list(inputs)


def clone(keras: Any, model: Any, stateful: bool, batch: int | None = 1, states: Collection[str] = ()) -> Any:
    """Rebuilds the model for `batch` sequences of any length, with or without a state that is kept between calls.

    states: inputs without time steps.
    """
    config = json.loads(model.to_json())
    for entry in config["config"]["layers"]:
        entry.pop("build_config", None)
        inner = entry["config"]
        if "batch_shape" in inner:
            rest = inner["batch_shape"][1:]
            inner["batch_shape"] = [batch, *(rest if inner.get("name") in states else [None, *rest[1:]])]
        if "stateful" in inner:
            inner["stateful"] = stateful
    config.pop("build_config", None)
    config["config"].pop("build_input_shape", None)
    made = keras.models.model_from_json(json.dumps(config))
    if not made.built:
        raise ValueError("a Sequential model without an input shape; give it an Input layer")
    for mine, theirs in zip(made.layers, model.layers, strict=True):
        mine.set_weights(theirs.get_weights())
    return made


def custom_module(config: Any) -> str:
    """Returns a module or function in a model's config that is not Keras' own; "" if there is none."""
    found = sorted({module for module in _modules(config) if module.partition(".")[0] != "keras"})
    return found[0][:60] if found else ""


def _modules(value: Any, depth: int = 0) -> Iterator[str]:
    """Yields every module that a config names."""
    if depth > 64:
        yield "too deep"
    elif isinstance(value, dict):
        module = value.get("module")
        if isinstance(module, str):
            yield module
        if value.get("class_name") in ("Lambda", "function", "__lambda__"):
            yield str(value["class_name"])
        if value.get("registered_name") and ">" in str(value["registered_name"]):
            yield str(value["registered_name"])
        for item in value.values():
            yield from _modules(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _modules(item, depth + 1)


def computed_otherwise(file: KerasFile) -> str:
    """Returns what Keras 3 computes differently from the Keras that wrote the file; "" if there is nothing."""
    text = json.dumps(file.config)
    if file.version[:1] == (3,):
        return ""
    if '"hard_sigmoid"' in text:
        return "hard_sigmoid of Keras 2"
    masks = '"Masking"' in text or '"mask_zero": true' in text
    ends = next((kind for kind in ENDED_BY_KERAS_2 if f'"{kind}"' in text), "")
    return f"masks behind {ends} of Keras 2" if masks and ends else ""


def load_keras() -> Any:
    """Imports Keras. If no backend was chosen, uses the first installed one of TensorFlow, torch and JAX."""
    if "keras" not in sys.modules and "KERAS_BACKEND" not in os.environ:
        for backend, package in (("tensorflow", "tensorflow"), ("torch", "torch"), ("jax", "jax")):
            if importlib.util.find_spec(package) is not None:
                os.environ["KERAS_BACKEND"] = backend
                break
    import keras

    return keras


def keras_on_torch() -> Any:
    """Returns Keras on torch, which traces models. Raises ImportRefused."""
    for package in ("keras", BACKEND):
        if importlib.util.find_spec(package) is None:
            raise ImportRefused(
                "trace", f"needs {package}, which is not installed; install keras and cellkeeper[torch]"
            )
    os.environ.setdefault("KERAS_BACKEND", BACKEND)
    keras = load_keras()
    if keras.backend.backend() != BACKEND:
        raise ImportRefused(
            "trace", f"got Keras on {keras.backend.backend()}, expected it on torch: set KERAS_BACKEND=torch first"
        )
    return keras

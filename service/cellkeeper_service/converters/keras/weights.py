"""Reads a layer's weights by Keras' names from either file format."""

from __future__ import annotations

import re

from ..refusal import ImportRefused
from ..stack import Array
from .file import KerasFile
from .topology import KerasLayer

_INNER = {"LSTM": "cell", "GRU": "cell", "SimpleRNN": "cell"}


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

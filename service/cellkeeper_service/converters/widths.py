"""Checks that a stack's layers fit together, before anything is built from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from cellkeeper_service.model.config import GATES, MAX_LAYERS, MAX_SIZE, MAX_VOCABULARY

from .refusal import ImportRefused, NotRead
from .stack import (
    INPUT,
    Affine,
    Array,
    CausalConv,
    Convert,
    Dense,
    Embed,
    Layer,
    LayerNorm,
    Mask,
    Merge,
    Normalize,
    ParametricRelu,
    Recurrent,
    Stack,
)


def check(stack: Stack, place: str) -> None:
    """Raises ImportRefused, naming the layer."""
    if not stack.recurrent and not stack.convolutions:
        raise ImportRefused(
            place,
            "has no recurrent layer; expected an LSTM, GRU, RNN or causal convolution: there is nothing to stream",
        )
    if len(stack.recurrent) > MAX_LAYERS:
        raise ImportRefused(place, f"got {len(stack.recurrent)} recurrent layers, expected at most {MAX_LAYERS}")
    if stack.masked and not stack.chain:
        raise ImportRefused(place, "masks in a model with branches, expected masks only in a chain of layers")
    if not stack.size and stack.missing.policy != "reject":
        raise ImportRefused("missing", f"got {stack.missing.policy}, expected reject: token ids are never missing")
    filled = stack.missing.value
    if isinstance(filled, tuple) and len(filled) != stack.size:
        raise ImportRefused(
            "missing", f"value: got {len(filled)} numbers, expected one, or one for each of {stack.size} features"
        )
    widths = {INPUT: stack.size}
    for number, layer in enumerate(stack.layers):
        if isinstance(layer, Embed) != (number == 0 and not stack.size):
            raise ImportRefused(
                layer.place, "got an embedding, expected it as the first layer: a time step is one token id or features"
            )
        taken = [widths[source] for source in stack.sources_of(number)]
        width = widths[number] = width_after(layer, taken)
        if not 1 <= width <= MAX_SIZE:
            raise ImportRefused(layer.place, f"got a width of {width}, expected 1 to {MAX_SIZE}")
        for name, values in _arrays(layer):
            if values.dtype.kind != "f":
                raise ImportRefused(layer.place, f"{name}: got dtype {values.dtype}, expected floats")
            if not np.isfinite(values.astype(np.float32)).all():
                raise ImportRefused(layer.place, f"{name}: holds NaN or infinity, expected finite float32 numbers")


def features_of(layers: Sequence[Layer]) -> int:
    """Returns the features of a time step, by the first layer whose weights tell them; 0 for token ids."""
    for layer in layers:
        values: Array | None = None
        if isinstance(layer, Embed):
            return 0
        if isinstance(layer, Recurrent):
            values = layer.weights["weight_ih"]
        elif isinstance(layer, Dense | CausalConv):
            values = layer.weight
        elif isinstance(layer, Normalize | Affine | LayerNorm):
            values = layer.scale
        if values is not None and values.ndim:
            return int(values.shape[-1])
    return 1  # `check` refuses a stack without recurrent layers


def width_after(layer: Layer, taken: list[int]) -> int:
    """Returns the width of the output. Raises ImportRefused if the weights do not fit what the layer takes."""
    return _merged(layer, taken) if isinstance(layer, Merge) else _after(layer, *taken)


def _merged(layer: Merge, widths: list[int]) -> int:
    if layer.op == "concatenate":
        return sum(widths)
    if len(set(widths)) > 1:
        raise NotRead(layer.place, f"got values of the widths {widths}, expected one width for {layer.op}")
    if layer.op == "subtract" and len(widths) != 2:
        raise ImportRefused(layer.place, f"got {len(widths)} values, expected 2 for subtract")
    return widths[0]


def _after(layer: Layer, width: int) -> int:
    if isinstance(layer, Embed):
        if layer.weight.ndim != 2 or not 1 <= len(layer.weight) <= MAX_VOCABULARY:
            raise _shape(layer, "weight", layer.weight, "[vocabulary, size]")
        return int(layer.weight.shape[1])
    if isinstance(layer, Dense):
        if layer.weight.ndim != 2 or layer.weight.shape[1] != width:
            raise _shape(layer, "weight", layer.weight, f"[units, {width}]")
        units = int(layer.weight.shape[0])
        if layer.bias is not None and layer.bias.shape != (units,):
            raise _shape(layer, "bias", layer.bias, f"[{units}]")
        return units
    if isinstance(layer, CausalConv):
        units, kernel, inputs = layer.weight.shape
        if inputs != width or layer.dilation < 1 or not kernel >= 1 or layer.reach > MAX_SIZE:
            raise _shape(layer, "weight", layer.weight, f"[units, kernel, {width}], with up to {MAX_SIZE} steps back")
        if layer.bias is not None and layer.bias.shape != (units,):
            raise _shape(layer, "bias", layer.bias, f"[{units}]")
        return int(units)
    if isinstance(layer, Normalize | Affine | LayerNorm):
        for name, values in (("offset", layer.offset), ("scale", layer.scale)):
            if values is not None and values.shape != (width,):
                raise _shape(layer, name, values, f"[{width}]")
    if isinstance(layer, ParametricRelu) and layer.slope.shape not in ((width,), (1,)):
        raise _shape(layer, "slope", layer.slope, f"[{width}] or [1]")
    if isinstance(layer, Convert) and isinstance(layer.transform.value, tuple) and len(layer.transform.value) != width:
        expected = f"one, or one for each of {width} predicted values" if width > 1 else "one: the model predicts one"
        raise ImportRefused(layer.place, f"got {len(layer.transform.value)} values, expected {expected}")
    return _recurrent(layer, width) if isinstance(layer, Recurrent) else width


def _recurrent(layer: Recurrent, width: int) -> int:
    gates = GATES[layer.cell] * layer.hidden_size
    expected: dict[str, tuple[int, ...]] = {"weight_ih": (gates, width), "weight_hh": (gates, layer.width)}
    if "bias_ih" in layer.weights or "bias_hh" in layer.weights:
        expected |= {"bias_ih": (gates,), "bias_hh": (gates,)}
    if layer.proj_size:
        expected["weight_hr"] = (layer.proj_size, layer.hidden_size)
    if prod(expected["weight_ih"]) == 0:
        raise ImportRefused(
            layer.place, f"got {layer.hidden_size} units and {width} inputs, expected 1 or more of each"
        )
    for name, shape in expected.items():
        if name not in layer.weights:
            raise ImportRefused(layer.place, f"{name}: missing, expected shape {list(shape)}")
        if layer.weights[name].shape != shape:
            raise _shape(layer, name, layer.weights[name], str(list(shape)))
    if layer.initial:
        sizes = {"h": layer.width} | ({"c": layer.hidden_size} if layer.cell == "lstm" else {})
        for name, size in sizes.items():
            if name not in layer.initial or layer.initial[name].shape != (size,):
                raise ImportRefused(layer.place, f"initial state {name}: expected shape [{size}]")
    return layer.width


def _arrays(layer: Layer) -> Iterator[tuple[str, Array]]:
    if isinstance(layer, Recurrent):
        yield from layer.weights.items()
        yield from layer.initial.items()
    elif not isinstance(layer, Mask):
        for name in ("weight", "bias", "scale", "offset", "slope"):
            values = getattr(layer, name, None)
            if isinstance(values, np.ndarray):
                yield name, values


def _shape(layer: Layer, name: str, came: Array, expected: str) -> ImportRefused:
    return ImportRefused(layer.place, f"{name}: got shape {list(came.shape)}, expected {expected}")

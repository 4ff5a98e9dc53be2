"""Draws the inputs with which a graph is compared.

Random numbers of size 1 would exercise neither a model with its normalization inside nor a value that stands for a
missing one. Therefore it reads what a graph does to its input before anything else, and which numbers it compares with.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from onnx import numpy_helper

from cellkeeper_service.domain.spec import InputSpec, PackedInputs
from cellkeeper_service.engine.batch_axis.shapes import graphs_within
from cellkeeper_service.model.config import MAX_SIZE

from ..drawn import draw_ids, normalization, rounding, scaled_around, special_values, with_values
from ..proof import SEQUENCES, STEPS, WITH_SPECIAL, Drawn
from ..stack import Array, Normalize
from .graph import Graph
from .source import Declaration

_COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Clip", "Max", "Min", "ThresholdedRelu")
_UNCHANGED = ("Identity", "Cast", "Unsqueeze", "Squeeze")
_CAST = ("Identity", "Cast", "CastLike", "Unsqueeze", "Reshape", "Expand")
MOST_NODES = 64  # of a path from the input


def draw_inputs(graph: Graph, declaration: Declaration) -> Drawn:
    """Draws inputs [STEPS, ...], in the dtype that the engine takes, around a scaling with which the graph begins."""
    draw, compared, (one, *others) = np.random.default_rng(0), compared_values(graph.model), declaration.inputs
    features = not others and not one.vocabulary and len(one.shape) == 1
    around = input_normalization(graph.model, one.name, one.shape[0]) if features else None

    def values(spec: InputSpec, dtype: str, special: bool) -> Array:
        if spec.vocabulary:
            return draw_ids(draw, spec.vocabulary, (STEPS, *spec.shape), dtype, compared)
        numbers = draw.standard_normal((STEPS, *spec.shape))
        if around is not None:
            numbers = numbers * around.scale + around.offset
        drawn = numbers.astype(dtype)
        return with_values(draw, drawn, special_values(compared, spec.shape, dtype, around)) if special else drawn

    def sequence(special: bool) -> Array:
        if not others:
            return values(one, "int32" if one.vocabulary else "float32", special)
        each = {spec.name: values(spec, spec.dtype, special) for spec in declaration.inputs}
        return PackedInputs.of(declaration.inputs).pack(each)

    ordinary, special = [sequence(False) for _ in range(SEQUENCES)], [(WITH_SPECIAL, sequence(True))]
    return Drawn(ordinary, scaled_around(around), special, rounding(around))


def compared_values(model: Any) -> list[float]:
    """Returns the single numbers that any node compares with."""
    found: dict[float, None] = {}
    for graph in graphs_within(model.graph):
        known = _constants(graph)
        for node in graph.node:
            if node.op_type in _COMPARISONS:
                values = [known[name] for name in node.input if name in known and known[name].size == 1]
                values += [np.asarray(item.f) for item in node.attribute if item.name in ("min", "max", "alpha")]
                found |= dict.fromkeys(float(value.reshape(())) for value in values)
    return [value for value in found if np.isfinite(value)]


def input_normalization(model: Any, name: str, size: int) -> Normalize | None:
    """Returns the scaling [size] of the last axis with which the graph begins; None if there is none.

    Reads additions, subtractions, multiplications and divisions by constants, scalers of ai.onnx.ml, and batch
    normalizations of [B, size].
    """
    known = _constants(model.graph)
    waiting: list[tuple[str, Array, Array]] = [(name, np.ones(size), np.zeros(size))]
    for _ in range(MOST_NODES):
        if not waiting:
            return None
        at, factor, shift = waiting.pop(0)
        taken = [node for node in model.graph.node if at in node.input]
        further = [_scaled(node, at, known, factor, shift) for node in taken]
        waiting += [(node.output[0], *ends) for node, ends in zip(taken, further, strict=True) if ends is not None]
        ended = None in further or not taken
        if ended and (not np.array_equal(factor, np.ones(size)) or shift.any()):
            return normalization(factor, shift)
    return None


def _scaled(node: Any, at: str, known: dict[str, Array], factor: Array, shift: Array) -> tuple[Array, Array] | None:
    """Returns the factor and shift after a node; None if it does something else."""
    op, size = node.op_type, len(factor)
    if op in _UNCHANGED and node.input[0] == at:
        return factor, shift
    if op == "BatchNormalization" and node.input[0] == at:
        values = [known.get(name) for name in node.input[1:5]]
        if any(value is None or value.shape != (size,) for value in values):
            return None
        scale, bias, mean, variance = (np.asarray(value, np.float64) for value in values)
        epsilon = next((item.f for item in node.attribute if item.name == "epsilon"), 1e-5)
        by = scale / np.sqrt(np.maximum(variance, 0.0) + epsilon)
        return factor * by, (shift - mean) * by + bias
    if op == "Scaler":  # of scikit-learn's converter: (x - offset) * scale
        offset, by = (_attribute(node, name, size) for name in ("offset", "scale"))
        return None if offset is None or by is None else (factor * by, (shift - offset) * by)
    if op not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2:
        return None
    other = known.get(node.input[1] if node.input[0] == at else node.input[0])
    first = node.input[0] == at
    if other is None or not (other.size == 1 or (other.shape[-1:] == (size,) and other.size == size)):
        return None
    number = np.broadcast_to(np.asarray(other, np.float64).reshape(-1), (size,))
    if op == "Add":
        return factor, shift + number
    if op == "Sub":
        return (factor, shift - number) if first else (-factor, number - shift)
    if op == "Mul":
        return factor * number, shift * number
    return (factor / number, shift / number) if first and (number != 0).all() else None


def _attribute(node: Any, name: str, size: int) -> Array | None:
    """Returns an attribute of numbers as one for each feature [size]; None if it is something else."""
    numbers = next((np.asarray(item.floats, np.float64) for item in node.attribute if item.name == name), np.zeros(0))
    return np.broadcast_to(numbers, (size,)) if numbers.shape in ((1,), (size,)) else None


def _constants(graph: Any) -> dict[str, Array]:
    """Returns the constants by name, also behind nodes that only cast or reshape them."""
    known: dict[str, Array] = {}
    for item in graph.initializer:
        if prod(item.dims) > MAX_SIZE:
            continue  # a weight
        known[item.name] = numpy_helper.to_array(item)
    for node in graph.node:
        if node.op_type == "Constant":
            for item in node.attribute:
                if item.name == "value":
                    known[node.output[0]] = numpy_helper.to_array(item.t)
                elif item.name == "value_float":
                    known[node.output[0]] = np.asarray(item.f, np.float32)
                elif item.name == "value_int":
                    known[node.output[0]] = np.asarray(item.i)
        elif node.op_type in _CAST and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    return {name: value for name, value in known.items() if value.dtype.kind in "fiub"}

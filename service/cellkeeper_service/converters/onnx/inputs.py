"""Draws the inputs with which a graph is compared."""

from __future__ import annotations

import numpy as np

from cellkeeper_service.domain.spec import PackedInputs

from ..drawn import draw_ids, rounding, scaled_around, special_values, with_values
from ..proof import SEQUENCES, STEPS, WITH_SPECIAL, Drawn
from ..stack import Array
from .graph import Graph
from .source import Declaration
from .values import compared_values, input_normalization


def draw_inputs(graph: Graph, declaration: Declaration, vocabulary: int) -> Drawn:
    """Draws inputs [STEPS, ...], in the dtype that the engine takes, around a scaling with which the graph begins."""
    draw, compared, shape = np.random.default_rng(0), compared_values(graph.model), declaration.input_shape
    one = not declaration.named and not vocabulary and len(shape) == 1
    around = input_normalization(graph.model, declaration.input_name, shape[0]) if one else None

    def values(shape: tuple[int, ...], below: int, dtype: str, special: bool) -> Array:
        if below:
            return draw_ids(draw, below, (STEPS, *shape), dtype, compared)
        numbers = draw.standard_normal((STEPS, *shape))
        if around is not None:
            numbers = numbers * around.scale + around.offset
        drawn = numbers.astype(dtype)
        return with_values(draw, drawn, special_values(compared, shape, dtype, around)) if special else drawn

    def sequence(special: bool) -> Array:
        if not declaration.named:
            return values(shape, vocabulary, "int32" if vocabulary else "float32", special)
        each = {spec.name: values(spec.shape, spec.vocabulary, spec.dtype, special) for spec in declaration.named}
        return PackedInputs.of(declaration.named).pack(each)

    ordinary, special = [sequence(False) for _ in range(SEQUENCES)], [(WITH_SPECIAL, sequence(True))]
    return Drawn(ordinary, scaled_around(around), special, rounding(around))

"""Converts a call's time steps to the inputs of a user's graph, by its names and in its dtypes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import GraphConfig
from cellkeeper_service.model.named_inputs import NamedInputs


class GraphInputs:
    """Converts time steps."""

    def __init__(self, config: GraphConfig, dtypes: Mapping[str, str]) -> None:
        """dtypes: of the graph's inputs that receive them, by name."""
        self._named = config.input.inputs if isinstance(config.input, NamedInputs) else ()
        self._dtypes = dtypes

    def arrays(self, inputs: Array) -> dict[str, Array]:
        """Returns each input as [T, P, ...], by name. inputs: [T, P, ...], or [T, P] of a structured dtype."""
        if not self._named:
            ((name, dtype),) = self._dtypes.items()
            return {name: cast(inputs, dtype)}
        # copied, because inputs within a time step may be unaligned, and the bits of products may depend on that
        return {one.input: np.array(inputs[one.name], self._dtypes[one.input], order="C") for one in self._named}


def graph_names(config: GraphConfig) -> tuple[str, ...]:
    """Returns the names of the graph's inputs that receive a time step."""
    if isinstance(config.input, NamedInputs):
        return tuple(one.input for one in config.input.inputs)
    return (config.input_name,)


def cast(values: Array, dtype: str) -> Array:
    """Casts values. Those beyond the dtype's range become infinite, and such a time step is refused as not finite."""
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):
        return values.astype(dtype)

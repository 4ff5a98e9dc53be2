"""A call's time steps as a user's graph takes them: by the names of its inputs, in its dtypes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import GraphConfig
from cellkeeper_service.model.named_inputs import NamedInputs


class GraphInputs:
    """names: of the graph's inputs that are a time step's."""

    def __init__(self, config: GraphConfig, dtypes: Mapping[str, str]) -> None:
        """dtypes: by name, those of the graph."""
        self._named = config.input.inputs if isinstance(config.input, NamedInputs) else ()
        self._dtypes = dtypes
        self.names = graph_names(config)

    def arrays(self, inputs: Array) -> dict[str, Array]:
        """inputs: [T, P, ...], or [T, P] of a structured dtype where there are several. Gives each [T, P, ...]."""
        if not self._named:
            (name,) = self.names
            return {name: cast(inputs, self._dtypes[name])}
        # copies: within a time step an input's bytes may start anywhere, and products may depend on that
        return {one.input: np.array(inputs[one.name], self._dtypes[one.input], order="C") for one in self._named}


def graph_names(config: GraphConfig) -> tuple[str, ...]:
    """Of the graph's inputs that are a time step's."""
    if isinstance(config.input, NamedInputs):
        return tuple(one.input for one in config.input.inputs)
    return (config.input_name,)


def cast(values: Array, dtype: str) -> Array:
    """Values beyond the dtype's range are infinite, and such a time step is refused like any that is not finite."""
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):
        return values.astype(dtype)

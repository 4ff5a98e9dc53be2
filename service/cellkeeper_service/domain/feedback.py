"""How a rollout turns each prediction into the next time step's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

KNOWN = -1
"""In place of an index: the caller supplies that feature for every time step of the rollout."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback of a model with one input.

    sources: for each input feature, the index of its value in the flattened prediction, or KNOWN. Empty for token
    ids: the next id is the index of the largest value (greedy), the lowest index on a tie.
    """

    sources: tuple[int, ...] = ()

    @property
    def known_features(self) -> int:
        """How many features of each rollout step the caller supplies."""
        return self.sources.count(KNOWN)

    def next_input(self, prediction: Array, known: Array) -> Array:
        """Returns one time step's input in the prediction's dtype, [features]; for token ids int32 [].

        prediction: of one time step. known: [known_features], in the input's order.
        """
        values = prediction.reshape(-1)
        if not self.sources:
            return np.array(np.argmax(values), np.int32)
        sources = np.array(self.sources)
        following: Array = values[sources]  # KNOWN, -1, takes the last value, which the next line overwrites
        following[sources == KNOWN] = known
        return following


@dataclass(frozen=True, slots=True)
class NamedFeedback:
    """Feedback of a model with several inputs.

    inputs: by name, for each value of an input its index in the flattened prediction. The caller supplies all other
    inputs.
    """

    inputs: tuple[tuple[str, tuple[int, ...]], ...]

    def next_input(self, prediction: Array, known: Array) -> Array:
        """Returns one time step's inputs, in the dtype of `known`.

        prediction: of one time step. known: one time step of a structured dtype, with what the caller supplies.
        """
        values = prediction.reshape(-1)
        following: Array = np.array(known)
        with np.errstate(over="ignore"):  # a value that overflows the input's dtype becomes infinite, and is refused
            for name, sources in self.inputs:
                following[name] = values[np.array(sources)].reshape(following[name].shape)
        return following

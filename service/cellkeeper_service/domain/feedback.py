"""How a prediction becomes the next time step's input, for a model that is rolled out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

KNOWN = -1
"""In place of an index: the caller supplies that feature for every rolled time step."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """sources: for each input feature the index of its value in the flattened prediction, or KNOWN. Empty for token
    ids: the next id is the index of the largest value, the lowest of several (greedy)."""

    sources: tuple[int, ...] = ()

    @property
    def known_features(self) -> int:
        """How many features of a rolled time step the caller supplies."""
        return self.sources.count(KNOWN)

    def next_input(self, prediction: Array, known: Array) -> Array:
        """prediction: of one time step. known: [known_features], in the input's order.

        Returns one time step's input in the prediction's dtype, [features]; for token ids int32 [].
        """
        values = prediction.reshape(-1)
        if not self.sources:
            return np.array(np.argmax(values), np.int32)
        sources = np.array(self.sources)
        following: Array = values[sources]  # KNOWN takes the last value, which is written over
        following[sources == KNOWN] = known
        return following


@dataclass(frozen=True, slots=True)
class NamedFeedback:
    """Of several inputs: by name, for each value of an input its index in the flattened prediction. The caller supplies
    the inputs that are not among them."""

    inputs: tuple[tuple[str, tuple[int, ...]], ...]

    def next_input(self, prediction: Array, known: Array) -> Array:
        """prediction: of one time step. known: one time step of a structured dtype, with what the caller supplies.

        Returns one time step's inputs, of the same dtype.
        """
        values = prediction.reshape(-1)
        following: Array = np.array(known)
        with np.errstate(over="ignore"):  # what an input's dtype does not hold is infinite, and is refused as such
            for name, sources in self.inputs:
                following[name] = values[np.array(sources)].reshape(following[name].shape)
        return following

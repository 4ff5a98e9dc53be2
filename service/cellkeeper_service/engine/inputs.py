"""Prepares inputs for the model: fills missing values, and keeps bad inputs away from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.model.config import Config, Features, Tokens
from cellkeeper_service.model.named_inputs import NamedInputs

from .finite import all_finite

Bools = NDArray[np.bool_]


class Preprocessing:
    """Fills missing values by the model's policy, for all sessions of a call at once."""

    def __init__(self, config: Config) -> None:
        source = config.input
        self._named = source.inputs if isinstance(source, NamedInputs) else ()
        self._vocabulary = source.vocabulary if isinstance(source, Tokens) else 0
        self._policy = source.missing.policy if isinstance(source, Features) else "reject"
        self._value: Array = np.zeros((), np.float32)  # or one for each value of a time step, in its shape
        if isinstance(source, Features):
            value = np.asarray(source.missing.value, np.float32)
            self._value = value.reshape(source.step_shape) if value.ndim else value

    @property
    def holds(self) -> bool:
        return self._policy == "hold"

    def fill(self, inputs: Array, into: Array, held: NDArray[np.float32] | None) -> Bools | None:
        """Copies inputs [T, B, ...] (of a structured dtype if there are several) into `into`, of the same shape, with
        missing values filled.

        held: [B, F], each session's last values, updated in place. Returns bool [B], False for sessions whose
        input is invalid (infinite, NaN without a policy, a token id out of range), which are fed zeros;
        None if all are valid.
        """
        if self._named:
            return self._take_named(inputs, into)
        if self._vocabulary:
            bad: Array = (inputs < 0) | (inputs >= self._vocabulary)
            into[...] = inputs
        else:
            into[...] = inputs
            if self._policy == "reject":
                if all_finite(inputs):
                    return None
                bad = ~np.isfinite(inputs)
            else:
                self._fill_missing(into, held)
                bad = ~np.isfinite(into)
        if not bad.any():
            return None
        sessions: Bools = np.asarray(bad.any(axis=(0, *range(2, bad.ndim))))
        into[:, sessions] = 0
        return ~sessions

    def _take_named(self, inputs: Array, into: Array) -> Bools | None:
        into[...] = inputs
        good = np.ones(inputs.shape[1], np.bool_)
        for one in self._named:
            values = inputs[one.name]
            taken = (values >= 0) & (values < one.vocabulary) if one.vocabulary else np.isfinite(values)
            good &= taken.all(axis=(0, *range(2, taken.ndim)))
        if good.all():
            return None
        into[:, ~good] = 0
        return good

    def _fill_missing(self, values: NDArray[Any], held: NDArray[np.float32] | None) -> None:
        missing = np.isnan(values)
        if held is None:
            if missing.any():
                np.copyto(values, self._value, where=missing)
            return
        if missing.any():
            for step, absent in zip(values, missing, strict=True):
                np.copyto(step, held, where=absent)
                np.copyto(held, step)
        else:
            np.copyto(held, values[-1])

"""Traced modules run as they are, in batches of one: what their bundles are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..stack import Array

if TYPE_CHECKING:
    from torch import Tensor


class CarriedSource:
    """A proof.Source: a module whose forward takes its states and gives them back.

    states: of a new session, their batch at `axes`. time_axis: of x and the outputs, None for one time step.
    """

    def __init__(
        self,
        model: Any,
        call: Callable[..., Any],
        states: Sequence[Tensor],
        axes: Sequence[int],
        time_axis: int | None,
    ) -> None:
        self.name = source_name()
        self._model, self._call, self._time_axis = model, call, time_axis
        self._states = [value.narrow(axis, 0, 1).clone() for value, axis in zip(states, axes, strict=True)]

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self._advance(inputs, 1 if self._time_axis is None else len(inputs))

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self._advance(inputs, 1)

    def _advance(self, inputs: Array, chunk: int) -> Mapping[str, Array]:
        import torch
        from torch.utils import _pytree as tree

        states = list(self._states)
        parts: list[Array] = []
        for at in range(0, len(inputs), chunk):
            x = _tensor(inputs[at : at + chunk])
            x = x if self._time_axis is None else x.unsqueeze(1 - self._time_axis)
            with torch.no_grad():
                leaves = tree.tree_leaves(self._call(self._model, x, states))
            states = leaves[-len(states) :]
            y = leaves[0].float()
            parts.append(y.numpy() if self._time_axis is None else y.select(1 - self._time_axis, 0).numpy())
        return {"prediction": np.concatenate(parts)}


class SequenceSource:
    """A proof.Source: a module that takes whole sequences. It has no steps of its own: `stepped` is the whole.

    output: the index of the prediction among the tensors that it gives. timed: it has a time axis; otherwise it is of
    the last time step.
    """

    def __init__(self, name: str, model: Any, output: int, timed: bool, time_axis: int) -> None:
        self.name = name
        self._model, self._output, self._timed, self._time_axis = model, output, timed, time_axis

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        every = self._call(inputs)
        if self._timed:
            return {"prediction": every}
        result = np.full((len(inputs), *every.shape[1:]), np.nan)
        result[-1] = every[0]
        return {"prediction": result}

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        return self.whole(inputs)

    def _call(self, inputs: Array) -> Array:
        """[T, ...] -> [T, units], or [1, units]."""
        import torch
        from torch.utils import _pytree as tree

        with torch.no_grad():
            leaves = tree.tree_leaves(self._model(_tensor(inputs).unsqueeze(1 - self._time_axis)))
        y = leaves[self._output].float()
        values: Array = (y.select(1 - self._time_axis, 0) if self._timed else y).numpy()
        return values


def _tensor(inputs: Array) -> Tensor:
    import torch

    x = torch.from_numpy(np.array(inputs))
    return x.long() if x.dtype == torch.int32 else x


def source_name() -> str:
    import torch

    return f"torch {torch.__version__.partition('+')[0]} (traced)"

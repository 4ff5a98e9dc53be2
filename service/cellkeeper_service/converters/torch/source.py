"""Runs traced modules as they are, those of torch in batches of one: the references for their bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..refusal import ImportRefused, refusing
from ..stack import Array
from .outputs import Steps, of_sequence
from .private import tree

MIXED = 1e-3  # relative; rounding differs between batches by far less
MIXES = (
    "mixes the sequences of a batch: its outputs for one sequence depend on the others (a mean or norm over the batch, "
    "or a view or reshape where the axes were to be exchanged?), and a session has no others; compute each sequence by "
    "itself, and exchange axes with transpose or permute"
)
_EXPECTED = (
    "make it take any batch and any length, with nothing in training mode and nothing kept from the previous call"
)


class TracedSource:
    """A proof.Source for a module that is traced.

    call: calls the module with the inputs and the states; it returns outputs, then the states. kept: the indices of the
    outputs among the tensors that it returns, the prediction first. time_axis: of the inputs; None for one time step.
    states: of a new session, with the batch at `axes`. Without states, it cannot run single steps: `stepped` runs the
    whole sequence.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        call: Callable[..., Any],
        kept: Mapping[int, Steps],
        time_axis: int | None,
        states: Sequence[Tensor] = (),
        axes: Sequence[int] = (),
    ) -> None:
        self.name, self.windowed = name, time_axis is not None
        self._model, self._call, self._kept, self._time_axis = model, call, dict(kept), time_axis
        self._axes = axes
        self._states = [value.narrow(axis, 0, 1).clone() for value, axis in zip(states, axes, strict=True)]

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self._advance(inputs, len(inputs) if self.windowed else 1)

    def stepped(self, inputs: Array, order: Sequence[int] = ()) -> Mapping[str, Array]:
        """Raises ImportRefused if the outputs for a sequence depend on another one in the batch.

        order: of the states that a step returns, as the next step takes them; by default unchanged.
        """
        if not self.windowed:
            return self._advance(inputs, 1, order)  # the graph of one time step shows whether rows depend on each other
        whole = self.whole(inputs)
        (beside, _), _ = self._run([inputs, inputs[::-1]], self._start(2))
        check_alone(self.name, whole, beside)
        return self._advance(inputs, 1, order) if self._states else whole

    def _advance(self, inputs: Array, chunk: int, order: Sequence[int] = ()) -> Mapping[str, Array]:
        states = self._start(1)
        parts: list[Mapping[str, Array]] = []
        for at in range(0, len(inputs), chunk):
            (outputs,), after = self._run([inputs[at : at + chunk]], states)
            parts.append(outputs)
            states = [after[number] for number in order] if order else after
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _start(self, batch: int) -> list[Tensor]:
        """Returns new states of `batch` sequences: a copy, because the forward may change them in place."""
        return [value.repeat_interleave(batch, axis) for value, axis in zip(self._states, self._axes, strict=True)]

    def _run(
        self, sequences: Sequence[Array], states: Sequence[Tensor]
    ) -> tuple[list[Mapping[str, Array]], list[Tensor]]:
        """Runs sequences of one length in one call. Returns the outputs of each, and the states.

        Raises ImportRefused.
        """
        batch, steps, axis = len(sequences), len(sequences[0]), self._time_axis
        xs = _tensors(np.concatenate(sequences) if axis is None else np.stack(sequences, axis=1 - axis))
        many = "a single sequence" if batch == 1 else f"{batch} sequences"
        what = f"the forward fails on {many} of {steps} time steps, a batch of {batch}"
        with torch.no_grad(), refusing(self.name, what, _EXPECTED):
            leaves = tree.tree_leaves(self._call(self._model, xs, states))
        named = dict(zip(output_names(len(self._kept)), self._kept.items(), strict=True))
        outputs: list[Mapping[str, Array]] = [
            {name: of_sequence(leaves[at], which, axis or 0, steps, row, batch) for name, (at, which) in named.items()}
            for row in range(batch)
        ]
        return outputs, leaves[len(leaves) - len(states) :]


class BatchedSource(TracedSource):
    """A TracedSource without states, and a proof.BatchSource."""

    def batch(self, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
        return self._run(sequences, ())[0]


def check_alone(name: str, alone: Mapping[str, Array], beside: Mapping[str, Array]) -> None:
    """Raises ImportRefused if the outputs for a sequence differ beside another one in the batch."""
    for output, expected in alone.items():
        known = np.isfinite(expected) & np.isfinite(beside[output])
        gap = float(np.abs(np.where(known, beside[output] - expected, 0.0)).max(initial=0.0))
        size = float(np.abs(np.where(known, expected, 0.0)).max(initial=0.0))
        if gap > MIXED * max(size, 1e-30):
            raise ImportRefused(name, f"{MIXES} ({output} differs by {gap / max(size, 1e-30):.1g} of the largest)")


def output_names(count: int) -> tuple[str, ...]:
    """Returns the names under which a traced module's outputs are served."""
    return ("prediction", *(f"output_{number}" for number in range(1, count)))


def _tensors(inputs: Array) -> list[Tensor]:
    """Returns each input as a tensor. inputs: of a structured dtype if there are several."""
    values = [inputs] if inputs.dtype.names is None else [inputs[name] for name in inputs.dtype.names]
    tensors = [torch.from_numpy(np.array(value)) for value in values]
    return [x.long() if x.dtype == torch.int32 else x for x in tensors]


def source_name() -> str:
    return f"torch {torch.__version__.partition('+')[0]} (traced)"

"""Runs traced modules as they are, those of torch in batches of one: the references for their bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.fields import one_line

from ..refusal import ImportRefused
from ..stack import Array
from .outputs import Steps, of_sequence

if TYPE_CHECKING:
    from torch import Tensor

MIXED = 1e-3  # relative; rounding differs between batches by far less
MIXES = (
    "mixes the sequences of a batch: its outputs for one sequence depend on the others (a mean or norm over the batch, "
    "or a view or reshape where the axes were to be exchanged?), and a session has no others; compute each sequence by "
    "itself, and exchange axes with transpose or permute"
)


class CarriedSource:
    """A proof.Source for a module whose forward takes its states and returns them.

    states: of a new session, with the batch at `axes`. time_axis: of x; None for one time step. kept: the indices of
    the outputs among the tensors that the module returns; None: all of them, for one time step.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        call: Callable[..., Any],
        states: Sequence[Tensor],
        axes: Sequence[int],
        time_axis: int | None,
        kept: Mapping[int, Steps] | None,
    ) -> None:
        self.name, self.windowed = name, time_axis is not None
        self._model, self._call, self._time_axis, self._kept = model, call, time_axis, kept
        self._axes = axes
        self._states = [value.narrow(axis, 0, 1).clone() for value, axis in zip(states, axes, strict=True)]

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self._advance(inputs, 1 if self._time_axis is None else len(inputs))

    def stepped(self, inputs: Array, order: Sequence[int] = ()) -> Mapping[str, Array]:
        """order: of the states that a step returns, as the next step takes them; by default unchanged."""
        self._refuse_mixed(inputs)
        return self._advance(inputs, 1, order)

    def _refuse_mixed(self, inputs: Array) -> None:
        """Raises ImportRefused if the outputs for a sequence depend on another one in the batch."""
        axis = self._time_axis
        if axis is None or self._kept is None:
            return  # the graph of one time step shows it
        batch = [inputs, inputs[::-1]]
        xs = _tensors(np.stack(batch, axis=1 - axis))
        states = [value.repeat_interleave(len(batch), at) for value, at in zip(self._states, self._axes, strict=True)]
        leaves = _leaves(lambda: self._call(self._model, xs, states), self.name, len(inputs), len(batch))
        kept = zip(output_names(len(self._kept)), self._kept.items(), strict=True)
        beside = {name: of_sequence(leaves[at], steps, axis, len(inputs), 0, len(batch)) for name, (at, steps) in kept}
        check_alone(self.name, self.whole(inputs), beside)

    @property
    def state_shapes(self) -> list[tuple[int, ...]]:
        """The shapes for one session."""
        return [tuple(value.shape) for value in self._states]

    def _advance(self, inputs: Array, chunk: int, order: Sequence[int] = ()) -> Mapping[str, Array]:
        states = [value.clone() for value in self._states]  # the forward may change them in place
        parts: list[list[Array]] = []
        for at in range(0, len(inputs), chunk):
            xs = _tensors(inputs[at : at + chunk])
            steps = len(xs[0])
            xs = xs if self._time_axis is None else [x.unsqueeze(1 - self._time_axis) for x in xs]
            leaves = _leaves(lambda xs=xs, states=states: self._call(self._model, xs, states), self.name, steps)  # type: ignore[misc]
            outputs, states = leaves[: -len(states)], leaves[-len(states) :]
            states = [states[number] for number in order] if order else states
            if self._time_axis is None or self._kept is None:
                parts.append([np.asarray(value.float().numpy()) for value in outputs])
            else:
                kept, axis = self._kept.items(), self._time_axis
                parts.append([of_sequence(outputs[index], which, axis, steps) for index, which in kept])
        names = output_names(len(parts[0]))
        return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


class SequenceSource:
    """A proof.Source for a module that takes whole sequences. It cannot run single steps: `stepped` runs the whole.

    kept: the indices of the outputs among the tensors that the module returns, the prediction first.
    """

    def __init__(self, name: str, model: Any, kept: Mapping[int, Steps], time_axis: int) -> None:
        self.name, self.windowed = name, True
        self._model, self._kept, self._time_axis = model, dict(kept), time_axis

    def whole(self, inputs: Array) -> Mapping[str, Array]:
        return self._outputs([inputs])[0]

    def stepped(self, inputs: Array) -> Mapping[str, Array]:
        """Raises ImportRefused if the outputs for a sequence depend on another one in the batch."""
        alone = self.whole(inputs)
        check_alone(self.name, alone, self._outputs([inputs, inputs[::-1]])[0])
        return alone

    def _outputs(self, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
        """Runs sequences of one length in one call."""
        xs = _tensors(np.stack(sequences, axis=1 - self._time_axis))
        leaves = _leaves(lambda: self._model(*xs), self.name, len(sequences[0]), len(sequences))
        names = output_names(len(self._kept))
        return [
            {
                name: of_sequence(leaves[index], steps, self._time_axis, len(inputs), row, len(sequences))
                for name, (index, steps) in zip(names, self._kept.items(), strict=True)
            }
            for row, inputs in enumerate(sequences)
        ]


class BatchedSequences(SequenceSource):
    """A SequenceSource, and a proof.BatchSource."""

    def batch(self, sequences: Sequence[Array]) -> list[Mapping[str, Array]]:
        return self._outputs(sequences)


def check_alone(name: str, alone: Mapping[str, Array], beside: Mapping[str, Array]) -> None:
    """Raises ImportRefused if the outputs for a sequence differ beside another one in the batch."""
    for output, expected in alone.items():
        known = np.isfinite(expected) & np.isfinite(beside[output])
        gap = float(np.abs(np.where(known, beside[output] - expected, 0.0)).max(initial=0.0))
        size = float(np.abs(np.where(known, expected, 0.0)).max(initial=0.0))
        if gap > MIXED * max(size, 1e-30):
            raise ImportRefused(name, f"{MIXES} ({output} differs by {gap / max(size, 1e-30):.1g} of the largest)")


def _leaves(call: Callable[[], Any], name: str, steps: int, batch: int = 1) -> list[Any]:
    """Returns the tensors that a forward returns for sequences of this length. Raises ImportRefused."""
    import torch

    from .private import tree

    what = "a single sequence" if batch == 1 else f"{batch} sequences"
    try:
        with torch.no_grad():
            return tree.tree_leaves(call())
    except Exception as error:  # the user's code may raise anything
        raise ImportRefused(
            name,
            f"the forward fails on {what} of {steps} time steps, a batch of {batch} ({one_line(str(error))[:120]}); "
            "make it take any batch and any length, with nothing in training mode and nothing kept from the previous "
            "call",
        ) from error


def output_names(count: int) -> tuple[str, ...]:
    """Returns the names under which a traced module's outputs are served."""
    return ("prediction", *(f"output_{number}" for number in range(1, count)))


def _tensors(inputs: Array) -> list[Tensor]:
    """Returns each input as a tensor. inputs: [T, ...], of a structured dtype if there are several."""
    import torch

    values = [inputs] if inputs.dtype.names is None else [inputs[name] for name in inputs.dtype.names]
    tensors = [torch.from_numpy(np.array(value)) for value in values]
    return [x.long() if x.dtype == torch.int32 else x for x in tensors]


def source_name() -> str:
    import torch

    return f"torch {torch.__version__.partition('+')[0]} (traced)"

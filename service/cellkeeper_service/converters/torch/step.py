"""One time step of a module as a module with its states as arguments. Imported only when a module is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..processing import Processing
from ..refusal import ImportRefused
from .conv import causal_convolutions, watched_convolution
from .export import Watch, WatchedCall
from .outputs import Steps, of_one_step
from .private import CONV_FORWARD, tree

SEQUENCE_LAYERS = (nn.LSTM, nn.GRU, nn.RNN)
_CURVES: dict[str, Callable[[Tensor], Tensor]] = {"exp": torch.exp, "expm1": torch.expm1, "sinh": torch.sinh}
_WITH_VALUE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scale": torch.mul,
    "offset": torch.add,
    "clip_min": torch.maximum,
}
_OWN_LAYER = (
    "a layer with a forward of its own, whose state cannot be watched: expected forward(x, state), which returns what "
    "torch's layer does: (output, state), or a cell's state; or write a module that holds torch's layer and calls it"
)
CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def recurrent_children(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in model.named_modules() if isinstance(child, (*SEQUENCE_LAYERS, *CELLS))]


@contextmanager
def watched(
    model: nn.Module, called: Callable[[WatchedCall], tuple[Tensor, ...] | None], after: list[Any]
) -> Iterator[None]:
    """Watches the recurrent layers and causal convolutions while active.

    Each asks `called` for the state to start with (None: what the forward passes to it), and appends the tensors of its
    new state to `after`.
    """

    def replaced(name: str, child: Any) -> Callable[..., Any]:
        forward = type(child).forward

        def watch(value: Any, hx: Any = None) -> Any:
            if isinstance(value, PackedSequence):
                raise TypeError(f"{name} takes a PackedSequence; give it the tensor: a session has no padding")
            if not isinstance(value, Tensor) or value.ndim != (3 if isinstance(child, SEQUENCE_LAYERS) else 2):
                raise TypeError(f"{name} takes {type(value).__name__}, expected a tensor with a batch")
            given = () if hx is None else tuple(hx) if isinstance(hx, tuple | list) else (hx,)
            first = bool(getattr(child, "batch_first", True))
            steps = value.shape[1 if first else 0] if value.ndim == 3 else 0
            suffixes = ("h", "c") if isinstance(child, nn.LSTM | nn.LSTMCell) else ("h",)
            zeros = _zeros(child, value.shape[0 if first else 1], suffixes)
            axis = 1 if isinstance(child, SEQUENCE_LAYERS) else 0
            start = called(WatchedCall(name, type(child).__name__, steps, given, zeros, axis, suffixes))
            begin = hx if start is None else start if len(start) > 1 else start[0]
            own = not forward.__module__.startswith("torch.nn.")
            try:
                result = forward(child, value, begin)
            except TypeError as error:
                if not own:
                    raise
                raise ImportRefused(f"{name} ({type(child).__name__})", _OWN_LAYER) from error
            state = result[1] if isinstance(child, SEQUENCE_LAYERS) and isinstance(result, tuple) else result
            states = tuple(state) if isinstance(state, tuple) else (state,)
            if own and [getattr(one, "shape", None) for one in states] != [zero.shape for zero in zeros]:
                raise ImportRefused(f"{name} ({type(child).__name__})", _OWN_LAYER)
            after.append(states)
            return result

        return watch

    children, convolutions = recurrent_children(model), causal_convolutions(model)
    try:
        for name, child in children:
            child.forward = replaced(name, child)
        for name, conv in convolutions:
            setattr(conv, CONV_FORWARD, watched_convolution(name, conv, called, after))
        yield
    finally:
        for _, child in children:
            child.__dict__.pop("forward", None)
        for _, conv in convolutions:
            conv.__dict__.pop(CONV_FORWARD, None)


def _zeros(child: Any, batch: int, suffixes: Sequence[str]) -> tuple[Tensor, ...]:
    if not isinstance(child, SEQUENCE_LAYERS):
        return tuple(torch.zeros(batch, child.hidden_size) for _ in suffixes)
    widths = (getattr(child, "proj_size", 0) or child.hidden_size, child.hidden_size)
    return tuple(torch.zeros(child.num_layers, batch, width) for width, _ in zip(widths, suffixes, strict=False))


class CarriedStep(nn.Module):
    """(*inputs [B, ...], *states) -> (*outputs [B, ...], *states), for a module whose forward takes the states itself.

    call: calls the module with the inputs, and the states in the structure that it takes. states: how many. time_axis:
    of the inputs, or None. kept: the indices of the outputs; None: all that it returns, as it returns them.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Callable[..., Any],
        states: int,
        time_axis: int | None,
        kept: dict[int, Steps] | None,
        processing: Processing,
    ) -> None:
        super().__init__()
        self.model = model
        self._call, self._states, self._time_axis, self._kept = call, states, time_axis, kept
        self._around = Around(processing)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = self._around.before(tensors[: -self._states])
        if self._time_axis is not None:
            inputs = tuple(value.unsqueeze(self._time_axis) for value in inputs)
        leaves = tree.tree_leaves(self._call(self.model, inputs, tensors[-self._states :]))
        outputs = leaves[: -self._states]
        if not outputs:
            raise ValueError(f"it returns {len(leaves)} tensors, expected an output and {self._states} states")
        if self._time_axis is not None and self._kept is not None:
            outputs = [of_one_step(outputs[index], steps, self._time_axis) for index, steps in self._kept.items()]
        return (self._around.after(outputs[0]), *outputs[1:], *leaves[-self._states :])


class WatchedStep(nn.Module):
    """(*inputs [B, ...], *states) -> (*outputs [B, ...], *states), for recurrent layers that run over sequences.

    watch: see `watched`. kept: the indices of the outputs among the tensors that the module returns.
    """

    def __init__(
        self,
        model: nn.Module,
        watch: Watch,
        counts: Sequence[int],
        kept: dict[int, Steps],
        time_axis: int,
        processing: Processing,
    ) -> None:
        super().__init__()
        self.model = model
        self._watch = watch
        self._counts, self._kept, self._time_axis = list(counts), dict(kept), time_axis
        self._around = Around(processing)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        states = sum(self._counts)
        inputs, waiting = self._around.before(tensors[:-states]), list(tensors[-states:])
        counts = iter(self._counts)
        after: list[tuple[Tensor, ...]] = []

        def next_state(call: WatchedCall) -> tuple[Tensor, ...]:
            return tuple(waiting.pop(0) for _ in range(next(counts)))

        with self._watch(self.model, next_state, after):
            given = self.model(*(value.unsqueeze(self._time_axis) for value in inputs))
        leaves = tree.tree_leaves(given)
        outputs = [of_one_step(leaves[index], steps, self._time_axis) for index, steps in self._kept.items()]
        return (self._around.after(outputs[0]), *outputs[1:], *(value for state in after for value in state))


class Around(nn.Module):
    """The normalisation before a module of one input, and the output transform after it."""

    def __init__(self, processing: Processing) -> None:
        super().__init__()
        numbers = processing.normalization
        self._normalized = numbers is not None
        if numbers is not None:
            self.register_buffer("offset", torch.tensor(numbers.offset, dtype=torch.float32))
            self.register_buffer("scale", torch.tensor(numbers.scale, dtype=torch.float32))
        self._output = [
            (step.op, None if step.value is None else torch.tensor(step.value, dtype=torch.float32))
            for step in processing.output
        ]

    def before(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if not self._normalized:
            return inputs
        (x,) = inputs
        return ((x - self.get_buffer("offset")) / self.get_buffer("scale"),)

    def after(self, y: Tensor) -> Tensor:
        for op, value in self._output:
            if value is not None:
                y = _WITH_VALUE[op](y, value)
            elif op == "softmax":
                y = torch.softmax(y, -1)
            else:
                y = _CURVES[op](y)
        return y

"""One time step of a module as a module with its states as arguments. Imported only when a module is traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..processing import Processing
from ..refusal import ImportRefused
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


@dataclass(frozen=True, eq=False)
class WatchedCall:
    """One call of a recurrent layer by its model.

    steps: how many time steps it takes; 0 for a cell.
    given: the state's tensors that the model passes to it, if any.
    start: the state's tensors with which it starts.
    batch_axis, suffixes: of these tensors, and the endings of their names.
    """

    name: str
    kind: str
    steps: int
    given: tuple[Tensor, ...]
    start: tuple[Tensor, ...]
    batch_axis: int
    suffixes: tuple[str, ...]


Called = Callable[[WatchedCall], tuple[Tensor, ...] | None]
Watch = Callable[[Any, Called, list[Any]], AbstractContextManager[None]]


def recurrent_children(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in model.named_modules() if isinstance(child, (*SEQUENCE_LAYERS, *CELLS))]


@contextmanager
def watched(model: nn.Module, called: Called, after: list[Any]) -> Iterator[None]:
    """Watches the recurrent layers and causal convolutions while active.

    Each asks `called` for the state to start with (None: what the forward passes to it), and appends the tensors of its
    new state to `after`.
    """

    def replaced(name: str, child: Any) -> Callable[..., Any]:
        forward = type(child).forward
        sequence = isinstance(child, SEQUENCE_LAYERS)
        place = f"{name} ({type(child).__name__})"

        def watch(value: Any, hx: Any = None) -> Any:
            if isinstance(value, PackedSequence):
                raise TypeError(f"{name} takes a PackedSequence; give it the tensor: a session has no padding")
            if not isinstance(value, Tensor) or value.ndim != (3 if sequence else 2):
                raise TypeError(f"{name} takes {type(value).__name__}, expected a tensor with a batch")
            given = () if hx is None else tuple(hx) if isinstance(hx, tuple | list) else (hx,)
            batch_axis = 0 if getattr(child, "batch_first", True) else 1
            steps = value.shape[1 - batch_axis] if sequence else 0
            suffixes = ("h", "c") if isinstance(child, nn.LSTM | nn.LSTMCell) else ("h",)
            zeros = _zeros(child, value.shape[batch_axis], suffixes)
            call = WatchedCall(name, type(child).__name__, steps, given, given or zeros, int(sequence), suffixes)
            start = called(call)
            begin = hx if start is None else start if len(start) > 1 else start[0]
            own = not forward.__module__.startswith("torch.nn.")
            try:
                result = forward(child, value, begin)
            except TypeError as error:
                if not own:
                    raise
                raise ImportRefused(place, _OWN_LAYER) from error
            state = result[1] if sequence and isinstance(result, tuple) else result
            states = tuple(state) if isinstance(state, tuple) else (state,)
            if own and [getattr(one, "shape", None) for one in states] != [zero.shape for zero in zeros]:
                raise ImportRefused(place, _OWN_LAYER)
            after.append(states)
            return result

        return watch

    children, convolutions = recurrent_children(model), _causal_convolutions(model)
    try:
        for name, child in children:
            child.forward = replaced(name, child)
        for name, conv in convolutions:
            setattr(conv, CONV_FORWARD, _watched_convolution(name, conv, called, after))
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


def _causal_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv1d]]:
    """Returns the convolutions of [B, C, T] that may look only backwards, with one output for each time step.

    They have no padding of their own (the forward pads on the left), or are padded by all that they reach back (the
    forward cuts the end off).
    """
    return [
        (name, child)
        for name, child in model.named_modules()
        if isinstance(child, nn.Conv1d)
        and child.stride == (1,)
        and _reach(child)
        and child.padding in ((0,), (_reach(child),))
    ]


def _reach(conv: nn.Conv1d) -> int:
    """Returns how many time steps the convolution reaches back."""
    return (conv.kernel_size[0] - 1) * conv.dilation[0]


def _watched_convolution(
    name: str, conv: nn.Conv1d, called: Called, after: list[Any]
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """Returns what takes the place of the convolution's CONV_FORWARD (private.py). It gets the previous inputs from
    `called` and appends those for the next step to `after`."""
    reach, padded = _reach(conv), conv.padding != (0,)

    def forward(value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if value.ndim != 3:
            raise TypeError(f"{name} takes {value.ndim} axes, expected [B, C, T]")
        whole = F.pad(value, (reach, 0)) if padded else value
        past = whole[..., :reach]
        steps = whole.shape[-1] - reach
        begin = called(WatchedCall(name, "Conv1d", steps, (past,), (past,), 0, ("past",)))
        if begin is not None:
            whole = torch.cat([begin[0], whole[..., reach:]], -1)
        after.append((whole[..., steps:],))
        y = F.conv1d(whole, weight, bias, 1, 0, conv.dilation, conv.groups)
        return F.pad(y, (0, reach)) if padded else y  # the forward cuts these off

    return forward


def with_states(watch: Watch, counts: Sequence[int]) -> Callable[..., Any]:
    """Returns how to call a module with the states of its recurrent layers, which it returns after its outputs.

    watch: see `watched`. counts: the states of each call of a layer.
    """

    def call(model: nn.Module, inputs: Sequence[Tensor], states: Sequence[Tensor]) -> list[Any]:
        waiting, sizes = iter(states), iter(counts)
        after: list[tuple[Tensor, ...]] = []
        with watch(model, lambda _: tuple(next(waiting) for _ in range(next(sizes))), after):
            return [model(*inputs), after]

    return call


class Step(nn.Module):
    """(*inputs [B, ...], *states) -> (*outputs [B, ...], *states).

    call: calls the module with the inputs and the states; it returns outputs, then the states. states: how many.
    time_axis: of the inputs that the module takes, or None. kept: the indices of the outputs; None: all that it
    returns, as it returns them.
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
        if self._kept is not None:
            outputs = [of_one_step(outputs[index], steps, self._time_axis) for index, steps in self._kept.items()]
        return (self._around.after(outputs[0]), *outputs[1:], *leaves[-self._states :])


class Around(nn.Module):
    """The normalisation before a module of one input, and the output transform after it."""

    def __init__(self, processing: Processing) -> None:
        super().__init__()
        self._normalization = processing.normalization
        if self._normalization is not None:
            self.register_buffer("offset", torch.tensor(self._normalization.offset, dtype=torch.float32))
            self.register_buffer("scale", torch.tensor(self._normalization.scale, dtype=torch.float32))
        self._output = [
            (step.op, None if step.value is None else torch.tensor(step.value, dtype=torch.float32))
            for step in processing.output
        ]

    def before(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._normalization is None:
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

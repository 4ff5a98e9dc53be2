"""A module of any forward, traced: one time step of it is exported by torch.export, its states made explicit.

Two kinds of modules: those whose forward takes states and gives them back, and those whose forward runs recurrent
layers over a whole sequence, whose states are found by watching these layers.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cellkeeper_service.model.config import LAYOUTS
from cellkeeper_service.model.fields import one_line

from .processing import Processing
from .refusal import ImportRefused
from .stack import Array
from .torch_program import OUTPUT, quiet
from .torch_source import CarriedSource, SequenceSource

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

BATCH = 3  # of the trace; a size that layers seldom have
LENGTHS = (5, 7)  # at which a forward is watched
RECIPE = "docs/models.md, Modules with a forward of their own"
_WHOLE = ("MultiheadAttention", "Transformer", "TransformerEncoder", "TransformerDecoder", "Conv1d", "ConvTranspose1d")


@dataclass(frozen=True)
class Traced:
    """program: (x [B, ...], *states) -> (*outputs [B, ...], *states). initial: of a new session, without the batch."""

    program: ExportedProgram
    states: tuple[str, ...]
    outputs: tuple[str, ...]
    initial: Mapping[str, Array]
    source: CarriedSource | SequenceSource


def trace(model: nn.Module, example: object, states: object, layout: str | None, processing: Processing) -> Traced:
    """model: on the CPU, in evaluation mode, not used otherwise. example: x as its forward takes it. states: of a new
    session, as its forward takes them after x; None for a module that runs recurrent layers over a sequence.

    Raises ImportRefused that names the layer and the recipe.
    """
    place = type(model).__name__
    x = _example(example)
    axis = _time_axis(model, x, layout, place)
    if states is None:
        return _watched(model, x, axis, processing, place)
    return _carried(model, x, states, axis, processing, place)


# ---------------------------------------------------------------- modules that take their states


def _carried(model: Any, x: Tensor, states: Any, axis: int | None, processing: Processing, place: str) -> Traced:
    from .torch_step import CarriedStep

    names, flat, call = _states_of(model, states, place)
    batch = x.shape[1 if axis == 0 else 0]
    step = CarriedStep(model, call, len(flat), axis, processing)
    rows = _rows(x, axis)
    found = []
    candidates = [[at for at, size in enumerate(value.shape) if size == batch] for value in flat]
    why = "no axis of a state has the size of the batch of example"
    for axes in itertools.islice(itertools.product(*candidates), 64):
        spread = [_spread(value, at, BATCH) for value, at in zip(flat, axes, strict=True)]
        try:
            results = _run(step, rows, *spread)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises
            why = str(error)
            continue
        after = results[-len(flat) :]
        if [value.shape for value in after] == [value.shape for value in spread] and results[0].shape[:1] == (BATCH,):
            found.append((axes, spread, len(results) - len(flat)))
        else:
            why = f"states go in as {_shapes(spread)} and come out as {_shapes(after)}"
    if len(found) != 1:
        why = why if not found else "more than one axis of a state may be the batch: pass an example of another batch"
        raise ImportRefused(
            place,
            f"one time step with the given states for a batch of {BATCH} fails ({one_line(why)[:120]}); its forward "
            f"takes x and the states and returns outputs, then the states in the same order: {RECIPE}",
        )
    axes, spread, count = found[0]
    for name, value, at in zip(names, flat, axes, strict=True):
        if not bool((value == value.select(at, 0).unsqueeze(at)).all()):
            raise ImportRefused(
                f"{place}: state {name}", "its rows differ, expected the state of a new session in each"
            )
    initial = {name: value.select(at, 0).detach().numpy() for name, value, at in zip(names, flat, axes, strict=True)}
    program = _exported(step, (rows, *spread), axes, place)
    source = CarriedSource(model, call, flat, axes, axis)
    return Traced(program, names, _output_names(count), initial, source)


def _states_of(model: Any, states: Any, place: str) -> tuple[tuple[str, ...], list[Tensor], Callable[..., Any]]:
    """Names, tensors, and how the module is called with them."""
    import torch
    from torch.utils import _pytree as tree

    parameters = [
        parameter
        for parameter in list(inspect.signature(model.forward).parameters.values())[1:]
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    known = [parameter.name for parameter in parameters]
    if isinstance(states, Mapping):
        unknown = [name for name in states if name not in known]
        if unknown:
            raise ImportRefused(place, f"states {unknown}: no arguments of its forward, expected some of {known}")
        structure: Any = dict(states)
    elif isinstance(states, torch.Tensor) or len(known) == 1:
        structure = {known[0]: states} if known else {}
    else:
        structure = dict(zip(known, states, strict=False)) if len(states) <= len(known) else {}
    if not structure:
        raise ImportRefused(place, f"states: got {_kinds(states)}, expected one for each argument after x: {known}")
    leaves, spec = tree.tree_flatten(structure)
    if not leaves or not all(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves):
        raise ImportRefused(place, f"states: got {_kinds(states)}, expected tensors of floats, or tuples of them")
    names: list[str] = []
    for name, value in structure.items():
        inner = tree.tree_leaves(value)
        names += [name] if len(inner) == 1 else [f"{name}_{number}" for number in range(len(inner))]

    def call(module: Any, x: Tensor, flat: Sequence[Tensor]) -> Any:
        return module(x, **tree.tree_unflatten(list(flat), spec))

    return tuple(names), [leaf.detach().cpu().float() for leaf in leaves], call


# ---------------------------------------------------------------- modules that run recurrent layers over a sequence


def _watched(model: Any, x: Tensor, axis: int | None, processing: Processing, place: str) -> Traced:
    from .torch_step import WatchedStep

    if axis is None:
        raise ImportRefused(
            place,
            f"example: got shape {list(x.shape)} without states, expected a batch of sequences, [T, B, ...] or [B, T, "
            f"...]; pass states where its forward takes them: {RECIPE}",
        )
    _refuse_backward(model)
    calls, kept = _watch(model, x, axis, place)
    names: list[str] = []
    for call in calls:
        stem = call.name.replace(".", "_") or "state"
        number = sum(name.startswith(f"{stem}_h") for name in names)
        names += [f"{stem}_{suffix}{number + 1 if number else ''}" for suffix in call.suffixes]
    starts = [(value, call.batch_axis) for call in calls for value in call.start()]
    step = WatchedStep(model, [len(call.suffixes) for call in calls], kept, axis, processing)
    rows = _rows(x, axis)
    spread = [_spread(value, at, BATCH) for value, at in starts]
    program = _exported(step, (rows, *spread), [at for _, at in starts], place)
    initial = {name: value.select(at, 0).detach().numpy() for name, (value, at) in zip(names, starts, strict=True)}
    source = SequenceSource(model, next(iter(kept)), kept[next(iter(kept))], axis)
    return Traced(program, tuple(names), _output_names(len(kept)), initial, source)


def _watch(model: Any, x: Tensor, axis: int, place: str) -> tuple[list[Any], dict[int, bool]]:
    """The calls of recurrent layers in one time step, and which of the tensors that the forward gives are outputs."""
    import torch
    from torch.utils import _pytree as tree

    from .torch_step import watched

    seen: dict[int, list[Any]] = {}
    given: dict[int, list[Any]] = {}
    try:
        for steps in (1, *LENGTHS):
            calls: list[Any] = []
            with torch.no_grad(), watched(model, lambda call, calls=calls: calls.append(call), []):  # type: ignore[misc]
                result = model(_stretched(x, axis, steps, seed=steps))
            seen[steps], given[steps] = calls, tree.tree_leaves(result)
    except Exception as error:
        raise ImportRefused(
            place,
            f"its forward fails on a batch of {BATCH} sequences of the example's kind ({one_line(str(error))[:120]}): "
            f"{RECIPE}",
        ) from error
    if not seen[1]:
        raise ImportRefused(
            place, f"calls no nn.LSTM, nn.GRU, nn.RNN or cell of them, expected one, or states= of its own: {RECIPE}"
        )
    for length, call in [(steps, call) for steps in LENGTHS for call in seen[steps]]:
        if call.batch_axis and call.steps != length:
            raise ImportRefused(
                f"{place}: {call.name} ({type(call.module).__name__})",
                f"takes {call.steps} of {length} time steps, expected all: windows, reductions and loops over time "
                f"cannot be traced: {RECIPE}",
            )
    for one, other in zip(seen[1], seen[LENGTHS[0]], strict=False):
        for a, b in zip(one.given, other.given, strict=False):
            rows_differ = bool((a != a.select(one.batch_axis, 0).unsqueeze(one.batch_axis)).any())
            if rows_differ or a.shape != b.shape or bool((a != b).any()):
                raise ImportRefused(
                    f"{place}: {one.name} ({type(one.module).__name__})",
                    "begins with a state that depends on the input (that of another layer?), expected zeros or "
                    f"parameters: {RECIPE}",
                )
    return seen[1], _outputs(given, axis, place)


def _outputs(given: Mapping[int, list[Any]], axis: int, place: str) -> dict[int, bool]:
    """By index: the first tensor, and those of the others that have a time axis; whether each has one."""
    kept: dict[int, bool] = {}
    for index, values in enumerate(zip(*given.values(), strict=False)):
        shapes = [tuple(getattr(value, "shape", ())) for value in values]
        rest = [shape[:axis] + shape[axis + 1 :] for shape in shapes]
        lengths = [shape[axis] if len(shape) > axis else -1 for shape in shapes]
        if lengths == list(given) and shapes[0][1 - axis] == BATCH:
            kept[index] = True
        elif index == 0:
            if len(set(shapes)) > 1 or shapes[0][:1] != (BATCH,):
                raise ImportRefused(
                    place,
                    f"gives {[list(shape) for shape in shapes]} for {list(given)} time steps of {BATCH} sequences, "
                    f"expected an output for each time step, or for the last one: {rest[0] and RECIPE}",
                )
            kept[index] = False
    return kept


def _refuse_backward(model: Any) -> None:
    from .torch_step import recurrent_children

    for name, child in recurrent_children(model):
        if getattr(child, "bidirectional", False):
            raise ImportRefused(
                f"{name or 'model'} ({type(child).__name__})",
                "bidirectional; the backward direction starts at the end, which a stream has not reached",
            )


def whole_sequence_layers(model: Any) -> str:
    """Layers that may be why a stream differs from the whole sequence, in words; "" where there are none."""
    found = [
        f"{name} ({type(child).__name__})" for name, child in model.named_modules() if type(child).__name__ in _WHOLE
    ]
    return f"; it holds {', '.join(found[:4])}, which sees other time steps" if found else ""


# ---------------------------------------------------------------- both


def _example(example: object) -> Tensor:
    import torch

    value = torch.as_tensor(example) if isinstance(example, np.ndarray) else example
    if not isinstance(value, torch.Tensor) or value.ndim < 1:
        raise ImportRefused("example", f"got {type(example).__name__}, expected a tensor x as its forward takes it")
    return value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu().long()


def _time_axis(model: Any, x: Tensor, layout: str | None, place: str) -> int | None:
    """Of x: None where it is one time step."""
    from .torch_step import SEQUENCE_LAYERS, recurrent_children

    lead = x.ndim - (1 if x.is_floating_point() else 0)
    if layout is not None:
        if layout not in LAYOUTS:
            raise ImportRefused("layout", f"got {layout!r}, expected one of {', '.join(LAYOUTS)}")
        axis = {"step": None, "time_first": 0, "batch_first": 1}[layout]
    elif lead <= 1:
        axis = None
    else:
        orders = {
            bool(child.batch_first) for _, child in recurrent_children(model) if isinstance(child, SEQUENCE_LAYERS)
        }
        if len(orders) != 1:
            raise ImportRefused(
                place,
                f"layout: got an example of {list(x.shape)}, which axis is time cannot be told; pass layout, "
                "step, time_first or batch_first",
            )
        axis = int(orders.pop())
    if lead != (1 if axis is None else 2):
        raise ImportRefused(
            "example",
            f"got shape {list(x.shape)}, expected [batch, features], or with layout {layout or 'batch_first'}"
            " [batch, time, features] or [time, batch, features] (token ids without features)",
        )
    return axis


def _rows(x: Tensor, axis: int | None) -> Tensor:
    """One time step [BATCH, ...], at random around nothing: what a trace is made with."""
    import torch

    shape = (BATCH, *x.shape[1 if axis is None else 2 :])
    return (
        torch.zeros(shape, dtype=x.dtype)
        if not x.is_floating_point()
        else torch.linspace(-1, 1, shape[0] * max(1, int(np.prod(shape[1:])))).reshape(shape)
    )


def _stretched(x: Tensor, axis: int, steps: int, seed: int) -> Tensor:
    """BATCH sequences of `steps` time steps; ids are 0."""
    import torch

    lead = (steps, BATCH) if axis == 0 else (BATCH, steps)
    if not x.is_floating_point():
        return torch.zeros((*lead, *x.shape[2:]), dtype=x.dtype)
    return torch.randn((*lead, *x.shape[2:]), generator=torch.Generator().manual_seed(seed))


def _spread(value: Tensor, axis: int, batch: int) -> Tensor:
    """The first session's state, for `batch` sessions."""
    return value.narrow(axis, 0, 1).repeat_interleave(batch, axis).clone()


def _run(step: Any, *arguments: Tensor) -> Any:
    import torch

    with torch.no_grad():
        return step(*arguments)


def _exported(step: Any, arguments: tuple[Tensor, ...], axes: Sequence[int], place: str) -> ExportedProgram:
    import torch

    batch = torch.export.Dim("batch")
    shapes = ({0: batch}, tuple({axis: batch} for axis in axes))
    try:
        with quiet():
            return torch.export.export(step.eval(), arguments, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise ImportRefused(
            place,
            "torch.export cannot trace one time step of it; take branches on values, loops over time and a fixed batch "
            f"out of its forward: {RECIPE} ({one_line(str(error))[:120]})",
        ) from error


def _output_names(count: int) -> tuple[str, ...]:
    return (OUTPUT, *(f"output_{number}" for number in range(1, count)))


def _shapes(values: Sequence[Tensor]) -> list[list[int]]:
    return [list(value.shape) for value in values]


def _kinds(states: object) -> str:
    if isinstance(states, tuple | list):
        return f"{type(states).__name__} of {len(states)}"
    return type(states).__name__

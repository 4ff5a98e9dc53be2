"""Traces a module that runs recurrent layers over whole sequences, by watching the layers' states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..onnx.axes import LAYOUT_OF
from ..refusal import ImportRefused, refusing
from .export import Example, State, export_step
from .outputs import BATCH, RECIPE, Steps, outputs_of
from .private import tree
from .program import Traced
from .source import BatchedSource, TracedSource
from .step import Watch, WatchedCall, with_states

LENGTHS = (5, 7)  # sequence lengths at which a forward is watched
_EXPECTED = (
    f"expected one that takes any batch, any length and any values, and keeps nothing from the previous call: {RECIPE}"
)


def trace_watched(example: Example, watch: Watch, name: str, *, batched: bool = False) -> Traced:
    """Traces a module that takes sequences. Raises ImportRefused, naming the layer and the recipe.

    watch: like step.watched, for the recurrent layers of the module's framework. name: of the source. batched: the
    framework computes the rows of a batch independently of each other, so that the source may run several sequences in
    one call.
    """
    calls, kept = _watched(example, watch)
    states: list[State] = []
    for call in calls:
        stem = call.name.replace(".", "_") or "state"
        number = sum(state.name.startswith(f"{stem}_{call.suffixes[0]}") for state in states)
        names = [f"{stem}_{suffix}{number + 1 if number else ''}" for suffix in call.suffixes]
        states += [State(*both, call.batch_axis) for both in zip(names, call.start, strict=True)]
    advance = with_states(watch, [len(call.suffixes) for call in calls])
    kind = BatchedSource if batched else TracedSource
    source = kind(name, example.model, lambda module, xs, _: module(*xs), kept, example.time_axis)
    return export_step(example, states, advance, kept, source)


def _watched(example: Example, watch: Watch) -> tuple[list[WatchedCall], dict[int, Steps]]:
    """Returns the recurrent layers' calls in one time step, and which tensors of the forward's result are outputs."""
    model, axis, place = example.model, example.time_axis or 0, example.place
    xs = list(example.inputs.values())
    seen: dict[int, list[WatchedCall]] = {}
    given: dict[int, list[Any]] = {}
    for steps in (1, *LENGTHS):
        seen[steps] = []
        what = f"its forward fails on random values of the example's kind, {BATCH} sequences of {steps} time steps"
        with refusing(place, what, _EXPECTED), torch.no_grad():
            try:
                with watch(model, seen[steps].append, []):
                    given[steps] = tree.tree_leaves(model(*stretched(xs, axis, steps)))
            except ImportRefused as error:
                raise ImportRefused(f"{place}: {error.place}", f"{error.reason}: {RECIPE}") from error
    if not seen[1]:
        raise ImportRefused(
            place, f"calls no recurrent layer or cell of its framework, expected one, or states= of its own: {RECIPE}"
        )
    turned = next((call for call in seen[LENGTHS[0]] if call.steps == BATCH), None)
    if turned is not None and any(call.steps == BATCH for call in seen[LENGTHS[1]]):
        order = LAYOUT_OF[1 - axis]
        raise ImportRefused(
            f"{place}: {turned.name} ({turned.kind})",
            f"takes the sequences of a batch for its time steps: the forward takes x in the other order, {order}, and "
            f"may exchange the axes itself; pass layout={order!r}, and an example in that order",
        )
    for length, call in [(steps, call) for steps in LENGTHS for call in seen[steps]]:
        if call.steps not in (0, length):
            raise ImportRefused(
                f"{place}: {call.name} ({call.kind})",
                f"takes {call.steps} of {length} time steps, expected all: windows, reductions and loops over time "
                f"cannot be traced: {RECIPE}",
            )
    for one, other in zip(seen[1], seen[LENGTHS[0]], strict=False):
        if len(one.given) != len(other.given):
            raise ImportRefused(
                f"{place}: {one.name} ({one.kind})",
                f"gets {len(one.given)} tensors of a state in the first call and {len(other.given)} in the next: its "
                f"forward keeps the state from one call to the next; take it as an argument and return it: {RECIPE}",
            )
        for a, b in zip(one.given, other.given, strict=False):
            rows_differ = bool((a != a.select(one.batch_axis, 0).unsqueeze(one.batch_axis)).any())
            if rows_differ or a.shape != b.shape or bool((a != b).any()):
                why = (
                    "its window is not padded with constants on the left only, so it looks ahead, or back by less than "
                    "it reaches"
                    if one.kind == "Conv1d"
                    else "begins with a state that depends on the input (that of another layer?), is drawn at random "
                    "or is kept from the previous call, expected zeros or parameters"
                )
                raise ImportRefused(f"{place}: {one.name} ({one.kind})", f"{why}: {RECIPE}")
    return seen[1], outputs_of(given, axis, place)


def stretched(xs: Sequence[Tensor], axis: int, steps: int) -> list[Tensor]:
    """Returns BATCH sequences of `steps` time steps for each input; ids are 0."""
    lead = (steps, BATCH) if axis == 0 else (BATCH, steps)
    return [
        torch.randn((*lead, *x.shape[2:]), generator=torch.Generator().manual_seed(steps + 100 * number))
        if x.is_floating_point()
        else torch.zeros((*lead, *x.shape[2:]), dtype=x.dtype)
        for number, x in enumerate(xs)
    ]

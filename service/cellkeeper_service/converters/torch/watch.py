"""Traces a module that runs recurrent layers over whole sequences, by watching the layers' states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellkeeper_service.model.fields import one_line

from ..onnx.axes import LAYOUT_OF
from ..processing import Processing
from ..refusal import ImportRefused
from .export import BATCH, RECIPE, Traced, Watch, WatchedCall, exported, rows, spread, step_shape
from .outputs import Steps, outputs_of
from .source import BatchedSequences, SequenceSource, output_names

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS = (5, 7)  # sequence lengths at which a forward is watched


def trace_watched(
    model: Any,
    inputs: Mapping[str, Tensor],
    axis: int,
    processing: Processing,
    place: str,
    *,
    watch: Watch,
    name: str,
    batched: bool = False,
) -> Traced:
    """Traces a module that takes sequences. Raises ImportRefused, naming the layer and the recipe.

    inputs: with time at `axis`. watch: like step.watched, for the recurrent layers of the module's framework. name: of
    the source. batched: the framework computes the rows of a batch independently of each other, so that the source may
    run several sequences in one call.
    """
    from .step import WatchedStep

    xs = list(inputs.values())
    calls, kept = _watched(model, xs, axis, place, watch)
    names: list[str] = []
    for call in calls:
        stem = call.name.replace(".", "_") or "state"
        number = sum(name.startswith(f"{stem}_{call.suffixes[0]}") for name in names)
        names += [f"{stem}_{suffix}{number + 1 if number else ''}" for suffix in call.suffixes]
    starts = [(value, call.batch_axis) for call in calls for value in call.start]
    step = WatchedStep(model, watch, [len(call.suffixes) for call in calls], kept, axis, processing)
    first = [rows(x, axis) for x in xs]
    shape = step_shape(first, processing)
    begin = [spread(value, at, BATCH) for value, at in starts]
    program = exported(step, (*first, *begin), [at for _, at in starts], place)
    initial = {name: value.select(at, 0).detach().numpy() for name, (value, at) in zip(names, starts, strict=True)}
    source = (BatchedSequences if batched else SequenceSource)(name, model, kept, axis)
    return Traced(program, tuple(names), output_names(len(kept)), initial, source, tuple(inputs), shape)


def _watched(
    model: Any, xs: list[Tensor], axis: int, place: str, watch: Watch
) -> tuple[list[WatchedCall], dict[int, Steps]]:
    """Returns the recurrent layers' calls in one time step, and which tensors of the forward's result are outputs."""
    import torch

    from .private import tree

    seen: dict[int, list[WatchedCall]] = {}
    given: dict[int, list[Any]] = {}
    for steps in (1, *LENGTHS):
        try:
            calls: list[WatchedCall] = []
            with torch.no_grad(), watch(model, lambda call, calls=calls: calls.append(call), []):  # type: ignore[misc]
                result = model(*(stretched(x, axis, steps, steps + 100 * at) for at, x in enumerate(xs)))
        except ImportRefused as error:
            raise ImportRefused(f"{place}: {error.place}", f"{error.reason}: {RECIPE}") from error
        except Exception as error:  # the user's code may raise anything
            raise ImportRefused(
                place,
                f"its forward fails on random values of the example's kind, {BATCH} sequences of {steps} time steps "
                f"({one_line(str(error))[:120]}); expected one that takes any batch, any length and any values, and "
                f"keeps nothing from the previous call: {RECIPE}",
            ) from error
        seen[steps], given[steps] = calls, tree.tree_leaves(result)
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
        for a, b in zip(one.given, other.given, strict=False):
            rows_differ = bool((a != a.select(one.batch_axis, 0).unsqueeze(one.batch_axis)).any())
            if rows_differ or a.shape != b.shape or bool((a != b).any()):
                if one.kind == "Conv1d":
                    raise ImportRefused(
                        f"{place}: {one.name} ({one.kind})",
                        "its window is not padded with constants on the left only, so it looks ahead, or back by less "
                        f"than it reaches: {RECIPE}",
                    )
                raise ImportRefused(
                    f"{place}: {one.name} ({one.kind})",
                    "begins with a state that depends on the input (that of another layer?), is drawn at random or is "
                    f"kept from the previous call, expected zeros or parameters: {RECIPE}",
                )
    return seen[1], outputs_of(given, axis, place)


def stretched(x: Tensor, axis: int, steps: int, seed: int) -> Tensor:
    """Returns BATCH sequences of `steps` time steps; ids are 0."""
    import torch

    lead = (steps, BATCH) if axis == 0 else (BATCH, steps)
    if not x.is_floating_point():
        return torch.zeros((*lead, *x.shape[2:]), dtype=x.dtype)
    return torch.randn((*lead, *x.shape[2:]), generator=torch.Generator().manual_seed(seed))

"""Finds out which axes of a graph's inputs and states are batch and time, and which belong to a session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from cellkeeper_service.domain.spec import InputSpec
from cellkeeper_service.model.config import LAYOUTS, MAX_SIZE
from cellkeeper_service.model.named_inputs import DTYPES

from ..refusal import ImportRefused
from .graph import Value

BAKED = "a batch is baked into the graph; export it with a dynamic batch axis"
TIME_AXES = {"step": None, "time_first": 0, "batch_first": 1}
LAYOUT_OF = {axis: layout for layout, axis in TIME_AXES.items()}


@dataclass(frozen=True)
class Axes:
    """The axes of an input and the states.

    time_axis: of the input; None if it has none. single: the time axis has length 1. batch: as in config.json.
    state_axes: of the batch. state_shapes: of one session; with one session a call, of the whole tensors.
    """

    time_axis: int | None
    single: bool
    batch: str
    state_axes: dict[str, int]
    state_shapes: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class AxisArguments:
    """The arguments of an import that say which axes are which; None: find out.

    batch: "free", "one" (session a call), or None: free if the graph's batch is. batch_axes: of states. place: the
    graph's name in errors.
    """

    layout: str | None
    batch: str | None
    batch_axes: Mapping[str, int]
    place: str


def step_shape(value: Value, said: Sequence[int] | None, tokens: bool, place: str) -> tuple[int, ...]:
    """Returns the shape of one session's time step: `said`, or the last axis (the features)."""
    where = f"{place}: input {value.name}"
    if value.dtype not in ("float32", "float16", "float64", "int32", "int64") or value.dims is None:
        raise ImportRefused(where, f"got {value}, expected float features, or int32 or int64 token ids, with a shape")
    if tokens:
        if said is not None:
            raise ImportRefused("input_shape", f"got {list(said)}, expected none for token ids ({value})")
        return ()
    if said is None:
        size = value.dims[-1] if value.dims else ""
        if not isinstance(size, int) or size > MAX_SIZE:
            raise ImportRefused(
                where,
                f"got {value}, expected a fixed number of features at the end, up to {MAX_SIZE}; pass input_shape "
                "(--input-shape 576), the shape of one time step",
            )
        return (size,)
    shape = tuple(said)
    if not shape or not all(type(size) is int and size >= 1 for size in shape) or prod(shape) > MAX_SIZE:
        raise ImportRefused(
            "input_shape", f"got {list(shape)}, expected whole numbers above 0, at most {MAX_SIZE} values"
        )
    end = value.dims[-len(shape) :]
    if len(end) < len(shape) or any(isinstance(a, int) and a != b for a, b in zip(end, shape, strict=True)):
        raise ImportRefused("input_shape", f"got {list(shape)}, expected the last axes of {value}")
    return shape


def find_axes(value: Value, rank: int, states: Mapping[str, Value], said: AxisArguments) -> Axes:
    """Finds the axes. Raises ImportRefused for anything ambiguous.

    value: the input, whose last `rank` axes are a time step.
    """
    layout, batch_axes, batch, place = said.layout, said.batch_axes, said.batch, said.place
    if layout is not None and layout not in LAYOUTS:
        raise ImportRefused("layout", f"got {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if batch not in (None, "free", "one"):
        raise ImportRefused("batch", f"got {batch!r}, expected free, or one: one session a call")
    for name, state in states.items():
        if state.dims is None:
            where = f"{place}: state {name}"
            raise ImportRefused(where, f"got {state}, expected a shape with fixed sizes except for the batch")
    where = f"{place}: input {value.name}"
    dims = value.dims or ()
    lead = dims[: len(dims) - rank]
    if batch == "one" or (batch is None and not _all_free(lead, states, layout, batch_axes)):
        layout = layout or _one_layout(value, lead, states, where)
        counts = {None: (0, 1), 0: (1, 2), 1: (2,)}[TIME_AXES[layout]]
        form = (
            f"{' or '.join(map(str, counts))} axes before the time step's {rank} for layout {layout}; pass input_shape "
            "(--input-shape) if more of them belong to a time step"
        )
        time_axis, single = _checked(value, lead, layout, counts, form, True, where)
        shapes = {name: _whole(state, batch_axes.get(name), place) for name, state in states.items()}
        return Axes(time_axis, single, "one" if len(lead) == max(counts) else "none", dict.fromkeys(states, 0), shapes)
    axes = {name: _batch_axis(state, batch_axes.get(name), place) for name, state in states.items()}
    if layout is None:
        names = {str((states[name].dims or ())[axis]) for name, axis in axes.items()} - {""}
        layout = LAYOUT_OF[_time_axis(value, names, where) if len(lead) == 2 else None]
    form = (
        "[batch, features] or [time, batch, features] (token ids without features); pass input_shape (--input-shape) "
        "if a time step has more axes"
    )
    time_axis, single = _checked(value, lead, layout, (1 if layout == "step" else 2,), form, False, where)
    shapes = {}
    for name, axis in axes.items():
        dims = states[name].dims or ()
        shapes[name] = _fixed(states[name], (*dims[:axis], *dims[axis + 1 :]), place)
    return Axes(time_axis, single, "free", axes, shapes)


def _checked(
    value: Value, lead: Sequence[int | str], layout: str, counts: Sequence[int], form: str, one: bool, where: str
) -> tuple[int | None, bool]:
    """Returns the time axis, and whether its length is 1. Raises ImportRefused for fixed sizes.

    lead: the input's axes before those of a time step. counts: how many there may be. one: the batch may be 1.
    """
    if len(lead) not in counts:
        raise ImportRefused(where, f"got {value}, expected {form}")
    time_axis = TIME_AXES[layout]
    for axis in range(len(lead)) if one else sorted(range(len(lead)), key=lambda axis: axis == time_axis):
        size = lead[axis]
        if axis != time_axis and isinstance(size, int) and not (one and size == 1):
            raise ImportRefused(where, f"got {value}: {BAKED}{', or with a batch of 1' if one else ''}")
        if axis == time_axis and isinstance(size, int) and size != 1:
            raise ImportRefused(
                where,
                f"got {value}: a length is baked into the graph; export it with a dynamic time axis, or pass "
                "input_shape (--input-shape) if this window is one time step",
            )
    return time_axis, time_axis is not None and lead[time_axis] == 1


def find_inputs(
    values: Sequence[Value],
    shapes: Mapping[str, Sequence[int]],
    vocabularies: Mapping[str, int],
    states: Mapping[str, Value],
    said: AxisArguments,
) -> tuple[tuple[InputSpec, ...], Axes]:
    """Returns the spec of each of several inputs of a time step, and the axes, in which they must agree.

    shapes, vocabularies: by name, if given. Raises ImportRefused, naming the input.
    """
    place = said.place
    names = [value.name for value in values]
    for what, given in (("input_shape", shapes), ("vocabulary", vocabularies)):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ImportRefused(what, f"got {unknown}, expected some of the inputs {names}")
    for value in values:
        _check_dtype(value, vocabularies.get(value.name, 0), place)
    # the first float input shows how many axes come before those of a time step; the others have the same number
    first = next((value for value in values if value.dtype.startswith("float")), values[0])
    shape = step_shape(first, shapes.get(first.name), first.dtype.startswith("int") and first.name not in shapes, place)
    axes = find_axes(first, len(shape), states, said)
    alike = replace(said, layout=LAYOUT_OF[axes.time_axis], batch="one" if axes.batch != "free" else "free")
    lead = len(first.dims or ()) - len(shape)
    specs = []
    for value in values:
        own = shape if value is first else _fixed_shape(value, shapes.get(value.name), lead, place)
        if find_axes(value, len(own), states, alike) != axes:
            raise ImportRefused(
                f"{place}: input {value.name}",
                f"got {value}, expected the axes of {first} before those of a time step: all inputs have the same time "
                "steps and sessions",
            )
        specs.append(InputSpec(value.name, value.dtype, own, vocabularies.get(value.name, 0)))
    return tuple(specs), axes


def _all_free(
    lead: Sequence[int | str], states: Mapping[str, Value], layout: str | None, batch_axes: Mapping[str, int]
) -> bool:
    """Returns True if input and states can hold more than one session."""
    if batch_axes:
        return True  # errors in them are reported in detail later
    if not all(state.free for state in states.values()):
        return False
    if layout is not None and len(lead) > (layout != "step"):
        return lead[1 if layout == "time_first" else 0] != 1
    return not (lead and all(size == 1 for size in lead))


def _one_layout(value: Value, lead: Sequence[int | str], states: Mapping[str, Value], where: str) -> str:
    """Returns the layout of a graph that takes one session a call, because of its shapes or by request."""
    free = [axis for axis, size in enumerate(lead) if not isinstance(size, int)]
    names = {str((state.dims or ())[axis]) for state in states.values() for axis in state.free} - {""}
    batches = all(state.free for state in states.values())  # the first axis of [?, features] is the batch then
    if tuple(lead) in ((), (1,)) or (len(lead) == 1 and free and (batches or lead[0] in names)):
        return "step"
    if len(lead) == 2 and not free:
        return "batch_first"  # both have length 1, or one is refused later
    if len(lead) == 2 and batches:
        return LAYOUT_OF[_time_axis(value, names, where)]
    if len(lead) == 1 and not free:
        raise ImportRefused(where, f"got {value}: {BAKED}, or with a batch of 1; or pass input_shape (--input-shape)")
    raise ImportRefused(
        where,
        f"got {value} with states for one session: the time axis is ambiguous; pass layout (step if there is none, "
        "time_first, batch_first), or input_shape (--input-shape) if more axes belong to a time step",
    )


def _whole(state: Value, said: int | None, place: str) -> tuple[int, ...]:
    """Returns a state's whole shape, if a call takes one session: a free axis is the batch, of length 1."""
    dims = list(state.dims or ())
    for axis in _possible_batch(state, said, place):
        if dims[axis] != 1 and axis not in state.free:
            raise ImportRefused(
                f"{place}: state {state.name}", f"got {state} with the batch axis {axis}: {BAKED}, or with a batch of 1"
            )
        dims[axis] = 1
    return _fixed(state, dims, place)


def _batch_axis(state: Value, said: int | None, place: str) -> int:
    found = _possible_batch(state, said, place)
    if not found or found[0] not in state.free:
        axis = f" with the batch axis {found[0]}" if found else ""
        raise ImportRefused(f"{place}: state {state.name}", f"got {state}{axis}: {BAKED}")
    return found[0]


def _possible_batch(state: Value, said: int | None, place: str) -> tuple[int, ...]:
    """Returns the axis that is said to be the batch, or else the only free one; () if there is none."""
    where, rank = f"{place}: state {state.name}", len(state.dims or ())
    if said is not None and not 0 <= said < rank:
        raise ImportRefused(where, f"batch axis: got {said}, expected 0 to {rank - 1} for {state}")
    if said is None and len(state.free) > 1:
        raise ImportRefused(where, f"got {state}: more than one axis may be the batch; pass its batch axis")
    return state.free if said is None else (said,)


def _fixed(state: Value, dims: Sequence[int | str], place: str) -> tuple[int, ...]:
    if not all(isinstance(size, int) for size in dims):
        raise ImportRefused(f"{place}: state {state.name}", f"got {state}, expected fixed sizes except for the batch")
    return tuple(int(size) for size in dims)


def _time_axis(value: Value, batch: set[str], where: str) -> int:
    """Returns which of the first two axes is not the states' batch."""
    first, second = (value.dims or ())[:2]
    named = [axis for axis, size in enumerate((first, second)) if size in batch]
    if len(named) == 1:
        return 1 - named[0]
    fixed = [axis for axis, size in enumerate((first, second)) if isinstance(size, int)]
    if len(fixed) == 1:
        return fixed[0]
    if len(fixed) == 2:
        raise ImportRefused(where, f"got {value}: {BAKED}")
    raise ImportRefused(where, f"got {value}: the time axis is ambiguous; pass layout, time_first or batch_first")


def _fixed_shape(value: Value, said: Sequence[int] | None, lead: int, place: str) -> tuple[int, ...]:
    if said:
        return step_shape(value, said, False, place)
    own = (value.dims or ())[lead:]
    if len(value.dims or ()) < lead or not all(isinstance(size, int) for size in own):
        raise ImportRefused(
            f"{place}: input {value.name}",
            f"got {value}, expected {lead} axes and then those of a time step, with fixed sizes; pass input_shape "
            f"(--input-shape {value.name}=9x41), the shape of one time step",
        )
    return tuple(int(size) for size in own)


def _check_dtype(value: Value, vocabulary: int, place: str) -> None:
    where = f"{place}: input {value.name}"
    if value.dtype not in DTYPES or value.dims is None:
        raise ImportRefused(
            where, f"got {value}, expected one of {', '.join(DTYPES)} with a shape; cast it within the graph"
        )
    if value.dtype.startswith("int") != (vocabulary > 0):
        raise ImportRefused(
            where,
            f"got {value} and a vocabulary of {vocabulary}; pass one for integers (vocabulary={{{value.name!r}: N}}, "
            f"--vocabulary {value.name}=N; they are 0 to N - 1), and only for them",
        )

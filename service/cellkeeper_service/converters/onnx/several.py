"""Several inputs for each time step: the shape, dtype and axes of each, which must agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cellkeeper_service.domain.spec import InputSpec
from cellkeeper_service.model.named_inputs import DTYPES

from ..refusal import ImportRefused
from .axes import LAYOUT_OF, Axes, find_axes, step_shape
from .graph import Value


def find_inputs(
    values: Sequence[Value],
    shapes: Mapping[str, Sequence[int]],
    vocabularies: Mapping[str, int],
    states: Mapping[str, Value],
    *,
    layout: str | None,
    batch_axes: Mapping[str, int],
    batch: str | None,
    place: str,
) -> tuple[tuple[InputSpec, ...], Axes]:
    """Returns the spec of each input, and the axes of all. Raises ImportRefused, naming the input.

    shapes, vocabularies: by name, if given.
    """
    names = [value.name for value in values]
    for what, said in (("input_shape", shapes), ("vocabulary", vocabularies)):
        unknown = [name for name in said if name not in names]
        if unknown:
            raise ImportRefused(what, f"got {unknown}, expected some of the inputs {names}")
    for value in values:
        _check_dtype(value, vocabularies.get(value.name, 0), place)
    # the first float input shows how many axes come before those of a time step; the others have the same number
    first = next((value for value in values if value.dtype.startswith("float")), values[0])
    shape = step_shape(first, shapes.get(first.name), first.dtype.startswith("int") and first.name not in shapes, place)
    axes = find_axes(first, len(shape), states, layout=layout, batch_axes=batch_axes, batch=batch, place=place)
    lead = len(first.dims or ()) - len(shape)
    specs = []
    for value in values:
        own = shape if value is first else _shape(value, shapes.get(value.name), lead, place)
        found = find_axes(
            value,
            len(own),
            states,
            layout=LAYOUT_OF[axes.time_axis],
            batch_axes=batch_axes,
            batch="one" if axes.batch != "free" else "free",
            place=place,
        )
        if found != axes:
            raise ImportRefused(
                f"{place}: input {value.name}",
                f"got {value}, expected the axes of {first} before those of a time step: all inputs have the same time "
                "steps and sessions",
            )
        specs.append(InputSpec(value.name, value.dtype, own, vocabularies.get(value.name, 0)))
    return tuple(specs), axes


def _shape(value: Value, said: Sequence[int] | None, lead: int, place: str) -> tuple[int, ...]:
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

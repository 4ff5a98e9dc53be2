"""Inputs, by name, of a model that has several for each time step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InvalidArgument
from ..types import Array, Model, Sample, TensorSpec
from .arguments import invalid
from .group_inputs import GroupInputs, of_row
from .inputs import Inputs, little_endian
from .missing_values import as_numbers


def inputs_of(model: Model) -> Inputs | NamedInputs:
    """Returns the converter of samples for this model."""
    return NamedInputs(model) if model.inputs else Inputs(model)


def group_inputs_of(model: Model) -> GroupInputs | NamedGroupInputs:
    """Returns the converter of a group's rows for this model."""
    return NamedGroupInputs(model) if model.inputs else GroupInputs(model)


def packed_dtype(specs: Iterable[TensorSpec]) -> np.dtype[Any]:
    """Returns the dtype of one time step of these inputs: their bytes, one input after another."""
    return np.dtype([(spec.name, little_endian(spec.dtype), spec.shape) for spec in specs])


class NamedInputs:
    """Converts samples as `Inputs` does, for several inputs.

    A sample is a dict of arrays by name, each [...] or [T, ...] with the same T for all, or a structured array with a
    field for each input.
    """

    def __init__(self, model: Model, field: str = "inputs") -> None:
        self._model = model
        self._field = field
        self._each = {spec.name: Inputs(_alone(model, spec), f"{field}[{spec.name}]") for spec in model.inputs}
        self.step_bytes = model.input.nbytes

    def convert(self, given: Sample) -> tuple[bytes, bool]:
        """Returns (raw bytes, whether the time axis was omitted). Raises InvalidArgument, which names the input."""
        values = by_name(given, self._model, self._field)
        converted = {name: one.convert(values[name]) for name, one in self._each.items()}
        return _joined(converted, self._model, self._field)

    def numbers(self, given: ArrayLike) -> Array:
        """Converts the values of one input to an array. Raises TypeError and ValueError where numpy does."""
        return as_numbers(given)

    def convert_known(self, given: Sample | None, steps: int) -> bytes:
        """Packs the inputs that a caller supplies in a forecast.

        given: for each of them [steps, ...]; None: there are none. Raises InvalidArgument.
        """
        model = known_of(self._model)
        names = ", ".join(spec.name for spec in model.inputs)

        def wrong(came: str) -> InvalidArgument:
            expected = f"{steps} time steps of each of {names}" if names else "none: predictions become all inputs"
            return invalid("known", came, f"{expected} (model {self._model.name!r})")

        if given is None or not names:
            if given is not None or names:
                raise wrong("none" if given is None else type(given).__name__)
            return b""
        raw, single = NamedInputs(model, "known").convert(given)
        count = len(raw) // model.input.nbytes
        if single or count != steps:
            raise wrong("a single time step without a time axis" if single else f"{count} time steps")
        return raw


def known_of(model: Model) -> Model:
    """Returns a model that takes what a caller supplies in a forecast of this one."""
    fed = {name for name, _ in model.input_feedback or ()}
    known = tuple(spec for spec in model.inputs if spec.name not in fed)
    packed_bytes = sum(spec.nbytes for spec in known)
    return replace(model, inputs=known, input=replace(model.input, shape=(packed_bytes,)))


def known_by_id(model: Model, names: Sequence[str], known: Mapping[str, Sample] | None, steps: int) -> dict[str, bytes]:
    """Packs, by id, what a caller supplies in a forecast of several members.

    names: the members' ids. Raises InvalidArgument, which names the row and the member.
    """
    if known is not None and not isinstance(known, Mapping):
        raise invalid("known", type(known).__name__, "a mapping from ids to what is known of each")
    given = known or {}
    if unknown := set(given) - set(names):
        raise invalid("known", min(map(repr, unknown)), "ids of members that have a row in `inputs`")
    one, packed = inputs_of(model), {}
    for at, name in enumerate(names):
        try:
            packed[name] = one.convert_known(given.get(name), steps)
        except InvalidArgument as error:  # noqa: PERF203 - the error names the row
            raise of_row(error, error.field, at, name) from error
    return packed


class NamedGroupInputs:
    """Converts the rows of several members as `GroupInputs` does, for several inputs.

    Each row is a dict of arrays by name; or all rows are one structured array, [N] or [N, T], with a field for each
    input.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._each = {spec.name: GroupInputs(_alone(model, spec), f"inputs[{spec.name}]") for spec in model.inputs}

    def convert(self, names: Sequence[str], rows: Any) -> tuple[bytes, bool]:
        """Returns (raw bytes, whether the time axis was omitted). names: the members' ids.

        Raises InvalidArgument, which names the row, the member and the input.
        """
        columns = self._columns(names, rows)
        converted = {name: one.convert(names, columns[name]) for name, one in self._each.items()}
        return _joined(converted, self._model, "inputs", len(names))

    def _columns(self, names: Sequence[str], rows: Any) -> Mapping[str, Any]:
        """Returns one row per member for each input."""
        if isinstance(rows, np.ndarray) and rows.dtype.names:
            return by_name(rows, self._model)
        if not isinstance(rows, Sequence) or len(rows) != len(names):
            came = f"{len(rows)} rows" if isinstance(rows, Sequence) else type(rows).__name__
            raise invalid("inputs", came, f"{len(names)} rows, one per member, each a dict of inputs by name")
        found = []
        for at, (name, row) in enumerate(zip(names, rows, strict=True)):
            try:
                found.append(by_name(row, self._model))
            except InvalidArgument as error:  # noqa: PERF203 - the error names the row
                raise of_row(error, "inputs", at, name) from error
        return {name: [row[name] for row in found] for name in self._each}


def by_name(given: object, model: Model, field: str = "inputs") -> Mapping[str, Any]:
    """Returns the values as a mapping with each of the model's inputs. Raises InvalidArgument."""

    def wrong(came: str) -> InvalidArgument:
        return invalid(field, came, f"a dict with each of {', '.join(names)} (model {model.name!r})")

    names = [spec.name for spec in model.inputs]
    fields = given.dtype.names if isinstance(given, np.ndarray | np.void) else None
    if not fields and not isinstance(given, Mapping):
        raise wrong(type(given).__name__)
    values: Mapping[str, Any] = {name: given[name] for name in fields} if fields else given  # type: ignore[index,assignment]
    missing = [name for name in names if name not in values]
    unknown = [name for name in values if name not in names]
    if missing or unknown:
        came = [f"no {name}" for name in missing] + [f"{name!r}, which is not one of them" for name in unknown]
        raise wrong(" and ".join(came))
    return values


def _joined(
    converted: Mapping[str, tuple[bytes, bool]], model: Model, field: str, members: int = 1
) -> tuple[bytes, bool]:
    """Interleaves the inputs: each time step's bytes, one input after another. Raises InvalidArgument if they differ.

    converted: by name, each input's raw time steps, and whether it has no time axis. members: whose rows they are.
    """
    lengths = {spec.name: len(converted[spec.name][0]) // spec.nbytes // members for spec in model.inputs}
    first, (_, single) = next(iter(converted.items()))
    for name, length in lengths.items():
        if (length, converted[name][1]) != (lengths[first], single):
            expected = f"{_length(lengths[first], single)}, as for {first}: all inputs must have the same time steps"
            came = _length(length, converted[name][1])
            raise invalid(f"{field}[{name}]", came, f"{expected} (model {model.name!r})")
    tables = [np.frombuffer(raw, np.uint8).reshape(lengths[first] * members, -1) for raw, _ in converted.values()]
    return np.concatenate(tables, axis=1).tobytes(), single


def _length(steps: int, single: bool) -> str:
    return "a single time step without a time axis" if single else f"{steps} time steps"


def _alone(model: Model, spec: TensorSpec) -> Model:
    """Returns a model that takes this input only."""
    return replace(model, input=spec, vocabulary=spec.vocabulary, inputs=())

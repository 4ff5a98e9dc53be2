"""Checks the inputs of an offline run as the service checks those of a request: what it refuses is refused here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cellkeeper_service.domain.engine import Array
from cellkeeper_service.domain.spec import ModelSpec, PackedInputs, TensorSpec
from cellkeeper_service.errors import StartError
from cellkeeper_service.model.missing import as_numbers


def offline_inputs(inputs: Array | Mapping[str, Array], spec: ModelSpec) -> Array:
    """Returns the time steps of one sequence, [T, ...] in the dtype of `spec.input`.

    inputs: as for `load.offline`. Raises StartError, which names the first value that is wrong.
    """
    if not isinstance(spec.input, PackedInputs):
        if isinstance(inputs, Mapping):
            raise StartError(f"inputs: got {sorted(inputs)}, expected an array: the model has one input")
        ordered = _in_order(inputs, spec.feature_names)
        return _checked("inputs", ordered, spec.input, spec.vocabulary, spec.missing_values)
    given = inputs if isinstance(inputs, Mapping) else _by_name(inputs)
    names = [part.name for part in spec.inputs]
    if sorted(given) != sorted(names):
        raise StartError(f"inputs: got {sorted(given)}, expected {names}")
    values = {
        part.name: _checked(f"inputs: {part.name}", given[part.name], part, part.vocabulary) for part in spec.inputs
    }
    lengths = {name: len(array) for name, array in values.items()}
    if len(set(lengths.values())) > 1:
        raise StartError(f"inputs: got time steps {lengths}, expected the same number for all")
    return spec.input.pack(values)


def _in_order(inputs: Any, names: Sequence[str]) -> Any:
    """Puts the columns of a DataFrame into the order of the features, if these have names, as the client does."""
    columns = getattr(inputs, "columns", None)
    if not names or columns is None:
        return inputs
    if sorted(map(str, columns)) != sorted(names):
        raise StartError(f"inputs: got columns {[*columns]}, expected {[*names]} in any order")
    return inputs[[*names]]


def _by_name(inputs: Array) -> dict[str, Array]:
    """Splits an array of a structured dtype."""
    return {name: inputs[name] for name in np.asarray(inputs).dtype.names or ()}


def _checked(field: str, given: Array, spec: TensorSpec, vocabulary: int, missing_values: bool = False) -> Array:
    """Returns [T, *spec.shape] in the dtype of `spec`. vocabulary: 0 for floats. missing_values: NaN is allowed."""
    numbers = as_numbers(given)
    if numbers.dtype.kind not in "fiub":
        raise StartError(f"{field}: got dtype {numbers.dtype}, expected numbers")
    if numbers.ndim == 0 or numbers.shape[1:] != spec.shape:
        expected = f"[{', '.join(['T', *map(str, spec.shape)])}]"
        raise StartError(f"{field}: got shape {list(numbers.shape)}, expected {expected}")
    if vocabulary:
        good = (numbers >= 0) & (numbers < vocabulary) & (numbers == np.floor(numbers))
        expected = f"integers of 0 to {vocabulary - 1}"
    else:
        with np.errstate(over="ignore"):  # what becomes infinite is refused
            good = np.isfinite(numbers.astype(spec.dtype)) | (np.isnan(numbers) & missing_values)
        expected = f"finite values of {spec.dtype}" + (" or NaN" if missing_values else ", none of them missing")
    if not good.all():
        place = tuple(int(index) for index in np.argwhere(~good)[0])
        at = f"time step {place[0]}" + (f", feature {', '.join(map(str, place[1:]))}" if place[1:] else "")
        raise StartError(f"{field}: got {numbers[place]} at {at}, expected {expected}")
    return numbers.astype(spec.numpy_dtype)

"""What a caller gives, converted to what the model takes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InvalidArgument
from ..types import Array, Model, TensorSpec
from .missing_values import as_numbers, is_missing


def little_endian(name: str) -> np.dtype[Any]:
    """The dtype as it goes over the wire. By its string, as numpy has one object of that, which is compared with and
    looked up faster than an equal one."""
    return np.dtype(np.dtype(name).newbyteorder("<").str)


SHOWN_NAMES = 20  # of columns, in an error


class Inputs:
    """Converts what a caller gives into a model's raw bytes, checking it on the way."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._dtype = little_endian(model.input.dtype)
        self._shape = model.input.shape
        self._axes = len(self._shape)
        self.step_bytes = model.input.nbytes
        self._tokens = self._dtype.kind in "iu"
        self._top = model.vocabulary or int(np.iinfo(self._dtype).max) + 1 if self._tokens else 0
        self._alike = self._dtype.isnative and not self._tokens
        self._finite = b"\1" * prod(self._shape)  # what numpy's isfinite() has in memory where all of a step is

    def convert(self, given: ArrayLike) -> tuple[bytes, bool]:
        """(raw bytes, whether the time axis was left out).

        given: [F] or [T, F]; token ids: one integer or [T]. Masked elements, None and NA of pandas are missing, as NaN
        is. Where the model's features have names, a DataFrame (or a Series of one time step) is taken by them, in
        whatever order it has them. Raises InvalidArgument; for missing values too, where the model takes none.
        """
        if self._alike and type(given) is np.ndarray and given.dtype == self._dtype and given.shape == self._shape:
            # The usual case, for a sixth of the time. To compare bytes is faster than numpy's all(), or a search.
            if np.isfinite(given).tobytes() == self._finite:
                return given.tobytes(), True
        elif self._tokens and type(given) is int and not self._axes and 0 <= given < self._top:
            return given.to_bytes(self.step_bytes, "little"), True
        if self._model.feature_names:
            given = self._in_order(given)
        try:
            array = as_numbers(given)
            single = array.ndim == self._axes
            if not single and array.ndim != self._axes + 1:
                raise self._wrong(f"shape {list(array.shape)}")
            if array.shape[array.ndim - self._axes :] != self._shape:
                raise self._wrong(f"shape {list(array.shape)}")
            if array.dtype.kind not in ("iu" if self._tokens else "fiub"):
                raise self._wrong(self._no_number(array))
            steps = 1 if single else int(array.shape[0])
            if steps == 0:
                raise self._wrong("no time step")
            limit = self._model.max_chunk_steps
            if limit and steps > limit:
                raise self._wrong(f"{steps} time steps", f"at most {limit} at once; stream() takes any number")
            if self._tokens:
                self._check_ids(array)
                converted = array.astype(self._dtype, copy=False)
            else:
                with np.errstate(over="ignore"):
                    converted = array.astype(self._dtype, copy=False)
                if not self._model.missing_values and b"\0" in np.isfinite(converted).tobytes():
                    place = _place(np.isfinite(converted).reshape(steps, *self._shape))
                    raise self._wrong(
                        f"NaN or infinity {place}",
                        f"finite values of dtype {self._model.input.dtype}, as the model takes no missing values "
                        "(masked, None and NA count as NaN)",
                    )
            return converted.tobytes(), single
        except (TypeError, ValueError) as error:
            raise self._wrong(f"{type(given).__name__} ({error})") from error

    def _in_order(self, given: Any) -> Any:
        """A DataFrame or a Series with the model's features in the model's order; anything else as it is."""
        labels = getattr(given, "columns", None)
        if labels is None and type(given).__name__ == "Series" and getattr(given, "index", None) is not None:
            labels = given.index
        if labels is None:
            return given
        names, wanted = [*labels], [*self._model.feature_names]
        if names == wanted:
            return given
        if sorted(map(str, names)) != sorted(wanted) or not all(isinstance(name, str) for name in names):
            raise self._wrong(f"columns {names[:SHOWN_NAMES]}", f"the features {wanted[:SHOWN_NAMES]}, in any order")
        return given[wanted]

    def convert_known(self, given: ArrayLike | None, steps: int) -> bytes:
        """The features that a caller supplies in a forecast, raw. given: [steps, features of them]; None: there are
        none. Raises InvalidArgument."""
        features = (self._model.feedback or ()).count(-1)
        if given is None and features == 0:
            return b""

        def wrong(came: str) -> InvalidArgument:
            text = f"known: got {came}, expected [{steps}, {features}] numbers (model {self._model.name!r})"
            return InvalidArgument(text, reason="INVALID_FIELD", field="known")

        if given is None:
            raise wrong("none")
        try:
            array = as_numbers(given)
            if array.shape != (steps, features) or array.dtype.kind not in "fiub":
                raise wrong(f"{array.dtype} {list(array.shape)}")
            with np.errstate(over="ignore"):
                return array.astype(self._dtype).tobytes()
        except (TypeError, ValueError) as error:
            raise wrong(f"{type(given).__name__} ({error})") from error

    def _no_number(self, array: Array) -> str:
        """What an array of one or more time steps holds that the model does not take."""
        steps = array.reshape(-1, *self._shape)
        numbers = np.array([_is_number(value) for value in steps.flat]).reshape(steps.shape)
        if not numbers.all():
            return f"dtype {array.dtype}: no number {_place(numbers)}"
        if self._tokens and array.dtype.kind == "f" and np.isnan(array).any():
            return f"a missing value {_place(~np.isnan(steps))}"
        return f"dtype {array.dtype}"

    def _check_ids(self, array: Array) -> None:
        # Compared before the cast: an id that does not fit would wrap around to a valid one.
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self._top:
            raise self._wrong(f"token id {low if low < 0 else high}", f"0..{self._top - 1}")

    def _wrong(self, came: str, expected: str = "") -> InvalidArgument:
        if not expected:
            names = ", ".join(str(size) for size in self._shape)
            what = f"[{names}] or [T, {names}]" if self._shape else "one integer or [T]"
            expected = f"{what} of {self._model.input.dtype}"
        text = f"inputs: got {came}, expected {expected} (model {self._model.name!r})"
        return InvalidArgument(text, reason="INVALID_FIELD", field="inputs")


def _place(good: Array) -> str:
    """Where the first bad value of bool [T, F] or [T] is."""
    step, *feature = (int(index) for index in np.argwhere(~good)[0])
    return f"at time step {step}" + (f", feature {feature[0]}" if feature else "")


def _is_number(value: object) -> bool:
    return is_missing(value) or isinstance(value, bool | int | float | np.number | np.bool_)


def convert_state(model: Model, state: Mapping[str, ArrayLike], field: str) -> list[tuple[TensorSpec, bytes]]:
    """Every state tensor of the model as raw bytes, in the model's order. Raises InvalidArgument."""

    def wrong(came: str, expected: str) -> InvalidArgument:
        return InvalidArgument(f"{field}: got {came}, expected {expected}", reason="INVALID_FIELD", field=field)

    names = {spec.name for spec in model.states}
    if set(state) != names:
        raise wrong(f"tensors {sorted(state)}", f"{sorted(names)}")
    converted: list[tuple[TensorSpec, bytes]] = []
    for spec in model.states:
        try:
            array = as_numbers(state[spec.name])
            if array.shape != spec.shape:
                raise wrong(f"{spec.name} of shape {list(array.shape)}", f"{list(spec.shape)}")
            if array.dtype.kind not in "fiub":
                raise wrong(f"{spec.name} of dtype {array.dtype}", spec.dtype)
            with np.errstate(over="ignore", invalid="ignore"):
                values = array.astype(little_endian(spec.dtype))
            taken = np.isfinite(values) if values.dtype.kind == "f" else array == values
            if not taken.all():
                place = [int(index) for index in np.argwhere(~taken)[0]]
                expected = f"finite values of {spec.dtype} (masked, None and NA count as NaN)"
                raise wrong(f"{spec.name}: {array[tuple(place)]} at {place}", expected)
            raw = values.tobytes()
        except (TypeError, ValueError) as error:
            raise wrong(f"{spec.name}: {error}", f"{list(spec.shape)} of {spec.dtype}") from error
        converted.append((spec, raw))
    return converted

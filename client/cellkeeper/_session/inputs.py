"""Converts a caller's inputs into what the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InvalidArgument
from ..types import Array, Model, Sample, TensorSpec
from .arguments import invalid
from .feature_names import in_order
from .missing_values import accepted, as_numbers, is_missing


def little_endian(name: str) -> np.dtype[Any]:
    """Returns the dtype's little-endian form, as on the wire.

    Made from its string, for which numpy keeps one object: that compares and looks up faster than an equal one.
    """
    return np.dtype(np.dtype(name).newbyteorder("<").str)


def token_ids(model: Model) -> int:
    """Returns how many token ids the model takes; 0 if it takes features."""
    dtype = np.dtype(model.input.dtype)
    return model.vocabulary or int(np.iinfo(dtype).max) + 1 if dtype.kind in "iu" else 0


class Inputs:
    """Converts a caller's samples into the raw bytes of a model's input, and checks them. field: its name in errors."""

    def __init__(self, model: Model, field: str = "inputs") -> None:
        self._model = model
        self._field = field
        self._dtype = little_endian(model.input.dtype)
        self._shape = model.input.shape
        self._axes = len(self._shape)
        self.step_bytes = model.input.nbytes
        self._tokens = token_ids(model)
        self._alike = self._dtype.isnative and not self._tokens
        self._finite = b"\1" * prod(self._shape)  # the bytes of numpy's isfinite() for a fully finite step

    def convert(self, given: Sample) -> tuple[bytes, bool]:
        """Returns (raw bytes, whether the time axis was omitted).

        given: [F] or [T, F]; token ids: one integer or [T]. Masked elements, None and the NA of pandas are missing
        values, like NaN. If the model's features have names, a DataFrame or a dict (for one time step a Series, or a
        dict of numbers) is matched by name, in any order. Raises InvalidArgument, also for missing values if the model
        accepts none.
        """
        if self._alike and type(given) is np.ndarray and given.dtype == self._dtype and given.shape == self._shape:
            # The common case, in a sixth of the time. Comparing bytes is faster than numpy's all(), or a search.
            if np.isfinite(given).tobytes() == self._finite:
                return given.tobytes(), True
        elif self._tokens and type(given) is int and not self._axes and 0 <= given < self._tokens:
            return given.to_bytes(self.step_bytes, "little"), True
        try:
            array = self.numbers(given)
            single = array.ndim == self._axes
            if array.shape[array.ndim - self._axes :] != self._shape or not self._axes <= array.ndim <= self._axes + 1:
                scalar = array.ndim == 0 and (given is None or array.dtype.kind not in "fiub")
                by_name = "; the model's features have no names" if isinstance(given, Mapping) else ""
                raise self._wrong(_kind(given) if scalar else f"shape {list(array.shape)}", self._expected() + by_name)
            if self._tokens and array.shape == (0,):  # numpy makes floats of []
                raise self._wrong("no time step")
            if array.dtype.kind not in ("iu" if self._tokens else "fiub"):
                raise self._wrong(_kind(given) if isinstance(given, str | bytes) else self._no_number(array))
            steps = 1 if single else int(array.shape[0])
            if steps == 0:
                raise self._wrong("no time step")
            limit = self._model.max_chunk_steps
            if limit and steps > limit:
                raise self._wrong(f"{steps} time steps", f"at most {limit} at once; stream() takes any number")
            if self._tokens:
                self._check_ids(array)
                return array.astype(self._dtype, copy=False).tobytes(), single
            return self._floats(array, self._shape, self._field, self._model.feature_names).tobytes(), single
        except (TypeError, ValueError) as error:
            raise self._wrong(_unequal_steps(given) or f"{_kind(given)} ({error})") from error

    def numbers(self, given: Sample) -> Array:
        """Converts to an array, with the columns of a DataFrame or Series in the order of the model's named features.

        Raises InvalidArgument for other names, TypeError and ValueError where numpy does.
        """
        names = self._model.feature_names
        ordered: Any = in_order(given, names, self._field) if names else given
        return as_numbers(ordered)

    def _floats(self, array: Array, shape: tuple[int, ...], field: str, names: Sequence[str]) -> Array:
        """Converts numbers to the model's dtype. shape: of one time step. names: of the features, for errors.

        Raises InvalidArgument for infinities, and for missing values if the model accepts none.
        """
        with np.errstate(over="ignore"):
            converted = array.astype(self._dtype, copy=False)
        good = accepted(converted, self._model.missing_values)
        if b"\0" in good.tobytes():
            place, finite = _place(good.reshape(-1, *shape), names), f"finite values of dtype {self._model.input.dtype}"
            if self._model.missing_values:
                came, expected = f"infinity {place}", f"{finite}, or NaN for missing values"
            else:
                came = f"NaN or infinity {place}"
                expected = (
                    f"{finite}, because the model does not accept missing values (masked, None and NA count as NaN)"
                )
            raise self._wrong(came, expected, field, "NON_FINITE_INPUT")
        return converted

    def convert_known(self, given: Sample | None, steps: int) -> bytes:
        """Converts the features that a caller supplies in a forecast to raw bytes.

        given: [steps, number of these features]; None: there are none. Raises InvalidArgument.
        """
        features = (self._model.feedback or ()).count(-1)
        if given is None and features == 0:
            return b""

        def wrong(came: str) -> InvalidArgument:
            expected = f"[{steps}, {features}] numbers" if features else "None: every feature is predicted"
            return self._wrong(came, expected, "known")

        if given is None:
            raise wrong("none")
        names = [
            name
            for name, source in zip(self._model.feature_names, self._model.feedback or (), strict=False)
            if source == -1
        ]
        try:
            ordered: Any = in_order(given, names, "known") if names else given
            array = as_numbers(ordered)
            if array.shape != (steps, features):
                raise wrong(f"shape {list(array.shape)}")
            if array.dtype.kind not in "fiub":
                raise wrong(_what_is_no_number(array, names))
            return self._floats(array, (features,), "known", names).tobytes()
        except (TypeError, ValueError) as error:
            raise wrong(_unequal_steps(given) or f"{_kind(given)} ({error})") from error

    def _no_number(self, array: Array) -> str:
        """Describes what an array of one or more time steps holds that the model does not accept."""
        steps = array.reshape(-1, *self._shape)
        if self._tokens and array.dtype.kind == "f" and np.isnan(array).any():
            return f"a missing value {_place(~np.isnan(steps), ())}"
        return _what_is_no_number(steps, self._model.feature_names)

    def _check_ids(self, array: Array) -> None:
        # Compared before the cast, in which an id out of range would wrap around to a valid one.
        low, high = int(array.min()), int(array.max())
        if low < 0 or high >= self._tokens:
            raise self._wrong(f"token id {low if low < 0 else high}", f"0..{self._tokens - 1}")

    def _wrong(self, came: str, expected: str = "", field: str = "", reason: str = "INVALID_FIELD") -> InvalidArgument:
        field = field or self._field
        return invalid(field, came, f"{expected or self._expected()} (model {self._model.name!r})", reason)

    def _expected(self) -> str:
        names = ", ".join(str(size) for size in self._shape)
        what = f"[{names}] or [T, {names}]" if self._shape else "one integer or [T]"
        return f"{what} of {self._model.input.dtype}"


def _place(good: Array, names: Sequence[str]) -> str:
    """Describes where the first False of bool [T, ...] is. names: of the features of [T, F]; empty: they have none."""
    step, *feature = (int(index) for index in np.argwhere(~good)[0])
    if not feature:
        return f"at time step {step}"
    if len(feature) > 1:
        return f"at time step {step}, element {feature}"
    return f"at time step {step}, feature {feature[0]}" + (f" ({names[feature[0]]!r})" if names else "")


def _kind(given: object) -> str:
    return "None" if given is None else type(given).__name__


def _unequal_steps(given: object) -> str:
    """For nested lists of unequal lengths, describes the first time step that differs; otherwise returns ""."""
    if not isinstance(given, Sequence) or isinstance(given, str | bytes):
        return ""
    sizes = [len(step) if hasattr(step, "__len__") else None for step in given]
    for step, size in enumerate(sizes):
        if size != sizes[0]:
            came, first = ("a single value" if count is None else f"length {count}" for count in (size, sizes[0]))
            return f"{came} at time step {step}, {first} at time step 0"
    return ""


def _what_is_no_number(steps: Array, names: Sequence[str]) -> str:
    """Describes the first non-numeric element of an array [T, ...] whose dtype is not numeric."""
    numbers = np.array([_is_number(value) for value in steps.flat]).reshape(steps.shape)
    if not numbers.all():
        return f"dtype {steps.dtype}: not a number {_place(numbers, names)}"
    held = np.array([not isinstance(value, int) or -(2**63) <= value < 2**64 for value in steps.flat])
    if not held.all():
        return f"an integer of more than 64 bits {_place(held.reshape(steps.shape), names)}"
    return f"dtype {steps.dtype}"


def _is_number(value: object) -> bool:
    return is_missing(value) or isinstance(value, bool | int | float | np.number | np.bool_)


def convert_state(model: Model, state: Mapping[str, ArrayLike], field: str) -> list[tuple[TensorSpec, bytes]]:
    """Returns every state tensor of the model as raw bytes, in the model's order. Raises InvalidArgument."""
    wrong = partial(invalid, field)
    if not isinstance(state, Mapping):
        raise wrong(type(state).__name__, "a mapping of tensors by name")
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
                reason = "NON_FINITE_INPUT" if values.dtype.kind == "f" else "INVALID_FIELD"
                raise wrong(f"{spec.name}: {array[tuple(place)]} at {place}", expected, reason)
            raw = values.tobytes()
        except (TypeError, ValueError) as error:
            raise wrong(f"{spec.name}: {error}", f"{list(spec.shape)} of {spec.dtype}") from error
        converted.append((spec, raw))
    return converted

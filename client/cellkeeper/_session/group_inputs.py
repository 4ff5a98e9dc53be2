"""Converts what a caller passes to a group into the model's input, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InvalidArgument
from ..types import Array, Model
from .arguments import invalid
from .feature_names import in_order, is_labelled
from .inputs import Inputs, little_endian, token_ids
from .missing_values import accepted


class GroupInputs:
    """Converts several members' rows into the raw bytes of a model's input, and checks them. field: named in errors."""

    def __init__(self, model: Model, field: str = "inputs") -> None:
        self._model = model
        self._field = field
        self._one = Inputs(model, field)
        self._dtype = little_endian(model.input.dtype)
        self._shape = model.input.shape
        self._tokens = token_ids(model)

    def convert(self, names: Sequence[str], rows: ArrayLike) -> tuple[bytes, bool]:
        """Returns (raw bytes, whether the time axis was omitted).

        names: the members' ids. rows: [N, F] or [N, T, F]; token ids: [N] or [N, T]; one row per member, in order. A
        row may be a Series or a DataFrame, as in Inputs. Raises InvalidArgument, which names the row and the member.
        """
        table = self._plain_numbers(rows)
        if table is None:
            return self._row_by_row(names, rows)  # finds out what is wrong, and in which row
        if len(table) != len(names):
            raise self._wrong(f"{len(table)} rows", f"{len(names)}, one per member")
        return table.tobytes(), table.ndim == 1 + len(self._shape)

    # ------------------------------------------------------------------------------------------ inside

    def _plain_numbers(self, rows: ArrayLike) -> Array | None:
        """The common case at once: valid values in a fitting shape. Returns None if each row needs checking."""
        try:
            given = self._one.numbers(rows)
        except (InvalidArgument, TypeError, ValueError):
            return None
        axes = given.ndim - 1 - len(self._shape)
        if axes not in (0, 1) or given.shape[1 + axes :] != self._shape or not given.size:
            return None
        if axes == 1 and self._model.max_chunk_steps and given.shape[1] > self._model.max_chunk_steps:
            return None
        if self._tokens:
            if given.dtype.kind not in "iu" or int(given.min()) < 0 or int(given.max()) >= self._tokens:
                return None
            return given.astype(self._dtype, copy=False)
        if given.dtype.kind not in "fiub":
            return None
        with np.errstate(over="ignore"):
            table = given.astype(self._dtype, copy=False)
        return table if accepted(table, self._model.missing_values).all() else None

    def _row_by_row(self, names: Sequence[str], rows: Any) -> tuple[bytes, bool]:
        try:
            count = len(rows)
        except TypeError:
            raise self._wrong(type(rows).__name__, f"{len(names)} rows, one per member") from None
        if count != len(names):
            raise self._wrong(f"{count} rows", f"{len(names)}, one per member")
        converted: list[bytes] = []
        first: tuple[int, bool] | None = None
        for at, (name, row) in enumerate(zip(names, rows, strict=True)):
            try:
                raw, single = self._one.convert(row)
            except InvalidArgument as error:
                raise of_row(error, self._field, at, name) from error
            first = first or (len(raw), single)
            if (len(raw), single) != first:
                text = f"row {at} (session {name!r}) with a different number of time steps than row 0"
                raise self._wrong(text, "the same number for all rows of a step")
            converted.append(raw)
        return b"".join(converted), first is not None and first[1]

    def _wrong(self, came: str, expected: str) -> InvalidArgument:
        return invalid(self._field, came, f"{expected} (model {self._model.name!r})")


def of_row(error: InvalidArgument, field: str, at: int, name: str) -> InvalidArgument:
    """Returns the error with the row, and the member, that it is about."""
    text = f"{field}, row {at} (session {name!r}): {error.message.removeprefix(f'{field}: ')}"
    return InvalidArgument(text, reason=error.reason, field=error.field)


def named_rows(given: Any, features: Sequence[str]) -> tuple[list[Any], Any] | None:
    """Returns the ids and rows of a dict {id: x}, or of a DataFrame or Series whose index holds ids.

    Returns None for rows without ids. features: the model's, if they have names; a DataFrame may have them in any
    order. Raises InvalidArgument for other columns.
    """
    if isinstance(given, Mapping):
        return list(given), list(given.values())
    if is_labelled(given):
        named = bool(features) and hasattr(given, "columns")
        values = (in_order(given, features, "inputs") if named else given).to_numpy()
        return given.index.tolist(), values if values.dtype.kind in "fiub" else list(values)
    return None

"""What a caller gives for a group, converted to what the model takes, row by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InvalidArgument
from ..types import Array, Model
from .inputs import Inputs, little_endian
from .missing_values import as_numbers


class GroupInputs:
    """Converts the rows of several members into a model's raw bytes, checking them on the way."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._one = Inputs(model)
        self._dtype = little_endian(model.input.dtype)
        self._shape = model.input.shape

    def convert(self, names: Sequence[str], rows: ArrayLike) -> tuple[bytes, bool]:
        """(raw bytes, whether the time axis was left out).

        names: the members' ids. rows: [N, F] or [N, T, F]; token ids: [N] or [N, T]; one row a member, in their order.
        Raises InvalidArgument, which names the row and the member.
        """
        table = self._plain_numbers(rows)
        if table is None:
            return self._row_by_row(names, rows)
        if len(table) != len(names):
            raise self._wrong(f"{len(table)} rows", f"{len(names)}, one a member")
        single = table.ndim == 1 + len(self._shape)
        steps = 1 if single else table.shape[1]
        limit = self._model.max_chunk_steps
        if steps == 0 or (limit and steps > limit) or not np.isfinite(table).all():
            return self._row_by_row(names, rows)  # which says what is wrong where, or takes missing values
        return table.tobytes(), single

    # ------------------------------------------------------------------------------------------ inside

    def _plain_numbers(self, rows: ArrayLike) -> Array | None:
        """The usual case, whole: numbers in a shape that fits. None: to be looked at row by row."""
        if self._dtype.kind != "f" or not isinstance(rows, np.ndarray) or isinstance(rows, np.ma.MaskedArray):
            return None
        axes = rows.ndim - 1 - len(self._shape)
        if axes not in (0, 1) or rows.shape[1 + axes :] != self._shape or rows.dtype.kind not in "fiub":
            return None
        with np.errstate(over="ignore"):
            return rows.astype(self._dtype, copy=False)

    def _row_by_row(self, names: Sequence[str], rows: Any) -> tuple[bytes, bool]:
        try:
            count = len(rows)
        except TypeError:
            raise self._wrong(type(rows).__name__, f"{len(names)} rows, one a member") from None
        if count != len(names):
            raise self._wrong(f"{count} rows", f"{len(names)}, one a member")
        if not isinstance(rows, np.ndarray | Sequence):
            rows = as_numbers(rows)
        converted: list[bytes] = []
        first: tuple[int, bool] | None = None
        for at, (name, row) in enumerate(zip(names, rows, strict=True)):
            try:
                raw, single = self._one.convert(row)
            except InvalidArgument as error:
                text = f"inputs, row {at} (session {name!r}): {error.message.removeprefix('inputs: ')}"
                raise InvalidArgument(text, reason=error.reason, field=error.field) from error
            first = first or (len(raw), single)
            if (len(raw), single) != first:
                text = f"row {at} (session {name!r}) with another number of time steps than row 0"
                raise self._wrong(text, "the same for all rows of one step")
            converted.append(raw)
        return b"".join(converted), first is not None and first[1]

    def _wrong(self, came: str, expected: str) -> InvalidArgument:
        text = f"inputs: got {came}, expected {expected} (model {self._model.name!r})"
        return InvalidArgument(text, reason="INVALID_FIELD", field="inputs")


def is_frame(given: object) -> bool:
    """Returns True for a DataFrame of pandas, which is not imported for that."""
    return type(given).__name__ == "DataFrame" and type(given).__module__.partition(".")[0] == "pandas"


def named_rows(given: Any) -> tuple[list[Any], Any] | None:
    """The ids and the rows of a dict {id: x} or of a DataFrame whose index are ids; None for rows without ids."""
    if isinstance(given, Mapping):
        names, rows = list(given), list(given.values())
        first = rows[0] if rows else None
        if isinstance(first, np.ndarray) and all(_is_alike(row, first) for row in rows):
            return names, np.stack(rows)
        return names, rows
    if is_frame(given):
        values = given.to_numpy()
        return given.index.tolist(), values if values.dtype.kind in "fiub" else list(values)
    return None


def _is_alike(row: object, other: Array) -> bool:
    return type(row) is np.ndarray and row.dtype == other.dtype and row.shape == other.shape

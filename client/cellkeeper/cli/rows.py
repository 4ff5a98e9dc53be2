"""What rows of CSV and of JSON lines share: the file they come from, and their conversion to time steps."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from math import isinf, isnan, prod
from typing import TextIO

import numpy as np
from numpy.typing import ArrayLike

from .._session.feature_names import wrong_columns
from .._session.inputs import little_endian, token_ids
from ..types import Model

SHOWN_COLUMNS = 8


class RowError(ValueError):
    """A row that cannot be used; the text names its line, and the column if one is at fault."""


def open_rows(path: str) -> TextIO:
    """Opens the file, or stdin if path is "-". UTF-8, with or without a byte order mark."""
    stdin = path == "-"
    return open(sys.stdin.fileno() if stdin else path, encoding="utf-8-sig", newline="", closefd=not stdin)


def is_file(lines: TextIO) -> bool:
    """Returns True if all rows are at hand, unlike those of a pipe, a terminal or a socket."""
    return stat.S_ISREG(os.fstat(lines.fileno()).st_mode)


def decoded(lines: Iterable[str]) -> Iterator[str]:
    """Yields the lines. Raises RowError for anything but UTF-8."""
    count = 0
    try:
        for line in lines:
            count += 1
            yield line
    except UnicodeDecodeError as error:
        raise RowError(f"after line {count}: not UTF-8 ({error.reason})") from None


def is_index(text: str) -> bool:
    """Returns True if the text looks like a column number."""
    return text.isascii() and text.isdecimal()


class Steps:
    """Converts rows to time steps, or rejects them.

    Raises RowError for a model with several inputs, which a row cannot represent.
    """

    def __init__(self, model: Model) -> None:
        if model.inputs:
            names = ", ".join(spec.name for spec in model.inputs)
            raise RowError(
                f"the model {model.name!r} takes the inputs {names}, but a row has only one; step it with the Python "
                "client"
            )
        self._model = model
        self._shape = model.input.shape
        self._size = prod(self._shape)
        self._dtype = little_endian(model.input.dtype)

    def check_width(self, line: int, columns: Sequence[str]) -> None:
        """Raises RowError unless there is one column for each value. columns: the chosen ones, as named in messages."""
        if len(columns) != self._size:
            what = str(list(self._shape)) if self._shape else "one token id"
            shown = [*columns[:SHOWN_COLUMNS], *(["..."] if len(columns) > SHOWN_COLUMNS else [])]
            raise RowError(
                f"line {line}: inputs: got shape [{len(columns)}] ({', '.join(shown)}), expected {what} (model "
                f"{self._model.name!r}); select columns with --columns, and separate the fields of CSV with commas"
            )

    def named(self, line: int, names: Sequence[str]) -> list[str]:
        """Returns which of these columns to take, in order: the model's named features, or all if it has no names.

        Raises RowError if the names differ from the model's.
        """
        wanted = [*self._model.feature_names]
        if wanted and (wrong := wrong_columns(names, wanted)):
            raise RowError(f"line {line}: {wrong} (model {self._model.name!r}); select columns with --columns")
        return wanted or [*names]

    def step(self, values: Sequence[float], line: int, columns: Sequence[str]) -> ArrayLike:
        """Returns the values as a time step. Raises RowError.

        values: as many as `check_width` demands; NaN is missing. columns: named in messages.
        """
        for value, column in zip(values, columns, strict=True):
            if isnan(value) and not self._model.missing_values:
                raise RowError(
                    f"line {line}, {column}: got a missing value, expected a number (model {self._model.name!r} does "
                    "not accept missing values)"
                )
        if not self._shape:
            return self._token(values[0], line, columns[0])
        array = np.array(values, np.float64)
        with np.errstate(over="ignore"):
            unheld = np.isinf(array.astype(self._dtype))
        if unheld.any():
            index = int(unheld.argmax())
            expected = f"a finite {self._model.input.dtype} number"
            raise RowError(f"line {line}, {columns[index]}: got {values[index]}, expected {expected}")
        return array.reshape(self._shape)

    def _token(self, value: float, line: int, column: str) -> int:
        top = token_ids(self._model)
        if isinstance(value, bool) or isinf(value) or value != int(value) or not 0 <= value < top:
            raise RowError(f"line {line}, {column}: got {value}, expected a token id, 0..{top - 1}")
        return int(value)

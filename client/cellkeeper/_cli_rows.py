"""Rows of a CSV or JSON lines file as time steps, and answers as rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

import numpy as np
from numpy.typing import ArrayLike

from ._model import Model
from ._reply import Array


class RowError(ValueError):
    """A row that cannot be read; the text names its line."""


def csv_rows(lines: Iterable[str], columns: Sequence[str], model: Model) -> Iterator[ArrayLike]:
    """One time step a row. A first row that is not all numbers is a header. An empty cell is NaN.

    columns: names of the header, or numbers from 0; empty: all, in order.
    """
    picked: list[int] | None = None
    reader = csv.reader(lines)
    for index, row in enumerate(reader):
        if not row:
            continue
        if index == 0:
            header = [] if all(_is_number(cell) for cell in row) else row
            picked = [_column(name, header, len(row)) for name in columns] or list(range(len(row)))
            if header:
                continue
        try:
            values = [float(row[column]) if row[column].strip() else np.nan for column in picked or ()]
        except (ValueError, IndexError) as error:
            raise RowError(f"line {reader.line_num}: {error}") from None
        yield _step(values, model, reader.line_num)


def json_rows(lines: Iterable[str], columns: Sequence[str], model: Model) -> Iterator[ArrayLike]:
    """One time step a line: a number, a list of numbers, or an object, whose `columns` are taken (default: all)."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if isinstance(value, dict):
                value = [value[name] for name in columns] if columns else list(value.values())
            cells = value if isinstance(value, list) else [value]
            values = [np.nan if cell is None else float(cell) for cell in cells]
        except KeyError as error:
            raise RowError(f"line {number}: no column {error}") from None
        except (TypeError, ValueError) as error:
            raise RowError(f"line {number}: {error}") from None
        yield _step(values, model, number)


class Writer:
    """Writes one line a time step: its number, then the output's values."""

    def __init__(self, out: TextIO, form: str, name: str, headed: bool) -> None:
        self._out = out
        self._form = form
        self._name = name
        self._headed = headed

    def write(self, step: int, output: Array) -> None:
        """step: how many time steps the session had consumed before this one."""
        values = output.reshape(-1).tolist() if self._form == "jsonl" else [str(value) for value in output.reshape(-1)]
        if self._form == "jsonl":
            self._out.write(json.dumps({"step": step, self._name: values}) + "\n")
        else:
            if not self._headed:
                names = [f"{self._name}_{index}" for index in range(len(values))]
                self._out.write(",".join(["step", *names]) + "\n")
                self._headed = True
            self._out.write(",".join([str(step), *values]) + "\n")
        self._out.flush()


def _step(values: list[float], model: Model, line: int) -> Any:
    if model.input.shape:
        return np.array(values)
    if len(values) != 1 or values[0] != int(values[0]):
        raise RowError(f"line {line}: got {values}, expected one token id")
    return int(values[0])


def _column(name: str, header: Sequence[str], width: int) -> int:
    names = [cell.strip() for cell in header]
    if name in names:
        return names.index(name)
    if name.isdigit() and int(name) < width:
        return int(name)
    raise RowError(f"--columns: got {name!r}, expected one of {names or list(range(width))}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True

"""Reads the rows of a CSV file as time steps, and decides whether the first row names the columns."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..types import Model
from .rows import RowError, Steps, decoded, is_index

MISSING_WORDS = ("nan", "NA", "N/A", "#N/A", "null", "None", "<NA>")
"""In any case; an empty field counts too."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_MISSING = {"", *(word.casefold() for word in MISSING_WORDS)}
_INFINITE = {"inf", "infinity"}
_AXIS_FIELDS = 3  # the fewest that look like an axis
_CHOOSE = "give --header yes if it names the columns, --header no if it is the first time step"


def add_header(parser: argparse.ArgumentParser) -> None:
    """Adds the option --header. It sets `header` to "yes", "no" or None."""
    parser.add_argument(
        "--header",
        choices=("yes", "no"),
        help="whether the first row of CSV names the columns. Default: yes if all its fields start with a letter or an "
        "underscore, or if --columns gives names; no if they are numbers that do not ascend in even steps, and one has "
        "a point, a sign or an exponent, or two are equal. In any other case (0,1,2; pump,1.5; NA,NA) this option is "
        "required. A missing value is an empty field, or one of: " + ", ".join(MISSING_WORDS),
    )


def csv_rows(lines: Iterable[str], columns: Sequence[str], model: Model, header: str | None) -> Iterator[ArrayLike]:
    """Yields one time step for each row. Raises RowError for anything ambiguous or invalid.

    columns: names from the header, or numbers from 0; empty: all, in order. header: "yes", "no", or None to decide by
    `_is_header`.
    """
    steps = Steps(model)
    rows = _full_rows(lines)
    first_line, first = next(rows, (0, []))
    if not first:
        return
    fields = [field.strip() for field in first]
    if not columns:
        steps.check_width(first_line, fields)  # even if the first row is not a header
    named = not all(map(is_index, columns))
    if named and header == "no":
        raise RowError(f"--columns: got {', '.join(columns)}, expected numbers from 0, because there is no header")
    headed = header == "yes" or (header is None and (named or _is_header(fields, first_line)))
    if headed and not columns:
        wanted = steps.named(first_line, fields)
        columns = [] if wanted == fields else wanted
    picked = [_column(name, fields if headed else [], len(first)) for name in columns] or list(range(len(first)))
    called = [f"column {index + 1} ({fields[index]!r})" if headed else f"column {index + 1}" for index in picked]
    steps.check_width(first_line, called)

    def step(line: int, row: Sequence[str]) -> ArrayLike:
        values = [_value(row[index], line, column) for index, column in zip(picked, called, strict=True)]
        return steps.step(values, line, called)

    if not headed:
        yield step(first_line, first)
    for line, row in rows:
        if len(row) != len(first):
            raise RowError(f"line {line}: got {len(row)} fields, expected {len(first)} as in line {first_line}")
        yield step(line, row)


def _full_rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields (line number, row).

    Empty lines are skipped only at the end: before a row, an empty line may be a time step whose value is missing.
    """
    reader, blank = csv.reader(decoded(lines), strict=True), 0
    try:
        for row in reader:
            if not row or (len(row) == 1 and row[0].isspace()):
                blank = blank or reader.line_num
                continue
            if blank:
                raise RowError(f"line {blank}: empty, but rows follow; write nan for a missing value")
            yield reader.line_num, row
    except csv.Error as error:
        raise RowError(f"line {reader.line_num}: {error}") from None


def _value(field: str, line: int, column: str) -> float:
    text = field.strip()
    if _is_missing(text):
        return np.nan
    if not _NUMBER.fullmatch(text):
        raise RowError(
            f"line {line}, {column}: got {field!r}, expected a finite number with a decimal point, or an empty field "
            "or nan for a missing value"
        )
    return float(text)


def _column(name: str, header: Sequence[str], width: int) -> int:
    """Returns the index of a column that --columns names."""
    found = [index for index, cell in enumerate(header) if cell == name]
    number = int(name) if is_index(name) and int(name) < width else None
    if number is not None and number not in found:
        found.append(number)
    if len(found) == 1:
        return found[0]
    if found:
        columns = " and ".join(str(index + 1) for index in found)
        raise RowError(f"--columns: got {name!r}, which is the name or number of columns {columns}; rename them")
    raise RowError(f"--columns: got {name!r}, expected one of {list(header) or list(range(width))}")


def _is_missing(field: str) -> bool:
    return field.strip().casefold() in _MISSING


def _is_header(fields: Sequence[str], line: int) -> bool:
    """Returns True if the first row is a header, False if it is a time step. fields: without surrounding spaces.

    A header: every field starts with a letter or an underscore, and is neither a number nor a word for a missing value;
    the first may be empty, as pandas writes an index. A time step: numbers, of which one has a point, a sign or an
    exponent, or two are equal, and which are not evenly spaced like an axis. Raises RowError for anything else.
    """
    numbers = [field for field in fields if _NUMBER.fullmatch(field)]
    names = [field for field in fields if _is_name(field)]
    if names and (len(names) == len(fields) or (len(names) == len(fields) - 1 and not fields[0])):
        return True
    odd = [index for index, field in enumerate(fields) if field not in numbers and not _is_missing(field)]
    if not odd:
        if numbers and not _could_be_names(numbers):
            return False
        raise RowError(
            f"line {line}: got {','.join(fields)!r}, which may name the columns or be a time step, so the first time "
            f"step is in line {line + 1} or in line {line}: {_CHOOSE}"
        )
    strange = [index for index in odd if fields[index] not in names]  # more likely the cause than a name among numbers
    index = (strange or odd)[0]
    raise RowError(
        f"line {line}, column {index + 1}: got {fields[index]!r}, expected only names in the first row, or only "
        f"numbers with a decimal point, separated by commas: {_CHOOSE}"
    )


def _is_name(field: str) -> bool:
    starts = field[:1].isalpha() or field[:1] == "_"
    return starts and not _is_missing(field) and field.casefold() not in _INFINITE


def _could_be_names(numbers: Sequence[str]) -> bool:
    if all(map(is_index, numbers)) and len(set(numbers)) == len(numbers):
        return True
    with np.errstate(all="ignore"):
        gaps = np.diff([float(number) for number in numbers])
    return len(numbers) >= _AXIS_FIELDS and bool(gaps[0] > 0 and np.allclose(gaps, gaps[0], rtol=1e-6, atol=0.0))

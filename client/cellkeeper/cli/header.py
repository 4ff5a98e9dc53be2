"""Decides whether the first row of a CSV file names the columns, and asks the user if that is not certain."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .rows import RowError

MISSING_WORDS = ("nan", "NA", "N/A", "#N/A", "null", "None", "<NA>")
"""In any case; an empty field counts too."""
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")

_MISSING = {"", *(word.casefold() for word in MISSING_WORDS)}
_INFINITE = {"inf", "infinity"}
_AXIS_FIELDS = 3  # the fewest that look like an axis
_CHOOSE = "give --header yes if it names the columns, --header no if it is the first time step"


def is_missing(field: str) -> bool:
    return field.strip().casefold() in _MISSING


def is_index(text: str) -> bool:
    """Returns True if the text looks like a column number."""
    return text.isascii() and text.isdecimal()


def is_header(fields: Sequence[str], line: int) -> bool:
    """Returns True if the first row is a header, False if it is a time step. fields: without surrounding spaces.

    A header: every field starts with a letter or an underscore, and is neither a number nor a word for a missing value;
    the first may be empty, as pandas writes an index. A time step: numbers, of which one has a point, a sign or an
    exponent, or two are equal, and which are not evenly spaced like an axis. Raises RowError for anything else.
    """
    numbers = [field for field in fields if NUMBER.fullmatch(field)]
    names = [field for field in fields if _is_name(field)]
    if names and (len(names) == len(fields) or (len(names) == len(fields) - 1 and not fields[0])):
        return True
    odd = [index for index, field in enumerate(fields) if field not in numbers and not is_missing(field)]
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
    return starts and not is_missing(field) and field.casefold() not in _INFINITE


def _could_be_names(numbers: Sequence[str]) -> bool:
    if all(map(is_index, numbers)) and len(set(numbers)) == len(numbers):
        return True
    with np.errstate(all="ignore"):
        gaps = np.diff([float(number) for number in numbers])
    return len(numbers) >= _AXIS_FIELDS and bool(gaps[0] > 0 and np.allclose(gaps, gaps[0], rtol=1e-6, atol=0.0))

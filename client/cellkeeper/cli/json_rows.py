"""Reads JSON lines as time steps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..types import Model
from .rows import RowError, Steps, decoded, is_index

_EXACT_DIGITS = 15  # and a sign at most: as many as a float holds


def json_rows(lines: Iterable[str], columns: Sequence[str], model: Model) -> Iterator[ArrayLike]:
    """Yields one time step for each line: a number, a list of numbers, or an object. null is missing. Raises RowError.

    The first object fixes the keys and their order; other lines must have the same keys, in any order. If the model's
    features have names, these are the keys, in the model's order. columns: the keys to take, in this order, ignoring
    others; for lists, numbers from 0.
    """
    steps, keys, key_line = Steps(model), list(columns), 0
    for line, value in _full_lines(lines):
        if isinstance(value, dict):
            if not keys:
                keys, key_line = steps.named(line, list(value)), line
            _check_keys(value, keys, line, key_line)
            cells, called = [value[key] for key in keys], [f"column {key!r}" for key in keys]
        else:
            picked = [_index(name, len(value), line) for name in columns] or list(range(len(value)))
            cells, called = [value[index] for index in picked], [f"column {index + 1}" for index in picked]
        steps.check_width(line, called)
        yield steps.step([_value(cell, line, name) for cell, name in zip(cells, called, strict=True)], line, called)


def _full_lines(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | list[Any]]]:
    """Yields (line number, value), a single number as a list of one. Empty lines are skipped only at the end."""
    blank = 0
    for number, text in enumerate(decoded(lines), 1):
        if not text.strip():
            blank = blank or number
            continue
        if blank:
            raise RowError(f"line {blank}: empty, but others follow; write null for a missing value")
        try:
            value = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
        except json.JSONDecodeError as error:
            raise RowError(f"line {number}, character {error.pos + 1}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise RowError(f"line {number}: {error}") from None
        yield number, value if isinstance(value, dict | list) else [value]


def _whole(digits: str) -> int | float:
    """Reads any number of digits, of which Python limits those of an integer."""
    return int(digits) if len(digits) <= _EXACT_DIGITS else float(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"duplicate key {twice!r}")
    return made


def _check_keys(value: dict[str, Any], keys: Sequence[str], line: int, key_line: int) -> None:
    """Checks the keys of one line. key_line: the line that fixed them; 0: --columns did, and others are allowed."""
    for key in keys:
        if key not in value:
            raise RowError(f"line {line}: no column {key!r}, expected {', '.join(keys)} (null where one is missing)")
    if key_line and len(value) != len(keys):
        other = next(key for key in value if key not in keys)
        raise RowError(
            f"line {line}: column {other!r} is not in line {key_line}, which has {', '.join(keys)}; select columns "
            "with --columns"
        )


def _value(cell: object, line: int, column: str) -> float:
    if cell is None:
        return np.nan
    if isinstance(cell, bool):
        return cell  # a bool is not a token id
    if not isinstance(cell, int | float):
        raise RowError(f"line {line}, {column}: got {_kind(cell)}, expected a number, or null for a missing value")
    try:
        return float(cell)
    except OverflowError:
        return np.inf


def _index(name: str, width: int, line: int) -> int:
    if is_index(name) and int(name) < width:
        return int(name)
    raise RowError(f"line {line}: --columns: got {name!r}, expected numbers 0..{width - 1} for a list")


def _kind(value: object) -> str:
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)

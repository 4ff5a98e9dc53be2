"""Puts the values of a chunk that are given by feature name into the order of the model's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellkeeper_service.errors import Rejection, invalid

from .json_text import shown

SHOWN_NAMES = 20  # in a refusal


def in_order(value: Any, names: Sequence[str], field: str) -> Any:
    """Returns one time step [F] or a chunk [T, F] as lists in the order of `names`.

    value: an object with a number, or a list of T of them, for each name; or a list of T objects with a number for each
    name. Anything else is returned as it is. Raises a Rejection for missing and unknown names.
    """
    if type(value) is dict:
        return _columns(value, names, field)
    if type(value) is list and value and type(value[0]) is dict:
        return [_row(item, names, f"{field}[{at}]") for at, item in enumerate(value)]
    return value


def _columns(value: dict[str, Any], names: Sequence[str], field: str) -> list[Any]:
    columns = _ordered(value, names, field)
    lengths = {len(column) if type(column) is list else -1 for column in columns}
    if lengths == {-1}:
        return columns
    if len(lengths) > 1:
        raise invalid(field, "a different number of time steps for each feature", "a number, or a list of T, for each")
    return [list(row) for row in zip(*columns, strict=True)]


def _row(item: Any, names: Sequence[str], field: str) -> list[Any]:
    if type(item) is not dict:
        raise invalid(field, shown(item), "an object with a number for each feature, as in the first time step")
    return _ordered(item, names, field)


def _ordered(value: dict[str, Any], names: Sequence[str], field: str) -> list[Any]:
    try:
        if len(value) == len(names):
            return [value[name] for name in names]
    except KeyError:
        pass
    raise _other_names(value, names, field)


def _other_names(value: dict[str, Any], names: Sequence[str], field: str) -> Rejection:
    known = set(names)
    missing = [name for name in names if name not in value]
    unknown = [name for name in value if name not in known]
    wrong = [f"{what} {_listed(some)}" for what, some in (("without", missing), ("with", unknown)) if some]
    return invalid(field, f"an object {' and '.join(wrong)}", f"an object with each of {_listed(names)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:SHOWN_NAMES])) + (", ..." if len(names) > SHOWN_NAMES else "")

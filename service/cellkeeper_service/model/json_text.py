"""JSON from files that anybody may have written: nested no deeper than the code that reads it can follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from typing import Any

MAX_DEPTH = 100


def parse_json(data: bytes, pairs_hook: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """Returns the value of UTF-8 text. Raises ValueError if it is not JSON, or nested deeper than MAX_DEPTH.

    The parser's own limit does not do: with Python 3.14 it is some 80,000, for which repr() has no stack.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs_hook)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = list(chain.from_iterable(map(_items, level)))
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []


_TOO_DEEP = f"lists or objects are nested deeper than {MAX_DEPTH}"

"""JSON from files that anybody may have written: nested no deeper than the code that reads it can follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cellkeeper_service.nesting import TOO_DEEP, is_too_deep


def parse_json(data: bytes, pairs_hook: Callable[[list[tuple[str, Any]]], dict[str, Any]] | None = None) -> Any:
    """Returns the value of UTF-8 text. Raises ValueError if it is not JSON, or nested deeper than nesting.MAX_DEPTH."""
    if is_too_deep(data):
        raise ValueError(f"it has {TOO_DEEP}")
    return json.loads(data.decode("utf-8"), object_pairs_hook=pairs_hook)

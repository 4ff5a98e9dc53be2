"""How the long runs end: with a table, then one line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[tuple[str, object]]) -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {_shown(value)}" for name, value in rows)


def finish(figures: Mapping[str, Any], violations: Sequence[str]) -> int:
    """Prints both. Returns the exit status."""
    print(table([*figures.items(), ("violations", len(violations))]))
    for text in violations[:20]:
        print(f"VIOLATION: {text}")
    print(json.dumps({**figures, "violations": list(violations[:20]), "violation_count": len(violations)}), flush=True)
    return 1 if violations else 0


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:,.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return str(value)

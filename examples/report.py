"""An example's figures: stored as JSON, shown as tables, and put into its README between markers.

<!-- table: NAME -->
...
<!-- end -->
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS_FILE = "results.json"
_BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def spliced(text: str, tables: Mapping[str, str]) -> str:
    """Returns a README's text with its tables replaced by these. Raises KeyError for a marker with an unknown name."""
    return _BLOCK.sub(lambda found: f"{found[1]}{tables[found['name']]}{found[3]}", text)


def prose(text: str) -> str:
    """Returns a README's text without its tables."""
    return _BLOCK.sub("", text)


def read_results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    return results


def write_results(folder: Path, results: Mapping[str, Any]) -> None:
    text = json.dumps(_rounded(results), indent=1)
    text = re.sub(r"\[[^\[\]{}]*\]", lambda found: re.sub(r"\s+", " ", found[0]), text)  # a list of numbers on one line
    (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    """Rounds to six digits: more than any table shows, but the file stays readable."""
    if isinstance(value, Mapping):
        return {str(key): _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value

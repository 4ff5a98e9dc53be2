"""What the benchmarks print and write, and the options that several of them have."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def add_json(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds the option for where the figures go."""
    parser.add_argument(
        "--json", type=Path, default=Path(f"out/{name}.json"), help="the table is written next to it, as .md"
    )


def write(path: Path, figures: Mapping[str, Any], table: str = "") -> None:
    """Writes the figures and, next to them, the table if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    if table:
        path.with_suffix(".md").write_text(table + "\n")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

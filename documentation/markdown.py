"""Markdown tables with text from the code in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells may hold `|` and line breaks."""
    lines = [head, ["---"] * len(head), *([cell_text(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell_text(text: str) -> str:
    """The text on one line, with nothing in it that ends a cell."""
    return " ".join(text.split()).replace("|", "\\|")


def code(text: object) -> str:
    """Inline code; empty for nothing."""
    return f"`{text}`" if str(text) else ""

"""Every figure in an example's README is one of its results."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from examples.report import prose, read_results, spliced

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/results.json"))
FIGURE = re.compile(r"(?<!Python )(?<![\w.])\d+\.\d+(?:e[+-]\d+)?(?![\w.]*\d)")
LARGEST_BYTES = 150_000


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_are_those_of_the_results(name: str) -> None:
    folder = EXAMPLES / name
    tables = importlib.import_module(f"examples.{name}.tables").tables(read_results(folder))
    text = (folder / "README.md").read_text()
    assert spliced(text, tables) == text
    assert all(f"<!-- table: {table} -->" in text for table in tables)
    figures = {figure for table in tables.values() for figure in FIGURE.findall(table)}
    assert set(FIGURE.findall(prose(text))) <= figures


@pytest.mark.parametrize("name", NAMES)
def test_links_and_pictures_are_there(name: str) -> None:
    folder = EXAMPLES / name
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (folder / "README.md").read_text())
    assert [link for link in links if "://" not in link and not (folder / link).exists()] == []
    assert f"{name}.png" in links
    assert (folder / f"{name}.png").stat().st_size < LARGEST_BYTES

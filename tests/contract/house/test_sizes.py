"""Files hold one noun whole, and can be read in one go."""

from __future__ import annotations

from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[3]
MOST_LINES = 400
TYPICAL_LINES = 100
"""With more small files than large ones, a reader opens many to understand one thing."""


def lines(folder: str) -> dict[str, int]:
    """Returns the number of lines of each file that somebody wrote."""
    return {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in (ROOT / folder).rglob("*.py")
        if not path.stem.endswith(("_pb2", "_pb2_grpc"))
    }


def test_no_file_is_too_long_to_be_read_in_one_go() -> None:
    found = lines("service") | lines("client")
    assert len(found) > 400
    assert {name: count for name, count in found.items() if count > MOST_LINES} == {}


def test_files_are_not_crumbs() -> None:
    assert median((lines("service") | lines("client")).values()) >= TYPICAL_LINES

"""docs/licences.md matches the installed packages, and no licence keeps others from using Cellkeeper."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution

import pytest

from tests.contract.release.licences import HEAD, PAGE, rows

KNOWN = {
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "MIT",
    "PSF-2.0",
    "Zlib",
    # and the terms of packages without an SPDX expression
    "3-Clause BSD License",
    "Apache Software License",
    "BSD License",
    "MIT License",
    "Python Software Foundation License",
}


def table() -> list[str]:
    text = PAGE.read_text()
    assert text.startswith(HEAD), "stale; run: make licences"
    return text.removeprefix(HEAD).splitlines()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the page has the releases for newer Pythons")
def test_the_page_is_fresh() -> None:
    """It may have packages that only other Python versions need, which are not installed here."""
    here = rows()
    assert len(here) > 20
    assert set(here) <= set(table()), "stale; run: make licences"
    for line in set(table()) - set(here):
        assert not installed(line.split(" | ")[0].removeprefix("| ")), f"stale: {line}; run: make licences"


def installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def test_every_licence_is_a_known_one() -> None:
    """Somebody has to read a new one and add it to KNOWN."""
    for line in table():
        licence = line.split(" | ")[2].removesuffix(" |")
        parts = {part.strip("() ") for part in re.split(r" AND | OR | or ", licence)}
        assert {part.removesuffix(" WITH LLVM-exception") for part in parts} <= KNOWN, line

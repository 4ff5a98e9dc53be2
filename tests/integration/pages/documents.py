"""The pages that newcomers work from, and what the tests have to know about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testing.page import blocks

from .reader import SERVE, TARGET

DOCS = Path(__file__).parents[3] / "docs"
FOLDERS = ("start", "guides", "operate")
PAGES = sorted(page for folder in FOLDERS for page in (DOCS / folder).glob("*.md"))
FIRST_MODEL = DOCS / "start" / "first-model.md"
NOT_RUN = {  # blocks that no test runs; each page says why
    "guides/keras.md": 1,
    "start/install.md": 2,
    "guides/other-languages.md": 2,
}
WARNING_LIBRARIES = {"guides/keras.md", "guides/onnx.md", "guides/other-modules.md"}  # the exporters' and Keras' own


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


def finds_a_server(page: Path) -> bool:
    """Returns True unless the first block that involves a server starts one."""
    for block in blocks(page):
        if block.text.startswith(SERVE):
            return False
        if TARGET in block.text:
            break
    return True


def parameter(page: Path) -> Any:
    """Returns a parameter for the page. Cellkeeper's own code raises no warning, whatever libraries do."""
    ours = "error:::cellkeeper"
    marks = [pytest.mark.filterwarnings("ignore", ours)] if name(page) in WARNING_LIBRARIES else []
    return pytest.param(page, id=name(page), marks=marks)

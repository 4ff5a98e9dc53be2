"""Every code block on a page is tested, the links work, and the pages are complete where they claim to be."""

from __future__ import annotations

import re
from pathlib import Path

import cellkeeper
import pytest
from cellkeeper import CellkeeperError

from testing.page import EXECUTED, blocks

from .documents import DOCS, NOT_RUN, PAGES, finds_a_server, name, parameter


def test_what_is_not_run_is_counted() -> None:
    assert len([page for page in PAGES if not finds_a_server(page)]) > 6
    assert len([page for page in PAGES if finds_a_server(page)]) > 8
    skipped = {name(page): sum(bool(block.not_run) for block in blocks(page)) for page in PAGES}
    assert {page: count for page, count in skipped.items() if count} == NOT_RUN


def test_something_is_executed_on_every_page() -> None:
    idle = {name(page) for page in PAGES if not any(block.language in EXECUTED for block in blocks(page))}
    assert idle == {"guides/README.md"}


def test_every_guide_is_in_the_index() -> None:
    index = (DOCS / "guides" / "README.md").read_text()
    assert [page.name for page in PAGES if page.parent.name == "guides" and page.name not in index] == ["README.md"]


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES])
def test_no_code_escapes(page: Path) -> None:
    """Code is in fences: an indented block would not be executed."""
    outside = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"\n\n(?: {4}|\t)\S.*", outside) == []


@pytest.mark.parametrize("page", [parameter(page) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if "://" in link:
            continue
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in [_anchor(heading) for heading in headings], f"{link}#{anchor}"


def test_the_guide_to_errors_has_every_class() -> None:
    public = [getattr(cellkeeper, word) for word in cellkeeper.__all__]
    errors = {kind.__name__ for kind in public if isinstance(kind, type) and issubclass(kind, CellkeeperError)}
    assert len(errors) > 25
    named = set(re.findall(r"`(\w+)`", (DOCS / "guides" / "errors.md").read_text()))
    assert errors - named == set()


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")

"""A stranger's pages work: every block of them is executed in order, and prints what the page says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import cellkeeper
import pytest
from cellkeeper import CellkeeperError

from testing.page import EXECUTED, blocks
from testing.redis_server import free_port
from testing.server_process import ServerProcess

from .reader import Reader

DOCS = Path(__file__).parents[3] / "docs"
FOLDERS = ("start", "guides", "operate")
PAGES = sorted(page for folder in FOLDERS for page in (DOCS / folder).glob("*.md"))
FIRST_MODEL = DOCS / "start" / "first-model.md"
NOT_RUN = {  # blocks that no test runs; each says why
    "start/install.md": 2,
}
WARNING_LIBRARIES = {"guides/keras.md", "guides/onnx.md", "guides/other-modules.md"}  # the exporters' own, and Keras'


def name(page: Path) -> str:
    return str(page.relative_to(DOCS))


def marks(page: Path) -> list[pytest.MarkDecorator]:
    return [pytest.mark.filterwarnings("ignore")] if name(page) in WARNING_LIBRARIES else []


@pytest.fixture(scope="module")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle `pump`, as docs/start/first-model.md makes it."""
    folder = tmp_path_factory.mktemp("first-model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (make, *_) = [block for block in blocks(FIRST_MODEL) if block.language == "python"]
        exec(make.text, {})
    return folder / "pump"


@pytest.fixture(scope="module")
def served(pump: Path) -> Iterator[str]:
    """One server of `pump` for all pages that start none; its address."""
    with ServerProcess([pump], "memory:") as server:
        yield server.target


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page), marks=marks(page)) for page in PAGES])
def test_a_page(page: Path, served: str, pump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page != FIRST_MODEL:
        (tmp_path / "pump").symlink_to(pump)
    Reader(page, served, free_port()).read()


def test_what_is_not_run_is_counted() -> None:
    assert len(PAGES) > 15
    skipped = {name(page): sum(bool(block.not_run) for block in blocks(page)) for page in PAGES}
    assert {page: count for page, count in skipped.items() if count} == NOT_RUN


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES])
def test_no_code_escapes(page: Path) -> None:
    """Code stands in fences: an indented block would not be executed."""
    outside = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^(?: {4}|\t)\S.*", outside, re.MULTILINE) == []


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        if "://" in link:
            continue
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in [_anchor(heading) for heading in headings], f"{link}#{anchor}"


def test_something_is_executed_on_every_page() -> None:
    idle = {name(page) for page in PAGES if not any(block.language in EXECUTED for block in blocks(page))}
    assert idle == {"guides/README.md"}


def test_the_guide_to_errors_has_every_class() -> None:
    public = [getattr(cellkeeper, word) for word in cellkeeper.__all__]
    errors = {kind.__name__ for kind in public if isinstance(kind, type) and issubclass(kind, CellkeeperError)}
    assert len(errors) > 25
    named = set(re.findall(r"`(\w+)`", (DOCS / "guides" / "errors.md").read_text()))
    assert errors - named == set()


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")

"""The model of docs/start/first-model.md, and one server of it for all pages that begin with it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.forked_server import ForkedServer
from testing.page import python_blocks

from .documents import FIRST_MODEL


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """What a page leaves open, such as a database, is collected in its own test, which fails for the warning."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def pump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle."""
    folder = tmp_path_factory.mktemp("first-model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (make,) = python_blocks(FIRST_MODEL)
        exec(make, {})
    return folder / "pump"


@pytest.fixture(scope="session")
def served(pump: Path) -> Iterator[str]:
    """The server's address."""
    with ForkedServer([pump], "memory:") as server:
        yield server.target


@pytest.fixture
def reading_folder(pump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's current folder, which has the bundle."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pump").symlink_to(pump)
    return tmp_path

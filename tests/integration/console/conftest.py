"""One server with many sessions, and one browser, for all tests of the console."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from .console import Console, ConsolePage, launched, program, served

SESSIONS = 10_000
WAIT_MS = 20_000  # for what is immediate on an idle machine


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if program() is None:
        pytest.skip("no chromium on the PATH: scripts/ensure-browser installs Debian's")
    expect.set_options(timeout=WAIT_MS)
    with launched() as browser:
        yield browser


@pytest.fixture(scope="package")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with served(tmp_path_factory.mktemp("console"), [f"pump-{number:04d}" for number in range(SESSIONS)]) as console:
        yield console


@pytest.fixture(scope="package")
def opened(browser: Browser, console: Console) -> Iterator[ConsolePage]:
    context = browser.new_context()
    opened = ConsolePage(context.new_page(), console)
    opened.enter()
    yield opened
    context.close()


@pytest.fixture
def page(opened: ConsolePage) -> Iterator[ConsolePage]:
    """The page, showing the list of sessions, with the token entered.

    Afterwards checks that the browser's console has no error and no violation of the content security policy.
    """
    opened.begin()
    yield opened
    assert opened.complaints == []

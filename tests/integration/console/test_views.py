"""Every view: no serious fault for who cannot see it, no scrolling sideways on a narrow screen."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from .console import MODEL, Console, ConsolePage

PPM = 340 + 6 * np.sin(np.arange(30) / 4).reshape(-1, 1)
VIEWS = {  # the address, and a text of the complete view
    "sessions": (f"#/models/{MODEL}/sessions?prefix=pump-000", "10 sessions"),
    "session": (f"#/models/{MODEL}/sessions/looked-at", "norm "),
    "compare": (f"#/models/{MODEL}/sessions/looked-at/compare/looked-at%2Fwhat-if", "No difference"),
    "models": ("#/models", "takes new sessions"),
    "now": ("#/now", "Calls to the store"),
}


@pytest.fixture
def looked_at(page: ConsolePage, console: Console) -> Iterator[Page]:
    """A page whose views all have something to show."""
    session = console.session("looked-at")
    session.step(PPM)
    copy = session.fork("looked-at/what-if")
    yield page.page
    copy.delete()
    session.delete()


def show(page: Page, view: str) -> None:
    page.evaluate("hash => { location.hash = hash }", VIEWS[view][0])
    page.get_by_text(VIEWS[view][1]).first.wait_for()


def serious(page: Page, where: str) -> list[str]:
    """Returns what axe finds in both themes. In the dark one it checks only colours, as all else is the same."""
    found = []
    for dark in (False, True):
        page.emulate_media(color_scheme="dark" if dark else "light")
        expect(page.locator(f"html[data-theme={'dark' if dark else 'light'}]")).to_be_attached()
        rules = {"runOnly": ["color-contrast"]} if dark else {}
        faults = Axe().run(page, options={"resultTypes": ["violations"], **rules}).response["violations"]
        found += [
            f"{where}, {dark=}: {fault['id']} ({fault['impact']}) at {node['target']}: {node['failureSummary']}"
            for fault in faults
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]
    return found


def test_axe_finds_no_serious_fault_in_any_view(looked_at: Page) -> None:
    found = []
    for view in VIEWS:
        show(looked_at, view)
        found += serious(looked_at, view)
    show(looked_at, "session")
    looked_at.get_by_role("button", name="Fork as what-if…").click()
    found += serious(looked_at, "dialog")
    assert found == []


def test_nothing_scrolls_sideways_at_400_pixels(looked_at: Page) -> None:
    looked_at.set_viewport_size({"width": 400, "height": 800})
    for view in VIEWS:
        show(looked_at, view)
        assert looked_at.evaluate("document.documentElement.scrollWidth") == 400, view

"""The console as tests drive it: a browser's page, and the server behind it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
from cellkeeper import Client, Session
from cellkeeper_service.access.command import new_token, token_line
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

from testing.bundles import make_bundle
from testing.forked_server import ForkedServer

BUNDLE = Path(__file__).parents[3] / "examples" / "co2" / "bundle"
MODEL = "co2"
TOKEN_MODEL = "words"
TOKENS = 30
PPM = 340 + 6 * np.sin(np.arange(30) / 4).reshape(-1, 1)  # thirty steps of CO2
NO_TOKEN_YET = "status of 401"  # the browser's own message about the first request, which no page can prevent


@dataclass(frozen=True)
class Console:
    """token: of a user with all rights. reader: of a user who may only read."""

    server: ForkedServer
    url: str
    token: str
    reader: str
    client: Client

    def session(self, name: str) -> Session:
        return self.client.session(name, model=MODEL)


@contextmanager
def served(folder: Path, sessions: Sequence[str]) -> Iterator[Console]:
    """Serves the console's models, and opens the sessions. `folder` gets the files.

    The models: CO2, an earlier version of it without feedback, and one of token ids, all with authentication.
    """
    before = folder / "before"
    shutil.copytree(BUNDLE, before)
    config = json.loads((before / "config.json").read_text())
    del config["feedback"]
    (before / "config.json").write_text(json.dumps(config))
    token, reader = new_token(), new_token()
    lines = [token_line(token, "plant", "step,read,admin"), token_line(reader, "plant", "read")]
    (folder / "tokens").write_text("".join(f"{line}\n" for line in lines))
    options = ["--tokens", str(folder / "tokens")]
    tokens = {"kind": "tokens", "vocabulary": TOKENS, "embedding_size": 4}
    words = make_bundle(folder / "words", name=TOKEN_MODEL, input_size=4, head=(TOKENS,), input=tokens)
    bundles = [BUNDLE, before, words]
    with (
        ForkedServer(bundles, f"sqlite:{folder / 'sessions.db'}", options, http=True) as server,
        Client(server.target, token=token) as client,
    ):
        client.group(sessions, model=MODEL)
        yield Console(server, f"{server.http_url}/", token, reader, client)


def program() -> str | None:
    """Returns the path of Chromium, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


@contextmanager
def launched() -> Iterator[Browser]:
    """Yields a headless browser. Needs `program`."""
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox does not work for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=as_root)
        yield browser
        browser.close()


class ConsolePage:
    """complaints: errors and warnings of the browser, except those that a test expects."""

    def __init__(self, page: Page, console: Console) -> None:
        self.page = page
        self.console = console
        self.complaints: list[str] = []
        self.expected = [NO_TOKEN_YET]
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def enter(self, path: str = "", token: str | None = None) -> None:
        """Opens the console at this path, and enters a token when asked for it."""
        self.page.goto(self.console.url + path)
        self.page.get_by_label("Token", exact=True).fill(token or self.console.token)
        self.button("Use token").click()
        self.page.get_by_role("heading", level=1).wait_for()

    def begin(self) -> None:
        """Returns to the initial view, whatever a test has left: the list of sessions, no dialog, light, 1280 wide."""
        self.complaints.clear()
        self.expected = [NO_TOKEN_YET]
        self.page.set_viewport_size({"width": 1280, "height": 900})
        self.page.emulate_media(color_scheme="light")
        self.page.keyboard.press("Escape")
        self.go("#/now")
        self.page.get_by_role("heading", level=1, name="Now").wait_for()
        self.go(f"#/models/{MODEL}/sessions")
        self.page.get_by_role("heading", level=1, name="Sessions").wait_for()

    def go(self, hash_: str) -> None:
        """Goes to another view, without reloading the page."""
        self.page.evaluate("hash => { location.hash = hash }", hash_)

    def open(self, session: str, model: str = MODEL) -> None:
        self.go(f"#/models/{model}/sessions/{quote(session, safe='')}")
        self.page.get_by_text("live", exact=True).wait_for()

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def heading(self, name: str) -> Locator:
        return self.page.get_by_role("heading", level=1, name=name, exact=True)

    def step(self) -> Locator:
        return self.page.locator("[data-step]")

    def line(self, chart: str) -> Locator:
        """Returns the first line of a chart."""
        return self.page.get_by_label(chart, exact=True).locator("path.series").first

    def value(self, chart: str) -> Locator:
        """Returns the latest value of a chart's first line."""
        return self.page.get_by_label(chart, exact=True).locator("output").first

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(text in message.text for text in self.expected):
            self.complaints.append(f"{message.type}: {message.text} ({message.location.get('url')})")

"""One server with many sessions, and one browser, for all tests of the console."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellkeeper import Client
from cellkeeper_service.access.command import new_token, token_line
from playwright.sync_api import Browser, expect, sync_playwright

from testing.redis_server import free_port
from testing.server_process import ServerProcess

from .console import Console, ConsolePage

BUNDLE = Path(__file__).parents[3] / "examples" / "co2" / "bundle"
SESSIONS = 10_000
WAIT_MS = 20_000  # for what happens at once on a machine that is not busy


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None:
        pytest.skip("no chromium on the PATH: scripts/ensure-browser installs Debian's")
    expect.set_options(timeout=WAIT_MS)
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root Chromium does not start in its sandbox
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=as_root)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """Serves the CO2 model and, as the version before it, one that declares no feedback; asks for tokens."""
    folder = tmp_path_factory.mktemp("console")
    before = folder / "before"
    shutil.copytree(BUNDLE, before)
    config = json.loads((before / "config.json").read_text())
    del config["feedback"]
    (before / "config.json").write_text(json.dumps(config))
    token, reader = new_token(), new_token()
    lines = [token_line(token, "plant", "step,read,admin"), token_line(reader, "plant", "read")]
    (folder / "tokens").write_text("".join(f"{line}\n" for line in lines))
    port = free_port()
    options = ["--tokens", str(folder / "tokens"), "--http-listen", f"127.0.0.1:{port}"]
    url = f"http://127.0.0.1:{port}/"
    with (
        ServerProcess([BUNDLE, before], f"sqlite:{folder / 'sessions.db'}", options) as server,
        Client(server.target, token=token) as client,
    ):
        client.group([f"pump-{number:04d}" for number in range(SESSIONS)], model="co2")
        yield Console(server, url, token, reader, client)


@pytest.fixture
def page(browser: Browser, console: Console) -> Iterator[ConsolePage]:
    """A page of its own, with the token entered. Afterwards: no error in the browser's console, no violation of the
    content security policy."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    opened = ConsolePage(context.new_page(), console)
    opened.enter()
    yield opened
    context.close()
    assert opened.complaints == []

"""Makes the pictures of docs/console.md: python -m tests.integration.console --out docs/img/console"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Literal

import numpy as np
from PIL import Image
from playwright.sync_api import Browser

from examples.co2.series import load_series

from .console import MODEL, Console, ConsolePage, launched, program, served

STATIONS = ("mauna-loa", "barrow", "cape-grim", "south-pole")
SETTLING_WEEKS = 400  # before that, weeks are missing, and a new session has not seen a whole year
WEEKS = 150  # in one chunk, so that the log has them
PAUSE_SECONDS = 0.1  # between the steps of the background sessions
LIVE_WEEKS = 26  # one by one, while the page is open
FORECAST_WEEKS = 52
MAX_BYTES = 80_000
COLORS = 256
HEIGHT = 860

Scheme = Literal["light", "dark"]
WANTED: dict[tuple[int, Scheme], tuple[str, ...]] = {
    (1280, "light"): ("sessions", "session", "compare", "models"),
    (400, "light"): ("sessions", "session", "compare"),
    (1280, "dark"): ("session", "now"),
}
"""The pictures in docs/console.md."""


def take(page: ConsolePage, path: Path, *, full: bool = False) -> None:
    """Saves a screenshot as a PNG of few colours. Raises ValueError if it is too large for the repository."""
    page.page.evaluate("scrollTo(0, 0)")
    page.page.mouse.move(0, 0)
    shot = Image.open(io.BytesIO(page.page.screenshot(full_page=full))).convert("RGB")
    shot.quantize(COLORS).save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, expected {MAX_BYTES} at most; use fewer COLORS")
    print(path)


def pictures(browser: Browser, console: Console, out: Path, width: int, scheme: Scheme) -> None:
    """Takes the wanted pictures of this width. out: the folder."""
    context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    page = ConsolePage(context.new_page(), console)

    def keep(view: str, *, full: bool = False) -> None:
        if view in WANTED[width, scheme]:
            take(page, out / f"{view}-{width}-{scheme}.png", full=full)

    page.enter()
    page.page.get_by_text("shown, more follow").last.wait_for()
    keep("sessions")
    session = console.session("mauna-loa")
    weeks = load_series().ppm[session.position.step :].reshape(-1, 1)
    page.open("mauna-loa")
    for week in weeks[:LIVE_WEEKS]:
        session.step(week)
        page.page.get_by_text(f"{session.position.step}", exact=True).first.wait_for()
    page.page.get_by_label("Steps to forecast").fill(str(FORECAST_WEEKS))
    page.page.get_by_label("Forecast ahead").check()
    page.page.locator("path.ahead").first.wait_for()
    keep("session", full=True)
    copy = session.fork("mauna-loa/what-if")
    session.step(weeks[LIVE_WEEKS : LIVE_WEEKS + 12])
    copy.step(weeks[LIVE_WEEKS : LIVE_WEEKS + 6])
    copy.step(weeks[LIVE_WEEKS + 6 : LIVE_WEEKS + 12] + 4)
    page.go(f"#/models/{MODEL}/sessions/mauna-loa/compare/mauna-loa%2Fwhat-if")
    page.page.get_by_text("They first differ").wait_for()
    keep("compare")
    copy.delete()
    page.go(f"#/models/{MODEL}")
    page.button("Count sessions").click()
    page.button("Count again").wait_for()
    keep("models")
    page.go("#/now")
    page.page.get_by_text("Calls to the store").wait_for()
    keep("now")
    context.close()


@contextmanager
def background(console: Console, names: Sequence[str]) -> Iterator[None]:
    """Steps these sessions in the background, so that there is something to measure."""
    ended = Event()

    def go_on() -> None:
        group = console.client.group(names, model=MODEL)
        for week in itertools.cycle(load_series().ppm):
            if ended.wait(PAUSE_SECONDS):
                return
            group.step(np.full((len(names), 1), week))

    thread = Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.console")
    parser.add_argument("--out", type=Path, default=Path("docs/img/console"))
    out = parser.parse_args().out
    if program() is None:
        print("no chromium on the PATH: run scripts/ensure-browser", file=sys.stderr)
        return 1
    out.mkdir(parents=True, exist_ok=True)
    others = [f"station-{number:03d}" for number in range(200)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        console = stack.enter_context(served(folder, [*STATIONS, *others]))
        browser = stack.enter_context(launched())
        series = load_series().ppm.reshape(-1, 1)
        for name in STATIONS[:3]:
            session = console.session(name)
            session.step(series[:SETTLING_WEEKS])
            session.step(series[SETTLING_WEEKS : SETTLING_WEEKS + WEEKS])
        with background(console, others[:60]):
            for width, scheme in WANTED:
                pictures(browser, console, out, width, scheme)
    return 0


if __name__ == "__main__":
    sys.exit(main())

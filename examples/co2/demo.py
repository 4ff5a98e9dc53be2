"""Streams the CO2 record through a server that is killed twice: python -m examples.co2.demo [--store redis] [--console]

It streams several sessions at once, week by week: the record itself, and shifted and rescaled variants of it. At the
end it compares every forecast bit by bit with an offline run, and exits with 0 only if all are equal. With --console
the server keeps running afterwards, and the record is streamed once more, slowly, so that the console has something to
show.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from cellkeeper import CellkeeperError, Client
from cellkeeper_service.engine.load import load_engine, offline

from .plot import plot
from .processes import CellkeeperServer, Failed, RedisServer
from .scrape import PHASES, Scrapes
from .series import Floats, load_series, variant

BUNDLE = Path(__file__).parent / "bundle"
STATIONS = (
    ("mauna-loa", 0.0, 1.0),
    ("higher", 15.0, 1.0),
    ("lower", -15.0, 1.0),
    ("livelier", 0.0, 1.2),
    ("calmer", 0.0, 0.85),
    ("high-and-lively", 25.0, 1.1),
    ("low-and-calm", -25.0, 0.9),
    ("highest", 40.0, 1.0),
)  # name, shift in ppm, scale
KILL_AT = (1 / 3, 2 / 3)  # of all steps
TIMEOUT_SECONDS = 120.0
REPLAY_SESSION = "mauna-loa/replay"
REPLAY_SECONDS_A_WEEK = 0.25


class Progress:
    """Tracks how far every session is."""

    def __init__(self, sessions: int) -> None:
        self.steps = [0] * sessions
        self._changed = threading.Condition()
        self._ended = False

    def advance(self, session: int) -> None:
        with self._changed:
            self.steps[session] += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Records that a session is done or has failed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, total: int) -> bool:
        """Waits until that many steps are answered. Returns False if a session ended before."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or sum(self.steps) >= total)
            return sum(self.steps) >= total


def stream(client: Client, index: int, samples: Floats, progress: Progress) -> Floats:
    """Streams one session from the first week to the last: ppm [N] -> forecasts [N, horizons]."""
    forecasts = []
    try:
        session = client.session(STATIONS[index][0])
        for forecast in session.stream(samples.reshape(-1, 1)):
            forecasts.append(forecast)
            progress.advance(index)
    finally:
        if len(forecasts) < len(samples):
            progress.end()
    return np.stack(forecasts)


def run(store: str, folder: Path, out: Path, *, console: bool) -> bool:
    """Runs the whole demo. Returns True if every bit is equal. console: keep the server afterwards, until Ctrl-C."""
    series = load_series()
    inputs = [variant(series.ppm, shift, scale) for _, shift, scale in STATIONS]
    total = sum(map(len, inputs))
    progress, scrapes = Progress(len(inputs)), Scrapes()
    kill_weeks: list[int] = []
    with ExitStack() as stack:
        url = f"sqlite:{folder / 'sessions.db'}"
        if store == "redis":
            url = stack.enter_context(closing(RedisServer(folder / "redis"))).url
        log = out / "co2-demo.log"
        log.unlink(missing_ok=True)
        server = stack.enter_context(closing(CellkeeperServer(BUNDLE, url, log, console=True)))
        print(f"server up after {server.start():.1f} s on {server.target}, store {url}")
        started = time.monotonic()
        client = stack.enter_context(Client(server.target, timeout=TIMEOUT_SECONDS))
        pool = stack.enter_context(ThreadPoolExecutor(len(inputs)))
        streams = [pool.submit(stream, client, i, samples, progress) for i, samples in enumerate(inputs)]
        for share in KILL_AT:
            if not progress.wait_for(int(share * total)):
                break
            scrapes.add(server.metrics_url)
            server.kill()
            kill_weeks.append(progress.steps[0])
            print(f"killed after {sum(progress.steps):,} of {total:,} steps", end="; ", flush=True)
            print(f"up again after {server.start():.1f} s")
        served = [each.result() for each in streams]
        seconds = time.monotonic() - started
        scrapes.add(server.metrics_url)
        engine = load_engine(BUNDLE, "cpu")
        equal = [
            np.array_equal(got.view(np.uint32), offline(engine, samples.reshape(-1, 1))["prediction"].view(np.uint32))
            for got, samples in zip(served, inputs, strict=True)
        ]
        picture = out / "co2-demo.png"
        plot(picture, series, served[0], kill_weeks)
        print_table(store, seconds, total, len(kill_weeks), scrapes, equal)
        print(f"\n{picture}\n{log}")
        if console:
            print(f"{server.console_url} is a console that shows these sessions, and {REPLAY_SESSION} as it goes on")
            print("Ctrl-C ends it", flush=True)
            replay(client, inputs[0])
        else:
            print(f"{server.console_url} was a console that showed these sessions; `make demo CONSOLE=1` keeps it open")
        status = server.stop()
    if status != 0:
        print(f"the server ended with status {status} after SIGTERM, expected 0", file=sys.stderr)
    return all(equal) and len(kill_weeks) == len(KILL_AT) and status == 0


def replay(client: Client, samples: Floats) -> None:
    """Streams the record to a session of its own, over and over, until Ctrl-C."""
    session = client.session(REPLAY_SESSION)
    try:
        for week in itertools.count(session.position.step):
            session.step([samples[week % len(samples)]])
            time.sleep(REPLAY_SECONDS_A_WEEK)
    except (KeyboardInterrupt, CellkeeperError):  # Ctrl-C also ends the server
        print()


def print_table(store: str, seconds: float, total: int, kills: int, scrapes: Scrapes, equal: Sequence[bool]) -> None:
    """Prints the table. Counters and quantiles are the server's own, scraped just before each of its processes ends."""
    rows = [
        ("store", store),
        ("sessions", f"{len(equal)}"),
        ("steps", f"{total:,}"),
        ("seconds, restarts included", f"{seconds:.1f}"),
        ("kills (SIGKILL)", f"{kills}"),
        ("step messages received", f"{scrapes.count('cellkeeper_frames_total', direction='in'):,}"),
        ("replayed: chunks sent twice", f"{scrapes.count('cellkeeper_duplicates_replayed_total'):,}"),
        ("replayed: steps at loads", f"{scrapes.count('cellkeeper_load_replayed_steps_total'):,}"),
    ]
    rows += [
        (
            f"{phase}, ms, p50 / p99",
            f"{scrapes.quantile_ms(phase, 0.5):.2f} / {scrapes.quantile_ms(phase, 0.99):.2f}",
        )
        for phase in PHASES
    ]
    rows.append(
        ("sessions equal bit by bit", f"{sum(equal)} of {len(equal)}: {'equal' if all(equal) else 'NOT EQUAL'}")
    )
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f"  {name:{width}s}  {value}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Streams the CO2 record through a server that is killed twice.")
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--console", action="store_true", help="keeps the server and its console open until Ctrl-C")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cellkeeper-demo-") as folder:
        try:
            equal = run(arguments.store, Path(folder), arguments.out, console=arguments.console)
        except Failed as failure:
            print(failure, file=sys.stderr)
            return 1
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())

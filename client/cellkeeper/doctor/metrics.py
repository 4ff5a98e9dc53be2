"""What the servers' metrics say about themselves, the store and, in passing, the clock."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from .._transport.target import is_loopback
from .finding import Finding, fail, ok, warn

SKEW_S = 2.0  # the Date header has whole seconds
SLOW_MS = 50.0
ERROR_SHARE = 0.01
_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
SAFE = ("appendfsync always", "synchronous full")
UNKNOWN_SYNC = "append-only file"  # the service's user of Redis may not read appendfsync

Sample = tuple[str, dict[str, str], float]


class Scrape(NamedTuple):
    """One answer of /metrics.

    skew_s: how far its clock is ahead of ours, to whole seconds; None: it did not say. error: why there is no answer.
    """

    url: str
    samples: list[Sample]
    skew_s: float | None = None
    error: str = ""

    @classmethod
    def of(cls, url: str, timeout: float) -> Scrape:
        """Reads the URL. Never raises."""
        began = time.time()
        try:
            # the environment's proxy is for other machines, as in the client's connections
            own = [ProxyHandler({})] if is_loopback(urlsplit(url).hostname or "") else []
            with build_opener(*own).open(url, timeout=timeout) as answer:
                text = answer.read().decode(errors="replace")
                date = answer.headers.get("Date")
            skew = None
            if date:
                # The header's second began up to one second before the header was written.
                skew = _outside(parsedate_to_datetime(date).timestamp(), began, time.time())
            return cls(url, list(_samples(text)), skew)
        except (OSError, HTTPException, ValueError, OverflowError) as error:
            return cls(url, [], error=str(error) or type(error).__name__)

    def labels(self, name: str) -> dict[str, str]:
        return next((labels for found, labels, _ in self.samples if found == name), {})

    def total(self, name: str, **labels: str) -> float:
        return sum(value for found, own, value in self.samples if found == name and labels.items() <= own.items())


def check_scrapes(scrapes: Sequence[Scrape]) -> list[Finding]:
    findings: list[Finding] = []
    for scrape in scrapes:
        if scrape.error:
            advice = "check that --metrics-listen is reachable from here"
            findings.append(fail(scrape.url, "metrics", f"not reached: {scrape.error}", advice))
        elif not (version := scrape.labels("cellkeeper_build_info").get("version")):
            findings.append(
                fail(scrape.url, "metrics", "not the metrics of a Cellkeeper server", "give the URL of its /metrics")
            )
        else:
            findings += [ok(scrape.url, "metrics", f"version {version}"), *_store(scrape), _clock(scrape)]
    good = [scrape for scrape in scrapes if not scrape.error]
    versions = {scrape.labels("cellkeeper_build_info").get("version", "") for scrape in good}
    if len(versions) > 1:
        findings.append(warn("", "metrics", f"several versions: {', '.join(sorted(versions))}", "finish the roll-out"))
    kinds = {scrape.labels("cellkeeper_store_info").get("kind", "") for scrape in good}
    if len(kinds) > 1:
        findings.append(
            fail("", "store", f"several kinds: {', '.join(sorted(kinds))}", "use one --store for all replicas")
        )
    return findings


def _store(scrape: Scrape) -> Iterator[Finding]:
    facts = scrape.labels("cellkeeper_store_info")
    if not facts:
        yield warn(scrape.url, "store", "the server does not report its store", "upgrade it")
        return
    kind, persistence = facts["kind"], facts["persistence"]
    text = f"{kind}, {persistence}" + (f", {facts['eviction']}" if facts["eviction"] else "")
    if kind.startswith("redis"):
        text += f", {facts['replicas']} replicas"
    if kind == "memory":
        yield fail(
            scrape.url, "store", "memory: sessions are lost when the process ends", "use --store sqlite: or redis:"
        )
    elif facts["eviction"] not in ("", "noeviction"):
        yield fail(scrape.url, "store", f"{text}: sessions may be dropped", "set maxmemory-policy noeviction")
    elif persistence == "no append-only file":
        yield warn(scrape.url, "store", f"{text}: a crash loses all since the last snapshot", "set appendonly yes")
    elif UNKNOWN_SYNC in persistence.split(" and "):  # of the primaries of a cluster
        yield warn(
            scrape.url,
            "store",
            f"{text}: the server may not read appendfsync",
            "look with redis-cli config get appendfsync; always loses nothing, everysec may lose the last second",
        )
    elif persistence not in SAFE:
        yield warn(scrape.url, "store", f"{text}: a crash may lose the last second", "set appendfsync always")
    else:
        yield ok(scrape.url, "store", text)
    calls = scrape.total("cellkeeper_store_round_trips_total")
    errors = scrape.total("cellkeeper_store_errors_total")
    if errors > ERROR_SHARE * max(calls, 1):
        text = f"{errors:.0f} of {calls:.0f} calls failed since the server started"
        yield warn(scrape.url, "store", text, "check the logs of the server and of the store")
    commits = scrape.total("cellkeeper_store_seconds_count", call="commit")
    if commits:
        mean_ms = 1000 * scrape.total("cellkeeper_store_seconds_sum", call="commit") / commits
        text = f"a commit takes {mean_ms:.1f} ms on average"
        if mean_ms > SLOW_MS:
            yield warn(scrape.url, "store", text, "move the store nearer, or give it a faster disk")
        else:
            yield ok(scrape.url, "store", text)


def _clock(scrape: Scrape) -> Finding:
    if scrape.skew_s is None:
        return Finding("skip", scrape.url, "clock", "not checked: its response has no Date header")
    if abs(scrape.skew_s) > SKEW_S:
        way = "ahead of" if scrape.skew_s > 0 else "behind"
        text = f"{abs(scrape.skew_s):.0f} s {way} this machine's"
        return warn(scrape.url, "clock", text, "synchronise both with NTP: ages, and with SQLite TTLs, depend on it")
    return ok(scrape.url, "clock", "agrees with this machine's to the second")


def _outside(second: float, began: float, ended: float) -> float:
    """Returns how far the whole second lies outside the interval in which the header was written."""
    if second > ended:
        return second - ended
    return min(0.0, second + 1 - began)


def _samples(text: str) -> Iterator[Sample]:
    for line in text.splitlines():
        found = None if line.startswith("#") else _SAMPLE.match(line)
        if found:
            labels = dict(_LABEL.findall(found.group(2) or ""))  # those that are looked at have nothing to unescape
            try:
                yield found.group(1), labels, float(found.group(3))
            except ValueError:
                continue

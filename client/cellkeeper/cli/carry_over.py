"""`cellkeeper carry-over`: moves sessions of an older version of a model to a newer one."""

from __future__ import annotations

import argparse
from os.path import isfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from .._transport.carry_over import POLICIES
from ..client import Client
from ..types import Model, SessionInfo
from .csv_rows import add_header, csv_rows
from .rows import RowError, open_rows
from .terminal import Progress, print_failures


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "carry-over",
        parents=[shared],
        help="carry sessions over to another version of their model",
        description="Each session starts a new generation with the new version. It is safe to run this command again: "
        "sessions that already belong to the new version stay as they are.",
    )
    parser.add_argument("--model", default="", help="optional while exactly one model is served")
    parser.add_argument(
        "--policy", required=True, choices=tuple(POLICIES), help="what to do with the state (rerun needs --windows)"
    )
    parser.add_argument(
        "--to",
        default="",
        metavar="FINGERPRINT",
        help="the first digits of the new version's fingerprint (default: that of new sessions)",
    )
    parser.add_argument("--prefix", default="", help="only ids that start with this")
    parser.add_argument("--session", action="append", metavar="ID", help="only this session; may be repeated")
    parser.add_argument(
        "--windows",
        type=Path,
        metavar="FOLDER",
        help="a folder with a CSV file for each session, named by its id (percent-encoded) and .csv",
    )
    add_header(parser)
    parser.set_defaults(run=_run)


def _run(client: Client, parsed: argparse.Namespace) -> None:
    if (parsed.policy == "rerun") != (parsed.windows is not None):
        raise ValueError("--windows: required with --policy rerun, and not allowed with any other")
    target = _version(client, parsed.model, parsed.to)

    def window_of(info: SessionInfo) -> ArrayLike | None:
        path = parsed.windows / f"{quote(info.session, safe='')}.csv"
        if not isfile(path):  # unlike Path.is_file, false for a name that is too long for the file system, too
            return None
        with open_rows(str(path)) as lines:
            try:
                return np.array(list(csv_rows(lines, (), target, parsed.header)))
            except RowError as error:
                raise RowError(f"{path}: {error}") from None

    progress = Progress("sessions")
    done = client.carry_over(
        parsed.policy,
        model=target.name,
        prefix=parsed.prefix,
        sessions=parsed.session,
        window_of=window_of if parsed.windows else None,
        fingerprint=target.fingerprint,
        on_progress=lambda carried: progress.at(carried.total),
    )
    progress.end()
    for word, count in sorted(done.counts.items()):
        print(f"{word}\t{count}")
    print_failures(done.failures)
    if done.failed:
        raise ValueError(f"{done.failed} sessions were not carried over")


def _version(client: Client, name: str, digits: str) -> Model:
    if not digits:
        return client.model(name)
    found = [m for m in client.models() if m.fingerprint.hex().startswith(digits.lower()) and name in ("", m.name)]
    if len(found) != 1:
        raise ValueError(
            f"--to: the fingerprints of {len(found)} served versions start with {digits!r}, expected one; "
            "`cellkeeper model list` prints them"
        )
    return found[0]

"""Commands that take long say at a terminal how far they are, on stderr. test_bulk_delete has that of deletes."""

from __future__ import annotations

import os
import re
from pathlib import Path

from cellkeeper import Client

from testing.forked_program import run_forked

from .terminal import at_a_terminal


def test_a_stream_counts_its_rows(real_target: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("1.5,1\n" * 30)
    command = ["stream", "--endpoint", real_target, "--session", "progress", "--csv", str(rows)]
    for first in (0, 30):  # it counts those of this run
        code, out, shown = at_a_terminal(command)
        assert (code, out.splitlines()[-1].split(",")[0]) == (0, str(first + 29))
        assert re.search(r"\r30 rows, \d+ a second \r?\n$", shown)
    done = run_forked("cellkeeper", command, os.environ, 60)
    assert (done.status, done.err) == (0, "")  # without a terminal it is silent
    with Client(real_target) as client:
        assert client.session("progress").delete()


def test_a_carry_over_counts_sessions(real_target: str) -> None:
    names = [f"progress-{number}" for number in range(3)]
    command = ["carry-over", "--endpoint", real_target, "--policy", "keep", "--prefix", "progress-"]
    with Client(real_target) as client, client.group(names) as group:
        code, out, shown = at_a_terminal(command)
        assert (code, out) == (0, "already\t3\n")
        assert re.search(r"\r3 sessions, \d+ a second \r?\n$", shown)
        group.delete()

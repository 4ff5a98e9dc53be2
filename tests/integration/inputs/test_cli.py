"""The program with a model of several inputs: it shows them, and refuses rows, which cannot hold them."""

from __future__ import annotations

import pytest
from cellkeeper import Client

from testing.server_process import ServerProcess
from tests.integration.client.test_cli import run


def test_the_inputs_are_shown(served: ServerProcess) -> None:
    shown = run(served.target, "model", "show", "two").out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown if line.startswith("input")] == [
        "audio float32 [3]",
        "ids int64 []",
    ]
    assert [line.split(maxsplit=1)[1] for line in shown if line.startswith("vocabulary")] == ["5 of ids"]
    listed = {line.split("\t")[0]: line.split("\t")[2] for line in run(served.target, "model", "list").out.splitlines()}
    assert (listed["two"], listed["count"]) == ("audio float32 [3], ids int64 []", "input float32 [1]")


@pytest.mark.parametrize("form", ["--csv", "--jsonl"])
def test_rows_are_refused(served: ServerProcess, client: Client, session: str, form: str) -> None:
    failed = run(served.target, "stream", "two", "--session", session, form, "-", text="1,2,3,0\n", code=1)
    assert "the model 'two' takes the inputs audio, ids, but a row has only one" in failed.err
    assert "Traceback" not in failed.err
    assert client.session(session, model="two").position.step == 0
